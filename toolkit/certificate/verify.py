"""Verifies a certificate offline: bytes, trusted public keys and the time in, what it proves out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from toolkit.certificate.reading import Verified, read_statement
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.sign import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE
from toolkit.errors import UsageError
from toolkit.judge.verdict import CLOCK_SKEW

if TYPE_CHECKING:
    from securesystemslib.signer import Key

MAX_SIGNATURES = 16
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


def trusted_keys(files: Iterable[Path]) -> tuple[Key, ...]:
    """Public keys from files. Raises UsageError for one that cannot be read or is none."""
    keys = []
    for file in files:
        try:
            with file.open("rb") as stream:
                keys.append(trusted_key(stream.read(MAX_KEY_BYTES), str(file)))
        except OSError as exc:
            raise UsageError(f"the public key {file} cannot be read: {exc.strerror}", "check its path") from exc
    return tuple(keys)


def read_envelope(file: Path) -> bytes:
    """The file's bytes, never more than one over the size that is accepted. Raises UsageError."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as exc:
        raise UsageError(f"the certificate {file} cannot be read: {exc.strerror}", "check its path") from exc


def verify(envelope: bytes, trusted: Iterable[Key], now: datetime) -> Verified:
    """What the certificate proves, if one of the trusted keys signed exactly these bytes and it is in force.

    Raises CertificateRefusedError; its `refusal` tells what is wrong.
    """
    if len(envelope) > MAX_ENVELOPE_BYTES:
        _refuse(Refusal.TOO_LARGE, f"it has more than {MAX_ENVELOPE_BYTES:,} bytes")
    document = _object(envelope, Refusal.NOT_JSON)
    payload_type = _text(document, "payloadType")
    payload = _base64(document, "payload")
    signatures = _signatures(document)
    if payload_type != PAYLOAD_TYPE:
        _refuse(Refusal.WRONG_PAYLOAD_TYPE, f"its payload is {payload_type[:80]!a}, not {PAYLOAD_TYPE}")
    keyid = _signer(payload, signatures, tuple(trusted))
    statement = _object(payload, Refusal.MALFORMED)
    verified = read_statement(statement, hashlib.sha256(envelope).hexdigest(), keyid)
    if verified.issued_at > now + CLOCK_SKEW:
        _refuse(Refusal.NOT_YET_VALID, f"it is valid from {verified.issued_at.isoformat()}; now is {now.isoformat()}")
    if verified.expires_at <= now:
        _refuse(Refusal.EXPIRED, f"it expired at {verified.expires_at.isoformat()}; now is {now.isoformat()}")
    return verified


def _signer(payload: bytes, signatures: Mapping[str, bytes], trusted: tuple[Key, ...]) -> str:
    """The id of the trusted key that signed the payload."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Signature

    known = [key for key in trusted if key.keyid in signatures]
    if not known:
        by = ", ".join(keyid[:12] for keyid in signatures) or "nobody"
        _refuse(Refusal.UNTRUSTED, f"it is signed by {by!a}, none of the {len(trusted)} trusted keys")
    carried = {keyid: Signature(keyid, raw.hex()) for keyid, raw in signatures.items()}
    for key in known:
        try:
            Envelope(payload, PAYLOAD_TYPE, carried).verify([key], threshold=1)
        except VerificationError:
            continue
        return key.keyid
    return _refuse(Refusal.ALTERED, "its signature is not of these bytes: something was changed after signing")


def _signatures(document: Mapping[str, object]) -> dict[str, bytes]:
    entries = document.get("signatures")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_SIGNATURES:
        _refuse(Refusal.MALFORMED, f"it has not between 1 and {MAX_SIGNATURES} signatures")
    found: dict[str, bytes] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            _refuse(Refusal.MALFORMED, "a signature is no object")
        keyid = _text(entry, "keyid")
        if keyid in found:
            _refuse(Refusal.MALFORMED, "one key signed twice")
        found[keyid] = _base64(entry, "sig")
    return found


def _object(content: bytes, refusal: Refusal) -> dict[str, object]:
    """A JSON object with every key once and no number that is none."""
    try:
        value = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        _refuse(refusal, f"it is not JSON: {str(exc)[:120]!a}")
    if not isinstance(value, dict):
        _refuse(refusal, "it is no JSON object")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is written twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        _refuse(Refusal.MALFORMED, f"it has no text '{key}'")
    return value


def _base64(document: Mapping[str, object], key: str) -> bytes:
    """Strict: the one text that encodes these bytes, so that no character is idle."""
    text = _text(document, key)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse(Refusal.MALFORMED, f"'{key}' is not base64")
    if base64.b64encode(content).decode() != text:
        _refuse(Refusal.MALFORMED, f"'{key}' is not the base64 of its bytes")
    return content


def _refuse(refusal: Refusal, detail: str) -> NoReturn:
    raise CertificateRefusedError(refusal, detail)
