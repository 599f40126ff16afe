"""The memory's kernels and sweeps, on a virtual GPU in this process."""

from __future__ import annotations

import ctypes
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ctypes import c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burnin.child import Reporter
from burnin.device.cuda import Cuda
from burnin.device.kernels import Kernels
from burnin.hbm.findings import CAPACITY
from burnin.hbm.memory import Chunk, take_memory
from burnin.hbm.patterns import TILE_BYTES, TILE_VECTORS, VECTOR_BYTES, Kind, Pattern, Step, Then, steps
from burnin.hbm.sweeper import Sweeper
from burnin.hbm.sweeps import NoMemoryError, Sweeps
from toolkit.rack.model import Rack
from toolkit.virtual.hardware import render_state

KIB, MIB = 1 << 10, 1 << 20
PCI = "00000000:1B:00.0"
FATBIN = {"hbm": b"\x50\xed\x55\xba" + bytes(60)}  # the virtual driver runs its own build of the same sources

PATTERNS = (
    Pattern(Kind.ADDRESS),
    Pattern(Kind.RANDOM, 0x0123456789ABCDEF, inverted=True),
    Pattern(Kind.CHECKERBOARD, 7),
    Pattern(Kind.WALKING, 13),
    Pattern(Kind.SOLID, inverted=True),
    Pattern(Kind.MODULO_20, 0xABCDEF00 | 19),
)


