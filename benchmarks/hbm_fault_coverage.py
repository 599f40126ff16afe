"""Which faults of memory and compute each tool catches: random instances of each class on a virtual GPU.

    .venv/bin/python benchmarks/hbm_fault_coverage.py [--instances 12] [--clean 1000] [--seed 1] [--quick] [--json]

ours (quick)    burnin.hbm.sweeps and burnin.gemm.run as the quick suite runs them
ours (long)     one round with what the long suite adds: a rest, row activation, modulo-20; for what quick missed
the others      gpu-burn, DCGM's memory plugin, cuda_memtest: published_tools.py, one run with their defaults

All go through the same virtual driver over the same faulty memory. A tool has caught a fault when it found one word or
tile wrong; where the fault lies is not asked. Positions are drawn over all free memory, so what a tool leaves untested
costs it. The classes and ranges are ours (in-sample); the values within them are drawn and the suite was not tuned on
them (out-of-sample). Exit 1 when a workload of ours did not get through, or raised an alarm on a healthy GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from coverage_bench import BURN, DCGM, LONG, MEMORY_BYTES, MEMTEST, QUICK, SMS, TOOLS, Bench, Effort, Seen
from fault_classes import CLASSES, LINE_VECTORS, Keys, Where
from published_tools import VECTOR_BYTES
from virtual_gpu import inside, run_again

KERNELS = Path(__file__).with_name("published_tools.cu").resolve()

INSIDE = "ours (long)*"
# On an H100 with 80 GB, by what is known of each: sweeps at 80 % of the peak, the rates in coverage_bench.py.
DURATION = {
    QUICK: "2 s; the quick suite has time for 13 rounds, the standard suite for 125",
    BURN: "10 s by default",
    DCGM: "2 s",
    MEMTEST: "1 h, as tests 0 to 8 run 128 threads",
}
CANNOT = (
    ("gpu-burn", "address line, dead everywhere", "its results are all equal, and are all aliased the same way"),
    ("gpu-burn", "stuck data bit, in part", "one set of numbers: where they have the bit, nothing changes"),
    ("gpu-burn", "NaN", "NaN - x > epsilon is false"),
    ("gpu-burn", "the same on every SM", "results are compared with each other, not with the right answer"),
    ("DCGM memory", "stuck address line", "every word of a fill is equal"),
    ("DCGM memory", "coupling, in part", "fills go upwards: what a later write hides is not read in between"),
    ("DCGM, cuda_memtest", "all of compute", "they compute nothing"),
    (
        "DCGM, cuda_memtest",
        "row disturb",
        "a row is opened once a pass (gpu-burn's strides open some often, by chance)",
    ),
    ("DCGM, gpu-burn, cuda_memtest", "long retention", "0.2, 6 and 11 s lie between writing and reading a word"),
    ("ours (quick)", "long retention, row disturb", "they take minutes: left to the standard and the long suite"),
)
NOT_MODELLED = (
    "ECC: with it on, single bits are corrected and double ones end the kernel. The counters, which ours alone reads,",
    "    are then the first signal, and what is left to any pattern is the datapath, L2 and address decoding",
    "refresh (a weak cell of the model is never refreshed), banks and channels (all memory is one bank), swizzling",
    "caches, blocks that run at the same time, temperature, voltage, bits stuck at 0, address lines below 16 bytes",
    "how often rows are opened in a second, which is the host's (row disturb), and how long a sweep is (retention):",
    "    on a busy host, all tools see more of the weak cells",
    "several faults at once; time, where it matters, is scaled: a virtual second stands for 100 real ones",
)


@dataclass(slots=True)
class Row:
    """One class: instances, how many of them each tool caught and by what, and those that ours missed."""

    name: str
    what: str
    injected: int = 0
    caught: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    by: dict[str, Counter[str]] = field(default_factory=dict)
    drawn: list[Keys] = field(default_factory=list)
    missed_by_ours: list[Keys] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, object]:
        """For JSON; `dataclasses.asdict` does not know counters."""
        by = {tool: dict(counts) for tool, counts in self.by.items()}
        caught, tried = dict(self.caught), dict(self.tried)
        return {
            "name": self.name, "injected": self.injected, "tried": tried, "caught": caught, "by": by,
            "missed_by_ours": [dict(keys) for keys in self.missed_by_ours], "failures": self.failures,
        }  # fmt: skip


def main() -> int:
    """Builds the virtual GPU, runs itself again on it, prints the tables."""
    options = _options()
    if not inside():
        return run_again(Path(__file__), sys.argv[1:], (KERNELS,))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.seed)
        rows = _inject(bench, options)
        alarms = _clean(bench, options)
        efforts = {tool: bench.effort(tool) for tool in (QUICK, BURN, DCGM, MEMTEST)}
    seconds = time.monotonic() - begun
    if options.json:
        figures = {
            "seed": options.seed,
            "classes": [row.figures() for row in rows],
            "clean_runs": options.clean,
            "alarms": alarms,
            "efforts": {tool: asdict(effort) for tool, effort in efforts.items()},
            "seconds": round(seconds, 1),
        }
        print(json.dumps(figures, indent=1))
    else:
        _print(rows, efforts, options)
        print(f"\nfalse alarms of ours in {options.clean} clean runs (goal 0): {len(alarms)}", *alarms, sep="\n  ")
        print(f"\n{seconds:.0f} s")
    return 1 if alarms or any(row.failures for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=12, metavar="N", help="of each class (default 12)")
    parser.add_argument("--clean", type=int, default=1000, metavar="N", help="runs on healthy GPUs (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default 1)")
    parser.add_argument("--only", metavar="CLASS", help="classes whose name holds this text")
    parser.add_argument("--quick", action="store_true", help="1 instance, 10 clean runs")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = parser.parse_args()
    if options.quick:
        options.instances, options.clean = 1, 10
    return options


def _inject(bench: Bench, options: argparse.Namespace) -> list[Row]:
    rows = []
    for of in CLASSES:
        if options.only and options.only not in of.name:
            continue
        row = Row(of.name, of.what)
        chance = random.Random(f"{options.seed}/{of.name}")
        room = MEMORY_BYTES // VECTOR_BYTES if of.where is Where.MEMORY else 1 if of.every_sm else SMS
        for number in range(options.instances):
            _tell(f"{of.name} {number + 1}/{options.instances}")
            keys = of.draw(chance, room)
            _note(row, keys, bench.try_all(of, keys, number))
        rows.append(row)
    return rows


def _note(row: Row, keys: Keys, seen: dict[str, Seen]) -> None:
    row.injected += 1
    row.drawn.append(keys)
    for tool, one in seen.items():
        row.tried[tool] += 1
        row.caught[tool] += one.caught
        if one.caught:
            row.by.setdefault(tool, Counter())[_kind_of(one.by)] += 1
        if one.failure:
            row.failures.append(f"{tool}: {one.failure}")
    if not seen[LONG].caught:
        row.missed_by_ours.append(keys)


def _kind_of(by: str) -> str:
    """The pattern of a first miscompare, without its number and its complement; other signals as they are."""
    return by.rsplit(" in ", 1)[-1].lstrip("~").split(" ")[0].rstrip(",") if " in " in by else by


def _clean(bench: Bench, options: argparse.Namespace) -> list[str]:
    """What was said of healthy GPUs; should be nothing."""
    alarms = []
    for number in range(options.clean):
        if number % 50 == 0:
            _tell(f"clean runs {number}/{options.clean}")
        seen = bench.clean(number)
        if seen.caught or seen.failure:
            alarms.append(f"run {number}: {seen.by or seen.failure}")
    return alarms


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def _print(rows: Sequence[Row], efforts: Mapping[str, Effort], options: argparse.Namespace) -> None:
    print(f"\rcaught, of {options.instances} of each class; seed {options.seed}; {MEMORY_BYTES >> 10} KiB of memory\n")
    under_test = efforts[QUICK].under_test
    print(f"{'class':26}{INSIDE:>19}" + "".join(f"{tool:>16}" for tool in TOOLS))
    for row in rows:
        inside_it = sum(not _outside(keys, under_test) for keys in row.drawn)
        missed = sum(not _outside(keys, under_test) for keys in row.missed_by_ours)
        cells = [_share(inside_it - missed, inside_it), *(_share(row.caught[t], row.tried[t]) for t in TOOLS)]
        print(f"{row.name:26}{cells[0]:>19}" + "".join(f"{cell:>16}" for cell in cells[1:]) + f"   {row.what}")
    print(f"* of those in memory that ours takes: {under_test / MEMORY_BYTES:.1%} here, 99.7 % on an H100")
    print("\nby what ours caught them first:")
    for row in rows:
        by = row.by.get(LONG, Counter())
        print(f"  {row.name:26}{', '.join(f'{what} {count}' for what, count in by.most_common()) or 'nothing'}")
    print("\nmissed by ours:")
    for row in rows:
        for keys in row.missed_by_ours:
            where = " in memory that is left to the driver" if _outside(keys, under_test) else ""
            values = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in keys.items())
            print(f"  {row.name:26}{values}{where}")
        for failure in row.failures:
            print(f"  {row.name:26}did not get through: {failure}")
    print("\nbytes that a healthy run moves for each byte it verifies (minimum 2: written once, read once)")
    for tool, effort in efforts.items():
        print(
            f"  {tool:14}{effort.moved / effort.verified:6.2f}   {effort.under_test / MEMORY_BYTES:6.1%} of memory,"
            f" each byte moved {effort.moved / effort.under_test:6.0f} times; {DURATION[tool]}"
        )
    print("\nnot seen by construction:")
    for tool, what, why in CANNOT:
        print(f"  {tool:29} {what:31} {why}")
    print("\nnot modelled:\n  " + "\n  ".join(NOT_MODELLED))


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} {part / whole:>5.0%}" if whole else "-"


def _outside(keys: Keys, under_test: int) -> bool:
    """Whether what is broken lies behind the memory that was tested."""
    places = [v for k, v in keys.items() if k.endswith("_vector")]
    places += [v * LINE_VECTORS for k, v in keys.items() if k.endswith("_line")]
    return any(place >= under_test // VECTOR_BYTES for place in places)


if __name__ == "__main__":
    sys.exit(main())
