"""What NVLinks and HCAs carried during a test: the two readings of byte counters that a node wrote, subtracted.

The node's JSON is untrusted: bounded, every value checked. A counter that ran backwards (a reset, a driver that was
loaded anew) or that is missing in one reading is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_PARTS = 1024
_LARGEST = 1 << 63
# Errors of an HCA's port: those that tell of its own link, and the one that passes on what another port had marked.
OF_THE_LINK = (
    "symbol_error", "link_error_recovery", "link_downed", "port_rcv_errors", "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
)  # fmt: skip
PASSED_ON = "port_rcv_remote_physical_errors"
ERRORS = (*OF_THE_LINK, PASSED_ON)


@dataclass(frozen=True, slots=True)
class Carried:
    """Bytes during the test. None: not known.

    gpus   sent and received over all NVLinks of a GPU, by index; a GPU without a link that is up carried 0
    links  the same of each NVLink, by (GPU, link)
    hcas   sent over all ports of an HCA, by name
    errors what all ports of an HCA counted wrong, by name and counter; a counter nobody could read twice is not there
    """

    node: str
    gpus: Mapping[int, int | None] = field(default_factory=dict)
    links: Mapping[tuple[int, int], int | None] = field(default_factory=dict)
    hcas: Mapping[str, int | None] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def carried(node: str, text: str) -> Carried:
    """What the node's `{"before": ..., "after": ...}` says. Never raises: what is not there is not known."""
    try:
        told = json.loads(text) if len(text) <= MAX_CHARACTERS else None
    except (ValueError, RecursionError):
        told = None
    readings = told if isinstance(told, dict) else {}
    return between(node, readings.get("before"), readings.get("after"))


def between(node: str, before: object, after: object) -> Carried:
    """The difference of two readings."""
    first, last = _links(before), _links(after)
    links = {key: _both(first.get(key), last.get(key)) for key in sorted({*first, *last})}
    gpus: dict[int, int | None] = dict.fromkeys(sorted({*_gpus(before), *_gpus(after)}), 0)
    for (gpu, _), count in links.items():
        so_far = gpus.get(gpu)
        gpus[gpu] = None if count is None or so_far is None else so_far + count
    one, other = _hcas(before), _hcas(after)
    hcas = {name: _delta(one.get(name), other.get(name)) for name in sorted({*one, *other})}
    return Carried(node, gpus, links, hcas, _grown(_errors(before), _errors(after)))


def _both(before: tuple[int, int] | None, after: tuple[int, int] | None) -> int | None:
    if before is None or after is None:
        return None
    sent, received = _delta(before[0], after[0]), _delta(before[1], after[1])
    return None if sent is None or received is None else sent + received


def _delta(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None or after < before else after - before


def _gpus(reading: object) -> Iterator[int]:
    for gpu in _items(reading, "gpus"):
        index = _count(gpu.get("gpu"))
        if index is not None:
            yield index


def _links(reading: object) -> dict[tuple[int, int], tuple[int, int] | None]:
    found: dict[tuple[int, int], tuple[int, int] | None] = {}
    for gpu in _items(reading, "gpus"):
        index = _count(gpu.get("gpu"))
        for link in _items(gpu, "links"):
            number, sent, received = (_count(link.get(key)) for key in ("link", "sent", "received"))
            if index is not None and number is not None:
                found[index, number] = None if sent is None or received is None else (sent, received)
    return found


def _hcas(reading: object) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for port in _items(reading, "hcas"):
        name, sent = str(port.get("hca"))[:64], _count(port.get("sent"))
        before = found.get(name, 0)
        found[name] = None if sent is None or before is None else before + sent
    return found


def _errors(reading: object) -> dict[str, dict[str, int | None]]:
    """By HCA and counter, over its ports; None where a port's is not known."""
    found: dict[str, dict[str, int | None]] = {}
    for port in _items(reading, "hcas"):
        errors = port.get("errors")
        told = errors if isinstance(errors, dict) else {}
        of_hca = found.setdefault(str(port.get("hca"))[:64], {})
        for name in ERRORS if told else ():
            count, so_far = _count(told.get(name)), of_hca.get(name, 0)
            of_hca[name] = None if count is None or so_far is None else so_far + count
    return found


def _grown(
    before: Mapping[str, Mapping[str, int | None]], after: Mapping[str, Mapping[str, int | None]]
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for hca in sorted({*before} & {*after}):
        deltas = {name: _delta(before[hca].get(name), after[hca].get(name)) for name in ERRORS}
        found[hca] = {name: delta for name, delta in deltas.items() if delta is not None}
    return found


def _items(reading: object, key: str) -> list[dict[str, Any]]:
    items = reading.get(key) if isinstance(reading, dict) else None
    return [item for item in items[:MAX_PARTS] if isinstance(item, dict)] if isinstance(items, list) else []


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else None
