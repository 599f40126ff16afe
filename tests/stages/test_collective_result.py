"""What a collective comes to, from what was collected: the worst is said first, and never a pass without its proof."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.facts import nccl_tests
from toolkit.facts.nccl_path import Answer, Proof
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.model import Disk, Host, Unit, UnitKind
from toolkit.stages.collective_result import Collected, Remains, cause, measured, result
from toolkit.stages.mpi_command import Order

NODES = tuple(
    Unit(f"node{i}", UnitKind.NODE, f"S{i}", i, host=Host(f"10.0.0.{i}", "", Disk("/dev/nvme0n1", "D")))
    for i in (1, 11)
)
RANKS = "".join(f"#  Rank {r:2d} Group  0 Pid 7 on node{1 + r} device  0 [0000:1b:00] NVIDIA H100\n" for r in range(2))
HEAD = f"# nThread 1 nGpus 1\n# Using devices\n{RANKS}"
TABLE = HEAD + (
    "# size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
    "  1073741824 268435456 float sum -1 4029.4 266.48 266.33 {0} 4016.4 267.34 267.85 0\n"
    "# Out of bounds values : {0} {1}\n# Avg bus bandwidth    : 267.09\n"
)
WHOLE = TABLE.format(0, "OK")
GOOD = Proof(Answer.PROVEN, "NET/IB, nic counted 1.05 of the bytes it had to carry", {"HCAs": 1.05})
CLEAN = (Remains("node1"), Remains("node11"))


def collected(output: str = WHOLE, **change: object) -> Collected:
    """A run that went well, but for what is said."""
    run = nccl_tests.parse(output)
    good = Collected(Order("c1", "all_reduce", NODES, 1, 60), run, GOOD, "exited", 0, 9.0, output, CLEAN)
    return replace(good, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ({"remains": (CLEAN[0], Remains("node11", 3, ("77 all_reduce_perf -b 8",)))}, "COLLECTIVE_ORPHANS",
         "do not die on node11: 77 all_reduce_perf"),
        ({"remains": (CLEAN[0], Remains("node11", problem="no answer"))}, "COLLECTIVE_END_UNPROVEN", "node11: no"),
        ({"problem": "guest on node11 for c1: no"}, "COLLECTIVE_NOT_FOLLOWED", "guest on node11"),
        ({"proof": Proof(Answer.WRONG, "measured the wrong fabric: SHM", {})}, "WRONG_FABRIC", "SHM"),
        ({"proof": Proof(Answer.UNPROVEN, "nothing proves it", {})}, "FABRIC_UNPROVEN", "nothing proves"),
        ({"order": Order("c1", "all_reduce", NODES, 8, 60)}, "COLLECTIVE_RANKS_MISSING", "2 ranks where 16"),
    ],
)  # fmt: skip
def test_a_table_that_looks_good_is_not_enough(what: dict[str, object], code: str, words: str) -> None:
    """Left-over ranks, an end nobody saw, another fabric, fewer ranks: each an ERROR of its own."""
    ended = result(collected(**what))
    assert (ended.outcome, ended.code, words in ended.message) == (Outcome.ERROR, code, True), ended


@pytest.mark.parametrize(
    ("output", "how", "code", "words"),
    [
        (HEAD, "deadline", "COLLECTIVE_INCOMPLETE", "no end within 60 s, 0 rows and 2 ranks printed"),
        ("ssh: connect to host 10.0.0.11 port 22: Connection refused\n", "exited", "COLLECTIVE_LAUNCHER_ERROR",
         "ssh: connect to host node11 (10.0.0.11) port 22: Connection refused"),
        ("root@10.0.0.1: Permission denied (publickey).\n", "exited", "COLLECTIVE_LAUNCHER_ERROR", "node1 (10.0.0.1)"),
        (f"{HEAD}node11: Test NCCL failure common.cu:961 'unhandled system error'\n", "exited", "COLLECTIVE_CRASHED",
         "node11: Test NCCL failure"),
        (f"{HEAD}process rank 1 exited on signal 15\n", "deadline", "COLLECTIVE_INCOMPLETE", "60 s"),
        (WHOLE + HEAD, "exited", "COLLECTIVE_NOT_ONE_COMMUNICATOR", "status 0"),
        ("invalid option 'J'\nUSAGE: all_reduce_perf\n", "exited", "COLLECTIVE_BAD_USAGE", "USAGE"),
        ("", "", "COLLECTIVE_INCOMPLETE", "no end"),
    ],
)  # fmt: skip
def test_each_way_of_failing_has_its_code_and_its_cause(output: str, how: str, code: str, words: str) -> None:
    """In the program's own words, with nodes by their names."""
    ended = result(collected(output, how=how))
    assert (ended.outcome, ended.code) == (Outcome.ERROR, code), ended
    assert words in ended.message


def test_wrong_data_is_a_measurement_for_the_gate() -> None:
    """The run came to its end and says something of the hardware: the stage does not hide it as an ERROR."""
    bad = collected(TABLE.format(763876, "FAILED"))
    assert result(bad).outcome is Outcome.PASSED
    assert ("rack_nccl_all_reduce_wrong_values", "count", 763876) in measured(bad)


def test_a_table_that_is_cut_gives_no_bandwidth() -> None:
    """Ranks and sizes that were seen are said; a number needs the whole table."""
    names = [metric for metric, _, _ in measured(collected(WHOLE.split("# Out")[0]))]
    assert "rack_nccl_all_reduce_ranks" in names and not any("busbw" in n or "wrong" in n for n in names)


def test_the_cause_is_bounded_and_printable() -> None:
    """A hostile node's words."""
    text = cause(collected("ssh: \x1b[31m" + "x" * 100_000 + "\n", how="exited"))
    assert len(text) <= 1000 and text.isprintable()


def test_a_node_that_is_gone_is_named_whatever_the_launcher_says() -> None:
    """mpirun often says only that something could not be started."""
    gone = (CLEAN[0], Remains("node11", problem="running python3 on node11 (10.0.0.11:22): timed out"))
    ended = result(collected(f"{HEAD}-----\nORTE gives up\n-----\n", remains=gone, status=255))
    assert "status 255; ORTE gives up; nobody can tell what still runs on node11" in ended.message
