"""The records' schema: what a burn-in writes is read back as it was; what does not fit is refused whole."""

from __future__ import annotations

import io
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin import record
from burnin.record import (
    Artifact,
    End,
    GpuIdentity,
    Measured,
    Outcome,
    Progress,
    Record,
    RecordError,
    Start,
    WorkloadEnded,
)


def text(limit: int) -> st.SearchStrategy[str]:
    """Any text as a writer may hold it, made fit by `clean`."""
    return st.text(max_size=limit).map(lambda t: record.clean(t, limit))


INDEX = st.none() | st.integers(0, 1023)
NUMBER = st.integers(-(2**64), 2**64) | st.floats(-1e18, 1e18)
FILE = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,60}\Z")
GPU = st.builds(GpuIdentity, st.integers(0, 1023), text(256), text(256), text(64))
NAMES = st.lists(text(256), max_size=8).map(tuple)
RECORDS = st.one_of(
    st.builds(Start, text(128), text(64), text(64), text(64), st.lists(GPU, max_size=8).map(tuple)),
    st.builds(Progress, text(64), text(128), st.floats(0, 1), text(256), INDEX),
    st.builds(Measured, text(64), text(128), text(128), text(32), NUMBER | text(256), INDEX, INDEX),
    st.builds(WorkloadEnded, text(64), text(128), st.sampled_from(Outcome), st.floats(0, 1e6), text(4096), INDEX),
    st.builds(Artifact, text(64), text(128), FILE, st.from_regex(r"\A[0-9a-f]{64}\Z"), st.integers(0, 2**60)),
    st.builds(End, text(64), NAMES, NAMES),
)


@given(st.lists(RECORDS, max_size=5))
def test_what_is_written_is_read_back(written: list[Record]) -> None:
    """Records survive the file, whatever text and numbers they hold."""
    file = io.BytesIO("".join(map(record.dump, written)).encode())
    assert list(record.read(file)) == written


@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes_give_records_or_a_refusal(hostile: bytes) -> None:
    """Nothing but RecordError comes out of a file the node wrote."""
    try:
        list(record.read(io.BytesIO(hostile)))
    except RecordError as error:
        assert str(error).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(["start", "progress", "measurement", "workload", "artifact", "end"])
KEYS = st.sampled_from(
    ["run", "at", "suite", "version", "gpus", "workload", "done", "text", "metric", "unit", "value", "gpu", "link",
     "outcome", "seconds", "detail", "name", "sha256", "bytes", "planned", "ended", "index"]
)  # fmt: skip


@given(KINDS | JSON, st.dictionaries(KEYS, JSON, max_size=14))
def test_any_json_gives_a_record_or_a_refusal(kind: object, fields: dict[str, object]) -> None:
    """Known field names with values of any shape never get through as something else."""
    line = json.dumps({"record": kind, **fields})
    try:
        (item,) = record.load([line])
    except RecordError:
        return
    assert list(record.load([record.dump(item)])) == [item]


def measured(value: str) -> str:
    return f'{{"record":"measurement","at":"t","workload":"w","metric":"m","unit":"u","value":{value}}}'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (measured("NaN"), "not JSON"),
        (measured("Infinity"), "not JSON"),
        (measured("1e999"), "out of range"),
        (measured("-1e300"), "out of range"),
        (measured("9" * 4000), "out of range"),
        (measured("9" * 60000), "not JSON"),
        (measured("true"), "not a number"),
        (measured("null"), "not a number"),
        (measured('"\\u001b[2J"'), "control characters"),
        (measured('"\\u202e"'), "control characters"),
        (measured('"\\ud800"'), "control characters"),
        (measured('"' + "x" * 257 + '"'), "257 characters"),
        (measured('"x"')[:-1] + ',"gpu":-1}', "not an index"),
        (measured('"x"')[:-1] + ',"gpu":true}', "not an index"),
        ("[" * 60000, "not JSON"),
        ('{"a":' * 10000, "not JSON"),
        ("[]", "not an object"),
        ('{"record":[]}', "unknown kind"),
        ('{"record":{"x":1}}', "unknown kind"),
        ("{}", "unknown kind"),
        ('{"record":"start","run":"r","at":"t","suite":"s","version":"v","gpus":[1]}', "not an object"),
        ('{"record":"start","run":"r","at":"t","suite":"s","version":"v","gpus":{}}', "not a list"),
        ('{"record":"progress","at":"t","workload":"w","done":2,"text":""}', "0..1"),
        ('{"record":"workload","at":"t","workload":"w","outcome":"passed","seconds":1,"detail":""}', "passed"),
        ('{"record":"artifact","at":"t","workload":"w","name":"../x","sha256":"' + "0" * 64 + '","bytes":1}', "malf"),
        ('{"record":"artifact","at":"t","workload":"w","name":"x","sha256":"' + "0" * 64 + '","bytes":-1}', "count"),
        ('{"record":"artifact","at":"t","workload":"w","name":"x","sha256":"' + "0" * 64 + '","bytes":1.5}', "count"),
        ('{"record":"end","at":"t","planned":["a",1],"ended":[]}', "not text"),
        ('{"record":"end","at":"t","planned":"a","ended":[]}', "not a list"),
    ],
)
def test_a_line_that_lies_is_refused(line: str, why: str) -> None:
    """Each kind of lie, with the reason told in printable words."""
    with pytest.raises(RecordError, match=why) as refused:
        list(record.load([line]))
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


class EndlessLine(io.RawIOBase):
    """A file with a line of 1 GiB, made as it is read."""

    def __init__(self) -> None:
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        size = min(len(buffer), (1 << 30) - self.given)
        buffer[:size] = b"x" * size
        self.given += size
        return size


def test_a_line_of_a_gibibyte_is_never_held() -> None:
    """The reader gives up at the limit, having read little more."""
    endless = EndlessLine()
    begun = time.monotonic()
    with pytest.raises(RecordError, match="over 65536"):
        list(record.read(io.BufferedReader(endless)))
    assert endless.given < 1 << 20 and time.monotonic() - begun < 1


def test_more_records_than_a_run_can_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that never ends does not fill our memory."""
    monkeypatch.setattr(record, "MAX_RECORDS", 10)
    with pytest.raises(RecordError, match="more than 10"):
        list(record.load([measured("1")] * 11))


def test_a_line_that_is_still_being_written_is_left_out() -> None:
    """The controller polls while the node writes."""
    whole = record.dump(Measured("t", "w", "m", "u", 1))
    assert len(list(record.read(io.BytesIO((whole + whole[:20]).encode())))) == 1


def test_a_run_that_was_started_again_has_its_attempts_apart() -> None:
    """What a cut attempt measured is not mixed with the last one's."""
    start, one, two = Start("r", "t", "s", "v", ()), Measured("t", "w", "m", "u", 1), Measured("t", "w", "m", "u", 2)
    assert record.attempts([one, start, one, start, two]) == [[start, one], [start, two]]
    assert record.attempts([]) == []


@given(st.text(max_size=300), st.integers(0, 64))
def test_clean_text_is_printable_and_bounded(dirty: str, limit: int) -> None:
    """Whatever a program printed can be recorded and shown."""
    cleaned = record.clean(dirty, limit)
    assert cleaned.isprintable() and len(cleaned) <= limit
