"""A burn-in's files through a container's log: the very bytes, or a name for what is wrong with them."""

from __future__ import annotations

import base64
import hashlib
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.frames import CHUNK_BYTES, MARK, Encoder
from toolkit.runners.job_output import MAX_BYTES, MAX_WAITING, ForgedError, Output, parse

RUN, POD, PROGRAM = "demo-node1-1", "0a1b2c3d-uid", "f" * 64
HELLO = dict.fromkeys(("run", "carrier", "node", "program", "serial", "boot", "python"), "x")


def encoder(run: str = RUN, pod: str = POD) -> Encoder:
    """As the pod has it."""
    return Encoder(run, pod, PROGRAM)


def output() -> Output:
    """As the controller has it."""
    return Output(RUN, POD, PROGRAM)


def lines(records: bytes, artifacts: dict[str, bytes], status: int = 0, made: Encoder | None = None) -> list[bytes]:
    """The log of a run that ended."""
    made = made or encoder()
    told = [made.words("hello", dict(HELLO)), *made.lines("records", "records.jsonl", records)]
    for name, content in artifacts.items():
        told += made.lines("artifact", name, content)
    sums = {"bytes": len(records), "sha256": hashlib.sha256(records).hexdigest()}
    end = {"status": status, "frames": len(told) + 1, "records": sums, "artifacts": len(artifacts), "left_out": {}}
    return [*told, made.words("end", end)]


def random_bytes(count: int, seed: int = 1) -> bytes:
    """What does not compress."""
    return random.Random(seed).randbytes(count)


@given(st.binary(max_size=40_000), st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
                                                   st.binary(max_size=20_000), max_size=4))  # fmt: skip
def test_every_byte_comes_through(records, artifacts):
    """Whatever the files hold: empty, binary, over many lines."""
    told = output()
    told.feed(b"".join(lines(records, artifacts)))
    assert (bytes(told.records), {k: bytes(v) for k, v in told.artifacts.items()}) == (records, artifacts)
    assert told.doubt() == ""


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_pieces_repeats_and_other_words_change_nothing(seed, repeats):
    """The log is read in pieces that overlap and end anywhere, in any order, with others' words between its lines."""
    rng = random.Random(seed)
    log = lines(random_bytes(30_000, seed), {"log.txt": b"a" * 9000})
    mixed = [line for each in log for line in (b"python3: a warning\n", each)]
    told = output()
    for _ in range(repeats):
        at = 0
        while at < len(mixed):
            to = at + rng.randint(1, 6)
            piece = b"".join(mixed[max(0, at - rng.randint(0, 5)) : to])
            told.feed(piece + mixed[(to + 1) % len(mixed)][:20])  # the last line cut off
            at = to
    told.feed(b"".join(rng.sample(mixed, len(mixed))))
    assert told.doubt() == ""
    assert told.words[-1] == "python3: a warning"


def test_a_line_is_shorter_than_what_runtimes_cut_in_two():
    """16 KiB, however badly the content packs."""
    made = encoder()
    longest = max(len(line) for line in made.lines("artifact", "a" * 128, random_bytes(5 * CHUNK_BYTES)))
    assert longest < 16 * 1024
    assert made.cost(random_bytes(5 * CHUNK_BYTES)) >= made.size - 5 * 64 - 400


@pytest.mark.parametrize("lost", [0, 1, 3, -2])
def test_a_lost_line_is_found_and_nothing_after_it_counts(lost):
    """Rotated away or dropped: the bytes before it stand, the output is not whole."""
    log = lines(random_bytes(40_000), {"x": b"y"})
    del log[lost]
    told = output()
    told.feed(b"".join(log))
    number = lost if lost >= 0 else len(log) - 1
    assert told.has_gap and told.taken == number and told.end is None
    assert told.doubt() in {f"line {number} of its log is missing: it was rotated away, or damaged",
                            "the beginning of its log is gone"}  # fmt: skip


def test_a_log_that_is_cut_off_has_no_end():
    """The pod went in the middle of its last line."""
    log = b"".join(lines(b"one\ntwo\n", {}))
    told = output()
    told.feed(log[:-5])
    assert told.doubt() == "its log has no end" and bytes(told.records) == b"one\ntwo\n"
    told.feed(log[-400:])  # from the middle of a line on: as a reading by time gives it
    assert told.doubt() == ""


