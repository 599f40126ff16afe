"""A burn-in's tables: they fit 80 columns, and what was not measured is a dash."""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.part import GpuSeat
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer, judge
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.loading import load_rack
from toolkit.report.burnin import NodeBurnin, burnin_view, collective_lines, finding_lines, gpu_lines
from toolkit.report.gpu_watch import GpuWatch
from toolkit.settings import load
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import healthy_state
from toolkit.virtual.in_process_burnin import BurnIn

RACK = load_rack("demo-small", load({}).inventory)
NODE = RACK.nodes[1]
SEATS = {g.index: GpuSeat(g.serial, g.pci) for g in healthy_state(NODE, RACK.profile).gpus}
NOW = datetime.now(UTC)


def measured(*faults):
    """What a burn-in of the node with these faults measures."""
    found = []
    for record in BurnIn(NODE, RACK.profile, faults, "run", RACK.profile.suite).records(0):
        if record.record == "measurement":
            subject = Subject(Scope.NODE, NODE.name)
            if record.gpu is not None:
                subject = Subject(Scope.GPU, NODE.name, gpu=record.gpu)
            found.append(Measurement(record.metric, record.unit, record.value, subject, NOW, "run", "ab" * 32))
    return found


def result(measurements, seats=SEATS):
    """The node's burn-in as the verb would show it, by the burn-in's gates."""
    # Of one node: nothing is compared with siblings.
    gates = [g for g in RACK.profile.gates if g.stage == "burnin" and g.operator is not Operator.PEERS]
    gates = [g for g in gates if any(m.metric == g.metric for m in measurements)]
    profile = RACK.profile
    verdict = judge(gates, planned_subjects(NODE, profile), measurements, NOW, profile.evidence_max_age)
    findings = finding_lines(verdict, NODE, seats)
    lines = gpu_lines(measurements, seats, profile.gpus_per_node)
    code = findings[0].code if findings else ""
    found = NodeBurnin(NODE.name, "quick", verdict.answer, code, "", lines, findings, "rackproof why node2")
    return replace(found, collectives=collective_lines(measurements))


def shown(found, width=80):
    """What a terminal of that width gets."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(burnin_view(found))
    return console.file.getvalue()


def test_a_healthy_node_has_a_line_a_gpu_and_fits_80_columns():
    """Serial, slot, coverage, bandwidth, units, SMs, deltas: nothing is cut off, nothing wraps."""
    text = shown(result(measured()))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "node2: suite quick  PASS" in lines[0]
    assert sum(line.lstrip().startswith("7 ") for line in lines) == 3, "one line of GPU 7 in each of three tables"
    for part in ("16500000207", "DF:00.0", "98.5%", "3,320.0", "2,850.0", "2,900.0", "86.5%", "100%", "610", "5x16"):
        assert part in text


def test_a_collective_has_a_line_with_its_way_and_what_the_links_counted():
    """In 80 columns; a proof that is not there is a dash."""
    path = [("nccl_reduce_scatter_path", "proven"), ("nccl_reduce_scatter_path_bytes_fraction", 1.05)]
    node = Subject(Scope.NODE, NODE.name)
    text = shown(result([*measured(), *(Measurement(m, "", v, node, NOW, "run", "") for m, v in path)]))
    assert max(map(len, text.splitlines())) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("all_", "reduce_"))}
    assert rows["all_reduce"] == ["478.0", "478.0", "8", "0", "8", "NVLS", "-", "-"]
    assert rows["reduce_scatter"] == ["369.0", "369.0", "8", "0", "8", "P2P/direct", "proven", "1.05"]


def test_what_fails_is_named_below_with_part_and_next_command():
    """Code, GPU, serial and slot."""
    text = shown(result(measured(Fault(FaultKind.HBM_STICKY_BIT, "node2", gpu=5))))
    flat = " ".join(text.split())
    assert "FAIL" in text.splitlines()[0]
    assert "HBM_MISCOMPARE GPU 5 (16500000205 at 00000000:C3:00.0): hbm_miscompares 4 count" in flat
    assert flat.endswith("next: rackproof why node2")


def test_what_was_not_measured_is_a_dash_and_never_a_zero():
    """A GPU that fell off the bus has a line of dashes."""
    found = result(measured(Fault(FaultKind.XID_79, "node2", gpu=2)))
    (line,) = [g for g in found.gpus if g.gpu == 2]
    assert "hbm_coverage" not in line.measured
    row = next(text for text in shown(found).splitlines() if text.lstrip().startswith("2 "))
    assert row.split()[3:] == ["-", "-", "-", "-", "-"]
    text = " ".join(shown(found).split())
    assert "GPU_LOST GPU 2 (16500000202 at 00000000:52:00.0): gpus_lost 1 count, must be at most 0" in text
    assert "undecided node2/gpu2: HBM_COVERAGE_LOW, HBM_MISCOMPARE, HBM_ECC_UNCORRECTED and 2" in text
    nothing = replace(found, gpus=gpu_lines((), {}, 8), findings=(), answer=Answer.INCONCLUSIVE, code="BURNIN_CUT")
    assert "BURNIN_CUT" in shown(nothing)


def test_a_hostile_serial_moves_no_cursor():
    """What a node says is printed as text."""
    seats = SEATS | {0: GpuSeat("\x1b[2J\x07evil", "\x1b]0;owned\x07")}
    text = shown(result(measured(Fault(FaultKind.HBM_FLIP, "node2", gpu=0)), seats), 200)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "evil" in text


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "log"])
def test_progress_is_shown_per_gpu(terminal):
    """A line a GPU on a terminal; in a log one when it takes up another workload, not for every step."""
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal, color_system=None)
    with GpuWatch(console) as watch:
        for step in range(40):
            for gpu in (0, 1):
                watch.show("node1", gpu, f"hbm sweep {step} of 40", step / 40)
        watch.show("node1", 1, "gemm bf16", 0.1)
        if terminal:
            Console.print(console, watch._render())
    text = console.file.getvalue()
    assert "node1 gpu0" in text
    assert "node1 gpu1" in text
    if not terminal:
        assert len(text.splitlines()) == 3
        assert text.splitlines()[-1] == "node1 gpu1: gemm bf16"
