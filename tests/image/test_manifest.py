"""An image's manifest: what it says survives a round trip, and one that contradicts itself is no manifest."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.image.manifest import PREDICATE_TYPE, ManifestError, Role, read_statement


@pytest.fixture
def statement(bench) -> dict[str, Any]:
    """A good one."""
    folder = bench.release()
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return found


def test_what_is_written_is_read_back_to_the_last_byte(bench, statement):
    """The payload is canonical: reading and writing it again changes nothing."""
    manifest = read_statement(statement)
    assert manifest.payload() == (bench.folder / "release/manifest.json").read_bytes()
    assert manifest == bench.manifest(bench.folder / "release")
    assert statement["predicateType"] == PREDICATE_TYPE


def test_a_part_is_found_by_its_role(bench, statement):
    """And a role that the image lacks is told, not guessed."""
    manifest = read_statement(statement)
    assert manifest.part(Role.KERNEL).name == "vmlinuz"
    assert manifest.find(Role.ISO) is None
    with pytest.raises(ManifestError, match="has no iso"):
        manifest.part(Role.ISO)


WRONG = {
    "another kind of statement": (["predicateType"], "https://in-toto.io/attestation/test-result/v0.1", "not of an"),
    "a newer version": (["predicate", "version"], 2, "version 2"),
    "true for a version": (["predicate", "version"], True, "version True"),
    "a subject that is no part": (["subject", 0, "digest", "sha256"], "00" * 32, "subjects are not its parts"),
    "a word that nobody knows": (["predicate", "shim"], "x", "says more than is known"),
    "a name that leads elsewhere": (["predicate", "parts", 0, "name"], "../x", "small letters"),
    "a size that is none": (["predicate", "parts", 0, "sizeBytes"], True, "no number"),
    "a part of no size": (["predicate", "parts", 0, "sizeBytes"], 0, "no number"),
    "an unknown role": (["predicate", "parts", 0, "role"], "firmware", "one of disk"),
    "two parts of one name": (["predicate", "parts", 1, "name"], "disk.img.zst", "one name"),
    "two disks": (["predicate", "parts", 1, "role"], "disk", "one role"),
    "a hash cut short": (["predicate", "parts", 0, "sha256"], "ab", "no sha256"),
    "a disk of unknown content": (["predicate", "parts", 0, "content"], None, "unpacks to"),
    "a root beyond the disk": (["predicate", "rootPartition", "sizeBytes"], 1 << 31, "does not lie on its disk"),
    "a root between sectors": (["predicate", "rootPartition", "startBytes"], 1000, "does not lie on its disk"),
    "a time without a zone": (["predicate", "createdAt"], "2026-11-23T18:00:00", "no time zone"),
    "arguments with a line break": (["predicate", "commandLine"], "a\nb", "no printable text"),
    "another processor": (["predicate", "architecture"], "ppc64el", "one of amd64, arm64"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_statement_that_is_wrong_is_told_what_is_wrong(statement, case):
    """Each by its field."""
    path, value, told = WRONG[case]
    place = statement
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    if case == "two disks":
        place["content"] = statement["predicate"]["parts"][0]["content"]
    with pytest.raises(ManifestError, match=told):
        read_statement(statement)


@given(data=st.data())
def test_no_field_can_be_dropped(data):
    """A statement that lacks any one field is refused, and never read as one with a default."""
    whole = json.loads(GOOD)
    broken = deepcopy(whole)
    place: Any = broken
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        inner = place[key]
        if isinstance(place, dict) and (not isinstance(inner, dict | list) or data.draw(st.booleans())):
            del place[key]
            break
        if not isinstance(inner, dict | list):
            return  # a list may be shorter
        place = inner
    if broken.get("predicate", whole["predicate"]).keys() == whole["predicate"].keys() - {"rootPartition"}:
        return  # the one thing that an image may lack
    with pytest.raises((ManifestError, KeyError)):
        read_statement(broken)


_PART = {"name": "disk.img.zst", "role": "disk", "sha256": "ab" * 32, "sizeBytes": 10}
GOOD = json.dumps(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": PREDICATE_TYPE,
        "subject": [{"name": "disk.img.zst", "digest": {"sha256": "ab" * 32}}],
        "predicate": {
            "version": 1, "image": "x", "architecture": "amd64", "createdAt": "2026-11-23T18:00:00Z",
            "recipe": {"sha256": "cd" * 32}, "kernelRelease": "", "commandLine": "", "boots": ["uefi"],
            "parts": [_PART | {"content": {"sha256": "ef" * 32, "sizeBytes": 1 << 30}}],
            "inputs": [{"name": "packages", "sha256": "12" * 32}],
            "rootPartition": {"number": 1, "startBytes": 1 << 20, "sizeBytes": 1 << 20},
        },
    }
)  # fmt: skip


def test_the_example_above_is_good():
    """Else the property test would prove nothing."""
    assert read_statement(json.loads(GOOD)).name == "x"
