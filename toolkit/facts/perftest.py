"""`ib_write_bw` and its like (perftest): one row a message size. Text in, `Perftest` out.

     #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
     8388608    20000            24056.74            24056.72          0.003007

Client and server often share a terminal: the same size then appears twice. The unit stands in the header and is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from toolkit.facts.unreadable import UnreadableError

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_ROWS = 65_536
_HEADER = re.compile(r"\s{0,8}#bytes\s{1,32}#iterations\s{1,32}BW peak\[(\w{1,8}/sec)\]")
_ROW = re.compile(r"\s{0,8}(\d{1,19})\s{1,32}(\d{1,12})\s{1,32}(\d{1,9}\.\d{1,6})\s{1,32}(\d{1,9}\.\d{1,6})(?=\s|\Z)")
_KEYS = {"MB/sec": "mb_s", "MiB/sec": "mib_s", "Gb/sec": "gbit_s"}


@dataclass(frozen=True, slots=True)
class Row:
    """One size: bytes of a message, iterations, rates in the table's unit."""

    bytes: int
    iterations: int
    peak: float
    average: float


@dataclass(frozen=True, slots=True)
class Perftest:
    """All rows of both ends. `unit` as printed: MB/sec (2^20 bytes, whatever its name says), MiB/sec or Gb/sec."""

    unit: str
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """Rows in the order printed; the keys of the rates carry the unit."""
        unit = _KEYS[self.unit]
        rows = [
            {"bytes": r.bytes, "iterations": r.iterations, f"peak_{unit}": r.peak, f"avg_{unit}": r.average}
            for r in self.rows
        ]
        return {"unit": self.unit, "rows": rows, "n_rows": len(rows)}

    @property
    def doubts(self) -> tuple[str, ...]:
        """That a table without a row measured nothing."""
        return () if self.rows else ("no row in it: nothing was measured",)


def parse(text: str) -> Perftest:
    """Reads the report. Raises UnreadableError where there is no header with a unit known here."""
    unit = ""
    rows: list[Row] = []
    for line in text[:MAX_CHARACTERS].split("\n"):
        if header := _HEADER.match(line):
            unit = header[1]
        elif unit and (row := _ROW.match(line)) and len(rows) < MAX_ROWS:
            rows.append(Row(int(row[1]), int(row[2]), float(row[3]), float(row[4])))
    if unit not in _KEYS:
        raise UnreadableError("no header of a bandwidth table: not the output of perftest")
    return Perftest(unit, tuple(rows))
