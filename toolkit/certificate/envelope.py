"""DSSE envelopes: bytes that somebody signed, opened only if one of the trusted keys signed exactly these.

https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NoReturn, cast

from toolkit.certificate.canonical import canonical
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.errors import RackproofError

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

    from toolkit.certificate.sign import SigningKey

MAX_ENVELOPE_BYTES = 16 << 20
MAX_SIGNATURES = 16


def sealed(body: Mapping[str, object], payload_type: str, key: SigningKey) -> bytes:
    """The envelope's bytes, ready to be written to a file. They are compact on purpose: no byte is idle."""
    from securesystemslib.dsse import Envelope

    payload = canonical(body)
    made = Envelope(payload, payload_type, {}).sign(cast("Signer", key.signer))
    content = _written(payload, payload_type, made.keyid, bytes.fromhex(made.signature))
    if len(content) > MAX_ENVELOPE_BYTES:
        raise RackproofError(f"the signed text has {len(content)} bytes, more than {MAX_ENVELOPE_BYTES}")
    return content


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What was signed, by the trusted key `keyid`.

    digest   the envelope's name: sha256 of its bytes as `sealed` writes them, with this key's signature alone. White
             space, another order of its fields and others' signatures prove nothing, and must not make another
             certificate of a revoked one. An Ed25519 signature cannot be rewritten without the key (RFC 8032, 5.1.7).
    digests  its names by every signature it carries, this one's among them
    """

    body: dict[str, object]
    keyid: str
    digest: str
    digests: frozenset[str]


def opened(envelope: bytes, payload_type: str, trusted: Sequence[Key]) -> tuple[dict[str, object], str]:
    """The signed object and the id of the trusted key that signed it. Raises CertificateRefusedError."""
    found = unsealed(envelope, payload_type, trusted)
    return found.body, found.keyid


def unsealed(envelope: bytes, payload_type: str, trusted: Sequence[Key]) -> Unsealed:
    """The signed object and its names. Raises CertificateRefusedError unless a trusted key signed exactly this."""
    if len(envelope) > MAX_ENVELOPE_BYTES:
        _refuse(Refusal.TOO_LARGE, f"it has more than {MAX_ENVELOPE_BYTES:,} bytes")
    document = _object(envelope, Refusal.NOT_JSON)
    found_type = _text(document, "payloadType")
    payload = _base64(document, "payload")
    signatures = _signatures(document)
    if found_type != payload_type:
        _refuse(Refusal.WRONG_PAYLOAD_TYPE, f"its payload is {found_type[:80]!a}, not {payload_type}")
    keyid = _signer(payload, payload_type, signatures, trusted)
    names = {k: sha256(_written(payload, payload_type, k, raw)).hexdigest() for k, raw in signatures.items()}
    return Unsealed(_object(payload, Refusal.MALFORMED), keyid, names[keyid], frozenset(names.values()))


def _written(payload: bytes, payload_type: str, keyid: str, signature: bytes) -> bytes:
    """The one text of an envelope with one signature."""
    entry = {"keyid": keyid, "sig": base64.b64encode(signature).decode()}
    content = {"payload": base64.b64encode(payload).decode(), "payloadType": payload_type, "signatures": [entry]}
    return json.dumps(content, separators=(",", ":")).encode()


def _signer(payload: bytes, payload_type: str, signatures: Mapping[str, bytes], trusted: Sequence[Key]) -> str:
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
            Envelope(payload, payload_type, carried).verify([key], threshold=1)
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
