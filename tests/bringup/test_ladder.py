"""After a failure: the rung that can help, done once; then everything measured anew."""

import io
from dataclasses import fields, replace

import pytest
from laddering import DOUBLE_BIT, LOST, go, mend, planned, release, rungs, with_gpu
from rehearsal import open_ledger
from rich.console import Console

from tests.bringup.test_kill import small
from toolkit.cli.recover import _view
from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.judge.ladder import Rung
from toolkit.ledger import Change, EventKind
from toolkit.pool.file import FilePool
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Gpu
from toolkit.repair import Order, domain_remark
from toolkit.report.why import why
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult
from toolkit.settings import load
from toolkit.stages.rungs import End
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack


def test_a_gpu_that_fell_off_the_bus_comes_back_by_a_reboot_and_counts_when_all_is_measured_anew(lab_of):
    """Quarantined, rebooted once, still quarantined; released, it is imaged, burnt in and admitted."""
    lab = lab_of("demo-small", LOST)
    failed = go(lab)["node2"]
    assert (failed.state, failed.code) == (NodeState.QUARANTINED, "GPU_LOST")
    boots = lab.machine("node2").boots
    found = mend(lab)
    assert [(c.rung, c.end) for c in found.climbed] == [(Rung.REBOOT, End.SETTLED)]
    assert (found.exit_code, found.state) == (0, NodeState.QUARANTINED)
    assert found.next.startswith("rackproof release node2")
    assert lab.machine("node2").boots == boots + 1
    (intent,), (seen,) = rungs(lab), rungs(lab, EventKind.OBSERVED)
    assert intent["boards"] == ["16500000203"]
    assert seen["outcome"] == "settled"
    assert seen["boot_id"] != intent["boot_id"]
    assert go(lab)["node2"].state is NodeState.QUARANTINED, "a rung is no evidence"
    burnins = lab.burnins("node2")
    release(lab)
    assert go(lab)["node2"].state is NodeState.ADMITTED
    assert len(lab.burnins("node2")) == len(burnins) + 1
    assert lab.machine("node2").disk_writes == 2


def test_what_a_warm_boot_leaves_away_comes_back_with_power(failed):
    """The next rung in the same command: power off, seen and on record, then on."""
    lab = failed(warm_boot_helps=False)
    found = mend(lab)
    assert [(c.rung, c.end) for c in found.climbed] == [
        (Rung.REBOOT, End.UNSETTLED), (Rung.POWER_CYCLE, End.SETTLED),
    ]  # fmt: skip
    assert found.climbed[0].said == "GPU 0 does not answer"
    assert found.climbed[1].means == "off and on"
    with open_ledger(lab.settings) as ledger:
        assert len(ledger.events(lab.rack.name, "node2", what="recovery off", limit=10)) == 1


def test_standby_power_is_cut_where_the_bmc_can(failed):
    """One AC cycle instead of off and on, told by the boot id."""
    lab = failed(warm_boot_helps=False, ac_cycles=True)
    found = mend(lab, Order(Rung.POWER_CYCLE, confirmed=True))
    assert [(c.rung, c.end, c.means) for c in found.climbed] == [
        (Rung.POWER_CYCLE, End.SETTLED, "AC cycle (FullPowerCycle)")
    ]
    assert lab.machine("node2").ac_cycles == 1


def test_what_comes_back_on_the_same_board_is_a_matter_for_its_maker(failed):
    """The second time the same GPU is lost, no rung is tried: the ladder names the first one and its day."""
    lab = failed(faults=[replace(LOST, gpu=0, times=2)])
    assert mend(lab).exit_code == 0
    release(lab)
    assert go(lab)["node2"].code == "GPU_LOST"
    boots = lab.machine("node2").boots
    found = mend(lab)
    assert (found.climbed, found.exit_code) == ((), 1)
    assert "16500000200" in found.left.why
    assert "reboot on " in found.left.why
    assert found.next.startswith("rackproof rma node2")
    assert lab.machine("node2").boots == boots


