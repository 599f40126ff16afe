"""A certificate verifies offline, for those who do not trust us, and only if every byte is as it was signed."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.certificate.envelope import MAX_ENVELOPE_BYTES
from toolkit.certificate.public_key import trusted_key, trusted_keys
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.sign import SigningKey, load_or_create, sign
from toolkit.certificate.statement import EXTENSION, Grounds, issue
from toolkit.certificate.verify import read_envelope, verify
from toolkit.errors import EvidenceError, UsageError

SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
MONTH = timedelta(days=30)


@pytest.fixture
def statement(grounds: Grounds, now: datetime) -> dict[str, Any]:
    return issue(grounds, now, MONTH, "1.2.3")


@pytest.fixture
def envelope(statement: dict[str, Any], key: SigningKey) -> bytes:
    return sign(statement, key)


def refusal_of(content: bytes, key: SigningKey, now: datetime) -> Refusal:
    with pytest.raises(CertificateRefusedError) as refused:
        verify(content, [trusted_key(key.public_pem)], now)
    assert refused.value.exit_code == EvidenceError.exit_code
    assert refused.value.hint
    return refused.value.refusal


def pae(payload: bytes) -> bytes:
    """The DSSE specification's pre-authentication encoding, written from its text."""
    kind = b"application/vnd.in-toto+json"
    return b"DSSEv1 " + b" ".join([str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])


def test_a_certificate_verifies(envelope: bytes, key: SigningKey, now: datetime) -> None:
    """And says what it proves."""
    verified = verify(envelope, [trusted_key(key.public_pem)], now + timedelta(days=1))
    assert (verified.rack, verified.nodes, verified.partial) == ("demo", ("node1", "node2"), True)
    assert verified.left_out == (("node3", "QUARANTINED: HBM_ERRORS GPU 1"),)
    assert verified.expires_at - verified.issued_at == MONTH
    assert verified.keyid == key.keyid
    assert "not read back" in verified.not_verified[1].what


