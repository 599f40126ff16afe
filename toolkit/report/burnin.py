"""A burn-in's result: a line a GPU for each of memory, compute and health, and the findings below. Fits 80 columns.

What was not measured is a dash, never a zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.judge.evidence import Measurement, Value
from toolkit.judge.part import GpuSeat, part
from toolkit.judge.verdict import Answer, Verdict
from toolkit.rack.metric import COLLECTIVES, collective_metric
from toolkit.rack.model import Unit
from toolkit.report.text import printable

UNITS = ("fp64", "tf32", "bf16", "fp16", "int8")
ANSWER_STYLE = {Answer.PASS: "bold green", Answer.FAIL: "bold red", Answer.INCONCLUSIVE: "yellow"}
NONE = "-"


@dataclass(frozen=True, slots=True)
class GpuLine:
    """One GPU: who it is and all that was measured of it, by metric."""

    gpu: int
    serial: str
    slot: str
    measured: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class CollectiveLine:
    """One collective over all GPUs of the node: what was measured of it, by the metrics' last words (`path`)."""

    collective: str
    measured: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class FindingLine:
    """A finding that is not a pass, with the part it blames (empty: none) and the artifact it was read from."""

    code: str
    answer: Answer
    subject: str
    part: str
    detail: str
    artifact: str


@dataclass(frozen=True, slots=True)
class NodeBurnin:
    """One node's burn-in: its answer, its GPUs, what was found, and the next command (empty: nothing is left to do).

    not_asked    codes of required gates that this suite cannot answer
    alone        codes of required gates that nobody could be asked about for want of siblings, part by part
    """

    node: str
    suite: str
    answer: Answer
    code: str
    message: str
    gpus: tuple[GpuLine, ...]
    findings: tuple[FindingLine, ...]
    next: str
    collectives: tuple[CollectiveLine, ...] = ()
    not_asked: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


def gpu_lines(measurements: Iterable[Measurement], seats: Mapping[int, GpuSeat], gpus: int) -> tuple[GpuLine, ...]:
    """A line for every planned GPU, also one that nothing was measured of."""
    by_gpu: dict[int, dict[str, Value]] = {gpu: {} for gpu in range(gpus)}
    for m in measurements:
        if m.subject.gpu in by_gpu and m.subject.link < 0:
            by_gpu[m.subject.gpu][m.metric] = m.value
    empty = GpuSeat()
    return tuple(
        GpuLine(gpu, seats.get(gpu, empty).serial, seats.get(gpu, empty).pci, found) for gpu, found in by_gpu.items()
    )


def collective_lines(measurements: Iterable[Measurement]) -> tuple[CollectiveLine, ...]:
    """A line for every collective that anything was measured of."""
    values = {m.metric: m.value for m in measurements if m.subject.gpu < 0}
    lines = []
    for name in COLLECTIVES:
        known = {what: values.get(collective_metric(name, what)) for what in _OF_A_COLLECTIVE}
        lines.append(CollectiveLine(name, {what: value for what, value in known.items() if value is not None}))
    return tuple(line for line in lines if line.measured)


def finding_lines(verdict: Verdict, node: Unit, seats: Mapping[int, GpuSeat]) -> tuple[FindingLine, ...]:
    """Failures first, then doubts, of required gates."""
    failed = verdict.of(Answer.FAIL)
    lines = [
        FindingLine(f.code, f.answer, str(f.subject), part(f, node, seats, failed), f.detail, f.origin) for f in failed
    ]
    doubts = verdict.of(Answer.INCONCLUSIVE)
    return (*lines, *(FindingLine(f.code, f.answer, str(f.subject), "", f.detail, f.origin) for f in doubts))


def burnin_view(found: NodeBurnin) -> RenderableType:
    """Tables of the GPUs, findings, and what comes next."""
    title = Text(f"{found.node}: suite {found.suite}  ", "bold") + Text(found.answer, ANSWER_STYLE[found.answer])
    parts: list[RenderableType] = [title]
    if any(line.measured for line in found.gpus):
        parts += [_table(name, columns, found.gpus) for name, columns in TABLES]
    if found.collectives:
        parts.append(_table("collectives, bus bandwidth in GB/s", COLLECTIVE_COLUMNS, found.collectives))
    failed = [line for line in found.findings if line.answer is Answer.FAIL]
    parts += [_finding(line) for line in failed[:SHOWN_FINDINGS]]
    if len(failed) > SHOWN_FINDINGS:
        parts.append(Text(f"and {len(failed) - SHOWN_FINDINGS} more failures; all with --json", "dim"))
    parts += _doubts(found.findings)
    if found.answer is not Answer.PASS and found.code not in {line.code for line in found.findings}:
        parts.append(Text(printable(f"{found.code}: {found.message}"), "yellow"))
    if found.not_asked:
        parts.append(
            Text(f"suite {found.suite} does not ask {len(found.not_asked)} gates: {_counted(found.not_asked)}", "dim")
        )
    if found.alone:
        parts.append(Text(f"too few siblings to be compared with: {_counted(found.alone)}", "dim"))
    if found.next:
        parts.append(Text("next: ", "dim") + Text(printable(found.next)))
    return Group(*parts)


SHOWN_FINDINGS = 12
Line = GpuLine | CollectiveLine
Column = tuple[str, Callable[[Any], str]]  # of one kind of line each


