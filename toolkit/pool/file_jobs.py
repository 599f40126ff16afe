"""What a site's scheduler says of its jobs beside a pool that is a file. Without its word nobody knows what is idle.

`pool/<site>.jobs.yml`, written whole by the scheduler every minute or so:

    at: 2026-11-23T14:00:00+00:00
    running: {node1: job 4711 of alice}
    wanted: {node2: job 4712 waits for it}
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from toolkit.errors import UndecidedError
from toolkit.judge.verdict import CLOCK_SKEW
from toolkit.rack.document import Problems, parse

# Older than this it says nothing of now: a scheduler that has died goes on calling every node idle.
OLDEST = timedelta(minutes=5)
_FIELDS = ("at", "running", "wanted")
_LONGEST = 300


def beside(pool: Path) -> Path:
    """The file beside the pool's."""
    return pool.with_suffix(".jobs.yml")


def wanted(pool: Path, node: str, now: datetime) -> str | None:
    """Who has a use for the node; None: it is idle, and nobody waits for it.

    UndecidedError where the scheduler says nothing, or said it too long ago; InputError for a file that is wrong.
    """
    path = beside(pool)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UndecidedError(
            f"nobody says whether {node} is idle: a pool in a file knows no jobs, and {path} is not there",
            f"let the scheduler write it (at, running, wanted), or: rackproof drain {node} --reason ...",
        ) from None
    except OSError as exc:
        raise UndecidedError(f"{path} cannot be read: {exc.strerror}", "check its owner and permissions") from exc
    at, running, waiting = _read(raw, path)
    if not -CLOCK_SKEW <= now - at <= OLDEST:
        raise UndecidedError(
            f"{path} is of {at.isoformat()}: it says nothing of {node} now", "see whether the scheduler still writes it"
        )
    if node in running:
        return f"{running[node]} runs there"
    return waiting.get(node)


def _read(raw: bytes, path: Path) -> tuple[datetime, dict[str, str], dict[str, str]]:
    document = parse(raw, str(path))
    problems = Problems(document)
    data = document.data
    if not isinstance(data, dict) or not set(data) <= set(_FIELDS):
        problems.add((), f"its keys are {', '.join(_FIELDS)}", "see toolkit/pool/file_jobs.py")
        data = {}
    found: list[dict[str, str]] = []
    for key in _FIELDS[1:]:
        value = data.get(key)
        named = _texts(value)
        if named is None:
            problems.add((key,), "must be a mapping of nodes to what runs or waits", "{node1: job 4711}")
        found.append(named or {})
    told = data.get("at")
    at = _time(told)
    if at is None:
        problems.add(("at",) if "at" in data else (), "`at` is a time with a zone", "2026-12-01T00:00:00+00:00")
    problems.raise_any()
    if at is None:
        raise AssertionError("a file without a time has a problem")
    return at, found[0], found[1]


def _texts(value: object) -> dict[str, str] | None:
    """None for what is no mapping of texts."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        return None
    return {str(name): str(text)[:_LONGEST] or "somebody" for name, text in value.items()}


def _time(told: object) -> datetime | None:
    try:
        at = told if isinstance(told, datetime) else datetime.fromisoformat(str(told))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
