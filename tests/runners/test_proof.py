"""What events prove, without Ansible: the cases that a real run shows rarely."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.runners.play import HostOutcome
from toolkit.runners.proof import Proof, marker, printable

MARK = marker("base.yml")
Event = tuple[str, dict[str, Any]]


def ok(task: str, host: str = "node1", **res: object) -> Event:
    """A task that went well."""
    return "runner_on_ok", {"host": host, "task": task, "res": res}


def stats(**counts: dict[str, int]) -> Event:
    """Ansible's own count at the end."""
    return "playbook_on_stats", {"processed": {"node1": 1}, "failures": {}, "dark": {}, "ignored": {}, **counts}


GOOD = [ok("Install", changed=True), ok(MARK), stats()]


def outcome(events: list[Event]) -> HostOutcome:
    """The verdict on node1."""
    proof = Proof("base.yml", ["node1"])
    for event in events:
        proof.add(*event)
    return proof.results("ended").pop("node1").outcome


def test_the_whole_story_is_ok() -> None:
    """And nothing less: see below."""
    assert outcome(GOOD) is HostOutcome.OK


def test_a_run_cut_short_after_the_marker_is_ok_without_the_count() -> None:
    """Another host hung until the time was over; this one had finished."""
    assert outcome(GOOD[:2]) is HostOutcome.OK


@pytest.mark.parametrize(
    "events",
    [
        [],
        [stats()],
        [GOOD[0], stats()],
        [ok("Install", host="node2"), ok(MARK, host="node2"), stats()],
        [*GOOD[:2], stats(processed={})],
        [*GOOD[:2], stats(failures={"node1": 1})],
        [*GOOD[:2], stats(dark={"node1": 1})],
        [*GOOD[:2], stats(ignored={"node1": 1})],
        [*GOOD[:2], stats(rescued={"node1": 1})],
    ],
    ids=["nothing", "count only", "no marker", "another's", "unprocessed", "failures", "dark", "ignored", "rescued"],
)
def test_less_than_the_whole_story_is_unknown(events: list[Event]) -> None:
    """Never green when unknown."""
    assert outcome(events) is HostOutcome.UNKNOWN


def test_a_failure_after_the_marker_is_a_failure() -> None:
    """The marker is the last word or it is none."""
    broken = ("runner_on_failed", {"host": "node1", "task": "Handler", "res": {"msg": "no"}})
    assert outcome([*GOOD[:2], broken, stats(failures={"node1": 1})]) is HostOutcome.FAILED


def test_words_of_a_node_are_printable_and_bounded() -> None:
    """Escapes, bells, overwritten progress and length."""
    assert printable("\x1b]0;title\x07\x1b[31mred\x1b[0m\x07 end") == "red  end"
    assert printable("Reading 1%\rReading 99%\rdone\r\nnext") == "done \nnext"
    assert len(printable("x" * 10**6, 100)) == 100
