"""What the burn-in reaches on a GPU, as ratios to a baseline of the same run: bandwidth, products, detection, cost.

    .venv/bin/python benchmarks/gpu.py [--gpu 0] [--seconds 10] [--json FILE] [--unproven] [--cublas FILE]
    python3 benchmarks/gpu.py --archive burnin.pyz     on a node: nothing but python3 and the archive
    .venv/bin/python benchmarks/gpu.py --virtual       on a virtual GPU: it runs to its end, rates mean nothing

Exit 0 when it came to its end, whatever the goals; 3 where there is no GPU. Nobody else should use the GPU meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

_STARTED = "RACKPROOF_BENCHMARK"
_VIRTUAL_STATE = Path("/run/hardware/state")
_LIMIT_S = 600.0
_UNITS = ("bf16", "fp16", "tf32", "int8", "fp64")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure; `ratio` is to `baseline`, `goal` the least it should be (None: there is none)."""

    what: str
    value: str
    baseline: str = ""
    ratio: float | None = None
    goal: float | None = None

    def text(self) -> str:
        """One line of the report."""
        ratio = "" if self.ratio is None else f"{self.ratio:8.3f}"
        met = "" if self.goal is None else f"goal {self.goal:.2f} " + self._met()
        return f"  {self.what:34}{self.value:>26}  {self.baseline:36}{ratio:>8}  {met}".rstrip()

    def _met(self) -> str:
        if self.ratio is None or self.goal is None:
            return "not measured"
        return "met" if self.ratio >= self.goal else "MISSED"


@dataclass(slots=True)
class Report:
    """All that was found; sections are printed as they come."""

    virtual: bool
    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passes: list[dict[str, Any]] = field(default_factory=list)

    def section(self, title: str, lines: Sequence[Line | str]) -> None:
        """Print and keep."""
        print(f"\n{title}")
        for line in lines:
            print(line if isinstance(line, str) else line.text(), flush=True)
            if isinstance(line, Line):
                self.lines.append(line)
            else:
                self.notes.append(line.strip())


def main() -> int:
    """Build what is needed, start anew with it, measure."""
    options = _options()
    if _STARTED not in os.environ:
        return _start_anew(options)
    import forked
    import gpu_work

    listed = forked.run(gpu_work.gpus, 60)
    if listed.failure or not isinstance(listed.answer, list) or options.gpu >= len(listed.answer):
        print(f"no GPU {options.gpu}: {listed.failure or listed.answer}; nothing was measured")
        return 3
    report = Report(virtual=options.virtual or bool(os.environ.get("RACKPROOF_HARDWARE")) or _VIRTUAL_STATE.exists())
    with tempfile.TemporaryDirectory() as folder:
        reached = _Benchmark(report, listed.answer[options.gpu], options, Path(folder)).run()
    if not reached:
        return 3
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="NVML's index (default 0)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for each measurement (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--unproven", action="store_true", help="also FP8 kernels that no GPU has confirmed yet")
    parser.add_argument("--cublas", metavar="FILE", help="libcublas.so to compare products with")
    parser.add_argument("--nccl-tests", metavar="FILE", help="all_reduce_perf, where it is not in PATH")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="a burnin.pyz that is built already")
    parser.add_argument("--virtual", action="store_true", help="on a virtual GPU, made for the occasion")
    return parser.parse_args()


def _start_anew(options: argparse.Namespace) -> int:
    """This script again, where `burnin` is what is shipped to nodes, with kernels. Its exit status."""
    if options.virtual:
        from virtual_gpu import run_again

        return run_again(Path(__file__), sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        archive = options.archive or Path(folder) / "burnin.pyz"
        if not options.archive:
            from toolkit import settings
            from toolkit.stages.archive import build_archive

            build_archive(archive, settings.load().cache)
        environment = {**os.environ, _STARTED: "1", "PYTHONPATH": str(archive.resolve())}
        return subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=environment, check=False).returncode


