"""The journal: what is recorded is what is read, in order, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import RackproofError
from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.ledger.records import MAX_BODY_BYTES

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def note(text: str = "", **body: object) -> NewEvent:
    return NewEvent(EventKind.NOTE, "demo", "node1", body, text)


def test_an_event_is_read_back_as_it_was_recorded(ledger: Ledger, clock: Callable[[], datetime]) -> None:
    """Every field survives, with the time and the actor of the ledger."""
    event = ledger.append(NewEvent(EventKind.NOTE, "demo", "node1", {"a": [1, 2.5, None, "ü"]}, "why"))
    assert ledger.events() == (event,)
    assert (event.id, event.actor, event.at, event.token) == (1, "tester", clock(), None)
    assert event.body == {"a": [1, 2.5, None, "ü"]}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=st.dictionaries(st.text(), JSON, max_size=4), what=st.text(max_size=20))
def test_any_json_body_survives(ledger: Ledger, body: dict[str, object], what: str) -> None:
    """What came from a node may hold NUL, odd Unicode and deep values."""
    recorded = ledger.append(NewEvent(EventKind.NOTE, "demo", "", body, what))
    assert ledger.events(after=recorded.id - 1)[0].body == body


def test_half_a_surrogate_pair_is_kept_in_the_body_and_replaced_in_keys(ledger: Ledger) -> None:
    """Neither database can store it as text; the JSON body says it escaped."""
    event = ledger.append(note("a\ud800b\0c", raw="\ud800"))
    assert ledger.events()[0].body == {"raw": "\ud800"}
    assert event.what == "a?b\ufffdc"


def test_events_are_filtered_and_paged(ledger: Ledger) -> None:
    """By rack, node and kind; `after` and `limit` walk a long journal."""
    ledger.append_all([note(str(i)) for i in range(5)])
    ledger.append(NewEvent(EventKind.ADMISSION, "other"))
    assert [e.what for e in ledger.events(rack="demo", after=2, limit=2)] == ["2", "3"]
    assert [e.kind for e in ledger.events(kind=EventKind.ADMISSION)] == [EventKind.ADMISSION]
    assert ledger.events(rack="demo", node="") == ()
    assert [e.what for e in ledger.story("demo", "node1", limit=2)] == ["3", "4"]


def test_an_intent_is_found_by_its_key(ledger: Ledger) -> None:
    """A retry asks for the newest intent and for what was observed after it."""
    ledger.intent("demo", "node1", "power", {"to": "off"})
    second = ledger.intent("demo", "node1", "power", {"to": "on"})
    assert ledger.find("demo", "node1", EventKind.INTENT, "power") == second
    assert second.body == {"what": "power", "details": {"to": "on"}}
    assert ledger.find("demo", "node1", EventKind.OBSERVED, "power") is None
    seen = ledger.observed("demo", "node1", "power", {"state": "on"})
    assert ledger.find("demo", "node1", EventKind.OBSERVED, "power") == seen


def test_many_events_are_one_transaction(ledger: Ledger) -> None:
    """A bad one among them leaves none of them."""
    with pytest.raises(RackproofError, match="not JSON"):
        ledger.append_all([note("good"), note("bad", value={1, 2})])
    assert ledger.events() == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(ledger: Ledger, value: float) -> None:
    """NaN is not JSON, and no evidence."""
    with pytest.raises(RackproofError, match="not JSON"):
        ledger.append(note(value=value))


def test_a_body_that_is_too_large_is_refused(ledger: Ledger) -> None:
    """A node that answers with a gigabyte fills no journal; its bytes belong into an artifact."""
    with pytest.raises(RackproofError, match="store it as an artifact"):
        ledger.append(note(raw="x" * MAX_BODY_BYTES))
    assert ledger.events() == ()


def test_an_event_that_keeps_a_table_is_not_appended_bare(ledger: Ledger) -> None:
    """Otherwise journal and tables would disagree."""
    with pytest.raises(RackproofError, match="by its own method"):
        ledger.append(NewEvent(EventKind.NODE_MOVED, "demo", "node1"))


def test_a_plan_is_stored_once_and_read_back(ledger: Ledger) -> None:
    """Running the same plan again records it once."""
    first = ledger.store_plan("demo", "abc", '{"steps":[]}')
    assert ledger.store_plan("demo", "abc", '{"steps":[]}') == first
    assert ledger.plan("demo", "abc") == '{"steps":[]}'
    assert len(ledger.events()) == 1


def test_stored_evidence_is_on_record(ledger: Ledger) -> None:
    """The event names the artifact and its size."""
    digest = ledger.store_artifact("demo", "node1", "dmesg", b"NVRM: Xid")
    event = ledger.find("demo", "node1", EventKind.ARTIFACT_STORED, "dmesg")
    assert event is not None
    assert event.body == {"sha256": digest, "bytes": 9}
    assert ledger.artifacts.get(digest) == b"NVRM: Xid"


def test_a_time_without_a_zone_is_refused(ledger: Ledger, clock) -> None:
    """Text order is time order only in one zone."""
    clock.now = datetime(2026, 1, 1)  # noqa: DTZ001 - that is what is tested
    with pytest.raises(RackproofError, match="without a zone"):
        ledger.append(note())
