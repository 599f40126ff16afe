"""One run of nccl-tests as its output tells it, and how it ended.

The exit status of nccl-tests lies in both directions (an unknown option prints usage and exits 0; a good table may be
followed by a crash), and so does its average. The outcome here comes from what was printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

from toolkit.facts.nccl_rows import Row

GIB = 1 << 30
_FLAT = 1.05  # a curve that rises by less than a twentieth with every doubling of the size has reached its plateau
_ALIGNMENT = 16  # nccl-tests cuts each rank's share of the data to whole 16 bytes: rows may be that much smaller


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"  # whole table, both footers, nothing wrong in it
    INCOMPLETE = "incomplete"  # the output ends before the footers: a hang, a deadline, a cut file
    CRASHED = "crashed"  # NCCL, CUDA or the process reported a failure
    DATA_ERROR = "data_error"  # the data check found wrong values
    LOW_BANDWIDTH = "low_bandwidth"  # the average is below NCCL_TESTS_MIN_BW
    BAD_USAGE = "bad_usage"  # it refused an argument or printed its usage, and measured nothing
    LAUNCHER_ERROR = "launcher_error"  # mpirun, srun or ssh never got it started
    NOT_ONE_COMMUNICATOR = "not_one_communicator"  # several runs in one output, as of a build without MPI under mpirun


class Sign(StrEnum):
    """Something the output said, outside the table, that tells how the run ended."""

    STARTED = "started"
    USAGE = "usage"
    REFUSED = "refused"  # an argument
    NEVER_STARTED = "never started"  # in a launcher's words
    DIED = "died"  # in a launcher's words
    CANCELLED = "cancelled"  # by a launcher's time limit: what died after that did not crash
    RELAYED = "relayed"  # `.. host pid N: Test failure file:line`
    WRONG_VALUES = "wrong values"
    SEVERAL_RUNS = "several runs"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as its rank printed it: `host: Test NCCL failure where 'text'`. Versions before 2.0 print no host."""

    host: str | None
    kind: str
    where: str
    text: str

    def as_json(self) -> dict[str, Any]:
        """Its four fields."""
        return {"host": self.host, "kind": self.kind, "where": self.where, "text": self.text}


@dataclass(frozen=True, slots=True)
class Rank:
    """One line of the device list."""

    rank: int
    host: str
    device: int


