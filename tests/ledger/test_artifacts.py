"""Raw evidence is kept by what it is, and never handed out altered."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import RackproofError
from toolkit.ledger import ArtifactError, Artifacts, LedgerError


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


def test_bytes_are_kept_under_their_sha256(artifacts: Artifacts) -> None:
    """Putting the same again is harmless, and an empty answer is an answer."""
    for content in (b"NVRM: Xid", b""):
        digest = artifacts.put(content)
        assert digest == hashlib.sha256(content).hexdigest() == artifacts.put(content)
        assert artifacts.get(digest) == content


def test_a_file_is_copied(artifacts: Artifacts, tmp_path: Path) -> None:
    """The source stays where it is; nothing is left aside."""
    source = tmp_path / "raw"
    source.write_bytes(b"x" * (3 << 20))
    digest = artifacts.put(source)
    assert artifacts.verify(digest).read_bytes() == source.read_bytes()
    assert list((tmp_path / "artifacts/incoming").iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"NVRM: Xic", b"NVRM: Xid "])
def test_a_damaged_artifact_raises(artifacts: Artifacts, damage: bytes) -> None:
    """Cut, flipped or grown: what rests on it is not proven. Putting the right bytes again heals it."""
    digest = artifacts.put(b"NVRM: Xid")
    path = artifacts.path(digest)
    path.chmod(0o600)
    path.write_bytes(damage)
    for read in (artifacts.get, artifacts.verify):
        with pytest.raises(ArtifactError, match="damaged"):
            read(digest)
    artifacts.put(b"NVRM: Xid")
    assert artifacts.get(digest) == b"NVRM: Xid"


def test_a_missing_artifact_raises(artifacts: Artifacts) -> None:
    """It never becomes an empty answer."""
    for read in (artifacts.get, artifacts.verify):
        with pytest.raises(ArtifactError, match="is not in"):
            read("0" * 64)


@settings(deadline=None)
@given(name=st.text(max_size=80) | st.just("../" * 20 + "etc/passwd") | st.just("A" * 64))
def test_only_a_sha256_names_an_artifact(name: str) -> None:
    """A name from a body or from a command line reaches no other file."""
    with pytest.raises(RackproofError, match="not the sha256"):
        Artifacts(Path("/nowhere")).path(name)


def test_a_source_that_is_not_there_is_said_so(artifacts: Artifacts, tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(LedgerError, match="gone"):
        artifacts.put(tmp_path / "gone")


def test_a_kept_artifact_is_not_writable(artifacts: Artifacts) -> None:
    """Its mode says that it is not to be edited."""
    mode = artifacts.path(artifacts.put(b"x")).stat().st_mode
    assert oct(mode & 0o777) == oct(0o440)
