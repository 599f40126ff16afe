"""Public keys from PEM: Ed25519, whoever holds the private one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UsageError

if TYPE_CHECKING:
    from securesystemslib.signer import Key

MAX_KEY_BYTES = 64 << 10


def trusted_key(pem: bytes, name: str = "the public key") -> Key:
    """A public key from PEM; Ed25519 only. Raises UsageError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UsageError(f"{name} is not a public key in PEM", "give the certificate.pub of who issued it") from exc
    if not isinstance(public, Ed25519PublicKey):
        raise UsageError(f"{name} is not an Ed25519 key", "give the certificate.pub of who issued it")
    return SSlibKey.from_crypto(public)


def read_pem(file: Path) -> bytes:
    """The file's bytes, no more than a key can have. Raises UsageError."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES)
    except OSError as exc:
        raise UsageError(f"the public key {file} cannot be read: {exc.strerror}", "check its path") from exc


def trusted_keys(files: Iterable[Path]) -> tuple[Key, ...]:
    """Public keys from files. Raises UsageError for one that cannot be read or is none."""
    return tuple(trusted_key(read_pem(file), str(file)) for file in files)
