"""Time and memory to judge an InfiniBand fabric against its plan, and whether swapped cables come out as swaps.

    .venv/bin/python benchmarks/fabric.py [--json] [--hcas 1152 --hcas 16384] [--seeds 5] [--swaps 10]

The output of `ibnetdiscover` is written here, in the form of infiniband-diags, of two rail-optimised fat trees:

1,152 HCAs    288 nodes of 4; 16 leaves and 8 spines of 144 ports, nine cables from each leaf to each spine; 4xXDR
16,384 HCAs   2,048 nodes of 8; 16 pods of 32 leaves and 32 spines of 64 ports, 256 core switches; 4xNDR

Rail k of a node is on leaf k of its group. Each run exchanges the leaf ends of ten random pairs of HCA cables and
leaves the rest; it is right if every pair comes out as one swap of its four ports and nothing else does.

rackproof   parses and compares that text
all tools   with the state of every port (`iblinkinfo -l`) and two readings of error counters (`ibqueryerrors`), where
            one port has counted 4,242 symbol errors in a minute: that port must come out too, and once
networkx    baseline on the same text: a graph of the plan, a graph of the text by one pattern, their symmetric
            difference. It tells which edges differ, not what to do, and takes a text that was cut for a smaller fabric

Goals: `rackproof` under 1 s and 10 s of CPU (one thread; wall time is beside it), under 500 MB, and every run right.
Each run is a process of its own; the largest memory is of its whole life, the rack made before among it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fabric_tree import SHAPES, Cable, Fabric, Shape, build, counters, states, swapped, unused, written

from toolkit.facts import fabric_join, iblinkinfo, ibnetdiscover, ibqueryerrors
from toolkit.judge.fabric.compare import compare
from toolkit.judge.fabric.design import designed
from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.seen import Seen
from toolkit.rack.model import Port

MAX_SECONDS = {1_152: 1.0, 16_384: 10.0}
MAX_MEGABYTES = 500.0
SYMBOL_ERRORS = 4_242  # in a minute
DISCOVERY, STATES = "ibnetdiscover.txt", "iblinkinfo.txt"
# One run, in a process of its own


def ours(fabric: Fabric, folder: Path) -> dict[str, object]:
    """Parse and compare."""
    text = (folder / DISCOVERY).read_bytes()
    began = time.perf_counter()
    return _judged(fabric, Seen(ibnetdiscover.parse(text)), began)


def all_tools(fabric: Fabric, folder: Path) -> dict[str, object]:
    """The same with port states and counters."""
    texts = [(folder / name).read_bytes() for name in (DISCOVERY, STATES, "before.txt", "after.txt")]
    began = time.perf_counter()
    discovery = ibnetdiscover.parse(texts[0])
    ports = fabric_join.states(discovery, iblinkinfo.parse(texts[1]))
    before, after = (fabric_join.snapshot(discovery, ibqueryerrors.parse(text)) for text in texts[2:])
    return _judged(fabric, Seen(discovery, ports.ports, before.ports, after.ports, 60.0), began)


def _judged(fabric: Fabric, seen: Seen, began: float) -> dict[str, object]:
    parsed = time.perf_counter()
    discovery, report = seen.discovery, compare(designed(fabric.rack), seen)
    judged = time.perf_counter()
    lines = [(line.action.value, sorted(f"{end.unit}:{end.port}" for end in line.ends)) for line in report.lines]
    return {
        "parse_s": parsed - began,
        "judge_s": judged - parsed,
        "doubts": list(discovery.doubts),
        "links_designed": report.links_designed,
        "links_as_designed": report.links_as_designed,
        "lines": lines,
    }


def baseline(fabric: Fabric, folder: Path) -> dict[str, object]:
    """Two graphs and their difference."""
    import networkx

    text = (folder / DISCOVERY).read_bytes()
    began = time.perf_counter()
    seen: networkx.Graph = networkx.Graph()
    node, own = re.compile(r'(?:Switch|Ca)\t\d+ "(\S+)"'), re.compile(r'\[(\d+)\](?:\(\w+\))?\s+"(\S+)"\[(\d+)\]')
    current = ""
    for line in text.decode().splitlines():
        if found := node.match(line):
            current = found[1][2:]
        elif end := own.match(line):
            seen.add_edge((current, int(end[1])), (end[2][2:], int(end[3])))
    parsed = time.perf_counter()
    planned: networkx.Graph = networkx.Graph()
    for a, b in fabric.cables:
        planned.add_edge(_point(fabric, a), _point(fabric, b))
    seen.add_nodes_from(planned)
    planned.add_nodes_from(seen)
    differing = networkx.symmetric_difference(seen, planned).number_of_edges()
    return {"parse_s": parsed - began, "judge_s": time.perf_counter() - parsed, "edges_that_differ": differing}


def _point(fabric: Fabric, port: Port) -> tuple[str, int]:
    hca = fabric.guids.get(port)
    return (hca, 1) if hca else (fabric.guids[port.unit], int(port.port))


METHODS = {"rackproof": ours, "all tools": all_tools, "networkx": baseline}


def run_once(method: str, hcas: int, folder: Path) -> None:
    """The child: prints its figures as JSON."""
    fabric = build(SHAPES[hcas])
    began, cpu = time.perf_counter(), time.process_time()
    found = METHODS[method](fabric, folder)
    found |= {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


# All runs


def measure(hcas: int, seeds: int, swaps: int, folder: Path) -> dict[str, object]:
    """Both methods on each seed's text."""
    shape = SHAPES[hcas]
    fabric = build(shape)
    runs: dict[str, list[dict[str, object]]] = {name: [] for name in METHODS}
    right = dict.fromkeys(("rackproof", "all tools"), 0)
    for seed in range(1, seeds + 1):
        rng = random.Random(f"{seed} {hcas}")
        cables, told = swapped(fabric.cables, hcas, swaps, rng)
        _write(folder, fabric, shape, cables)
        for method, kept in runs.items():
            argv = [sys.executable, __file__, "--run", method, "--hcas", str(hcas), "--folder", str(folder)]
            kept.append(json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout))
        for method in right:
            right[method] += is_right(runs[method][-1], told, 1 if method == "all tools" else 0)
    figures = {name: row(kept) for name, kept in runs.items()}
    ratio = {key: round(figures["rackproof"][key] / figures["networkx"][key], 2) for key in ("cpu_s", "peak_mb")}
    return {
        "hcas": hcas, "switches": len(fabric.guids) - hcas, "links": len(fabric.cables),
        "bytes": (folder / DISCOVERY).stat().st_size,
        "runs": seeds, "swaps_a_run": swaps, "runs_all_right": right, **figures, "ratio": ratio,
        "goal_s": MAX_SECONDS[hcas], "goal_mb": MAX_MEGABYTES,
        "met": figures["rackproof"]["cpu_s"] < MAX_SECONDS[hcas]
        and all(figures[method]["peak_mb"] < MAX_MEGABYTES and right[method] == seeds for method in right),
    }  # fmt: skip


