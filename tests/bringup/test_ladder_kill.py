"""The ladder killed between its rungs and within them: no rung is done twice."""

import os
import signal
from dataclasses import fields

import pytest
from laddering import CONFIRMED, DOUBLE_BIT, copies, mend, rungs
from rehearsal import context_over, open_ledger

from tests.bringup.test_kill import MortalStore
from toolkit.judge.ladder import Rung
from toolkit.ledger import EventKind
from toolkit.redfish import Power
from toolkit.repair import Order, recover
from toolkit.stages.rungs import End
from toolkit.virtual.in_process import InProcessRack


def dies(lab, after, order=CONFIRMED):
    """`recover` in a process of its own, killed after so many appends. Answers whether it lived."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            with open_ledger(lab.settings) as ledger:
                ledger._store.__class__ = MortalStore
                MortalStore.commits, MortalStore.dies_after = 0, after
                code = recover(context_over(lab, ledger), "node2", order).exit_code
            (lab.folder / "commits").write_text(str(MortalStore.commits))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "recover raised; run it in this process to see"
    return os.WIFEXITED(status)


@pytest.mark.parametrize(
    ("how", "boots", "ac"),
    [({}, 1, 0), ({"warm_boot_helps": False}, 2, 0), ({"warm_boot_helps": False, "ac_cycles": True}, 2, 1)],
    ids=["reboot", "off and on", "AC cycle"],
)
def test_killed_after_every_append_each_rung_is_done_once(failed, how, boots, ac):
    """Between the rungs and within them: as many boots as without a kill, and the same end."""
    calm = failed(**how)
    before = calm.machine("node2").boots
    assert dies(calm, None)
    commits = int((calm.folder / "commits").read_text())
    assert calm.machine("node2").boots == before + boots
    assert commits >= 2 + 2 * boots
    for after in range(1, commits + 1):
        lab = failed(**how)
        dies(lab, after)
        found = mend(lab) if rungs(lab, EventKind.OBSERVED)[-1:] == [] or not _over(lab) else None
        machine = lab.machine("node2")
        assert (machine.boots, machine.ac_cycles) == (before + boots, ac), f"killed after append {after} of {commits}"
        assert machine.power == Power.ON.value
        assert machine.fallen == []
        assert found is None or found.exit_code == 0
        assert [r["outcome"] for r in rungs(lab, EventKind.OBSERVED)].count("settled") == 1


def _over(lab):
    """Whether the killed one had everything done already."""
    return rungs(lab, EventKind.OBSERVED)[-1]["outcome"] == "settled"


def test_killed_after_every_append_the_gpus_are_reset_once(tmp_path):
    """The ladder's own record and that of the reset within it: whichever was cut off, one reset."""
    copy = copies(tmp_path, DOUBLE_BIT)
    calm = copy()
    assert dies(calm, None, Order())
    commits = int((calm.folder / "commits").read_text())
    assert commits >= 6
    for after in range(1, commits + 1):
        lab = copy()
        dies(lab, after, Order())
        if not rungs(lab, EventKind.OBSERVED):
            assert mend(lab, Order()).exit_code == 0
        assert lab.machine("node2").resets == 1, f"killed after append {after} of {commits}"
        assert [r["outcome"] for r in rungs(lab, EventKind.OBSERVED)] == ["settled"]


class DiesInTheAct(InProcessRack):
    """Its controller is killed when the machine has gone down, and nothing of it is on record yet."""

    def run(self, node, argv, timeout_s, max_bytes=1 << 22):
        """The reboot happens; nobody gets to hear of it."""
        answer = super().run(node, argv, timeout_s, max_bytes)
        if argv[:2] == ["systemctl", "reboot"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def test_killed_in_the_very_reboot_the_boot_id_tells_and_it_is_not_done_again(failed):
    """Intent, boot, death: the next one finds another boot id and only looks."""
    lab = failed()
    before = lab.machine("node2").boots
    mortal = DiesInTheAct(**{f.name: getattr(lab, f.name) for f in fields(lab)})
    assert not dies(mortal, None)
    assert lab.machine("node2").boots == before + 1
    assert rungs(lab, EventKind.OBSERVED) == []
    assert dies(mortal, None), "it does not come to a second reboot, or it would die of it again"
    assert lab.machine("node2").boots == before + 1
    assert [r["outcome"] for r in rungs(lab, EventKind.OBSERVED)] == ["settled"]


def test_a_node_that_does_not_come_back_is_not_rebooted_again(failed):
    """Nobody can tell: exit 3, and the next rung is the one that its power tells of."""
    lab = failed()
    before = lab.machine("node2").boots

    class Stays(InProcessRack):
        def run(self, node, argv, timeout_s, max_bytes=1 << 22):
            answer = super().run(node, argv, timeout_s, max_bytes)
            if argv[:2] == ["systemctl", "reboot"]:
                self.silent.add(node.name)
            return answer

    stays = Stays(**{f.name: getattr(lab, f.name) for f in fields(lab)})
    found = mend(stays)
    assert [(c.rung, c.end) for c in found.climbed] == [(Rung.REBOOT, End.UNKNOWN)]
    assert found.exit_code == 3
    again = mend(stays)
    assert [(c.rung, c.end) for c in again.climbed] == [(Rung.POWER_CYCLE, End.SETTLED)]
    assert lab.machine("node2").boots == before + 2
