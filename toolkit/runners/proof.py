"""What the events of a playbook run prove about each host. Pure: events in, one result for each host asked for out.

Ansible is green too easily: no host matched, a typo in a tag or a limit, an ignored failure and a dead host under
`ignore_unreachable` all end with exit status 0. So a host is OK only if it ran the playbook's last task, the
completion marker, on the node itself, and nothing on the way failed, was ignored, rescued or out of reach.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.runners.play import HostOutcome, HostResult, PlayEvent

MESSAGE_CHARACTERS = 2000

_OUTCOMES = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")

_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")  # progress of apt and curl


def marker(playbook: str) -> str:
    """Name of the task every playbook ends with."""
    return f"Rackproof completed {playbook.removesuffix('.yml')}"


def printable(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """At most `limit` characters of what a node said, without escapes and control characters; the end is kept."""
    cut = _OVERWRITTEN.sub("", text[-16 * limit :])
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in _ESCAPES.sub("", cut)).strip()
    return clean if len(clean) <= limit else "..." + clean[-(limit - 3) :]


@dataclass(slots=True)
class _Story:
    """One host's events so far. `bad`: the task that decides and what it said; `soft`: failures that were ignored."""

    ok: int = 0
    changed: int = 0
    marked: bool = False
    unreachable: tuple[str, str] | None = None
    bad: tuple[str, str] | None = None
    soft: list[str] = field(default_factory=list)


class Proof:
    """Collects the events of one run. `tolerated` names tasks whose ignored failure does not count."""

    def __init__(self, playbook: str, nodes: Iterable[str], tolerated: frozenset[str] = frozenset()) -> None:
        self._marker = marker(playbook)
        self._tolerated = tolerated
        self._stories = {name: _Story() for name in nodes}
        self._stats: Mapping[str, Mapping[str, int]] | None = None

    def add(self, event: str, data: Mapping[str, object]) -> PlayEvent | None:
        """Takes one event of the run; the answer is what to show an operator, if anything."""
        if event == "playbook_on_stats":
            self._stats = {key: value for key, value in data.items() if isinstance(value, dict)}
            return None
        story = self._stories.get(str(data.get("host")))
        if event not in _OUTCOMES or story is None:
            return None
        task = str(data.get("task", ""))
        said = _said(data.get("res"))
        if event == "runner_on_ok":
            story.ok += 1
            story.changed += _is_changed(data.get("res"))
            story.marked = story.marked or task == self._marker
        elif event == "runner_on_unreachable":
            story.unreachable = story.unreachable or (task, said)
        elif event == "runner_on_failed" and data.get("ignore_errors") is True:
            story.soft.append(task)
        elif event == "runner_on_failed":
            story.bad = story.bad or (task, said)
            story.marked = False  # the marker is the last word or it is none
        return PlayEvent(str(data["host"]), task, _OUTCOMES[event])

    def results(self, ended: str) -> dict[str, HostResult]:
        """One result for each node asked for. `ended` says why a host may have no end: "time over after 60 s"."""
        return {name: self._result(name, story, ended) for name, story in self._stories.items()}

    def _result(self, host: str, story: _Story, ended: str) -> HostResult:
        if story.unreachable:
            return HostResult(HostOutcome.UNREACHABLE, story.changed, *story.unreachable)
        if story.bad and not story.marked:
            return HostResult(HostOutcome.FAILED, story.changed, *story.bad)
        doubts = list(self._doubts(host, story, ended))
        if doubts:
            task = story.bad[0] if story.bad else next(iter(story.soft), "")
            return HostResult(HostOutcome.UNKNOWN, story.changed, task, "; ".join(doubts))
        return HostResult(HostOutcome.OK, story.changed, self._marker)

    def _doubts(self, host: str, story: _Story, ended: str) -> Iterable[str]:
        if story.bad:
            yield f"'{story.bad[0]}' failed and was rescued: {story.bad[1]}"
        untold = [task for task in story.soft if task not in self._tolerated]
        if untold:
            yield f"ignored failures: {', '.join(untold)}"
        if not story.ok:
            yield f"no task ran on it ({ended})"
        elif not story.marked:
            yield f"it did not reach '{self._marker}' ({ended})"
        yield from self._contradictions(host, story)

    def _contradictions(self, host: str, story: _Story) -> Iterable[str]:
        """What Ansible's own count says against the host. A run that was cut short has no count."""
        if self._stats is None:
            return
        if not self._stats.get("processed", {}).get(host):
            yield "Ansible does not count it among the hosts it processed"
        allowed = {"ignored": len(story.soft), "dark": 0, "failures": 0, "rescued": 1 if story.bad else 0}
        for key, most in allowed.items():
            counted = self._stats.get(key, {}).get(host, 0)
            if counted > most:
                yield f"Ansible counts {key}={counted}"


def _is_changed(answer: object) -> bool:
    return isinstance(answer, dict) and answer.get("changed") is True


def _said(answer: object) -> str:
    """The part of a task's answer an operator reads."""
    if not isinstance(answer, dict):
        return ""
    if "censored" in answer:
        return "hidden by no_log"
    texts: list[str] = []
    for part in (answer, *_failed_items(answer.get("results"))):
        texts += [str(part[key]) for key in ("msg", "stderr", "stdout") if part.get(key)]
    return printable("\n".join(texts)) or "it said nothing, or too much to keep"


def _failed_items(items: object) -> Sequence[dict[str, object]]:
    return [i for i in items if isinstance(i, dict) and i.get("failed")] if isinstance(items, list) else []
