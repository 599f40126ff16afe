"""What a pool says of its members: a bad sign fails, a member that takes no jobs is skipped by name."""

from datetime import UTC, datetime

import pytest
import yaml

from tests.infra.sessions import Lab, run
from toolkit.errors import UndecidedError
from toolkit.pool.file import FilePool
from toolkit.pool.model import Sign

MODULE = ("toolkit.infra.test_kubernetes", "-k", "member")
NODE2 = "kubernetes::test_member[node2]"


class Told(FilePool):
    """The pool in its file, which also has what a cluster would say of a member."""

    told: tuple[Sign, ...] | UndecidedError = ()

    def signs(self, nodes, since):
        if isinstance(self.told, UndecidedError):
            raise self.told
        return tuple(sign for sign in self.told if sign.node in nodes)


@pytest.fixture
def pool(lab, monkeypatch):
    """The rack's pool; what it says is for a test to set."""
    made = Told(lab.settings.pool(lab.rack.site))
    monkeypatch.setattr(Lab, "pool", property(lambda _: made))
    return made


def test_a_bad_sign_fails_its_member_alone(lab, pool):
    """Code, who said it, and the command that takes the node out."""
    at = datetime(2026, 11, 23, tzinfo=UTC)
    pool.told = (Sign("node2", "CONDITION_GPU_XID", "GPU 3 had Xid 79", "condition GpuXidError", at),)
    seen = run(lab, *MODULE[1:], what=MODULE[:1])
    assert seen.red() == {NODE2: "F"}
    words = seen.words[NODE2]
    assert words.startswith("CONDITION_GPU_XID: node2: GPU 3 had Xid 79")
    assert "said by: condition GpuXidError" in words
    assert "rackproof drain node2 --reason CONDITION_GPU_XID" in words


def test_a_pool_that_does_not_answer_is_undecided(lab, pool):
    """Of nobody is anything said."""
    pool.told = UndecidedError("the API server does not answer", "see whether it is up")
    assert set(run(lab, *MODULE[1:], what=MODULE[:1]).red().values()) == {"E"}


def test_a_member_that_takes_no_jobs_is_skipped_by_name(lab):
    """Drained by the operator: the reason is his."""
    file = lab.settings.pool(lab.rack.site)
    before = file.read_text()
    try:
        lab.pool.evict("node2", "fan noise")
        assert yaml.safe_load(file.read_text())["nodes"]["node2"]["state"] != "admitted"
        seen = run(lab, *MODULE[1:], what=MODULE[:1])
    finally:
        file.write_text(before)
    assert (seen.letters[NODE2], seen.red()) == ("s", {})
    assert "node2 takes no jobs: fan noise" in seen.words[NODE2]
