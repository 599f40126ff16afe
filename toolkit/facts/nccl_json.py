"""The report that nccl-tests writes with option -J: formats 1 (2.17.4-), 2 (2.19.1) and 3 (2.19.6).

Traps: booleans may be strings; before 2.17.9 a key is misspelt; NaN is the string "nan"; the file holds the whole
environment of the process, secrets included: nothing of it is read here; `devices` names the first GPU of a process
only; an early failure leaves the file cut, or without `results`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from toolkit.facts.nccl_rows import MAX_ROWS, Half, Row
from toolkit.facts.nccl_run import NcclRun, Rank, Sign

_AVERAGE_KEYS = ("average_bus_bandwidth", "average_bus_bandwidith")  # the second up to 2.17.8


def load(text: str) -> NcclRun | None:
    """The run of a JSON report; None if the text is none (a cut report is none)."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        report = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or not ("results" in report or "config" in report):
        return None
    return _run(report)


def _run(report: dict[str, Any]) -> NcclRun:
    config = _dict(report.get("config"))
    bounds = report.get("out_of_bounds")
    average = next((report[k] for k in _AVERAGE_KEYS if k in report), None)
    rows = tuple(_row(r) for r in _list(report.get("results"))[:MAX_ROWS] if isinstance(r, dict))
    okay = _flag(_dict(bounds).get("okay"))
    average_okay = _flag(_dict(average).get("okay"))
    args = _list(report.get("args"))
    ranks = [_dict(d) for d in _list(config.get("devices"))]
    return NcclRun(
        rows=rows,
        listed=tuple(_rank(r) for r in ranks),
        signs=frozenset({Sign.STARTED}),
        program=args[0].rsplit("/", 1)[-1][:128] if args and isinstance(args[0], str) else None,
        nccl_library=_int(report.get("nccl_version")),
        check_column="#wrong" if rows else None,
        out_of_bounds=_int(_dict(bounds).get("count")),
        out_of_bounds_status=None if okay is None else "OK" if okay else "FAILED",
        avg_busbw=_float(_dict(average).get("bandwidth")),
        avg_status=None if average_okay is None else "OK" if average_okay else "FAILED",
        footer_complete=okay is not None and average is not None,
    )


def _row(raw: dict[str, Any]) -> Row:
    return Row(_int(raw.get("size")) or 0, _half(raw.get("out_of_place")), _half(raw.get("in_place")))


def _half(raw: object) -> Half | None:
    return Half(_float(raw.get("bus_bw")), _float(raw.get("nwrong"))) if isinstance(raw, dict) else None


def _rank(raw: dict[str, Any]) -> Rank:
    number, device = _int(raw.get("rank")), _int(raw.get("device"))
    return Rank(-1 if number is None else number, str(raw.get("hostname"))[:256], -1 if device is None else device)


def _dict(raw: object) -> dict[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _list(raw: object) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _float(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        value = float(raw)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _int(raw: object) -> int | None:
    value = _float(raw)
    return int(value) if value is not None else None


def _flag(raw: object) -> bool | None:
    """Whether it says yes: a boolean, or the same as a string. None: neither (`unchecked`)."""
    if isinstance(raw, bool):
        return raw
    return {"true": True, "false": False}.get(raw.lower()) if isinstance(raw, str) else None
