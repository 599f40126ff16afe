"""A pool in one YAML file: for rehearsal, for the demo, and for sites whose scheduler reads a file."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from toolkit.durable import write_whole
from toolkit.errors import RackproofError, UndecidedError
from toolkit.pool import file_jobs
from toolkit.pool.lead import lead
from toolkit.pool.model import (
    NODE_GONE,
    NODE_SHUT,
    Drained,
    DrainEnd,
    PoolNode,
    Sign,
    Smoked,
    SmokeEnd,
)
from toolkit.pool.policy import NO_SMOKE, PoolKind
from toolkit.rack.document import Problems, parse

ADMITTED, TAINTED = "admitted", "tainted"
MAX_REASON = 1000
_HEADER = "# The training pool. rackproof writes this file; what is changed by hand is overwritten.\n"
_FIELDS = ("state", "certificate", "expires", "reason", "labels")


class FilePool:
    """Members in a YAML file, replaced as a whole under a lock, so that a reader never sees half of it.

    It says who may take jobs. Which jobs run, and how the members are, is for the scheduler that reads it to know.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = path
        self._clock = clock

    def nodes(self) -> Mapping[str, PoolNode]:
        """Every member by name. Raises InputError with lines for a file that is wrong."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise UndecidedError(
                f"the pool file {self._path} cannot be read: {exc.strerror}", "check its owner and permissions"
            ) from exc
        return _Reader(raw, str(self._path)).nodes()

    def register(self, node: str, reason: str, labels: Mapping[str, str] | None = None) -> None:
        """Makes the node a member that takes no jobs. Without `labels` it keeps those it had."""
        with self._changing() as members:
            known = members[node].labels if node in members else {}
            members[node] = PoolNode(False, reason=reason, labels=known if labels is None else dict(labels))

    def admit(self, node: str, certificate: str, expires: datetime, labels: Mapping[str, str]) -> None:
        """Lets a member take jobs."""
        with self._changing() as members:
            if node not in members:
                raise UndecidedError(
                    f"{node} is not a member of the pool {self._path}", "let it join first: rackproof bringup"
                )
            reason = f"certificate {certificate[:12]} in force until {_text(expires)}"
            members[node] = PoolNode(True, certificate, expires, reason, dict(labels))

    def evict(self, node: str, reason: str) -> None:
        """Lets a member take no more jobs."""
        with self._changing() as members:
            _shut(members, node, reason)

    def evict_all(self, reasons: Mapping[str, str]) -> Mapping[str, RackproofError]:
        """In one change of the file: all of them, or none."""
        try:
            with self._changing() as members:
                for node, reason in reasons.items():
                    _shut(members, node, reason)
        except RackproofError as failure:
            return dict.fromkeys(reasons, failure)
        return {}

    def drain(self, node: str, reason: str, deadline_s: float) -> Drained:
        """UNDECIDED, always: a file knows no jobs, and "nothing runs there" must not be read out of its silence."""
        member = self.nodes().get(node)
        if member is not None and member.admitted:
            self.evict(node, reason)
        why = f"{self._path} does not say what runs on {node}: ask the scheduler that reads it"
        return Drained(node, DrainEnd.UNDECIDED, why=why)

    def signs(self, nodes: Sequence[str], since: datetime) -> tuple[Sign, ...]:
        """Members that are gone from the file, and members that somebody took out by hand."""
        members = self.nodes()
        found = []
        for node in nodes:
            member = members.get(node)
            if member is None:
                found.append(Sign(node, NODE_GONE, "it is no member any more", f"pool file {self._path}"))
            elif not member.admitted:
                found.append(Sign(node, NODE_SHUT, member.reason or "no reason given", f"pool file {self._path}"))
        return tuple(found)

    def smoke(self, nodes: Sequence[str], deadline_s: float) -> Smoked:
        """NOT_ASKED: a file starts no jobs."""
        return Smoked(SmokeEnd.NOT_ASKED, NO_SMOKE[PoolKind.FILE])

    def wanted(self, node: str) -> str | None:
        """By what the scheduler that reads this file writes beside it; UndecidedError while it writes nothing."""
        return file_jobs.wanted(self._path, node, self._clock())

    def leading(self, holder: str) -> AbstractContextManager[None]:
        """A lock on a file beside the pool's."""
        return lead(self._path.with_name(f".{self._path.name}.regulator"), holder, str(self._path))

    @contextmanager
    def _changing(self) -> Iterator[dict[str, PoolNode]]:
        """The members to change; written back when the block ends well."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the file, which is replaced: a lock on a replaced file excludes nobody.
            with self._path.with_name(f".{self._path.name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                members = dict(self.nodes())
                yield members
                self._write(members)
        except OSError as exc:
            raise UndecidedError(
                f"the pool file {self._path} could not be written: {exc.strerror}; nothing was changed",
                "free space or correct the permissions, then run the same command again",
            ) from exc

    def _write(self, members: Mapping[str, PoolNode]) -> None:
        document = {"nodes": {name: _entry(members[name]) for name in sorted(members)}}
        text = _HEADER + yaml.safe_dump(document, sort_keys=False, width=110)
        write_whole(self._path, text.encode())


def _shut(members: dict[str, PoolNode], node: str, reason: str) -> None:
    if node in members:
        members[node] = replace(members[node], admitted=False, certificate="", expires=None, reason=reason)


def _entry(node: PoolNode) -> dict[str, object]:
    entry: dict[str, object] = {"state": ADMITTED if node.admitted else TAINTED}
    if node.admitted and node.expires is not None:
        entry.update(certificate=node.certificate, expires=_text(node.expires))
    # A reason may quote a node: half a surrogate pair is no text in any file.
    entry["reason"] = node.reason[:MAX_REASON].encode("utf-8", "replace").decode()
    if node.labels:
        entry["labels"] = dict(node.labels)
    return entry


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


class _Reader:
    """Members from the file's bytes; every problem with its line."""

    def __init__(self, raw: bytes, file: str) -> None:
        self._document = parse(raw, file)
        self._problems = Problems(self._document)

    def nodes(self) -> dict[str, PoolNode]:
        data = self._document.data
        members = data.get("nodes") if isinstance(data, dict) else None
        if not isinstance(data, dict) or set(data) != {"nodes"} or not isinstance(members, dict | None):
            self._problems.add((), "a pool file has one key 'nodes' with the members under it", "restore a copy")
        found = {}
        for name, entry in (members if isinstance(members, dict) else {}).items():
            found[name] = self._node(name, entry)
        self._problems.raise_any()
        return found

    def _node(self, name: str, entry: object) -> PoolNode:
        loc = ("nodes", name)
        if not isinstance(entry, dict):
            self._problems.add(loc, "a member is a mapping", f"fields: {', '.join(_FIELDS)}")
            return PoolNode(False)
        for field in entry:
            if field not in _FIELDS:
                self._problems.add((*loc, field), "unknown field", f"one of {', '.join(_FIELDS)}", of_key=True)
        state = entry.get("state")
        if state not in (ADMITTED, TAINTED):
            self._problems.add((*loc, "state"), f"{state!a} is no state", f"{ADMITTED} or {TAINTED}")
        labels = self._labels((*loc, "labels"), entry.get("labels"))
        reason = self._string((*loc, "reason"), entry.get("reason"))
        if state != ADMITTED:
            return PoolNode(False, reason=reason, labels=labels)
        certificate = self._string((*loc, "certificate"), entry.get("certificate"))
        if not certificate:
            self._problems.add((*loc, "certificate"), "an admitted member names its certificate", "its sha256")
        return PoolNode(True, certificate, self._time((*loc, "expires"), entry.get("expires")), reason, labels)

    def _string(self, loc: tuple[str, ...], value: object) -> str:
        if value is not None and not isinstance(value, str):
            self._problems.add(loc, "must be text")
        return value if isinstance(value, str) else ""

    def _labels(self, loc: tuple[str, ...], value: object) -> dict[str, str]:
        pairs = value if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            self._problems.add(loc, "must be a mapping of names to texts")
        return {key: self._string((*loc, key), text) for key, text in pairs.items()}

    def _time(self, loc: tuple[str, ...], value: object) -> datetime | None:
        try:
            at = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            self._problems.add(loc, "an admitted member has a time of expiry", "such as 2026-12-01T00:00:00+00:00")
            return None
        return at
