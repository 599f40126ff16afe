"""Which rung can help: by a source, for every finding that blames hardware, once for a board."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.judge.ladder import BY_ACTION, BY_EVENTS, HELPS, Cause, Rung, Tried, help_for, ladder
from toolkit.judge.part import BLAMELESS
from toolkit.judge.xids import Rule, read_text
from toolkit.rack.loading import list_profiles, load_profile
from toolkit.report.codes import ERROR_CODES
from toolkit.settings import load

INVENTORY = load({}).inventory
AT = datetime(2026, 11, 23, tzinfo=UTC)
LOST = Cause("GPU_LOST", "node2", "S3")
ROW = Cause("ROW_REMAP_PENDING", "node2/gpu3", "S3")


def tried(rung, incident="now", code="GPU_LOST", board="S3"):
    """A rung on record."""
    return Tried(rung, incident, frozenset({code}), frozenset({board}), AT)


def names(found):
    """The rungs that are left."""
    return [rung for rung, _ in found.rungs]


def shipped_gates():
    """Every gate of every profile."""
    return [gate for name in list_profiles(INVENTORY) for gate in load_profile(name, INVENTORY).gates]


def test_every_finding_that_blames_hardware_has_its_word_and_every_word_a_finding():
    """A new gate must say what can mend it; a code that is no finding any more leaves the table."""
    hardware = {gate.code for gate in shipped_gates() if gate.part not in BLAMELESS}
    known = set(HELPS) | BY_EVENTS | BY_ACTION
    assert hardware - known == set()
    assert known - {gate.code for gate in shipped_gates()} - set(ERROR_CODES) == set()
    assert all(found.source for found in HELPS.values())


def test_a_finding_nobody_thought_of_is_mended_by_nothing():
    """Never a restart to see what happens."""
    assert help_for(Cause("NEVER_SEEN", "node2")).rungs == ()
    assert ladder([Cause("NEVER_SEEN", "node2")], (), "now").rungs == ()
    assert ladder([], (), "now").rungs == ()


def test_the_lowest_rung_that_helps_every_finding_comes_first():
    """A row waits for a reset; a lost GPU for a boot; both together for the boot, which is a reset too."""
    assert names(ladder([ROW], (), "now")) == [Rung.GPU_RESET, Rung.REBOOT]
    assert names(ladder([LOST], (), "now")) == [Rung.REBOOT, Rung.POWER_CYCLE]
    assert names(ladder([ROW, LOST], (), "now")) == [Rung.REBOOT, Rung.POWER_CYCLE]


def test_one_finding_that_nothing_mends_keeps_the_node_off_the_ladder():
    """A rerun that passed would hide it, whatever else a reset would mend."""
    wrong = Cause("HBM_MISCOMPARE", "node2/gpu3", "S3")
    found = ladder([ROW, wrong], (), "now")
    assert found.rungs == ()
    assert found.why.startswith("HBM_MISCOMPARE on node2/gpu3: wrong data")


def test_what_a_row_leaves_behind_it_stands_or_falls_with_it():
    """Corrected errors of the GPU whose row waits are the row's; those of another GPU are not."""
    echo = Cause("HBM_ECC_CORRECTED", "node2/gpu3", "S3")
    assert names(ladder([ROW, echo], (), "now")) == [Rung.GPU_RESET, Rung.REBOOT]
    assert ladder([ROW, replace(echo, subject="node2/gpu5", board="S5")], (), "now").rungs == ()
    assert ladder([ROW, replace(echo, subject="node2/gpu31", board="S31")], (), "now").rungs == ()
    assert ladder([echo], (), "now").rungs == ()


def test_a_rung_is_tried_once_for_a_failure_and_the_next_is_higher():
    """After the reboot comes power, never the reboot again, never a rung below."""
    assert names(ladder([LOST], [tried(Rung.REBOOT)], "now")) == [Rung.POWER_CYCLE]
    assert names(ladder([LOST], [tried(Rung.POWER_CYCLE)], "now")) == []
    both = [tried(Rung.REBOOT), tried(Rung.POWER_CYCLE)]
    assert ladder([LOST], both, "now").why == "reboot, power_cycle did not mend it"


