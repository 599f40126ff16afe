"""Timestamps (RFC 3161): somebody else's word for when a certificate was there, whoever holds the signing key.

A certificate's own dates are its signer's. Who stole a key dates as he likes; a timestamp of yesterday he does not get.
RACKPROOF_TIMESTAMPER names a program, `command:/path/of/program`, that reads a timestamp query (DER) on its standard
input and writes the reply (DER): `curl -sS -H 'Content-Type: application/timestamp-query' --data-binary @- URL`.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.errors import UndecidedError, UsageError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

STAMPER, COMMAND = "RACKPROOF_TIMESTAMPER", "command:"
STAMPER_SECONDS = 60
MAX_STAMP_BYTES = 64 << 10
MAX_ROOTS_BYTES = 256 << 10
_GRANTED = 0  # RFC 3161, section 2.4.2: PKIStatus


@dataclass(frozen=True, slots=True)
class Stamp:
    """A timestamp as it was received, and whom the reader believes: certificates of authorities, in PEM."""

    reply: bytes
    roots: bytes

    def at(self, digest: str) -> datetime:
        """When the certificate of this sha256 was there, by one of the authorities.

        Raises CertificateRefusedError STAMP_WRONG, UsageError for `roots` that are none.
        """
        _check_installed()
        from rfc3161_client import VerificationError, VerifierBuilder

        builder = VerifierBuilder(roots=_roots(self.roots))
        reply = _decoded(self.reply)
        try:
            builder.build().verify(reply, bytes.fromhex(digest))
        except (VerificationError, ValueError) as wrong:
            raise _refused(str(wrong)) from wrong
        return reply.tst_info.gen_time


def stamped(envelope: bytes, env: Mapping[str, str]) -> bytes | None:
    """The reply of the site's timestamper over these bytes; None where the site has none.

    UndecidedError where it answers with no timestamp of them. Whether a reader believes it is the reader's to say.
    """
    named = env.get(STAMPER)
    if not named:
        return None
    program = Path(named.removeprefix(COMMAND))
    if not named.startswith(COMMAND) or not program.is_absolute() or not program.exists():
        raise UsageError(f"{STAMPER} is {named[:200]!a}", f"{COMMAND} and the full path of a program that is there")
    _check_installed()
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    query = TimestampRequestBuilder(envelope, HashAlgorithm.SHA256).build()
    reply = _asked(program, query.as_bytes())
    try:
        found = _decoded(reply)
        same = found.tst_info.message_imprint.message == hashlib.sha256(envelope).digest()
        same = same and found.tst_info.nonce == query.nonce
    except CertificateRefusedError as refused:
        raise UndecidedError(f"what {STAMPER} gave is no timestamp: {refused.message}", "run it by hand") from refused
    if not same:
        raise UndecidedError(f"what {STAMPER} gave is the answer to another query", "is a cache in between?")
    return reply


def read_stamp(reply: Path, roots: Path) -> Stamp:
    """From files. Raises UsageError for one that cannot be read."""
    return Stamp(_bytes(reply, MAX_STAMP_BYTES), _bytes(roots, MAX_ROOTS_BYTES))


def _check_installed() -> None:
    if find_spec("rfc3161_client") is None:
        raise UsageError("timestamps need a library that is not installed", "pip install 'rackproof[timestamps]'")


def _bytes(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(most)
    except OSError as exc:
        raise UsageError(f"{file} cannot be read: {exc.strerror}", "check its path") from exc


def _decoded(reply: bytes) -> TimeStampResponse:
    """A reply that grants a timestamp. Raises CertificateRefusedError."""
    from rfc3161_client import decode_timestamp_response

    try:
        found = decode_timestamp_response(reply)
        if found.status != _GRANTED:
            raise _refused(f"the authority answered with status {found.status}: {', '.join(found.status_string)[:200]}")
        _ = found.tst_info
    except ValueError as wrong:
        raise _refused(f"it is no reply of a timestamp authority: {wrong}") from wrong
    return found


def _roots(pem: bytes) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(pem)
    except ValueError as wrong:
        raise UsageError(
            "the authority's certificates are no PEM", "give the root that the timestamp authority publishes"
        ) from wrong


def _asked(program: Path, query: bytes) -> bytes:
    try:
        ran = subprocess.run([str(program)], input=query, capture_output=True, timeout=STAMPER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UndecidedError(f"{program} gave no timestamp: {exc}", f"run it by hand; see {STAMPER}") from exc
    if ran.returncode != 0:
        said = ascii(ran.stderr[-300:].decode("utf-8", "replace").strip())
        raise UndecidedError(f"{program} gave no timestamp: exit status {ran.returncode}: {said}", "run it by hand")
    return ran.stdout[:MAX_STAMP_BYTES]


def _refused(detail: str) -> CertificateRefusedError:
    return CertificateRefusedError(Refusal.STAMP_WRONG, f"its timestamp does not count: {ascii(detail)[:300]}")
