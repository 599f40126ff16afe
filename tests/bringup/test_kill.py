"""Killed with SIGKILL after every ledger append in turn, then run again: the same end, and nothing done twice."""

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from rehearsal import context_over, folder, in_process, now, open_ledger

from toolkit.bringup import bringup
from toolkit.certificate.public_key import trusted_keys
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.verify import verify
from toolkit.ledger.store import Store
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings, status_of
from toolkit.virtual.faults import Fault, FaultKind

FAULTS = (Fault(FaultKind.ECC_DRIP, "node2", gpu=0),)


class MortalStore(Store):
    """The real store of a ledger, whose process dies right after its Nth commit."""

    commits = 0
    dies_after = None

    @contextmanager
    def write(self):
        with super().write() as session:
            yield session
        if threading.current_thread().name.startswith("lease "):
            return  # a renewal appends nothing, and how many there are is a question of time
        MortalStore.commits += 1
        if MortalStore.commits == MortalStore.dies_after:
            self.die()

    def die(self):
        """At once."""
        os.kill(os.getpid(), signal.SIGKILL)


def small(lab):
    """The same rack with one GPU, two links and one rail a node: the walk visits every append, not every GPU."""
    ones = ("GPU_COUNT_WRONG", "NCCL_RANKS_MISSING")
    gates = tuple(replace(g, limit=1) if g.code in ones else g for g in lab.rack.profile.gates)
    to_another = ("NCCL_PATH_UNPROVEN", "NCCL_BUSBW_LOW")  # which one GPU has not
    gates = tuple(g for g in gates if g.code not in to_another)
    profile = replace(lab.rack.profile, gpus_per_node=1, nvlinks_per_gpu=2, hcas_per_node=1, gates=gates, levels=())
    units = tuple(replace(u, gpus=u.gpus[:1], hcas=u.hcas[:1]) for u in lab.rack.units)
    links = tuple(k for k in lab.rack.links if k.a.port == "mlx5_0")
    return replace(lab, rack=replace(lab.rack, profile=profile, units=units, links=links))


def child(lab, dies_after):
    """One bringup in a process of its own. Answers whether it lived, and its commits if it did."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            with open_ledger(lab.settings) as ledger:
                ledger._store.__class__ = MortalStore
                MortalStore.commits, MortalStore.dies_after = 0, dies_after
                bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack)))
            (lab.folder / "commits").write_text(str(MortalStore.commits))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "bringup raised; run it in this process to see"
    return os.WIFEXITED(status)


def end_of(lab):
    """What must not depend on how often we were killed."""
    with open_ledger(lab.settings) as ledger:
        found = {s.node: (s.state, s.code, s.part) for s in standings(ledger, lab.rack)}
        open_runs = [r.id for r in ledger.runs(lab.rack.name) if r.outcome is None]
        planned = [r.stage for r in ledger.runs(lab.rack.name, "node1") if r.outcome == "PASSED"]
        events = ledger.events(lab.rack.name, limit=100_000)
    said = [(e.kind, str(e.body.get("what"))) for e in events if str(e.body.get("what")).startswith("collective ")]
    begun = [what for kind, what in said if kind == "intent"]
    ended = [what for kind, what in said if kind == "observed"]
    envelope = lab.settings.certificate(lab.rack.name).read_bytes()
    certified = verify(envelope, trusted_keys([lab.settings.keys / PUBLIC]), now()).nodes
    pool = {name: member.admitted for name, member in lab.pool.nodes().items()}
    machines = {n.name: lab.machine(n.name) for n in lab.rack.nodes}
    return {
        "nodes": found,
        "open runs": open_runs,
        "stages of node1": planned,
        "certified": certified,
        "pool": pool,
        "disk writes": {name: m.disk_writes for name, m in machines.items()},
        "rail tests named twice": sorted({what for what in begun if begun.count(what) > 1}),
        "rail tests without an end": sorted(set(begun) - set(ended)),
        "burn-ins": {name: len(lab.burnins(name)) for name in machines},
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The end of a bringup nobody killed, and how often it wrote."""
    with folder(tmp_path_factory.mktemp("walk") / "undisturbed") as place:
        lab = small(in_process(place, "demo-small", *FAULTS))
        assert child(lab, None)
        return end_of(lab), int((lab.folder / "commits").read_text())


def test_the_undisturbed_end_is_worth_comparing_with(undisturbed):
    """One node admitted, the other quarantined; each disk written once; enough appends to be killed after."""
    end, commits = undisturbed
    assert [state for state, _, _ in end["nodes"].values()] == ["ADMITTED", "QUARANTINED"]
    assert end["disk writes"] == {"node1": 1, "node2": 1}
    assert end["pool"] == {"node1": True, "node2": False}
    assert commits > 50


def test_killed_after_every_append_in_turn_it_ends_the_same(undisturbed, tmp_path):
    """Every append is a place to die. Disks are written once and burn-ins run once, wherever it was."""
    expected, commits = undisturbed
    for dies_after in range(1, commits + 1):
        with folder(tmp_path / str(dies_after)) as place:
            lab = small(in_process(place, "demo-small", *FAULTS))
            killed = not child(lab, dies_after)
            assert killed or dies_after >= commits - 2  # threads take turns: the last few may fall together
            assert child(lab, None)
            assert end_of(lab) == expected, f"killed after append {dies_after} of {commits}"