def _write(folder: Path, fabric: Fabric, shape: Shape, cables: list[Cable]) -> None:
    """The outputs of all tools."""
    (folder / DISCOVERY).write_text("".join(written(fabric, shape, cables)))
    (folder / STATES).write_text("".join(states(fabric, shape, cables)) + "".join(unused(fabric, shape, cables)))
    (folder / "before.txt").write_text(counters(fabric, 17))
    (folder / "after.txt").write_text(counters(fabric, 17 + SYMBOL_ERRORS))


def is_right(run: dict[str, object], told: set[frozenset[str]], others: int) -> bool:
    """Whether the lines are the swaps, each once, and beside them as many as the port with errors makes."""
    lines = run["lines"]
    assert isinstance(lines, list)
    swaps = [frozenset(ends) for action, ends in lines if action == Action.SWAP]
    rest = [ends for action, ends in lines if action != Action.SWAP]
    named = all("leaf-000:1" in ends for ends in rest)
    return not run["doubts"] and len(swaps) == len(told) and set(swaps) == told and len(rest) == others and named


def row(runs: list[dict[str, object]]) -> dict[str, float]:
    """Medians, and the worst memory."""

    def each(key: str) -> list[float]:
        return [float(str(run[key])) for run in runs]

    timed = {key: round(statistics.median(each(key)), 3) for key in ("wall_s", "cpu_s", "parse_s", "judge_s")}
    return timed | {"wall_s_worst": round(max(each("wall_s")), 3), "peak_mb": round(max(each("peak_mb")), 1)}


def show(results: list[dict[str, object]]) -> None:
    """The table for people."""
    head = ("HCAs", "method", "cpu s", "wall s", "worst", "parse", "judge", "peak MB", "right")
    print(("{:>7}  {:10}" + "{:>9}" * 7).format(*head))
    for found in results:
        for method in METHODS:
            cells = found[method]
            assert isinstance(cells, dict)
            all_right = found["runs_all_right"]
            assert isinstance(all_right, dict)
            right = f"{all_right[method]}/{found['runs']}" if method in all_right else "-"
            cells = [cells[key] for key in ("cpu_s", "wall_s", "wall_s_worst", "parse_s", "judge_s", "peak_mb")]
            print(("{:>7,}  {:10}" + "{:>9}" * 7).format(found["hcas"], method, *map(str, cells), right))
        print(
            f"         {found['switches']:,} switches, {found['links']:,} links, {found['bytes']:,} bytes; "
            f"goal {found['goal_s']} s, {found['goal_mb']:.0f} MB: {'met' if found['met'] else 'MISSED'}; "
            f"rackproof / networkx: {found['ratio']}"
        )
    print("seconds: median of the runs, wall with whatever else ran here; right: runs in which every swap came out")


def main() -> int:
    """Measures both sizes; exit status 0 when the goals are met."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="figures as JSON")
    options.add_argument("--hcas", type=int, choices=tuple(SHAPES), action="append")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--swaps", type=int, default=10)
    options.add_argument("--run", choices=tuple(METHODS), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.run:
        run_once(asked.run, asked.hcas[0], asked.folder)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(hcas, asked.seeds, asked.swaps, Path(folder)) for hcas in asked.hcas or SHAPES]
    if asked.json:
        print(json.dumps(results, indent=2))
    else:
        show(results)
    return 0 if all(found["met"] for found in results) else 1


if __name__ == "__main__":
    sys.exit(main())