def _counted(codes: Iterable[str]) -> str:
    return ", ".join(f"{count} x {code}" for code, count in Counter(codes).items())


def _finding(line: FindingLine) -> Text:
    about = f" {line.part or line.subject}: {line.detail}"
    return Text(line.code, ANSWER_STYLE[line.answer]) + Text(printable(about))


def _doubts(findings: Iterable[FindingLine]) -> list[Text]:
    """One line a subject: a GPU that was lost leaves a doubt of every gate."""
    codes: dict[str, list[str]] = {}
    details: dict[str, str] = {}
    for line in findings:
        if line.answer is Answer.INCONCLUSIVE:
            codes.setdefault(line.subject, []).append(line.code)
            details.setdefault(line.subject, line.detail)
    lines = []
    for subject, named in list(codes.items())[:SHOWN_FINDINGS]:
        more = f"{', '.join(named[:3])}" + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        lines.append(Text("undecided ", "yellow") + Text(printable(f"{subject}: {more}: {details[subject]}")))
    return lines


def _table(name: str, columns: Sequence[Column], lines: Iterable[Line]) -> Table:
    table = Table(title=name, title_justify="left", title_style="dim", box=None, padding=(0, 1), pad_edge=False)
    for title, _ in columns:
        table.add_column(title, justify="left" if title in _WORDS else "right", overflow="fold", header_style="dim")
    for line in lines:
        table.add_row(*(printable(value(line), 60) for _, value in columns))
    return table


_WORDS = ("serial", "slot", "units", "collective", "NCCL took", "NVLink")


def _number(metric: str, form: str = "{:,.0f}", scale: float = 1.0) -> Callable[[Line], str]:
    def text(line: Line) -> str:
        value = line.measured.get(metric)
        return form.format(value * scale) if isinstance(value, int | float) else NONE

    return text


def _word(metric: str) -> Callable[[Line], str]:
    return lambda line: str(line.measured.get(metric, NONE))


def _joined(mark: str, *parts: Callable[[GpuLine], str]) -> Callable[[GpuLine], str]:
    """Several values in one cell; one dash where there is none of them."""

    def text(line: GpuLine) -> str:
        values = [p(line) for p in parts]
        return NONE if set(values) == {NONE} else mark.join(values)

    return text


def _short(pci: str) -> str:
    """A PCI address without what is the same on every node: 00000000:1B:00.0 is 1B:00.0, 00000009:01:00.0 9:01:00.0."""
    domain, colon, rest = pci.partition(":")
    number = domain.lstrip("0")
    return (f"{number}:{rest}" if number else rest) if colon else pci


_GPU: Column = ("GPU", lambda line: str(line.gpu))
TABLES: tuple[tuple[str, tuple[Column, ...]], ...] = (
    ("memory", (
        _GPU,
        ("serial", lambda line: line.serial or NONE),
        ("slot", lambda line: _short(line.slot) or NONE),
        ("covered", _number("hbm_coverage", "{:.1%}")),
        ("verified GB", _number("hbm_bytes_verified", "{:,.1f}", 1e-9)),
        ("GB/s min", _number("hbm_sweep_gb_per_s_min", "{:,.1f}")),
        ("median", _number("hbm_sweep_gb_per_s_median", "{:,.1f}")),
        ("of peak", _number("hbm_sweep_fraction_of_peak", "{:.1%}")),
    )),
    ("compute, TFLOP/s", (
        _GPU,
        ("units", _word("gemm_units")),
        ("SMs", _number("gemm_sms_covered", "{:.0%}")),
        *((unit, _number(f"gemm_{unit}_tflop_per_s", "{:,.4g}")) for unit in UNITS),
    )),
    ("over the run", (
        _GPU,
        ("ECC cor/unc", _joined(
            "/", _number("hbm_corrected_errors_delta"), _number("hbm_uncorrected_errors_delta"),
        )),
        ("remaps", _number("row_remaps_delta")),
        ("NVLink err/rec", _joined("/", _number("nvlink_errors_delta"), _number("nvlink_recoveries_delta"))),
        ("PCIe replays", _number("pcie_replays_delta")),
        ("gen x width", _joined("x", _number("pcie_generation_loaded"), _number("pcie_width_loaded"))),
        ("C gpu/hbm", _joined("/", _number("gpu_celsius_max"), _number("hbm_celsius_max"))),
        ("W", _number("gpu_watts_max")),
    )),
)  # fmt: skip
_OF_A_COLLECTIVE = (
    "busbw_gb_per_s", "busbw_p50_gb_per_s", "largest_bytes", "wrong_values", "ranks", "transport", "path",
    "path_bytes_fraction",
)  # fmt: skip
COLLECTIVE_COLUMNS: tuple[Column, ...] = (
    ("collective", lambda line: line.collective),
    ("min", _number("busbw_gb_per_s", "{:,.1f}")),
    ("p50", _number("busbw_p50_gb_per_s", "{:,.1f}")),
    ("to GiB", _number("largest_bytes", "{:,.4g}", 1 / (1 << 30))),
    ("wrong", _number("wrong_values")),
    ("ranks", _number("ranks")),
    ("NCCL took", _word("transport")),
    ("NVLink", _word("path")),
    ("counted", _number("path_bytes_fraction", "{:.2f}")),
)