def test_what_is_back_on_the_same_board_is_past_the_ladder():
    """Another board, another code, or a board nobody knows, is not."""
    before = [tried(Rung.REBOOT, "before")]
    found = ladder([LOST], before, "now")
    assert found.rungs == ()
    assert "reboot on 2026-11-23 was for the same, and it is back" in found.why
    assert names(ladder([replace(LOST, board="S9")], before, "now"))
    assert names(ladder([replace(LOST, board="")], [tried(Rung.REBOOT, "before", board="")], "now"))
    assert names(ladder([ROW], before, "now"))


def test_a_rung_that_is_not_there_is_passed_over_by_name():
    """A rented node: reboot, and then why there is no power cycle."""
    absent = {Rung.POWER_CYCLE: "it is rented"}
    found = ladder([LOST], (), "now", absent)
    assert names(found) == [Rung.REBOOT]
    assert found.passed_over == ((Rung.POWER_CYCLE, "it is rented"),)
    assert "power_cycle is not to be had: it is rented" in ladder([LOST], [tried(Rung.REBOOT)], "now", absent).why


@pytest.mark.parametrize(
    ("rules", "rungs"),
    [
        ((Rule.RESET_AND_RERUN,), (Rung.GPU_RESET, Rung.REBOOT)),
        ((Rule.RESET_AND_RERUN, Rule.REBOOT), (Rung.REBOOT, Rung.POWER_CYCLE)),
        ((Rule.RESET_AND_RERUN, Rule.RMA_TRIAGE), ()),
        ((Rule.SERVICE,), ()),
        ((Rule.RERUN,), ()),
        ((), ()),
    ],
)
def test_the_worst_event_of_the_kernels_log_decides(rules, rungs):
    """What is milder than a reset needs no rung, what is graver than a boot a technician."""
    assert help_for(Cause("XID_HARDWARE", "node2/gpu3", rules=rules)).rungs == rungs


@pytest.mark.parametrize(
    ("number", "text", "rungs"),
    [
        (79, "GPU has fallen off the bus.", (Rung.REBOOT, Rung.POWER_CYCLE)),
        (62, "", (Rung.GPU_RESET, Rung.REBOOT)),
        (63, "Row Remapper: New row marked for remapping", (Rung.GPU_RESET, Rung.REBOOT)),
        (64, "Row Remapping table is full", ()),
        (160, "channel repair pending node reboot", (Rung.REBOOT, Rung.POWER_CYCLE)),
        (54, "", ()),
        (31, "", ()),
    ],
)
def test_nvidias_actions_name_the_rung(number, text, rungs):
    """RESET_GPU, RESTART_BM, and what its text decides (NVIDIA Xid catalog)."""
    assert help_for(Cause("XID_MEMORY", "node2/gpu3", rules=(read_text(number, text).rule,))).rungs == rungs


@pytest.mark.parametrize(
    ("action", "rungs"),
    [
        (1, (Rung.GPU_RESET, Rung.REBOOT)), (4, (Rung.GPU_RESET, Rung.REBOOT)), (2, (Rung.REBOOT, Rung.POWER_CYCLE)),
        (7, (Rung.REBOOT, Rung.POWER_CYCLE)), (0, ()), (5, ()), (99, ()), ("", ()), (None, ()),
    ],
)  # fmt: skip
def test_the_drivers_own_recovery_action_is_obeyed(action, rungs):
    """NVML field 230; one that is not known asks for nothing."""
    assert help_for(Cause("RECOVERY_ACTION_AFTER", "node2/gpu3", value=action)).rungs == rungs


@given(
    st.lists(st.sampled_from(sorted({*HELPS, *BY_EVENTS, *BY_ACTION, "NEVER_SEEN"})), min_size=1, max_size=4),
    st.lists(st.sampled_from(Rung), max_size=3),
)
def test_no_rung_is_ever_offered_twice_or_below_one_that_was_done(codes, done):
    """Whatever failed and whatever was done: the ladder only goes up."""
    causes = [Cause(code, f"node2/gpu{n}", f"S{n}", 1, (Rule.REBOOT,)) for n, code in enumerate(codes)]
    left = names(ladder(causes, [tried(rung) for rung in done], "now"))
    heights = [list(Rung).index(rung) for rung in left]
    assert heights == sorted(set(heights))
    assert all(height > list(Rung).index(rung) for height in heights for rung in done)