def test_another_board_in_the_slot_has_its_own_first_time(failed):
    """The count follows the serial, not the slot."""
    lab = failed(faults=[replace(LOST, gpu=0, times=2)])
    assert mend(lab).exit_code == 0
    lab.rack = with_gpu(lab.rack, "node2", Gpu(0, "16599999999"))
    release(lab)
    assert go(lab)["node2"].code == "GPU_LOST"
    assert planned(lab).left.rungs


@pytest.mark.parametrize(
    "kind", [FaultKind.HBM_STICKY_BIT, FaultKind.GEMM_WRONG_FMA, FaultKind.ECC_DRIP, FaultKind.PCIE_NARROW]
)
def test_a_fault_that_no_restart_mends_is_not_restarted(lab_of, kind):
    """Exit 1 and why; the machine is as it was."""
    lab = small(lab_of("demo-small", Fault(kind, "node2", gpu=0)))
    assert go(lab)["node2"].state is NodeState.QUARANTINED
    before = lab.machine("node2")
    found = mend(lab)
    assert (found.climbed, found.exit_code, found.left.rungs) == ((), 1, ())
    assert "node2" in found.left.why
    assert lab.machine("node2") == before
    with pytest.raises(UsageError, match="cannot help"):
        mend(lab, Order(Rung.REBOOT, confirmed=True))
    assert rungs(lab) == []


def test_a_rung_that_takes_the_node_down_waits_for_its_name(failed):
    """Nothing is touched, and the command that does it is named."""
    lab = failed()
    before = lab.machine("node2")
    with pytest.raises(UsageError, match="takes node2 down: reboot") as refused:
        mend(lab, Order())
    assert refused.value.hint == "rackproof recover node2 --confirm node2"
    assert lab.machine("node2") == before
    assert rungs(lab) == []
    found = planned(lab)
    assert [rung for rung, _ in found.left.rungs] == [Rung.REBOOT, Rung.POWER_CYCLE]
    assert (found.exit_code, rungs(lab)) == (0, [])


def test_a_node_that_admits_jobs_is_never_rebooted(lab_of):
    """Neither one that is ADMITTED, nor one that the pool still lets jobs on, whatever the ledger says."""
    lab = lab_of("demo-small")
    go(lab)
    with pytest.raises(UsageError, match="no failure is on record"):
        mend(lab)
    lab.faults.append(LOST)
    with open_ledger(lab.settings) as ledger:
        ledger.move(lab.rack.name, "node2", Change(NodeState.ADMITTED, Move.LAPSE), "for the test")
    assert go(lab)["node2"].state is NodeState.QUARANTINED
    before = lab.machine("node2")
    member = lab.pool.nodes()["node1"]
    lab.pool.admit("node2", member.certificate, member.expires, {})
    with pytest.raises(UsageError, match="the pool still lets jobs on it"):
        mend(lab)
    assert lab.machine("node2") == before


def test_a_rented_node_has_no_power_cycle_and_says_so(failed):
    """The reboot is left; after it nothing is, and why is told."""
    lab = failed(warm_boot_helps=False)
    lab.rack = replace(lab.rack, units=tuple(replace(u, bmc=None) if u.name == "node2" else u for u in lab.rack.units))
    found = mend(lab)
    assert [(c.rung, c.end) for c in found.climbed] == [(Rung.REBOOT, End.UNSETTLED)]
    assert found.exit_code == 1
    assert dict(found.left.passed_over)[Rung.POWER_CYCLE].startswith("it is rented")


def test_a_dead_bmc_is_our_error_and_nothing_is_on_record(failed):
    """Unreachable before the intent: nothing was touched, and the same command may be given again."""
    lab = failed()
    lab.faults.append(Fault(FaultKind.BMC_DEAD, "node2"))
    with pytest.raises(UnreachableError):
        mend(lab, Order(Rung.POWER_CYCLE, confirmed=True))
    assert rungs(lab) == []


