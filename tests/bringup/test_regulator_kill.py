"""An admission killed with SIGKILL anywhere: the same command ends as if nobody had, and nobody is let in twice."""

import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from admitting import SOAK, Admitting, WatchedPool, certified
from rehearsal import MEMORY

from tests.bringup.test_kill import MortalStore
from toolkit.pool.model import Sign
from toolkit.rack.lifecycle import NodeState

TOGETHER = replace(SOAK, canary=2)  # both nodes in one wave: it can be half in, half out, half counted


class Mortal(WatchedPool):
    """Its caller dies right after the Nth thing done to it. `ill`: nodes that go bad as soon as they take jobs."""

    dies_after = 0
    ill = ()

    def act(self, *words):
        """Done, and nobody lives to record it."""
        super().act(*words)
        if len(self.acts) == self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def signs(self, nodes, since):
        """An Xid on what is ill and in."""
        inside = [name for name, member in self.nodes().items() if member.admitted and name in self.ill]
        xid = [Sign(n, "CONDITION_GPU_XID_ERROR", "Xid 79", "condition GpuXidError") for n in nodes if n in inside]
        return (*super().signs(nodes, since), *xid)


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """Two certified nodes, made once."""
    return certified(tmp_path_factory.mktemp("proven"), "demo-small")


@pytest.fixture
def places(tmp_path):
    """Folders to die in, in memory where there is some."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else tmp_path) as made:
        yield (Path(made) / str(n) for n in range(1000))


def rack_in(proven, place, ill, dies_after_act=0):
    """A copy of the two, whose pool may be deadly."""
    rack = Admitting(proven, place, TOGETHER)
    rack.pool.__class__ = Mortal
    rack.pool.ill, rack.pool.dies_after = ill, dies_after_act
    return rack


def child(rack, dies_after=None):
    """One admission in a process of its own. Answers the commits of one that lived, None of one that died."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            opened = rack.ledger

            class BesideThePool(MortalStore):
                def die(self):
                    with rack.pool.turn:  # what another thread is doing to the pool is done and noted, or not begun
                        super().die()

            def mortal():
                ledger = opened()
                ledger._store.__class__ = BesideThePool
                MortalStore.commits, MortalStore.dies_after = 0, dies_after
                return ledger

            rack.ledger = mortal
            rack.run()
            (rack.lab.folder / "commits").write_text(str(MortalStore.commits))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the admission raised; run it here to see"
    return int((rack.lab.folder / "commits").read_text()) if os.WIFEXITED(status) else None


def end_of(rack):
    """What must not depend on where we were killed."""
    found = {n: (s.state, s.code, s.message.partition(" after ")[0]) for n, s in rack.standing().items()}
    with rack.ledger() as ledger:
        open_runs = [r.id for r in ledger.runs(rack.lab.rack.name) if r.outcome is None]
    # Of a wave whose nodes all count, the end may be missing: nobody waits for it, and the next admission writes it.
    waiting = [n for n, (state, _, _) in found.items() if state is NodeState.CERTIFIED]
    ended = len(rack.events("wave end")) == len(rack.events("wave")) or not waiting
    admits = [node for act, node in rack.pool.acts if act == "admit"]
    return found, rack.inside(), open_runs, ended, {n: admits.count(n) for n in set(admits)}


@pytest.mark.parametrize("ill", [(), ("node2",)], ids=["well", "halted"])
def test_killed_after_any_record_or_any_act_it_ends_the_same(proven, places, ill):
    """Every second commit, and every act on the pool, is a place to die."""
    calm = rack_in(proven, next(places), ill)
    commits = child(calm)
    expected = end_of(calm)
    assert commits > 15
    assert expected[1] == ([] if ill else ["node1", "node2"])
    assert expected[2:] == ([], True, {"node1": 1, "node2": 1})
    acts = len(calm.pool.acts)
    for dies_after, act in [(n, 0) for n in range(2, commits, 2)] + [(None, n) for n in range(1, acts + 1)]:
        rack = rack_in(proven, next(places), ill, act)
        assert child(rack, dies_after) is None or act == 0
        rack.pool.dies_after = 0
        if not rack.events("rollout over"):  # it was at its end when it was killed: another would be a new admission
            assert child(rack) is not None
        assert end_of(rack) == expected, f"killed after commit {dies_after}, act {act}"
