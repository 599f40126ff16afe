"""What looking costs where the ledger has the past of a fleet: 2,048 nodes, 16,384 GPUs, 90 days.

    .venv/bin/python benchmarks/report.py --folder FOLDER [--burnins 30] [--racks 66] [--seed 1] [--times 5] [--json]

FOLDER keeps the ledger between runs (1.6 GB; building it takes minutes of CPU): 66 scalable units of 31 DGX H100 nodes
and a partial one of 2, brought up 90 days ago and burnt in BURNINS times, each time with all that a report charts.
Values are drawn around 100 with a spread of 1, durations around MINUTES of fleet_past.py; both seeded. First a small
fleet is written by the ledger's methods and by the bulk path, and both ledgers must be the same, row by row.

Each figure is of fresh processes, TIMES of them: the least wall time, the least CPU time, its ratio to that of `python
-c pass` in the same rounds, and the most memory. Each has one thread that computes: on a machine that is free CPU time
is wall time, on a busy one only wall time waits for others. So goals are held against CPU time; of the served page
against wall time. Bytecode is compiled before (an installed rackproof has it), into FOLDER.

python   `python -c pass`: the baseline
scan     every measurement read once by SQL, by a python that does nothing else: what no index costs
report   `rackproof report RACK`: one of the 67 racks; page: its bytes
metrics  cold: `rackproof metrics`, all racks; warm: the second reading of a process that lives on, as `serve` does
fleet    the first page of `rackproof serve`, asked once it is warm
Exit status 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import fleet_past

from toolkit.settings import Settings, load

MEMORY_MB = 300.0
PROGRAM = Path(sys.executable).parent / "rackproof"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `goal_s` None: nothing was promised; `wall_s` None: not measured, `note` says why."""

    name: str
    wall_s: float | None
    cpu_s: float | None
    peak_mb: float | None
    times_python: float | None = None
    goal_s: float | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the goals are met, as far as it was measured."""
        took = self.wall_s if self.cpu_s is None else self.cpu_s
        if took is None or self.goal_s is None:
            return True
        return took < self.goal_s and (self.peak_mb is None or self.peak_mb < MEMORY_MB)


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one process: seconds of wall clock and CPU, and its most memory in MB; what it wrote."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    out: str


# A process begins with the peak of the one that started it (Linux keeps it over exec): so a small one does.
_LAUNCH = """
import json, os, subprocess, sys, time
out, wrong, *argv = sys.argv[1:]
began = time.perf_counter()
process = subprocess.Popen(argv, stdout=open(out, "wb"), stderr=open(wrong, "wb"), stdin=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall = time.perf_counter() - began
print(json.dumps([os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def spend(argv: list[str], env: Mapping[str, str], folder: Path) -> Spent:
    """Runs a program to its end. Raises RuntimeError where it fails."""
    out, wrong = folder / "out.txt", folder / "err.txt"
    launch = [sys.executable, "-S", "-c", _LAUNCH, str(out), str(wrong), *argv]
    told = subprocess.run(launch, env=env, cwd=folder, check=True, capture_output=True, text=True).stdout
    status, wall, cpu, peak = json.loads(told)
    if status != 0:
        raise RuntimeError(f"{argv}: status {status}: {wrong.read_text()[-2000:]}")
    return Spent(wall, cpu, peak, out.read_text())


def prepared(folder: Path, racks: int, burnins: int, seed: int) -> Settings:
    """The installation with the fleet's past, built unless FOLDER has the same."""
    settings = replace(load({"RACKPROOF_HOME": str(folder)}), inventory=folder / "inventory")
    asked = {"racks": racks, "burnins": burnins, "seed": seed, "code": _code()}
    mark = folder / "built.json"
    if mark.exists() and json.loads(mark.read_text()).get("asked") == asked:
        return settings
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm", "built.json"):
        (folder / name).unlink(missing_ok=True)
    names = fleet_past.write_inventory(settings, racks, fleet_past.LAST_NODES)
    values = fleet_past.fill(settings, names, burnins, seed)
    mark.write_text(json.dumps({"asked": asked, "values": values}))
    return settings


def _code() -> str:
    """Of what the past is made by: another text makes another past."""
    import hashlib

    return hashlib.sha256(Path(fleet_past.__file__).read_bytes()).hexdigest()[:16]


def prove_same(seed: int) -> int:
    """Rows of a small fleet that the bulk path and the ledger's own methods both wrote. Raises AssertionError."""
    found = []
    with tempfile.TemporaryDirectory() as made:
        for called in (False, True):
            home = Path(made) / str(called)
            home.mkdir()
            settings = replace(load({"RACKPROOF_HOME": str(home)}), inventory=home / "inventory")
            names = fleet_past.write_inventory(settings, 1, 2)
            fleet_past.fill(settings, names, 3, seed, called=called)
            found.append(fleet_past.rows(home / "ledger.db"))
    assert found[0] == found[1], "the bulk path writes other rows than the ledger's methods"
    return sum(len(rows) for rows in found[0].values())


def environment(settings: Settings) -> dict[str, str]:
    """Of every process: this installation, and bytecode that is kept in FOLDER."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RACKPROOF_", "PYTHON"))}
    return kept | {
        "RACKPROOF_HOME": str(settings.home),
        "RACKPROOF_INVENTORY": str(settings.inventory),
        "PYTHONPYCACHEPREFIX": str(settings.home / "bytecode"),
    }


SCAN = (
    "import sqlite3, sys; c = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True);"
    " print(c.execute('SELECT count(*), sum(length(value)) FROM measurement').fetchone()[0])"
)


def commands(settings: Settings) -> dict[str, tuple[list[str], float | None]]:
    """What is run, by name, with its goal in seconds."""
    python, rack = sys.executable, fleet_past.PLAN
    page = str(settings.home / "report.html")
    return {
        "python -c pass": ([python, "-c", "pass"], None),
        "scan of all measurements": ([python, "-c", SCAN, str(settings.home / "ledger.db")], None),
        "rackproof --help": ([str(PROGRAM), "--help"], 0.150),
        "rackproof status RACK": ([str(PROGRAM), "status", rack], 0.400),
        "rackproof status (all racks)": ([str(PROGRAM), "status"], None),
        "rackproof why RACK": ([str(PROGRAM), "why", rack], None),
        "rackproof plan RACK": ([str(PROGRAM), "plan", rack], None),
        "rackproof report RACK": ([str(PROGRAM), "report", rack, "-o", page], 2.0),
        "metrics, cold": ([str(PROGRAM), "metrics", "--textfile", str(settings.home / "fleet.prom")], None),
        "metrics, warm": ([python, __file__, "--warm"], 1.0),
    }


def warm() -> float:
    """Seconds of CPU of the second reading of all metrics in this process."""
    import gc

    from toolkit import __version__
    from toolkit.ledger import Ledger
    from toolkit.rack.loading import load_rack
    from toolkit.rack.model import Profile, Rack
    from toolkit.report.metrics import MAX_GATE_VALUES, exposition, families
    from toolkit.report.metrics_snapshot import Reader

    gc.set_threshold(50_000)  # as every verb has it
    settings = load()
    racks: dict[str, Rack] = {}
    profiles: dict[str, Profile] = {}

    def design(name: str) -> Rack:
        if name not in racks:
            racks[name] = load_rack(name, settings.inventory, profiles)
        return racks[name]

    def now() -> datetime:
        return datetime.now(UTC)

    with Ledger.open(settings.ledger_url, settings.artifacts, "benchmark", now) as ledger:
        reader = Reader(ledger, design, now, MAX_GATE_VALUES, None)
        took = 0.0
        for _ in range(2):
            began = time.process_time()
            exposition(families(reader.snapshot(), __version__), openmetrics=False)
            took = time.process_time() - began
    return took


def fleet_page(env: Mapping[str, str], settings: Settings) -> Figure:
    """The first page of `rackproof serve`, the least of ten once it is warm."""
    name, goal = "fleet page of rackproof serve", 0.5
    try:
        from serve_page import timed
    except ImportError:
        return Figure(name, None, None, None, goal_s=goal, note="skipped: benchmarks/serve_page.py is not there yet")
    wall, peak = timed(PROGRAM, env, settings)
    return Figure(name, wall, None, peak, goal_s=goal)


def measured(settings: Settings, times: int, say: Callable[[str], None]) -> list[Figure]:
    """Every figure; the baseline is measured anew in each round."""
    env = environment(settings)
    spent: dict[str, list[Spent]] = {}
    asked = commands(settings)
    with tempfile.TemporaryDirectory() as made:
        for turn in range(times + 1):  # the first only warms the bytecode and the page cache
            for name, (argv, _) in asked.items():
                found = spend(argv, env, Path(made))
                if turn:
                    spent.setdefault(name, []).append(found)
            say(f"round {turn} of {times}")
    python = min(s.cpu_s for s in spent["python -c pass"])
    figures = []
    for name, (argv, goal) in asked.items():
        of = spent[name]
        warmed = argv[-1] == "--warm"  # what came before is no part of it
        cpu = min(float(s.out) if warmed else s.cpu_s for s in of)
        wall = None if warmed else min(s.wall_s for s in of)
        figures.append(Figure(name, wall, cpu, max(s.peak_mb for s in of), cpu / python, goal))
    page = fleet_page(env, settings)
    return [*figures, page if page.wall_s is None else replace(page, times_python=None)]


def table(figures: list[Figure]) -> str:
    """For people."""
    lines = [f"{'':31}{'wall':>10}{'CPU':>10}{'x python':>10}{'memory':>9}{'goal':>9}"]
    for f in figures:
        if f.wall_s is None and f.cpu_s is None:
            lines.append(f"{f.name:<31}{f.note}")
            continue
        cpu = "-" if f.cpu_s is None else f"{f.cpu_s * 1000:,.0f} ms"
        goal = "-" if f.goal_s is None else f"{f.goal_s * 1000:,.0f} ms"
        memory = "-" if f.peak_mb is None else f"{f.peak_mb:,.0f} MB"
        wall = "-" if f.wall_s is None else f"{f.wall_s * 1000:,.0f} ms"
        ratio = "-" if f.times_python is None else f"{f.times_python:,.1f}"
        lines.append(f"{f.name:<31}{wall:>10}{cpu:>10}{ratio:>10}{memory:>9}{goal:>9}{'' if f.met else '  MISSED'}")
    return "\n".join(lines)


def main() -> int:
    """Prints the figures; exit status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keeps the ledger between runs; default: a new one, removed")
    parser.add_argument("--racks", type=int, default=fleet_past.WHOLE)
    parser.add_argument("--burnins", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.warm:
        print(warm())
        return 0
    with tempfile.TemporaryDirectory() as aside:
        folder = (asked.folder or Path(aside)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        rows = prove_same(asked.seed)
        settings = prepared(folder, asked.racks, asked.burnins, asked.seed)
        values = json.loads((folder / "built.json").read_text())["values"]
        figures = measured(settings, asked.times, lambda words: print(words, file=sys.stderr))
    nodes = asked.racks * 31 + fleet_past.LAST_NODES
    if asked.json:
        told = [asdict(f) | {"met": f.met} for f in figures]
        print(json.dumps({"nodes": nodes, "gpus": nodes * 8, "values": values, "figures": told}))
    else:
        print(f"{nodes:,} nodes, {nodes * 8:,} GPUs, {fleet_past.DAYS} days: {values:,} values; seed {asked.seed}")
        print(f"bulk path and the ledger's methods wrote the same {rows:,} rows of a small fleet")
        print(table(figures))
        print(f"least of {asked.times}; memory: goal {MEMORY_MB:.0f} MB; compiled bytecode")
    return 0 if all(f.met for f in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
