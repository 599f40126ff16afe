"""What a certificate replaces: version 3 says it, version 2 did not and is still read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.reading import Verified
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.sign import SigningKey, sign
from toolkit.certificate.statement import EXTENSION, Grounds, issue
from toolkit.certificate.verify import verify

MONTH = timedelta(days=30)
NEW_IN_3 = ("supersedes", "lifetimeSource")


@pytest.fixture
def statement(grounds: Grounds, now: datetime) -> dict[str, Any]:
    """One that supersedes another, of a profile that says why it holds a month."""
    profile = replace(grounds.rack.profile, certificate_lifetime_source="contract, annex 3")
    rack = replace(grounds.rack, profile=profile)
    return issue(replace(grounds, rack=rack, supersedes="ab" * 32), now, MONTH, "1.2.3")


def of_version_2(statement: dict[str, Any]) -> dict[str, Any]:
    """As rackproof wrote it before version 3."""
    extension = statement["predicate"][EXTENSION]
    extension["version"] = 2
    for field in NEW_IN_3:
        del extension[field]
    return statement


def read(statement: dict[str, Any], key: SigningKey, now: datetime) -> Verified:
    return verify(sign(statement, key), [trusted_key(key.public_pem)], now)


def test_it_names_the_certificate_it_replaces_and_why_it_holds_that_long(
    statement: dict[str, Any], key: SigningKey, now: datetime
) -> None:
    """By its sha256; the lifetime in the words of the profile."""
    found = read(statement, key, now)
    assert (found.version, found.supersedes, found.lifetime_source) == (3, "ab" * 32, "contract, annex 3")


def test_the_first_one_says_that_it_is_the_first(grounds: Grounds, key: SigningKey, now: datetime) -> None:
    """Which is another thing than not to say."""
    assert read(issue(grounds, now, MONTH, "1"), key, now).supersedes == ""


def test_version_2_is_in_force_until_it_expires_and_does_not_say(
    statement: dict[str, Any], key: SigningKey, now: datetime
) -> None:
    """Nobody tests a rack again because we learnt a new field."""
    found = read(of_version_2(statement), key, now)
    assert (found.version, found.supersedes, found.lifetime_source) == (2, None, "")
    assert found.nodes == ("node1", "node2")


def test_the_evidence_is_listed_with_the_gates_on_it(statement: dict[str, Any], key: SigningKey, now: datetime) -> None:
    """So that what is lost can be said in words."""
    found = dict(read(statement, key, now).evidence)
    assert len(found) == len(statement["predicate"][EXTENSION]["evidence"])
    assert {code for codes in found.values() for code in codes} == {
        "HBM_ERRORS", "HCA_RATE", "NCCL_BUSBW_LOW", "NVLINK_DOWN", "WARM",
    }  # fmt: skip


def change(field: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda extension: extension.update({field: value})


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], Refusal]] = {
    "version 1": (change("version", 1), Refusal.UNKNOWN_PREDICATE),
    "version 4": (change("version", 4), Refusal.UNKNOWN_PREDICATE),
    "version as text": (change("version", "3"), Refusal.UNKNOWN_PREDICATE),
    "version true": (change("version", True), Refusal.UNKNOWN_PREDICATE),
    "no version": (lambda extension: extension.pop("version"), Refusal.UNKNOWN_PREDICATE),
    "supersedes a word": (change("supersedes", "the other one"), Refusal.MALFORMED),
    "supersedes half a digest": (change("supersedes", "ab" * 16), Refusal.MALFORMED),
    "supersedes nothing at all": (lambda extension: extension.pop("supersedes"), Refusal.MALFORMED),
    "supersedes null": (change("supersedes", None), Refusal.MALFORMED),
    "no source of its lifetime": (lambda extension: extension.pop("lifetimeSource"), Refusal.MALFORMED),
    "less evidence than its gates": (lambda extension: extension["evidence"].pop(), Refusal.MALFORMED),
    "more evidence than its gates": (
        lambda extension: extension["evidence"].append({"digest": {"sha256": "0" * 64}}),
        Refusal.MALFORMED,
    ),
    "a gate on no digest": (lambda extension: extension["gates"][0]["evidence"].append("../x"), Refusal.MALFORMED),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_signed_text_that_says_it_wrongly_is_refused(
    name: str, statement: dict[str, Any], key: SigningKey, now: datetime
) -> None:
    """Never read as if it said nothing."""
    damage, refusal = WRONG[name]
    damage(statement["predicate"][EXTENSION])
    with pytest.raises(CertificateRefusedError) as refused:
        read(statement, key, now)
    assert refused.value.refusal is refusal