@dataclass(frozen=True, slots=True)
class NcclRun:
    """What one output says. None: not printed. Bandwidths are bus bandwidths in GB/s, sizes are bytes.

    check_column   `#wrong` counts wrong values; `error` (before 2.13) is the largest deviation
    torn_rows      rows whose values could not be told apart; they are not among `rows`
    truncated      the output was longer than we read
    """

    rows: tuple[Row, ...] = ()
    listed: tuple[Rank, ...] = ()
    signs: frozenset[Sign] = frozenset()
    program: str | None = None
    nccl_tests_version: str | None = None
    nccl_library: int | None = None
    check_column: str | None = None
    out_of_bounds: int | None = None
    out_of_bounds_status: str | None = None
    avg_busbw: float | None = None
    avg_status: str | None = None
    footer_complete: bool = False
    failures: tuple[Failure, ...] = ()
    timeouts: int = 0
    nccl_warn_lines: int = 0
    nccl_info_lines: int = 0
    maxbytes_reduced: int | None = None
    torn_rows: int = 0
    truncated: bool = False

    @property
    def ranks(self) -> int | None:
        """Size of the communicator: the highest rank listed + 1. None where the list's beginning is missing."""
        numbers = {r.rank for r in self.listed}
        return max(numbers) + 1 if 0 in numbers else None

    @property
    def hosts(self) -> int | None:
        """Distinct hosts of the ranks listed; None where `ranks` is."""
        return len({r.host for r in self.listed}) if self.ranks else None

    @property
    def checks(self) -> tuple[float | None, ...]:
        """Every value of the check column, row by row; None where it says N/A."""
        return tuple(h.check for row in self.rows for h in row.halves)

    @property
    def wrong_checked(self) -> bool | None:
        """Whether every half of every row had its data checked; None without rows."""
        return all(c is not None for c in self.checks) if self.rows else None

    @property
    def wrong_total(self) -> int | None:
        """Wrong values counted; None where they were not (no check, or a version that prints a deviation)."""
        counted = [c for c in self.checks if c is not None]
        return int(sum(counted)) if counted and self.check_column == "#wrong" else None

    @property
    def max_error(self) -> float | None:
        """Largest deviation printed by versions before 2.13; None where the check was off."""
        counted = [c for c in self.checks if c is not None]
        return max(counted) if counted and self.check_column == "error" else None

    @property
    def plateau(self) -> tuple[Row, ...]:
        """The rows bandwidth may be judged by: of 1 GiB and more; where there are none, the flat end of the curve.

        Empty where the curve still rises at its end. The node's own reading (burnin/nccl/parse.py) has the same rule.
        """
        slack = _ALIGNMENT * (self.ranks or 1)
        large = tuple(row for row in self.rows if row.size > GIB - slack)
        if large:
            return large
        flat = len(self.rows) - 1
        while flat > 0 and _is_flat(self.rows[flat - 1], self.rows[flat]):
            flat -= 1
        return self.rows[flat:] if 0 <= flat < len(self.rows) - 1 else ()

    @property
    def busbw(self) -> tuple[float, float] | None:
        """(lowest, median) bus bandwidth of the plateau, GB/s, in and out of place; None where a row has no number."""
        values = [half.busbw for row in self.plateau for half in row.halves]
        known = [value for value in values if value is not None]
        return (min(known), round(median(known), 2)) if known and len(known) == len(values) else None

    @property
    def outcome(self) -> Outcome:
        """How it ended. The order matters: numbers of several runs, or wrong data, make everything after them moot."""
        if not self.rows and self.signs & {Sign.USAGE, Sign.REFUSED}:
            return Outcome.BAD_USAGE
        if Sign.SEVERAL_RUNS in self.signs:
            return Outcome.NOT_ONE_COMMUNICATOR
        if self.out_of_bounds_status == "FAILED" or self.out_of_bounds or self.wrong_total:
            return Outcome.DATA_ERROR
        if Sign.WRONG_VALUES in self.signs:
            return Outcome.DATA_ERROR
        if self.avg_status == "FAILED" and self.rows:
            return Outcome.LOW_BANDWIDTH
        if Sign.NEVER_STARTED in self.signs and not self._started:
            return Outcome.LAUNCHER_ERROR
        if self.failures or self.timeouts or Sign.RELAYED in self.signs or self._died:
            return Outcome.CRASHED
        whole = self.footer_complete and self.rows and not self.truncated
        return Outcome.COMPLETED if whole else Outcome.INCOMPLETE

    @property
    def _died(self) -> bool:
        return Sign.DIED in self.signs and Sign.CANCELLED not in self.signs

    @property
    def _started(self) -> bool:
        return bool(self.rows or self.listed or self.program or self.failures or Sign.STARTED in self.signs)

    def as_json(self) -> dict[str, Any]:
        """The answer of `rackproof parse nccl-tests`."""
        last = self.rows[-1] if self.rows else None
        best = [r.out_of_place.busbw for r in self.rows if r.out_of_place and r.out_of_place.busbw is not None]
        out: dict[str, Any] = {
            "ranks": self.ranks,
            "hosts": self.hosts,
            "program": self.program,
            "nccl_tests_version": self.nccl_tests_version,
            "nccl_library": self.nccl_library,
            "rows": len(self.rows),
            "first_size": self.rows[0].size if self.rows else None,
            "last_size": last.size if last else None,
            "max_busbw_out_of_place": max(best) if best else None,
            "last_row": _last_row(last),
            "wrong_total": self.wrong_total,
            "wrong_checked": self.wrong_checked,
            "out_of_bounds": self.out_of_bounds,
            "out_of_bounds_status": self.out_of_bounds_status,
            "avg_busbw": self.avg_busbw,
            "avg_status": self.avg_status,
            "failures": [f.as_json() for f in self.failures],
            "timeouts": self.timeouts,
            "nccl_warn_lines": self.nccl_warn_lines,
            "nccl_info_lines": self.nccl_info_lines,
            "footer_complete": self.footer_complete,
            "usage_printed": Sign.USAGE in self.signs,
            "maxbytes_reduced": self.maxbytes_reduced,
        }
        return out | self._only_where_said() | {"outcome": str(self.outcome)}

    def _only_where_said(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.check_column:
            out["check_column"] = self.check_column
        if self.check_column == "error":
            out["max_error"] = self.max_error
        if self.ranks is not None and self.ranks != len(self.listed):
            out["ranks_listed"] = len(self.listed)
        if self.truncated:
            out["truncated"] = True
        return out

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting the numbers."""
        found = []
        if self.truncated:
            found.append("longer than 4 MiB: the rest was not read")
        if self.torn_rows:
            found.append(f"{self.torn_rows} rows were torn by other output and are left out")
        if self.ranks is not None and self.ranks != len(self.listed):
            found.append(f"{len(self.listed)} rank lines for {self.ranks} ranks")
        if self.wrong_checked is False:
            found.append("the data was not checked in every row")
        return tuple(found)


def _is_flat(smaller: Row, larger: Row) -> bool:
    pairs = list(zip((h.busbw for h in smaller.halves), (h.busbw for h in larger.halves), strict=False))
    return bool(pairs) and all(a is not None and b is not None and b < a * _FLAT for a, b in pairs)


def _last_row(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "size": row.size,
        "busbw_out_of_place": row.out_of_place.busbw if row.out_of_place else None,
        "busbw_in_place": row.in_place.busbw if row.in_place else None,
    }