def test_cryptography_alone_verifies_it(envelope: bytes, key: SigningKey) -> None:
    """An auditor needs none of our code and no DSSE library."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    document = json.loads(envelope)
    public = load_pem_public_key(key.public_pem)
    assert isinstance(public, Ed25519PublicKey)
    (signature,) = document["signatures"]
    public.verify(base64.b64decode(signature["sig"]), pae(base64.b64decode(document["payload"])))


def test_openssl_verifies_it(envelope: bytes, key: SigningKey, tmp_path: Path) -> None:
    """As does the command that is on every machine."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    document = json.loads(envelope)
    payload = base64.b64decode(document["payload"])
    (tmp_path / "pub").write_bytes(key.public_pem)
    (tmp_path / "sig").write_bytes(base64.b64decode(document["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", "pae", "-sigfile", "sig"]
    for content, right in ((pae(payload), True), (pae(payload + b" "), False)):
        (tmp_path / "pae").write_bytes(content)
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert (ended.returncode == 0) is right


def test_a_flipped_byte_anywhere_is_refused(envelope: bytes, key: SigningKey, now: datetime) -> None:
    """Every position of the file, one bit each."""
    trusted = [trusted_key(key.public_pem)]
    accepted = []
    for position in range(len(envelope)):
        content = bytearray(envelope)
        content[position] ^= 1 << (position % 8)
        try:
            verify(bytes(content), trusted, now)
        except CertificateRefusedError:
            continue
        accepted.append(position)
    assert accepted == []


@settings(max_examples=300, deadline=None, suppress_health_check=SHARED)
@given(data=st.data())
def test_any_other_byte_in_payload_or_signature_is_refused(
    envelope: bytes, key: SigningKey, now: datetime, data: st.DataObject
) -> None:
    """In the text of the file and in the bytes it encodes; the ends of the base64 hold no idle bits."""
    document = json.loads(envelope)
    part = data.draw(st.sampled_from(["payload", "sig"]))
    holder = document if part == "payload" else document["signatures"][0]
    decoded = data.draw(st.booleans())
    content = bytearray(base64.b64decode(holder[part]) if decoded else holder[part].encode())
    ends = st.integers(0, len(content) - 1) | st.integers(max(0, len(content) - 4), len(content) - 1)
    position = data.draw(ends)
    content[position] = data.draw(st.integers(0, 127).filter(lambda byte: byte != content[position]))
    holder[part] = (base64.b64encode(content) if decoded else bytes(content)).decode("latin-1")
    assert refusal_of(json.dumps(document).encode(), key, now) in (Refusal.ALTERED, Refusal.MALFORMED)


@settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_other_file_is_refused(key: SigningKey, now: datetime, content: bytes) -> None:
    """With a reason, never with a traceback."""
    assert refusal_of(content, key, now) in (Refusal.NOT_JSON, Refusal.MALFORMED)


def reformed(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def apply(envelope: bytes) -> bytes:
        document = json.loads(envelope)
        change(document)
        return json.dumps(document).encode()

    return apply


FILES: dict[str, tuple[Callable[[bytes], bytes], Refusal]] = {
    "empty": (lambda e: b"", Refusal.NOT_JSON),
    "cut": (lambda e: e[:-1], Refusal.NOT_JSON),
    "a list": (lambda e: b"[]", Refusal.NOT_JSON),
    "UTF-16": (lambda e: e.decode().encode("utf-16"), Refusal.NOT_JSON),
    "nested": (lambda e: b"[" * 200_000, Refusal.NOT_JSON),
    "NaN": (lambda e: b'{"payload":NaN}', Refusal.NOT_JSON),
    "a key twice": (lambda e: e[:-1] + b',"payload":""}', Refusal.NOT_JSON),
    "huge": (lambda e: e + b" " * MAX_ENVELOPE_BYTES, Refusal.TOO_LARGE),
    "no payload": (reformed(lambda d: d.pop("payload")), Refusal.MALFORMED),
    "payload is a number": (reformed(lambda d: d.update(payload=7)), Refusal.MALFORMED),
    "no signatures": (reformed(lambda d: d.update(signatures=[])), Refusal.MALFORMED),
    "a thousand signatures": (reformed(lambda d: d.update(signatures=d["signatures"] * 1000)), Refusal.MALFORMED),
    "one key twice": (reformed(lambda d: d.update(signatures=d["signatures"] * 2)), Refusal.MALFORMED),
    "a signature of text": (reformed(lambda d: d.update(signatures=["x"])), Refusal.MALFORMED),
    "no key id": (reformed(lambda d: d["signatures"][0].pop("keyid")), Refusal.MALFORMED),
    "another type": (reformed(lambda d: d.update(payloadType="text/plain")), Refusal.WRONG_PAYLOAD_TYPE),
    "another key id": (reformed(lambda d: d["signatures"][0].update(keyid="0" * 64)), Refusal.UNTRUSTED),
    "a short signature": (reformed(lambda d: d["signatures"][0].update(sig="AAAA")), Refusal.ALTERED),
}


@pytest.mark.parametrize("name", FILES)
def test_each_fault_has_its_own_code(name: str, envelope: bytes, key: SigningKey, now: datetime) -> None:
    """So that a script can tell them apart."""
    damage, refusal = FILES[name]
    assert refusal_of(damage(envelope), key, now) is refusal


def test_an_unknown_signer_is_untrusted(envelope: bytes, keys: Path, now: datetime) -> None:
    """A certificate of somebody who is not known proves nothing; without any key, nobody is."""
    assert refusal_of(envelope, load_or_create(keys), now) is Refusal.UNTRUSTED
    with pytest.raises(CertificateRefusedError, match="none of the 0 trusted keys"):
        verify(envelope, [], now)


def test_the_same_content_signed_by_another_is_not_ours(
    statement: dict[str, Any], key: SigningKey, keys: Path, now: datetime
) -> None:
    """A stranger who claims our key's id is found out."""
    forged = json.loads(sign(statement, load_or_create(keys)))
    forged["signatures"][0]["keyid"] = key.keyid
    assert refusal_of(json.dumps(forged).encode(), key, now) is Refusal.ALTERED


def test_a_second_signature_does_no_harm(
    statement: dict[str, Any], envelope: bytes, key: SigningKey, keys: Path, now: datetime
) -> None:
    """The buyer may sign what the builder signed; white space proves and disproves nothing; its name stays its name."""
    both = json.loads(envelope)
    both["signatures"].append(json.loads(sign(statement, load_or_create(keys)))["signatures"][0])
    found = verify(json.dumps(both, indent=2).encode(), [trusted_key(key.public_pem)], now)
    assert (found.keyid, found.digest) == (key.keyid, hashlib.sha256(envelope).hexdigest())


@pytest.mark.parametrize(
    ("offset", "refusal"),
    [
        (timedelta(days=30), Refusal.EXPIRED),
        (timedelta(days=4000), Refusal.EXPIRED),
        (timedelta(minutes=-6), Refusal.NOT_YET_VALID),
        (timedelta(days=-4000), Refusal.NOT_YET_VALID),
    ],
)
def test_a_certificate_out_of_its_time_is_refused(
    envelope: bytes, key: SigningKey, now: datetime, offset: timedelta, refusal: Refusal
) -> None:
    """Expired, or from the future of a clock that jumped."""
    assert refusal_of(envelope, key, now + offset) is refusal


def without(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(statement: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        holder: Any = statement
        for step in parents:
            holder = holder[EXTENSION if step == "ours" else step]
        holder[last] = value

    return change


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], None], Refusal]] = {
    "another statement": (without("_type", "https://in-toto.io/Statement/v0.1"), Refusal.UNKNOWN_PREDICATE),
    "another predicate": (without("predicateType", "https://slsa.dev/provenance/v1"), Refusal.UNKNOWN_PREDICATE),
    "a newer version of ours": (without("predicate/ours/version", 4), Refusal.UNKNOWN_PREDICATE),
    "not ours at all": (lambda s: s["predicate"].pop(EXTENSION), Refusal.UNKNOWN_PREDICATE),
    "failed": (without("predicate/result", "FAILED"), Refusal.MALFORMED),
    "failed tests": (without("predicate/failedTests", ["HBM_ERRORS"]), Refusal.MALFORMED),
    "another subject": (lambda s: s["subject"].pop(), Refusal.MALFORMED),
    "another serial": (without("predicate/ours/fingerprint/nodes/node1/serial", "SN9"), Refusal.MALFORMED),
    "no serial": (without("predicate/ours/fingerprint/nodes/node1/serial", ""), Refusal.MALFORMED),
    "another node list": (without("predicate/ours/nodes", ["node1"]), Refusal.MALFORMED),
    "another rack": (without("predicate/ours/rack", "other"), Refusal.MALFORMED),
    "no expiry": (without("predicate/ours/expiresAt", None), Refusal.MALFORMED),
    "a naive expiry": (without("predicate/ours/expiresAt", "2026-12-23T08:00:00"), Refusal.MALFORMED),
    "expired before it began": (without("predicate/ours/expiresAt", "2020-12-23T08:00:00Z"), Refusal.MALFORMED),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_signed_text_that_contradicts_itself_is_refused(
    name: str, statement: dict[str, Any], key: SigningKey, now: datetime
) -> None:
    """A signature makes it authentic, not right."""
    change, refusal = CONTRADICTIONS[name]
    change(statement)
    assert refusal_of(sign(statement, key), key, now) is refusal


def test_keys_and_files_that_cannot_be_read_are_usage_errors(tmp_path: Path) -> None:
    """They say nothing about the certificate."""
    (tmp_path / "text").write_text("no key")
    for call in (lambda: trusted_keys([tmp_path / "text"]), lambda: trusted_keys([tmp_path / "gone"])):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UsageError):
        read_envelope(tmp_path / "gone")


def test_a_certificate_of_a_large_rack_stays_small(grounds: Grounds, now: datetime, key: SigningKey) -> None:
    """Subjects are counted, not listed: it is read by people and carried in labels' targets."""
    many = grounds.findings * 200
    content = sign(issue(replace(grounds, findings=many), now, MONTH, "1"), key)
    assert len(content) < 64 << 10