def test_a_node_that_hangs_gets_its_power_cut_by_what_power_shows(lab_of):
    """No boot id to go by: off is seen, then on; afterwards it answers."""
    lab = lab_of("demo-small")
    go(lab)
    with open_ledger(lab.settings) as ledger:
        ledger.move(lab.rack.name, "node2", Change(NodeState.ADMITTED, Move.LAPSE), "for the test")
    lab.pool.evict("node2", "for the test")
    lab.ac_cycles = True
    lab.silent.add("node2")
    assert go(lab)["node2"].code == "NODE_UNREACHABLE"
    found = mend(lab)
    assert [(c.rung, c.end, c.means) for c in found.climbed] == [(Rung.POWER_CYCLE, End.SETTLED, "off and on")]
    assert go(lab)["node2"].state is NodeState.ADMITTED


def test_a_node_that_does_not_answer_is_not_cut_off_by_itself(failed):
    """Our network may be what is silent: the reboot is not begun, and the rung that its power needs is named."""
    lab = failed()
    lab.silent.add("node2")
    before = lab.machine("node2")
    with pytest.raises(UnreachableError) as away:
        mend(lab)
    assert away.value.hint == "if it hangs: rackproof recover node2 --rung power_cycle --confirm node2"
    assert (lab.machine("node2"), rungs(lab)) == (before, [])
    found = mend(lab, Order(Rung.POWER_CYCLE, confirmed=True))
    assert [(c.end, c.boot_before) for c in found.climbed] == [(End.SETTLED, "")]


def test_what_a_rung_is_to_the_other_trays_of_a_domain_is_said():
    """On an NVL72 rack; nodes of a DGX share no NVLink."""
    racks = {name: load_rack(name, load({}).inventory) for name in ("gb200-nvl72", "dgx-h100-su")}
    assert "DEGRADED" in domain_remark(racks["gb200-nvl72"])
    assert domain_remark(racks["dgx-h100-su"]) == ""


ESCAPES = b"\x1b[2J\x1b]0;owned\x07 All done. \xe2\x80\xae"


class Hostile(InProcessRack):
    """node2 answers the ladder's questions with what it likes."""

    asked = ""

    def run(self, node, argv, timeout_s, max_bytes=MAX_OUTPUT_BYTES):
        """Escapes, to one question."""
        if node.name == "node2" and self.asked in " ".join(argv):
            return CommandResult(1 if "reset" in self.asked else 0, ESCAPES, b"")
        return super().run(node, argv, timeout_s, max_bytes)


@pytest.mark.parametrize("asked", ["boot_id", "systemctl reboot"])
def test_a_node_that_lies_about_its_boot_gets_nowhere_and_draws_nothing(failed, monkeypatch, asked):
    """A boot id that is none: not begun. A reboot that is only said to be done: nobody can tell, exit 3."""
    lab = failed()
    before = lab.machine("node2").boots
    monkeypatch.setattr(Hostile, "asked", asked)
    hostile = Hostile(**{f.name: getattr(lab, f.name) for f in fields(lab)})
    if asked == "boot_id":
        with pytest.raises(UndecidedError, match="does not say which boot it is in"):
            mend(hostile)
        assert rungs(lab) == []
    else:
        found = mend(hostile)
        assert [(c.rung, c.end) for c in found.climbed] == [(Rung.REBOOT, End.UNKNOWN)]
        assert found.climbed[0].said.startswith("it goes on in the same boot")
        assert found.exit_code == 3
    assert lab.machine("node2").boots == before


def test_what_a_node_says_to_a_reset_draws_nothing(lab_of, monkeypatch):
    """Refused with escapes: on the screen they are stand-ins."""
    lab = small(lab_of("demo-small", DOUBLE_BIT))
    go(lab)
    monkeypatch.setattr(Hostile, "asked", "--gpu-reset")
    found = mend(Hostile(**{f.name: getattr(lab, f.name) for f in fields(lab)}), Order())
    assert found.climbed[0].end is End.REFUSED
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    console.print(_view(found))
    shown = console.file.getvalue()
    assert "owned" in shown
    assert "\x1b]0" not in shown
    assert "\x1b[2J" not in shown