def test_a_damaged_line_is_a_missing_one():
    """Two writers in one line, a flipped bit in the base64: the line counts as lost, and may still come whole."""
    log = lines(b"one\n" * 9000, {})
    for damaged in (log[2][:50] + b"noise\n", log[2].replace(b"A", b"B", 1), log[2][:-9] + b"\n", log[2][:60] + log[2]):
        told = output()
        told.feed(b"".join([*log[:2], damaged, *log[3:]]))
        assert told.has_gap and told.taken == 2
        told.feed(b"".join(log))
        assert told.doubt() == ""


def test_lines_of_another_run_or_pod_fit_nowhere():
    """An earlier pod's log, or another node's, in place of this one's."""
    for other in (encoder(run="demo-node2-1"), encoder(pod="another-uid"), Encoder(RUN, POD, "0" * 64)):
        with pytest.raises(ForgedError, match=r"line 0 of the log .* does not continue"):
            output().feed(b"".join(lines(b"one\n", {}, made=other)))


@pytest.mark.parametrize("where", [1, 2])
def test_a_line_put_in_by_somebody_else_spoils_everything(where):
    """Records that make a node look better cannot be put between its own."""
    log = lines(b'{"record":"end"}\n', {})
    own = next(encoder().lines("records", "records.jsonl", b'{"value":0}\n'))
    forged = own.replace(b" 0 ", b" %d " % where, 1)
    told = output()
    with pytest.raises(ForgedError, match=f"line {where} of the log of burn-in demo-node1-1"):
        told.feed(b"".join([*log[:where], forged, *log[where:]]))


def test_what_follows_the_end_or_tells_other_totals_is_forged():
    """A program that lies about itself is found by its own words."""
    sums = {"bytes": 4, "sha256": hashlib.sha256(b"one\n").hexdigest()}
    end = {"status": 0, "frames": 3, "records": sums, "artifacts": 0, "left_out": {}}
    for wrong in ({"frames": 4}, {"artifacts": 1}, {"records": sums | {"bytes": 5}}, {"status": True}, {"more": 1}):
        made = encoder()
        log = [made.words("hello", dict(HELLO)), *made.lines("records", "records.jsonl", b"one\n")]
        with pytest.raises(ForgedError, match="line 2"):
            output().feed(b"".join([*log, made.words("end", {**end, **wrong})]))
    whole = lines(b"one\n", {}, made=(made := encoder()))
    with pytest.raises(ForgedError, match="comes after the end"):
        output().feed(b"".join([*whole, *made.lines("records", "records.jsonl", b"two\n")]))


def test_a_program_that_failed_is_a_doubt_though_its_log_is_whole():
    """Disk full on the node: exit 4."""
    told = output()
    told.feed(b"".join(lines(b"one\n", {}, status=4)))
    assert told.doubt() == "its program ended with status 4"


def test_a_line_that_unpacks_to_more_than_it_says_is_none():
    """A bomb is not unpacked beyond a line's bound, and all lines together have one too."""
    for raw in (b"\0" * (CHUNK_BYTES + 1), b"\0" * 50_000_000):
        packed = base64.b64encode(zlib.compress(raw, 9)).decode()[:16_000]
        assert parse(f"{MARK} 0 records records.jsonl 8192 {'0' * 64} {packed}".encode()) is None
    told = output()
    told.feed(encoder().words("hello", dict(HELLO)))
    told._size = MAX_BYTES  # as after 16 Ki lines
    made = encoder()
    made.words("hello", dict(HELLO))
    with pytest.raises(ForgedError, match="bytes of all files"):
        told.feed(next(made.lines("records", "records.jsonl", b"x")))


def test_lines_that_wait_are_bounded():
    """A log that begins in the middle does not fill our memory."""
    log = lines(random_bytes(8192 * (MAX_WAITING + 50)), {})
    told = output()
    told.feed(b"".join(log[1:]))
    assert len(told._waiting) == MAX_WAITING
    told.feed(b"".join(log))
    assert told.doubt() == ""


@given(st.binary(max_size=300))
def test_no_line_breaks_the_reader(noise):
    """Whatever a container prints."""
    told = output()
    told.feed(noise + b"\n" + MARK.encode() + b" " + noise + b"\n")
    assert told.doubt() == "it has told nothing yet"