class Bench:
    """One virtual GPU with our kernels, and a few MiB of its memory."""

    def __init__(self, cuda: Cuda, size: int = 4 * MIB, pieces: int = 1) -> None:
        self.cuda = cuda
        self.kernels = Kernels(cuda, FATBIN)
        self.chunks: tuple[Chunk, ...] = ()
        for piece in range(pieces):
            first = piece * (size // pieces) // VECTOR_BYTES
            self.chunks += (Chunk(cuda.allocate(size // pieces), size // pieces, first),)
        self.sweeper = Sweeper(cuda, self.kernels, self.chunks)
        self._host = cuda.allocate_host(MIB)

    def read(self, address: int, size: int) -> bytes:
        """Device memory."""
        self.cuda.read(self._host, address, size)
        return ctypes.string_at(self._host, size)

    def write(self, address: int, data: bytes) -> None:
        """Device memory, behind the sweeps' back."""
        ctypes.memmove(self._host, data, len(data))
        self.cuda.write(address, self._host, len(data))

    def flip(self, vector: int, bit: int) -> None:
        """Invert one of the 128 bits of a vector."""
        chunk = next(c for c in reversed(self.chunks) if c.first <= vector)
        address = chunk.address + (vector - chunk.first) * VECTOR_BYTES + bit // 8
        self.write(address, bytes([self.read(address, 1)[0] ^ 1 << bit % 8]))


@pytest.fixture(name="make_bench", scope="module")
def _make_bench(vendor: Path, rack: Rack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Bench]]:
    """Benches on a healthy GPU; all they took is given back when their test module ends."""
    folder = tmp_path_factory.mktemp("hardware")
    (folder / "load").mkdir()
    (folder / "kmsg").touch()
    node = next(u for u in rack.units if u.name == "node1")
    (folder / "state").write_text(render_state(node, rack.profile, ()))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("RACKPROOF_HARDWARE", str(folder))
        cuda = Cuda(str(vendor / "libcuda.so.1"))
        stack.enter_context(cuda.gpu(PCI))
        taken: list[Bench] = []

        def make(size: int = 4 * MIB, pieces: int = 1) -> Bench:
            for bench in taken:
                for chunk in bench.chunks:
                    cuda.free(chunk.address)
            taken[:] = [Bench(cuda, size, pieces)]
            return taken[0]

        yield make


def words(data: bytes) -> list[tuple[int, int]]:
    """Vectors as pairs of 64-bit words."""
    values = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    return list(zip(values[::2], values[1::2], strict=True))


seeds = st.integers(0, 2**64 - 1)
any_pattern = st.one_of(
    st.builds(Pattern, st.just(Kind.ADDRESS), st.just(0), st.booleans()),
    st.builds(Pattern, st.just(Kind.RANDOM), seeds, st.booleans()),
    st.builds(Pattern, st.just(Kind.CHECKERBOARD), st.integers(0, 31), st.booleans()),
    st.builds(Pattern, st.just(Kind.WALKING), st.integers(0, 63), st.booleans()),
    st.builds(Pattern, st.just(Kind.SOLID), st.just(0), st.booleans()),
    st.builds(Pattern, st.just(Kind.MODULO_20), seeds.map(lambda s: s & ~31 | s % 20), st.booleans()),
)
# a GPU of 16 TiB would have 2^40 vectors
first_tiles = st.integers(0, (1 << 40) // TILE_VECTORS - 1)


@given(pattern=any_pattern, tile=first_tiles, down=st.booleans())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_the_kernel_writes_what_the_formula_says(
    make_bench: Callable[..., Bench], pattern: Pattern, tile: int, down: bool
) -> None:
    """Every kind and seed, anywhere in a large memory, both directions."""
    bench = make_bench(size=64 * KIB)
    first = tile * TILE_VECTORS
    bench.kernels.launch(
        "hbm_write", 1, c_void_p(bench.chunks[0].address), c_uint64(1), c_uint32(down), c_uint64(first),
        c_uint32(pattern.kind), c_uint64(pattern.seed), c_uint64(pattern.flip),
    )  # fmt: skip
    got = words(bench.read(bench.chunks[0].address, TILE_BYTES))
    assert got == [pattern.value(first + i) for i in range(TILE_VECTORS)]


@given(st.sampled_from([Kind.ADDRESS, Kind.RANDOM]), seeds, st.integers(0, 2**40), st.integers(0, 2**40))
def test_no_two_places_hold_the_same(kind: Kind, seed: int, one: int, other: int) -> None:
    """What is stored at, or fetched from, a wrong place differs: in both words, so in either half of a vector."""
    pattern = Pattern(kind, seed)
    same = [a == b for a, b in zip(pattern.value(one), pattern.value(other), strict=True)]
    assert same == [one == other, one == other]


@given(any_pattern, st.integers(0, 2**40))
def test_a_complement_has_every_bit_the_other_way(pattern: Pattern, number: int) -> None:
    """So each bit of each address is seen as 0 and as 1."""
    other = Pattern(pattern.kind, pattern.seed, not pattern.inverted)
    assert [a ^ b for a, b in zip(pattern.value(number), other.value(number), strict=True)] == [2**64 - 1] * 2


def test_random_data_has_no_bias_and_neighbours_differ_in_half_their_bits() -> None:
    """Each of the 128 bits is 1 in half the vectors, and changes from one vector to the next half the time."""
    values = [Pattern(Kind.RANDOM, 99).value(n) for n in range(4096)]
    joined = [x | y << 64 for x, y in values]
    for bit in range(128):
        ones = sum(v >> bit & 1 for v in joined)
        changes = sum((a ^ b) >> bit & 1 for a, b in itertools.pairwise(joined))
        assert 1850 < ones < 2250 and 1850 < changes < 2250, bit  # six standard deviations


def test_rounds_have_their_own_data_and_the_slow_steps_are_rare() -> None:
    """No seed is used twice; rests and row activation come in the first round and then seldom."""
    rounds = [list(steps("run", number, rest=True, thorough=True)) for number in range(33)]
    random_seeds = [
        s.pattern.seed for r in rounds for s in r if s.pattern.kind is Kind.RANDOM and not s.pattern.inverted
    ]
    assert len(set(random_seeds)) == len(random_seeds)
    slow = {Then.REST, Then.ACTIVATE}
    assert [n for n, r in enumerate(rounds) if slow & {s.then for s in r}] == [0, 32]
    kinds = {s.pattern.kind for s in steps("run", 0, rest=False, thorough=False)}
    assert kinds == set(Kind) - {Kind.MODULO_20}
    walked = {(s.pattern.seed, s.pattern.inverted) for r in rounds[:8] for s in r if s.pattern.kind is Kind.WALKING}
    assert len(walked) == 128, "eight rounds walk all 64 positions, ones and zeros"


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_good_memory_is_found_good_in_every_pass(make_bench: Callable[..., Bench], pattern: Pattern) -> None:
    """Written, checked while the next is written, moved, checked again, in both directions."""
    bench = make_bench(pieces=2)
    sweeper = bench.sweeper
    assert sweeper.write(pattern, 0, down=False).verified == 0
    assert sweeper.verify(down=True).verified == 4 * MIB
    swept = sweeper.write(Pattern(pattern.kind, pattern.seed, not pattern.inverted), 1, down=True)
    assert (swept.verified, swept.written, swept.traffic) == (4 * MIB, 4 * MIB, 8 * MIB)
    assert swept.gb_per_s is not None and swept.gb_per_s > 0
    sweeper.move(down=False)
    sweeper.verify(down=False)
    sweeper.move(down=True)
    sweeper.write(pattern, 2, down=False)
    sweeper.verify(down=True)
    assert (sweeper.findings.words, sweeper.findings.miscompares()) == (0, ())


@given(number=st.integers(0, 4 * MIB // VECTOR_BYTES - 1), bit=st.integers(0, 127), fused=st.booleans())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_flipped_bit_is_found_where_it_is(
    make_bench: Callable[..., Bench], number: int, bit: int, fused: bool
) -> None:
    """Its number, the bit, what was there and what a second read gave; the step that wrote it. Then it is gone."""
    bench = make_bench(pieces=2)
    sweeper, pattern = bench.sweeper, PATTERNS[1]
    sweeper.write(pattern, 41, down=False)
    bench.flip(number, bit)
    if fused:
        sweeper.write(PATTERNS[0], 42, down=True)
    else:
        sweeper.verify(down=True)
    (found,) = sweeper.findings.miscompares()
    xor = 1 << bit
    assert (sweeper.findings.words, sweeper.findings.transient) == (1, 0)
    assert (found.index, found.step, found.transient) == (number, 41, False)
    assert found.xor == f"{xor & 2**64 - 1:016x} {xor >> 64:016x}"
    assert found.expected == "{:016x} {:016x}".format(*pattern.value(number))
    assert found.got == found.again != found.expected
    assert found.sm < bench.kernels.sms
    if fused:
        sweeper.verify(down=False)
        assert sweeper.findings.words == 1, "what was written over it is right"


def test_what_was_moved_is_checked_where_it_is(make_bench: Callable[..., Bench]) -> None:
    """The number that is reported is the place, not the data's: a bit flipped after the move is found right there."""
    bench = make_bench()
    bench.sweeper.write(PATTERNS[0], 0, down=False)
    bench.sweeper.move(down=False)
    bench.flip(12345, 3)
    bench.sweeper.verify(down=False)
    (found,) = bench.sweeper.findings.miscompares()
    half = 2 * MIB // VECTOR_BYTES
    assert (found.index, found.expected) == (12345, "{:016x} {:016x}".format(*PATTERNS[0].value(12345 + half)))


def test_words_that_are_all_wrong_are_all_counted(make_bench: Callable[..., Bench]) -> None:
    """The count goes on where the list is full; equal vectors elsewhere make nothing right."""
    bench = make_bench()
    bench.sweeper.write(PATTERNS[1], 0, down=False)
    for offset in range(0, 4 * MIB, MIB):
        bench.write(bench.chunks[0].address + offset, b"\xa5" * MIB)
    bench.sweeper.verify(down=False)
    assert bench.sweeper.findings.words == 4 * MIB // 8
    assert len(bench.sweeper.findings.miscompares()) == CAPACITY


def test_activation_opens_every_row_and_changes_nothing(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of rows, even and odd, reach from the first to the last row of each chunk."""
    monkeypatch.setattr("burnin.hbm.sweeper._WINDOW_S", 0.5)  # of a GPU that shares a busy CPU with others
    bench = make_bench(size=MIB)
    bench.sweeper.write(PATTERNS[1], 0, down=False)
    done = bench.sweeper.activate()
    assert done.traffic > 100 * MIB
    windows = bench.sweeper._windows(bench.chunks[0])
    base = bench.chunks[0].address
    rows = {(address - base) // KIB + 2 * row for address, count in windows for row in range(count)}
    assert rows == set(range(KIB)) and bench.sweeper.windows() == len(windows)
    bench.sweeper.verify(down=False)
    assert bench.sweeper.findings.words == 0


def test_a_rest_lasts_as_long_as_it_was_given(make_bench: Callable[..., Bench]) -> None:
    """Not less, and not much more; memory is not touched."""
    bench = make_bench()
    done = bench.sweeper.rest(0.4)
    assert 400 <= done.ms < 1400 and (done.traffic, done.gb_per_s) == (0, None)


def test_nearly_all_free_memory_is_taken_even_in_pieces(make_bench: Callable[..., Bench]) -> None:
    """Chunks are whole pairs of tiles, numbered without a gap; a driver without a large piece gives many small ones."""
    bench = make_bench(size=64 * KIB)
    cuda = bench.cuda
    holes = [cuda.allocate(512 * KIB) for _ in range(20)]
    for hole in holes[::2]:
        cuda.free(hole)
    free, _ = cuda.memory()
    chunks = take_memory(cuda, free)
    try:
        assert len(chunks) > 5 and 0.97 * free <= sum(c.size for c in chunks) < free
        assert all(c.size % (2 * TILE_BYTES) == 0 for c in chunks)
        ends = [0, *(c.first + c.size // VECTOR_BYTES for c in chunks)]
        assert [c.first for c in chunks] == ends[:-1]
    finally:
        for address in [*holes[1::2], *(c.address for c in chunks)]:
            cuda.free(address)


def test_a_share_of_the_memory_can_be_asked_for(make_bench: Callable[..., Bench]) -> None:
    """A workload that needs room of its own takes less."""
    cuda = make_bench(size=64 * KIB).cuda
    free, _ = cuda.memory()
    chunks = take_memory(cuda, free, share=0.5)
    for chunk in chunks:
        cuda.free(chunk.address)
    assert 0.45 < sum(c.size for c in chunks) / free <= 0.5


def test_memory_that_others_hold_is_not_covered(make_bench: Callable[..., Bench], capfd: Any) -> None:
    """Of what was free everything is covered, of the GPU little; with nothing free there is no test."""
    cuda = make_bench(size=12 * MIB).cuda
    kernels = Kernels(cuda, FATBIN)
    sweeps = Sweeps(cuda, kernels, Reporter("hbm", 0), seed="s")
    assert sweeps.tally.covered == 0
    assert sweeps.run(seconds=0) == ""
    assert 0.97 < sweeps.tally.covered / sweeps.tally.free < 1
    assert sweeps.tally.covered / sweeps.tally.total < 0.25
    with pytest.raises(NoMemoryError, match="no memory could be taken"):
        Sweeps(cuda, kernels, Reporter("hbm", 0), seed="s")
    for chunk in sweeps.chunks:
        cuda.free(chunk.address)
    assert [json.loads(line)["record"] for line in capfd.readouterr().out.splitlines()] == ["progress"]


def test_steps_and_patterns_have_names_for_the_records() -> None:
    """What an operator reads."""
    assert str(Step(Pattern(Kind.RANDOM, 1, inverted=True), Then.REST)) == "~random, rest"
    assert [str(Pattern(Kind.WALKING, 8)), str(Pattern(Kind.MODULO_20, 64 + 7))] == ["walking 8", "modulo_20 7"]
