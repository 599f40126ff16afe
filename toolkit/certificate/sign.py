"""Signs a statement: a DSSE envelope with an Ed25519 signature, and the key pair it is made with."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.certificate.envelope import sealed
from toolkit.certificate.public_key import read_pem, trusted_key
from toolkit.certificate.purpose import Purpose
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    from toolkit.certificate.keyholder import RemoteSigner

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PRIVATE, PUBLIC = Purpose.CERTIFICATE.private, Purpose.CERTIFICATE.public
RETIRED = "retired"  # folder of public keys that signed before
PASSPHRASE_FILE, PASSPHRASE = "RACKPROOF_KEY_PASSPHRASE_FILE", "RACKPROOF_KEY_PASSPHRASE"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key ready to sign. `public_pem` is what others need to verify."""

    signer: CryptoSigner | RemoteSigner
    keyid: str
    public_pem: bytes


def passphrase(env: Mapping[str, str]) -> bytes | None:
    """The key's passphrase: from the file RACKPROOF_KEY_PASSPHRASE_FILE names, else from the variable
    RACKPROOF_KEY_PASSPHRASE, else none. Never from the command line, which every user of the machine can read.
    """
    file = env.get(PASSPHRASE_FILE)
    if file:
        try:
            words = Path(file).read_bytes().rstrip(b"\r\n")
        except OSError as exc:
            raise UsageError(
                f"the key's passphrase cannot be read from {file}: {exc.strerror}", f"correct {PASSPHRASE_FILE}"
            ) from exc
        if not words:
            raise UsageError(f"the passphrase file {file} is empty", f"correct {PASSPHRASE_FILE}")
        return words
    return env.get(PASSPHRASE, "").encode() or None


def load_or_create(folder: Path, secret: bytes | None = None, purpose: Purpose = Purpose.CERTIFICATE) -> SigningKey:
    """The installation's signing key; made on first use, encrypted if there is a passphrase.

    `folder` holds `certificate.key` (PKCS#8 PEM, mode 0600) and `certificate.pub`, of images `image.key` and
    `image.pub`. Two processes that begin at once end up with the same key. Raises UsageError for a key that others
    may read, that the passphrase does not open, or that is not Ed25519; and where only the public part is there: its
    private part is somewhere else, and another key in its place would make strangers of all that it signed.
    """
    path, public = folder / purpose.private, folder / purpose.public
    if not path.exists():
        if public.exists() and not path.exists():
            raise UsageError(
                f"{public} is the key that {purpose}s are signed with, and its private part is not in {folder}",
                f"say who holds it (RACKPROOF_SIGNER), restore {path.name}, or move {public.name} away to begin anew",
            )
        _create(path, secret)
    private = _load(path, secret)
    key = _ready(private)
    if not public.exists() or public.read_bytes() != key.public_pem:
        _check_replaces(path, public, key)
        _write_aside(public, key.public_pem, 0o644).replace(public)
    return key


def _check_replaces(path: Path, public: Path, key: SigningKey) -> None:
    """UsageError where the public part is that of a key that is in use, and not of one that a rotation retired."""
    if not public.exists():
        return
    try:
        known = trusted_key(read_pem(public), str(public)).keyid
    except UsageError:
        return  # damaged: it is made again
    if not (public.parent / RETIRED / f"{known[:16]}.pub").exists():
        raise UsageError(
            f"{public} is key {known[:16]}, and {path.name} beside it is key {key.keyid[:16]}",
            f"say who holds the first (RACKPROOF_SIGNER), or move {public.name} away to sign by the second",
        )


def sign(statement: Mapping[str, object], key: SigningKey) -> bytes:
    """The certificate's bytes, ready to be written to a file."""
    return sealed(statement, PAYLOAD_TYPE, key)


def _create(path: Path, secret: bytes | None) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if secret:
        encryption = serialization.BestAvailableEncryption(secret)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = _write_aside(path, pem, 0o600)
    try:
        # A link fails where a rename would replace: whoever is first has made the key.
        path.hardlink_to(aside)
    except FileExistsError:
        return
    finally:
        aside.unlink()


def _write_aside(path: Path, content: bytes, mode: int) -> Path:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(file.name)


def _load(path: Path, secret: bytes | None) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if path.stat().st_mode & 0o077:
        raise UsageError(f"the signing key {path} can be read by others", f"chmod 600 {path}")
    try:
        private = load_pem_private_key(path.read_bytes(), secret)
    except TypeError as exc:  # cryptography's answer where encryption and passphrase do not go together
        needed = (
            "is encrypted and no passphrase was given"
            if secret is None
            else "is not encrypted, but a passphrase is set"
        )
        raise UsageError(
            f"the signing key {path} {needed}", f"set, or unset, {PASSPHRASE_FILE} or {PASSPHRASE}"
        ) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UsageError(
            f"the signing key {path} cannot be opened: the passphrase is wrong, or it is no PEM key",
            f"check {PASSPHRASE_FILE} and {PASSPHRASE}, or restore the file",
        ) from exc
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(f"the signing key {path} is not an Ed25519 key", "move it away; a new one is made")
    return private


def _ready(private: Ed25519PrivateKey) -> SigningKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from securesystemslib.signer import CryptoSigner

    signer = CryptoSigner(private)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(signer, signer.public_key.keyid, pem)
