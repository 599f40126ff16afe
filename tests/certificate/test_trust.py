"""Whom a reader trusts: keys that were rotated, and what was revoked, by a signed list that grows old."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.revocations import read_revocations, sign_revocations
from toolkit.certificate.sign import SigningKey, load_or_create, sign
from toolkit.certificate.statement import Grounds, issue
from toolkit.certificate.trust import Revocation, Trust, TrustedKey
from toolkit.certificate.trust_file import load_trust
from toolkit.certificate.verify import verify
from toolkit.errors import InputError, UndecidedError

DAY, MONTH = timedelta(days=1), timedelta(days=30)


@pytest.fixture
def envelope(grounds: Grounds, now: datetime, key: SigningKey) -> bytes:
    """A certificate of two nodes."""
    return sign(issue(grounds, now, MONTH, "1.2.3"), key)


@pytest.fixture
def trust(key: SigningKey) -> Trust:
    """The one key, and no list."""
    return Trust.of([trusted_key(key.public_pem)])


def digest_of(envelope: bytes, trust: Trust, now: datetime) -> str:
    return verify(envelope, trust, now).digest


def revoked(envelope: bytes, trust: Trust, now: datetime, *nodes: str) -> Revocation:
    return Revocation(digest_of(envelope, trust, now), nodes, "tray swapped", now)


def listing(key: SigningKey, now: datetime, *revocations: Revocation) -> bytes:
    return sign_revocations(revocations, now, DAY, key)


def test_a_key_that_was_rotated_still_vouches_for_what_it_signed_in_its_time(
    envelope: bytes, key: SigningKey, now: datetime
) -> None:
    """And for nothing that is dated later. A thief dates as he likes: a stolen key is taken out of the file."""
    kept = Trust((TrustedKey(trusted_key(key.public_pem), "old", now + DAY),))
    assert verify(envelope, kept, now + 2 * DAY).keyid == key.keyid
    ended = Trust((TrustedKey(trusted_key(key.public_pem), "old", now - DAY),))
    with pytest.raises(CertificateRefusedError, match=r"key old signed it at .* trusted until") as refused:
        verify(envelope, ended, now)
    assert refused.value.refusal is Refusal.UNTRUSTED


def test_a_revoked_certificate_is_refused_with_the_reason(
    envelope: bytes, trust: Trust, key: SigningKey, now: datetime
) -> None:
    """As a whole, or node by node until none is left."""
    for nodes in ((), ("node1", "node2")):
        listed = read_revocations(listing(key, now, revoked(envelope, trust, now, *nodes)), trust, now)
        with pytest.raises(CertificateRefusedError, match="tray swapped") as refused:
            verify(envelope, listed, now)
        assert refused.value.refusal is Refusal.REVOKED


def countersigned(document: dict[str, Any], other: SigningKey) -> dict[str, Any]:
    """With the signature of somebody else before its own."""
    again = json.loads(sign(json.loads(base64.b64decode(document["payload"])), other))
    return document | {"signatures": [*again["signatures"], *document["signatures"]]}


REWRITTEN: dict[str, Callable[[dict[str, Any], SigningKey], str]] = {
    "indented": lambda document, _: json.dumps(document, indent=2),
    "with a space": lambda document, _: json.dumps(document, separators=(",", ": ")),
    "in another order": lambda document, _: json.dumps(dict(reversed(document.items())), separators=(",", ":")),
    "with a field nobody reads": lambda document, _: json.dumps(document | {"note": "x"}),
    "countersigned": lambda document, other: json.dumps(countersigned(document, other)),
}


@pytest.mark.parametrize("name", REWRITTEN)
@pytest.mark.parametrize("both_trusted", [False, True])
def test_a_revoked_certificate_is_not_another_one_when_its_file_is_rewritten(
    name: str, both_trusted: bool, envelope: bytes, trust: Trust, key: SigningKey, now: datetime, tmp_path: Path
) -> None:
    """What was signed is the same: so is its name, and so is its end."""
    other = load_or_create(tmp_path / "other")
    keys = [trusted_key(other.public_pem)] if both_trusted else []
    listed = read_revocations(listing(key, now, revoked(envelope, trust, now)), trust, now)
    again = replace(listed, keys=(*Trust.of(keys).keys, *listed.keys))
    content = REWRITTEN[name](json.loads(envelope), other).encode()
    assert content != envelope
    with pytest.raises(CertificateRefusedError, match="tray swapped") as refused:
        verify(content, again, now)
    assert refused.value.refusal is Refusal.REVOKED


def test_a_certificate_revoked_for_one_node_holds_for_the_others_and_says_so(
    envelope: bytes, trust: Trust, key: SigningKey, now: datetime
) -> None:
    """A swapped tray takes nothing from its neighbours."""
    listed = read_revocations(listing(key, now, revoked(envelope, trust, now, "node1")), trust, now)
    assert verify(envelope, listed, now).revoked == (("node1", "tray swapped"),)


def test_a_list_of_revocations_that_is_too_old_leaves_everything_undecided(
    envelope: bytes, trust: Trust, key: SigningKey, now: datetime
) -> None:
    """What was revoked since is unknown: never VALID."""
    listed = read_revocations(listing(key, now), trust, now)
    assert verify(envelope, listed, now + DAY / 2).rack == "demo"
    with pytest.raises(UndecidedError, match="what was revoked since is unknown"):
        verify(envelope, listed, now + DAY)


def test_a_list_of_a_stranger_an_altered_one_and_one_of_tomorrow_are_of_no_use(
    trust: Trust, key: SigningKey, now: datetime, tmp_path: Path
) -> None:
    """None of them is taken for an empty one."""
    stranger = load_or_create(tmp_path / "stranger")
    good = listing(key, now)
    other = b"B" if good[-40:-39] == b"A" else b"A"  # a character of the signature
    for content in (listing(stranger, now), good[:-40] + other + good[-39:], b"", b"{}"):
        with pytest.raises(UndecidedError, match="of no use"):
            read_revocations(content, trust, now)
    with pytest.raises(UndecidedError, match="which is not yet"):
        read_revocations(listing(key, now + DAY), trust, now)


def test_a_key_that_was_retired_lists_no_revocations(key: SigningKey, now: datetime) -> None:
    """Whoever stole it would say that nothing was revoked, and date it as he likes."""
    retired = Trust((TrustedKey(trusted_key(key.public_pem), "old", now - DAY),))
    with pytest.raises(UndecidedError, match="of no use"):
        read_revocations(listing(key, now - 2 * DAY), retired, now)


def test_a_certificate_is_no_list_and_a_list_no_certificate(
    envelope: bytes, trust: Trust, key: SigningKey, now: datetime
) -> None:
    """Both are signed by the same key; their types keep them apart."""
    with pytest.raises(UndecidedError, match="WRONG_PAYLOAD_TYPE"):
        read_revocations(envelope, trust, now)
    with pytest.raises(CertificateRefusedError) as refused:
        verify(listing(key, now), trust, now)
    assert refused.value.refusal is Refusal.WRONG_PAYLOAD_TYPE


def test_a_trust_file_names_keys_their_time_and_the_list(
    envelope: bytes, trust: Trust, key: SigningKey, now: datetime, tmp_path: Path
) -> None:
    """Paths are beside it."""
    (tmp_path / "lab.pub").write_bytes(key.public_pem)
    (tmp_path / "list.json").write_bytes(listing(key, now, revoked(envelope, trust, now, "node2")))
    file = tmp_path / "trust.yml"
    file.write_text("keys:\n  - {file: lab.pub, name: lab, until: '2027-01-01T00:00:00Z'}\nrevocations: list.json\n")
    read = load_trust(file, now)
    assert (read.keys[0].name, read.keys[0].key.keyid, read.listed_until) == (
        "lab",
        key.keyid,
        now.replace(microsecond=0) + DAY,
    )
    assert verify(envelope, read, now).revoked == (("node2", "tray swapped"),)


WRONG = {
    "no key": ("keys: []\n", 1, "no key is trusted"),
    "no list of keys": ("key: x\n", 1, "a trust file has `keys`"),
    "a typo": ("keys:\n  - {file: lab.pub, untill: x}\n", 2, "a key is {file, name, until, stamped}"),
    "a time without a zone": ("keys:\n  - {file: lab.pub, until: 2027-01-01}\n", 2, "no time with a zone"),
    "a file that is not there": ("keys:\n  - {file: no.pub}\n", 2, "cannot be read"),
    "a file that is no key": ("keys:\n  - {file: trust.yml}\n", 2, "not a public key"),
    "a list that is not there": ("keys:\n  - {file: lab.pub}\nrevocations: no.json\n", 3, "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_trust_file_that_is_wrong_is_refused_with_its_line(
    name: str, key: SigningKey, now: datetime, tmp_path: Path
) -> None:
    """A list that is named and missing is not an empty one."""
    text, line, words = WRONG[name]
    (tmp_path / "lab.pub").write_bytes(key.public_pem)
    file = tmp_path / "trust.yml"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as refused:
        load_trust(file, now)
    assert refused.value.problems[0].line == line