class _Benchmark:
    """The sections, in order. What one cannot measure it says, and the others go on."""

    def __init__(self, report: Report, facts: dict[str, Any], options: argparse.Namespace, folder: Path) -> None:
        self._report = report
        self._facts = facts
        self._pci = str(facts.get("pci", ""))
        self._options = options
        self._folder = folder

    def run(self) -> bool:
        """All of it; False when the GPU cannot be used."""
        import gpu_work

        ran = self._forked(lambda: gpu_work.device(self._pci))
        if not isinstance(ran, dict):
            print(f"GPU {self._options.gpu} cannot be used: {ran}; nothing was measured")
            return False
        self._report.facts = {**self._facts, **ran}
        if self._report.virtual:
            print("virtual GPU: rates mean nothing")
        self._report.section("machine", [f"  {key:24}{value}" for key, value in self._report.facts.items()])
        sections: tuple[tuple[str, Callable[[], Sequence[Line | str]]], ...] = (
            ("bandwidth", self._bandwidth),
            ("all memory, the quick suite's steps", self._steps),
            ("bits turned by the host between steps", self._detection),
            ("products", self._products),
            ("memory and products in turn", self._together),
            ("telemetry", self._telemetry),
            ("nccl-tests", self._nccl),
        )
        for title, section in sections:
            self._report.section(title, section())
        return True

    def _forked(self, work: Callable[[], object]) -> Any:
        """The answer of a fork, or why there is none."""
        import forked

        ran = forked.run(work, _LIMIT_S)
        return f"not measured: {ran.failure}" if ran.failure else ran.answer

    def _workload(self, name: str, *options: str) -> tuple[dict[str, Any], str, float]:
        """A workload as the suite starts it: measurements, why it failed or '', wall seconds."""
        begun = time.monotonic()
        command = [
            sys.executable, "-m", "burnin", "workload", name, "--run", "benchmark", "--suite", "quick", "--gpu", "0",
            "--out", str(self._folder), "--pci", self._pci, *options,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, cwd=self._folder
            )
        except subprocess.TimeoutExpired:
            return {}, f"not done after {_LIMIT_S:.0f} s", time.monotonic() - begun
        records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        ends = [r for r in records if "outcome" in r]
        measured = {r["metric"]: r["value"] for r in records if "metric" in r}
        took = time.monotonic() - begun
        if ends and ends[-1]["outcome"] == "completed":
            return measured, "", took
        return measured, f"{ends[-1]['outcome']}: {ends[-1]['detail']}" if ends else done.stderr[-500:], took

    def _bandwidth(self) -> Sequence[Line | str]:
        import gpu_work

        found = self._forked(lambda: gpu_work.rates(self._pci, self._options.seconds))
        if not isinstance(found, dict):
            return [f"  {found}"]
        peak = self._report.facts.get("peak_gb_per_s")
        copies = {name: found[name] for name in ("move", "copy") if found[name]}
        best = max(copies, key=lambda name: copies[name], default="")
        words = {"move": "our exchange of halves", "copy": "cuMemcpyDtoD", "": "no copy"}
        return [
            _rate("check and write, random data", found["sweep"], words[best], copies.get(best), 0.90),
            _rate("check alone", found["verify"], "computed peak", peak, 0.80),
            _rate("check and write", found["sweep"], "computed peak", peak),
            *(_rate(words[name], rate, "computed peak", peak) for name, rate in copies.items()),
        ]

    def _steps(self) -> Sequence[Line | str]:
        measured, failure, took = self._workload("hbm", "--seconds", "0", "--rounds", "1")
        path = self._folder / "hbm_steps_gpu0.json"
        passes = json.loads(path.read_text())["passes"] if path.exists() else []
        self._report.passes = passes
        moved = sum(p["bytes_written"] + p["bytes_verified"] for p in passes)
        on_gpu = sum(p["ms"] for p in passes) / 1e3
        return [
            *([f"  failed: {failure}"] if failure else []),
            Line("covered of free memory", "", "at least", measured.get("hbm_coverage"), 0.97),
            Line("wrong words", str(measured.get("hbm_miscompares", "not counted"))),
            Line("whole process", f"{took:.2f} s", f"on the GPU {on_gpu:.2f} s", on_gpu / took if took else None),
            Line("bytes checked or written", f"{moved / 1e9:.1f} GB", f"in {len(passes)} passes"),
            *_by_pattern(passes),
        ]

    def _detection(self) -> Sequence[Line | str]:
        import gpu_work

        found = self._forked(lambda: gpu_work.detection(self._pci, 1))
        if not isinstance(found, dict):
            return [f"  {found}"]
        share = found["found"] / found["injected"] if found["injected"] else None
        return [
            Line("found at their place", f"{found['found']}", f"of {found['injected']}", share, 1.0),
            Line("found elsewhere", str(found["others"]), "should be 0"),
        ]

    def _products(self) -> Sequence[Line | str]:
        import gpu_work

        unproven = ["--unproven"] if self._options.unproven else []
        seconds = str(self._options.seconds * len(_UNITS) / 2)
        first, failure, _ = self._workload("gemm", "--seconds", seconds, *unproven)
        again, _, _ = self._workload("gemm", "--seconds", "0", *unproven)
        library = self._forked(lambda: gpu_work.library(self._pci, self._options.seconds / 4, self._options.cublas))
        library = library if isinstance(library, dict) else {"absent": library}
        digests = first.get("gemm_digest"), again.get("gemm_digest")
        same = float(digests[0] == digests[1]) if all(digests) else None
        return [
            *([f"  failed: {failure}"] if failure else []),
            f"  exercised: {first.get('gemm_units', 'none')}; not: {first.get('gemm_units_not_exercised', 'unknown')}",
            Line("SMs covered by every unit", "", "all", first.get("gemm_sms_covered"), 1.0),
            Line("wrong tiles", str(first.get("gemm_wrong_tiles", "not counted")), f"of {first.get('gemm_runs')}"),
            Line("digest, same in a second run", str(digests[0]), str(digests[1]), same, 1.0),
            *(_product(unit, first.get(f"gemm_{unit}_tflop_per_s"), library) for unit in _UNITS),
            *self._unproven(),
            f"  library: {library.get('path') or library.get('absent')} {library.get('version', '')}",
        ]

    def _unproven(self) -> list[Line]:
        """Units whose kernels no GPU has confirmed yet: they were asked for, and accuse nobody."""
        path = self._folder / "gemm_gpu0.json"
        units = json.loads(path.read_text())["unproven"] if path.exists() else []
        return [
            Line(
                f"{u['unit']} (unproven)",
                f"{median(u['tflop_per_s']):.4g} TFLOP/s" if u["tflop_per_s"] else "did not run",
                f"{u['wrong']} of {u['tiles']} tiles wrong",
            )
            for u in units
        ]

    def _together(self) -> Sequence[Line | str]:
        measured, failure, _ = self._workload("together", "--seconds", str(self._options.seconds))
        return [
            *([f"  failed: {failure}"] if failure else []),
            Line("wrong words", str(measured.get("together_miscompares", "not counted"))),
            Line("wrong tiles", str(measured.get("together_wrong_tiles", "not counted"))),
        ]

    def _telemetry(self) -> Sequence[Line | str]:
        """Sweeps with and without it, in turn; the medians are compared."""
        import gpu_work

        rates: dict[bool, list[float]] = {False: [], True: []}
        for watched in (False, True) * 2:
            watch = self._watch() if watched else None
            rate = self._forked(lambda: gpu_work.sweep_rate(self._pci, self._options.seconds / 2))
            if watch is not None:
                watch.communicate(timeout=_LIMIT_S)
            if isinstance(rate, float):
                rates[watched].append(rate)
        if not all(rates.values()):
            return ["  not measured: sweeps gave no rate"]
        return [_rate("sweeps with telemetry", median(rates[True]), "without", median(rates[False]), 0.99)]

    def _watch(self) -> subprocess.Popen[str]:
        """Telemetry as the suite starts it: a sample a second until its input ends."""
        return subprocess.Popen(
            [sys.executable, "-m", "burnin", "workload", "nvml", "--run", "benchmark", "--suite", "quick",
             "--out", str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self._folder,
        )  # fmt: skip

    def _nccl(self) -> Sequence[Line | str]:
        program = self._options.nccl_tests or shutil.which("all_reduce_perf")
        if not program:
            return ["  all_reduce_perf is not here: not run"]
        done = subprocess.run(
            [program, "-b", "8", "-e", "256M", "-f", "8", "-g", "1", "-c", "1"],
            capture_output=True, text=True, timeout=_LIMIT_S, check=False,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": str(self._facts.get("uuid", self._options.gpu))},
        )  # fmt: skip
        checks = [line for line in done.stdout.splitlines() if line.startswith("# Out of bounds values")]
        return [Line("exit status", str(done.returncode)), f"  {checks[-1] if checks else 'no result: it did not end'}"]


def _rate(what: str, rate: float | None, against: str, baseline: float | None, goal: float | None = None) -> Line:
    value = "not measured" if rate is None else f"{rate:.1f} GB/s"
    words = f"{against} {baseline:.1f} GB/s" if baseline else f"{against}: unknown"
    return Line(what, value, words, rate / baseline if rate and baseline else None, goal)


def _product(unit: str, rate: float | None, library: Mapping[str, Any]) -> Line:
    theirs = library.get(unit)
    value = "not measured" if rate is None else f"{rate:.4g} TFLOP/s"
    return Line(
        unit,
        value,
        f"library {theirs:.4g} TFLOP/s" if theirs else "no library product",
        rate / theirs if rate and theirs else None,
    )


def _by_pattern(passes: Sequence[Mapping[str, Any]]) -> list[str]:
    """GB/s of each kind of pass, least and median."""
    kinds: dict[str, list[float]] = {}
    for one in passes:
        if one["gb_per_s"] is not None:
            kind = (one["written"] or one["checked"] or "").lstrip("~").split(" ")[0].rstrip(",")
            kinds.setdefault(f"{one['action']} {kind}".strip(), []).append(one["gb_per_s"])
    return [
        f"    {kind:24}{len(rates):4} passes{min(rates):10.1f} GB/s least{median(rates):10.1f} median"
        for kind, rates in kinds.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
