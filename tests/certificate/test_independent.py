"""Others read our certificates: the in-toto project's protobufs, sigstore's DSSE, libsodium's Ed25519. None is ours.

What signs them here is securesystemslib over OpenSSL; nothing below imports either.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult as InTotoTestResult
from in_toto_attestation.v1.statement import Statement as InTotoStatement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from sigstore.dsse import Envelope
from sigstore.dsse import Statement as SigstoreStatement
from sigstore_models.intoto import Envelope as EnvelopeModel

from toolkit.certificate.sign import SigningKey, sign
from toolkit.certificate.statement import EXTENSION, Grounds, issue

MONTH = timedelta(days=30)
# SubjectPublicKeyInfo of an Ed25519 key is this and the 32 bytes (RFC 8410, section 10.1).
SPKI = bytes.fromhex("302a300506032b6570032100")


@pytest.fixture
def envelope(grounds: Grounds, now: datetime, key: SigningKey) -> bytes:
    """A certificate, as it lies in a file."""
    return sign(issue(grounds, now, MONTH, "1.2.3"), key)


@pytest.fixture
def public(key: SigningKey) -> VerifyKey:
    """The public key of the PEM file."""
    return public_of(key.public_pem)


def public_of(pem: bytes) -> VerifyKey:
    """Taken apart by hand."""
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    assert der[: len(SPKI)] == SPKI
    return VerifyKey(der[len(SPKI) :])


def read_by_others(envelope: bytes, pem: bytes) -> InTotoTestResult:
    """What a stranger makes of the file and the public key, by nobody's code but others'."""
    read = opened(envelope)
    public_of(pem).verify(read.pae(), read.signature)
    SigstoreStatement(base64.b64decode(json.loads(envelope)["payload"]))
    message = json_format.ParseDict(payload(envelope), StatementMessage())
    InTotoStatement.copy_from_pb(message).validate()
    return json_format.ParseDict(payload(envelope)["predicate"], InTotoTestResult(), ignore_unknown_fields=True)


def opened(envelope: bytes) -> Envelope:
    """As sigstore opens one."""
    return Envelope(EnvelopeModel.from_json(envelope))


def payload(envelope: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return found


def test_sigstore_and_libsodium_verify_the_signature(envelope: bytes, public: VerifyKey) -> None:
    """The bytes that were signed are DSSE's, and the signature is Ed25519's."""
    read = opened(envelope)
    assert public.verify(read.pae(), read.signature) == read.pae()


def test_sigstore_and_libsodium_refuse_every_other_payload(envelope: bytes, public: VerifyKey) -> None:
    """One byte of it at a time, and another payload type."""
    document = json.loads(envelope)
    content = base64.b64decode(document["payload"])
    for position in range(0, len(content), 97):
        other = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        forged = opened(json.dumps(document | {"payload": base64.b64encode(other).decode()}).encode())
        with pytest.raises(BadSignatureError):
            public.verify(forged.pae(), forged.signature)
    retyped = opened(json.dumps(document | {"payloadType": "text/plain"}).encode())
    with pytest.raises(BadSignatureError):
        public.verify(retyped.pae(), retyped.signature)


def test_it_is_a_statement_to_sigstore(envelope: bytes) -> None:
    """Its own model of an in-toto Statement v1 takes it as it is."""
    SigstoreStatement(base64.b64decode(json.loads(envelope)["payload"]))


def test_it_is_a_statement_to_the_in_toto_project(envelope: bytes) -> None:
    """No field is unknown to its protobuf, and its own validation finds nothing missing."""
    message = json_format.ParseDict(payload(envelope), StatementMessage())
    InTotoStatement.copy_from_pb(message).validate()
    assert [subject.name for subject in message.subject] == ["demo", "demo/node1", "demo/node2"]
    assert all(len(subject.digest["sha256"]) == 64 for subject in message.subject)
    assert message.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"


def test_a_reader_of_plain_test_results_understands_the_predicate(envelope: bytes) -> None:
    """What was tested, and that nothing failed, needs none of ours; the one field that is ours is passed over."""
    predicate = payload(envelope)["predicate"]
    plain = {name: value for name, value in predicate.items() if name != EXTENSION}
    result = json_format.ParseDict(plain, InTotoTestResult())
    assert result.result == "PASSED"
    assert list(result.passed_tests) == ["HBM_ERRORS", "HCA_RATE", "NCCL_BUSBW_LOW", "NVLINK_DOWN", "WARM"]
    assert (list(result.warned_tests), list(result.failed_tests)) == ([], [])
    assert [configuration.name for configuration in result.configuration] == ["rack", "profile", "plan"]
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(predicate, InTotoTestResult())
    json_format.ParseDict(predicate, InTotoTestResult(), ignore_unknown_fields=True)