def test_another_machine_behind_the_bmc_keeps_its_power(failed):
    """The serial is read first."""
    lab = failed()
    lab.rack = replace(
        lab.rack, units=tuple(replace(u, serial="VR99999999") if u.name == "node2" else u for u in lab.rack.units)
    )

    class Other(InProcessRack):
        def bmc(self, node):
            return super().bmc(replace(node, serial="VR00000002"))

    with pytest.raises(UndecidedError, match="the plan says VR99999999"):
        mend(Other(**{f.name: getattr(lab, f.name) for f in fields(lab)}), Order(Rung.POWER_CYCLE, confirmed=True))
    assert rungs(lab) == []


def test_why_tells_the_rungs_that_were_tried(failed):
    """What was done, by what, and how it ended."""
    lab = failed()
    standing = go(lab)["node2"]
    mend(lab)
    with open_ledger(lab.settings) as ledger:
        last = ledger.last_run(lab.rack.name, "node2")
        answer = why(lab.rack.name, standing, ledger.events(lab.rack.name, "node2", after=last.event))
    assert "recovery: reboot (systemctl reboot) settled" in answer.evidence
    assert answer.next.startswith("nothing waits on it since reboot: rackproof release node2")


def test_an_uncorrectable_error_has_its_reset_and_all_is_measured_anew(lab_of):
    """No name is typed for a reset of GPUs that nothing runs on; the rerun decides, and twice is no accident."""
    lab = small(lab_of("demo-small", replace(DOUBLE_BIT, times=2)))
    failed = go(lab)["node2"]
    assert (failed.state, lab.machine("node2").resets) == (NodeState.QUARANTINED, 0), failed.code
    found = mend(lab, Order())
    assert [(c.rung, c.end) for c in found.climbed] == [(Rung.GPU_RESET, End.SETTLED)]
    assert lab.machine("node2").resets == 1
    release(lab)
    assert go(lab)["node2"].state is NodeState.QUARANTINED
    assert "a matter for its maker" in mend(lab, Order()).left.why
    assert lab.machine("node2").resets == 1


def test_a_reset_that_is_refused_is_followed_by_a_reboot_once_the_name_is_typed(lab_of):
    """What was done is told, and what waits: exit 3; then the boot puts the row in place."""
    lab = small(lab_of("demo-small", DOUBLE_BIT))
    go(lab)
    lab.reset_status = 255
    found = mend(lab, Order())
    assert [(c.rung, c.end) for c in found.climbed] == [(Rung.GPU_RESET, End.REFUSED)]
    assert "in use by another client" in found.climbed[0].said
    assert (found.exit_code, found.next) == (3, "rackproof recover node2 --confirm node2")
    again = mend(lab)
    assert [(c.rung, c.end) for c in again.climbed] == [(Rung.REBOOT, End.SETTLED)]
    release(lab)
    assert go(lab)["node2"].state is NodeState.ADMITTED


class Busy(FilePool):
    """A pool that counts: jobs run on node2 though it takes no more."""

    def capacity(self):
        """Nobody asks here."""
        raise AssertionError("the ladder drains nothing")

    def running(self, nodes):
        """What a drain would have to move."""
        return frozenset({"node2"} & set(nodes))


def test_a_node_on_which_jobs_still_run_is_drained_by_the_operator_first(failed):
    """Shut is not empty: exit 3, nothing is touched, and nobody's job is moved by a repair."""

    class Shared(InProcessRack):
        @property
        def pool(self):
            return Busy(self.settings.pool(self.rack.site))

    lab = failed()
    shared = Shared(**{f.name: getattr(lab, f.name) for f in fields(lab)})
    shared.pool.register("node2", "quarantined")
    before = lab.machine("node2")
    with pytest.raises(UndecidedError, match="jobs still run on node2"):
        mend(shared)
    assert lab.machine("node2") == before
    assert rungs(lab) == []
