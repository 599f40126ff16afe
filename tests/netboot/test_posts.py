"""What nodes may post: bounded in size, number and rate, and only by attempts of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.netboot.decisions import posted_to
from toolkit.netboot.posts import (
    LOG_BYTES_PER_TOKEN,
    LOG_MAX_BYTES,
    PROGRESS_PER_TOKEN,
    REPORT_MAX_BYTES,
    REPORTS_PER_TOKEN,
    SOURCE_BURST_POSTS,
    SOURCE_POSTS_PER_S,
    Posts,
    Taken,
)
from toolkit.netboot.ranges import Span, span_of

TOKEN, SOURCE = "0123456789abcdef" * 2, "10.66.0.11"


@dataclass
class Clock:
    """Seconds, which pass when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Time stands still."""
    return Clock()


@pytest.fixture
def posts(tmp_path: Path, clock: Clock) -> Posts:
    """One attempt may post."""
    made = Posts(tmp_path, clock)
    made.open(TOKEN)
    return made


def _event(name: str) -> bytes:
    return json.dumps({"event": name}).encode()


def test_only_an_attempt_of_ours_may_post(posts: Posts) -> None:
    """Opened, or its seed is offered; whoever invents a token makes no file."""
    assert posts.add_report("f" * 32, SOURCE, _event("started")) is Taken.UNKNOWN
    assert posts.add_log("f" * 32, SOURCE, b"x") is Taken.UNKNOWN
    seeds = posts.provision / "seeds"
    seeds.mkdir()
    (seeds / f"{'e' * 32}.tar").touch()
    assert posts.add_report("e" * 32, SOURCE, _event("started")) is Taken.KEPT
    assert sorted(p.name for p in (posts.provision / "reports").iterdir()) == [f"{TOKEN}.jsonl", f"{'e' * 32}.jsonl"]
    assert not (posts.provision / "logs").exists()


def test_progress_leaves_room_for_the_end(posts: Posts, clock: Clock) -> None:
    """A ramdisk that reports progress without end is cut short there, and can still say how it ended."""
    kept = []
    for _ in range(PROGRESS_PER_TOKEN + 5):
        clock.now += 1
        kept.append(posts.add_report(TOKEN, SOURCE, _event("progress")))
    assert kept.count(Taken.KEPT) == PROGRESS_PER_TOKEN
    assert kept[-1] is Taken.TOO_MANY
    assert posts.add_report(TOKEN, SOURCE, _event("written")) is Taken.KEPT
    for _ in range(REPORTS_PER_TOKEN):
        clock.now += 1
        last = posts.add_report(TOKEN, SOURCE, _event("failed"))
    assert last is Taken.TOO_MANY
    lines = (posts.provision / "reports" / f"{TOKEN}.jsonl").read_bytes().count(b"\n")
    assert lines == PROGRESS_PER_TOKEN + REPORTS_PER_TOKEN


def test_a_source_that_floods_is_held_and_another_is_not(posts: Posts, clock: Clock) -> None:
    """A burst, then a rate; also of posts that are refused for another reason."""
    answers = [posts.add_report("f" * 32, SOURCE, b"{}") for _ in range(SOURCE_BURST_POSTS + 10)]
    assert answers.count(Taken.TOO_MANY) == 10
    assert posts.add_report(TOKEN, SOURCE, _event("started")) is Taken.TOO_MANY
    assert posts.add_report(TOKEN, "10.66.0.12", _event("started")) is Taken.KEPT
    clock.now += 1 / SOURCE_POSTS_PER_S
    assert posts.add_report(TOKEN, SOURCE, _event("started")) is Taken.KEPT


def test_a_log_is_kept_and_is_bounded(posts: Posts, clock: Clock) -> None:
    """As it came, whatever bytes it has; posted again it is appended; a token's logs end at a bound."""
    first = b"deploy: \xff\x1b[2J power off\n"
    assert posts.add_log(TOKEN, SOURCE, first) is Taken.KEPT
    assert posts.add_log(TOKEN, SOURCE, b"more\n") is Taken.KEPT
    file = posts.provision / "logs" / f"{TOKEN}.log"
    assert file.read_bytes() == first + b"\n--- posted again ---\nmore\n"
    assert posts.add_log(TOKEN, SOURCE, b"x" * (LOG_MAX_BYTES + 1)) is Taken.TOO_LARGE
    for _ in range(8):
        clock.now += 3600
        last = posts.add_log(TOKEN, SOURCE, b"x" * LOG_MAX_BYTES)
    assert last is Taken.TOO_MANY
    assert file.stat().st_size <= LOG_BYTES_PER_TOKEN


@given(st.binary(max_size=300))
def test_whatever_is_posted_is_kept_as_one_line_or_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    """No body makes two lines, or an error."""
    posts = Posts(tmp_path_factory.mktemp("root"))
    posts.open(TOKEN)
    taken = posts.add_report(TOKEN, SOURCE, body)
    lines = (posts.provision / "reports" / f"{TOKEN}.jsonl").read_text().splitlines()
    assert (taken, len(lines)) in ((Taken.KEPT, 1), (Taken.NOT_JSON, 0))


@pytest.mark.parametrize(
    ("target", "most"),
    [
        (f"/report/{TOKEN}", REPORT_MAX_BYTES),
        (f"/log/{TOKEN}", LOG_MAX_BYTES),
        (f"/log/{TOKEN}?x=1", LOG_MAX_BYTES),
        ("/report/../boot/x", None),
        ("/report/", None),
        ("/report", None),
        ("/log/.hidden", None),
        ("/log/a/b", None),
        ("/boot/x.ipxe", None),
        ("/", None),
        ("", None),
    ],
)
def test_where_something_may_be_posted(target: str, most: int | None) -> None:
    """A token is a plain file name."""
    found = posted_to(target)
    assert (found.max_bytes if found else None) == most


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, Span(0, 10, 10)),
        ("bytes=3-", Span(3, 10, 10)),
        ("bytes=3-5", Span(3, 6, 10)),
        ("bytes=0-99", Span(0, 10, 10)),
        ("bytes=-4", Span(6, 10, 10)),
        ("bytes=-99", Span(0, 10, 10)),
        ("bytes=10-", None),
        ("bytes=-0", None),
        ("bytes=5-3", Span(0, 10, 10)),
        ("bytes=1-2,4-5", Span(0, 10, 10)),
        ("lines=1-2", Span(0, 10, 10)),
        ("bytes=-", Span(0, 10, 10)),
    ],
)
def test_ranges_are_read_as_http_has_them(header: str | None, span: Span | None) -> None:
    """RFC 9110: one range is given, more or none that is valid give the whole, one beyond the end is refused."""
    assert span_of(header, 10) == span


def test_an_empty_file_has_no_range() -> None:
    """Neither from its start nor from its end."""
    assert span_of("bytes=0-", 0) is None
    assert span_of("bytes=-1", 0) is None
    assert span_of(None, 0) == Span(0, 0, 0)
