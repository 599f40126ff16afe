"""The collectives of a node's burn-in: which way each of them went, by the files the node kept of it.

    all_reduce_perf.txt        the table          all_reduce_perf.command.json    argv, environment, number of GPUs
    all_reduce_perf.nccl.txt   NCCL's log         all_reduce_perf.counters.json   bytes carried so far, before and after

The burn-in measures bandwidth; whether it is the bandwidth of NVLink is said here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from toolkit.facts import nccl_tests, nccl_transport
from toolkit.facts.nccl_counters import carried
from toolkit.facts.nccl_path import Answer, Fabric, Proof, Run, Shape, prove
from toolkit.facts.nccl_run import Outcome
from toolkit.rack.metric import COLLECTIVES, collective_metric

SUFFIXES = ("txt", "command.json", "nccl.txt", "counters.json")
MOST_GPUS = 1024
LOG_BYTES = 8 << 20  # burnin/nccl/collective.py cuts the log there

_NAME = re.compile(rf"(?:attempt\d+-)?({'|'.join(COLLECTIVES)})_perf\.({'|'.join(map(re.escape, SUFFIXES))})\Z")


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of a collective, by its name: `all_gather_perf.nccl.txt`, with `attempt2-` before it on a second try."""

    collective: str
    what: str


def kept(name: str) -> Kept | None:
    """What the artifact of this name is; None if it is of no collective."""
    found = _NAME.match(name)
    return Kept(found[1], found[2]) if found else None


def proofs(node: str, artifacts: Mapping[str, str]) -> dict[str, Proof]:
    """For each collective that came to its end, what carried it. `artifacts`: texts by name.

    Of one that did not (a hang, a crash) no count can be compared with what it had to move: it is here only where
    NCCL's log names a way that was not meant.
    """
    files = {place: text for name, text in artifacts.items() if (place := kept(name))}
    found = {c: _proof(node, c, files) for c in COLLECTIVES if Kept(c, "txt") in files}
    return {c: proof for c, proof in found.items() if proof is not None}


def measured(found: Mapping[str, Proof]) -> list[tuple[str, str, float | str, int | None]]:
    """(metric, unit, value, gpu) of the proofs, all of the node. A fraction that is not known is not said."""
    said: list[tuple[str, str, float | str, int | None]] = []
    for collective, proof in found.items():
        said.append((collective_metric(collective, "path"), "word", _WORDS[proof.answer], None))
        if proof.fraction is not None:
            said.append(
                (collective_metric(collective, "path_bytes_fraction"), "fraction", round(proof.fraction, 4), None)
            )
    return said


def complaint(found: Mapping[str, Proof]) -> str:
    """Which collectives measured another fabric than NVLink, in words; empty where none did."""
    alike: dict[str, list[str]] = {}
    for collective, proof in found.items():
        if proof.answer is Answer.WRONG:
            alike.setdefault(proof.text, []).append(collective)
    return "; ".join(f"{', '.join(names)} {text}" for text, names in alike.items())


_WHOLE = (Outcome.COMPLETED, Outcome.DATA_ERROR, Outcome.LOW_BANDWIDTH)
_WORDS = {Answer.PROVEN: "proven", Answer.WRONG: "wrong", Answer.UNPROVEN: "unproven"}


def _proof(node: str, collective: str, files: Mapping[Kept, str]) -> Proof | None:
    gpus, iterations = _asked(files.get(Kept(collective, "command.json"), ""))
    table = nccl_tests.parse(files[Kept(collective, "txt")])
    whole = table.footer_complete and table.outcome in _WHOLE
    run = Run(Shape(collective, gpus), [row.size for row in table.rows] if whole else [], iterations)
    log = files.get(Kept(collective, "nccl.txt"), "")
    transport = nccl_transport.parse([log])
    if len(log.encode()) >= LOG_BYTES:
        transport = replace(transport, cut=True)
    counted = carried(node, files.get(Kept(collective, "counters.json"), ""))
    proof = prove(run, Fabric.NVLINK, transport, [counted])
    return proof if whole or proof.answer is Answer.WRONG else None


def _asked(text: str) -> tuple[int, int]:
    """(GPUs, iterations) of the command; zeros where it does not say: then nothing can be proved."""
    try:
        told = json.loads(text[: 1 << 20])
        argv = [str(word) for word in told["argv"]]
        gpus, iterations = int(told["gpus"]), int(argv[argv.index("-n") + 1])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return 1, 0
    return (gpus, iterations) if 0 < gpus <= MOST_GPUS and 0 < iterations < 1 << 20 else (1, 0)
