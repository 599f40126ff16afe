"""gpu-burn's log, and the key=value logs of GEMM checks. Text in, `BurnReport` or `GemmReport` out.

gpu-burn exits with 0 when it prints FAULTY, prints OK for GPUs on which nothing ran, and its error counts overflow
below zero: the verdict here is made from what was done (iterations) and what went wrong, not from its word alone.
Progress lines end with a carriage return:

    50.0%  proc'd: 2261 (7150 Gflop/s) - 0 (0 Gflop/s)   errors: 0 - 3 (WARNING!)   temps: 38 C - --
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.facts.unreadable import UnreadableError

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_GPUS = 256
MAX_LINES = 64
_TEXT = 512
_PROGRESS = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)%\s{1,8}proc'd: ")
_DONE = re.compile(r"(-?\d{1,18}) \((-?\d{1,12}) Gflop/s\)")
_ERRORS = re.compile(r"(-?\d{1,18})(?: ?\((?:WARNING!|DIED!)\))?(?=\s|\Z)")
_TEMPERATURE = re.compile(r"(\d{1,4}) C|--")
_TESTED = re.compile(r"Tested (\d{1,4}) GPUs:")
_RESULT = re.compile(r"\s{0,16}GPU (\d{1,4}): (OK|FAULTY)\b")
_LISTED = re.compile(r"GPU (\d{1,4}): .{1,128} \(UUID: ")
_TROUBLE = re.compile(
    r"Couldn't init|CUDA_ERROR_|DIED!|[Nn]o clients are alive|[Ff]ailure during|\bError\b|No CUDA devices"
)
_PAIR = re.compile(r"([a-z][a-z0-9_]{1,63})=(.{0,256}?)\s{0,8}\Z")
_GEMM_KEYS = ("gemm_precision", "gemm_shape", "gemm_iterations", "achieved_tflops", "max_abs_error", "nonfinite_count")
_ESCAPE = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")


class Verdict(StrEnum):
    """What the log proves, whatever it says of itself."""

    COMPLETED = "completed"  # every GPU tested, iterations on each, no error
    FAULTY = "faulty"
    NOTHING_RAN = "nothing_ran"  # a GPU was called OK without one iteration
    DIED = "died"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class BurnReport:
    """What gpu-burn printed, by GPU in its order.

    result      its own word by GPU index
    iterations, last_gflops   of the last progress line
    errors      the count furthest from zero of all progress lines: it starts again, and overflows below zero
    max_temp_c  None where no sensor was read
    """

    gpus: int
    verdict: Verdict
    result: tuple[tuple[int, str], ...]
    iterations: tuple[int, ...]
    last_gflops: tuple[int, ...]
    errors: tuple[int, ...]
    max_temp_c: tuple[int | None, ...]
    troubles: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Every field."""
        return {
            "gpus": self.gpus,
            "result": {str(gpu): word for gpu, word in self.result},
            "iterations": list(self.iterations),
            "last_gflops": list(self.last_gflops),
            "errors": list(self.errors),
            "max_temp_c": list(self.max_temp_c),
            "verdict": self.verdict.value,
            "troubles": list(self.troubles),
        }

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why an OK is none."""
        idle = [f"GPU {n}: nothing ran on it" for n, done in enumerate(self.iterations) if done <= 0]
        return (
            *([] if self.verdict is Verdict.COMPLETED else [f"verdict: {self.verdict.value}"]),
            *idle,
            *self.troubles,
        )


@dataclass(frozen=True, slots=True)
class GemmReport:
    """A GEMM check: its pairs as printed, and whether it passed: said so, ran, and met nothing that is not finite."""

    pairs: tuple[tuple[str, str], ...]
    passed: bool

    def as_json(self) -> dict[str, Any]:
        """The pairs that matter, as printed."""
        said = dict(self.pairs)
        return {key: said.get(key) for key in _GEMM_KEYS} | {"pass": self.passed}

    @property
    def doubts(self) -> tuple[str, ...]:
        """Values that are missing."""
        return tuple(f"{key} is missing" for key in _GEMM_KEYS if key not in dict(self.pairs))


@dataclass(slots=True)
class _Reading:
    listed: set[int] = field(default_factory=set)
    tested: int | None = None
    result: dict[int, str] = field(default_factory=dict)
    iterations: list[int] = field(default_factory=list)
    gflops: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    temperatures: list[int | None] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def parse(text: str) -> BurnReport | GemmReport:
    """Reads either log. Raises UnreadableError for text that is neither."""
    clean = _ESCAPE.sub("", text[:MAX_CHARACTERS])
    if re.search(r"^gemm_\w{1,32}=", clean, re.MULTILINE):
        return _gemm(clean)
    reading = _Reading()
    for line in clean.replace("\r", "\n").split("\n"):
        _read(line, reading)
    if not (reading.listed or reading.iterations or reading.result or reading.troubles):
        raise UnreadableError("no GPU in it: not the output of gpu-burn")
    gpus = reading.tested if reading.tested is not None else len(reading.listed) or len(reading.iterations)
    return BurnReport(
        gpus=gpus,
        verdict=_verdict(reading),
        result=tuple(sorted(reading.result.items())),
        iterations=tuple(reading.iterations),
        last_gflops=tuple(reading.gflops),
        errors=tuple(reading.errors),
        max_temp_c=tuple(reading.temperatures),
        troubles=tuple(reading.troubles),
    )


def _read(line: str, reading: _Reading) -> None:
    if progress := _PROGRESS.search(line):
        _read_progress(line[progress.end() :], reading)
    elif tested := _TESTED.search(line):
        reading.tested = int(tested[1])
    elif listed := _LISTED.match(line):
        reading.listed |= {int(listed[1])} if len(reading.listed) < MAX_GPUS else set()
    elif result := _RESULT.match(line):
        reading.result |= {int(result[1]): result[2]} if len(reading.result) < MAX_GPUS else {}
    if _TROUBLE.search(line) and len(reading.troubles) < MAX_LINES:
        reading.troubles.append(line.strip()[-_TEXT:])


def _read_progress(line: str, reading: _Reading) -> None:
    done_text, _, rest = line.partition("errors: ")
    errors_text, _, temperatures_text = rest.partition("temps: ")
    done = [(int(m[1]), int(m[2])) for m in _DONE.finditer(done_text)][:MAX_GPUS]
    # a line that was cut after the first GPUs does not say that the others stopped
    if len(done) >= len(reading.iterations):
        reading.iterations, reading.gflops = [n for n, _ in done], [g for _, g in done]
    counts = [int(m[1]) for m in _ERRORS.finditer(errors_text)][:MAX_GPUS]
    reading.errors = [max(pair, key=abs) for pair in _aligned(reading.errors, counts)]
    seen = [int(m[1]) if m[1] else None for m in _TEMPERATURE.finditer(temperatures_text)][:MAX_GPUS]
    longest = max(len(seen), len(reading.temperatures))
    old, new = (values + [None] * (longest - len(values)) for values in (reading.temperatures, seen))
    reading.temperatures = [
        max((t for t in pair if t is not None), default=None) for pair in zip(old, new, strict=True)
    ]


def _aligned(old: list[int], new: list[int]) -> Iterator[tuple[int, int]]:
    longest = max(len(old), len(new))
    return zip(old + [0] * (longest - len(old)), new + [0] * (longest - len(new)), strict=True)


def _verdict(reading: _Reading) -> Verdict:
    if "FAULTY" in reading.result.values() or any(n != 0 for n in reading.errors if n != -1):
        return Verdict.FAULTY
    if any("DIED!" in t or "alive" in t for t in reading.troubles) or -1 in reading.errors:
        return Verdict.DIED
    if reading.tested is None or len(reading.result) < reading.tested or not reading.result:
        return Verdict.DIED if reading.troubles else Verdict.INCOMPLETE
    if len(reading.iterations) < reading.tested or any(done <= 0 for done in reading.iterations) or reading.troubles:
        return Verdict.NOTHING_RAN
    return Verdict.COMPLETED


def _gemm(text: str) -> GemmReport:
    pairs: dict[str, str] = {}
    words: set[str] = set()
    for line in text.replace("\r", "\n").split("\n"):
        if (pair := _PAIR.match(line)) and len(pairs) < MAX_LINES:
            pairs[pair[1]] = pair[2]
        elif line.startswith("GEMM_") and len(words) < MAX_LINES:
            words.add(line.strip()[:_TEXT])
    ran = pairs.get("gemm_iterations", "")
    finite = pairs.get("nonfinite_count") == "0"
    said = "GEMM_SWEEP_PASS" in words and not any("FAIL" in word for word in words)
    return GemmReport(tuple(pairs.items()), said and finite and ran.isdecimal() and int(ran[:18]) > 0)
