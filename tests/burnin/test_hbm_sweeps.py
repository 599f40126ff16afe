"""The memory sweeps over a memory of our own that can be broken in ways a virtual GPU is not."""

from __future__ import annotations

import ctypes
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.child import Reporter
from burnin.device.cuda import OUT_OF_MEMORY, CudaError
from burnin.hbm import fill_verify, patterns
from burnin.hbm.fill_verify import Sweeps
from burnin.hbm.memory import block_bytes, blocks, take_memory
from burnin.hbm.patterns import Pattern
from burnin.record import load

MIB = 1 << 20


class HostGpu:
    """A GPU's memory on the host, with the driver's calls. `address` maps each access, `after` acts on each write."""

    def __init__(self, size: int = 8 * MIB, largest_piece: int = 2 * MIB) -> None:
        self.memory = bytearray(size)
        self.taken = 0
        self.largest_piece = largest_piece
        self.writes = 0
        self.fails_at = -1
        self.address: Callable[[int], int] = lambda page: page
        self.after: Callable[[bytearray], None] = lambda memory: None
        self._host: list[ctypes.Array[ctypes.c_char]] = []

    def allocate(self, size: int) -> int:
        if size > self.largest_piece or self.taken + size > len(self.memory):
            raise CudaError("cuMemAlloc_v2", OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY")
        self.taken += size
        return self.taken - size

    def allocate_host(self, size: int) -> int:
        self._host.append(ctypes.create_string_buffer(size))
        return ctypes.addressof(self._host[-1])

    def write(self, device: int, host: int, size: int) -> None:
        self.writes += 1
        if self.writes == self.fails_at:
            raise CudaError("cuMemcpyHtoD_v2", 214, "CUDA_ERROR_ECC_UNCORRECTABLE")
        self._store(device, ctypes.string_at(host, size))

    def read(self, host: int, device: int, size: int) -> None:
        ctypes.memmove(host, self._load(device, size), size)

    def copy(self, target: int, source: int, size: int) -> None:
        self._store(target, self._load(source, size))

    def fill(self, device: int, word: int, size: int) -> None:
        self._store(device, word.to_bytes(4, "little") * (size // 4))

    def wait(self) -> None:
        pass

    def _store(self, device: int, data: bytes) -> None:
        for offset in range(0, len(data), 4096):
            page = self.address(device + offset)
            self.memory[page : page + min(4096, len(data) - offset)] = data[offset : offset + 4096]
        self.after(self.memory)

    def _load(self, device: int, size: int) -> bytes:
        parts = []
        for offset in range(0, size, 4096):
            page = self.address(device + offset)
            parts.append(bytes(self.memory[page : page + min(4096, size - offset)]))
        return b"".join(parts)


def sweep(gpu: HostGpu, seconds: float = 60, rounds: int = 1) -> tuple[Sweeps, str]:
    chunks = take_memory(gpu, len(gpu.memory))  # type: ignore[arg-type]
    sweeps = Sweeps(gpu, Reporter("hbm", 0), chunks, "seed", seconds)  # type: ignore[arg-type]
    return sweeps, sweeps.run(rounds)


def test_good_memory_has_no_miscompares_and_full_coverage() -> None:
    """Every byte that was taken is written and verified in both required steps."""
    gpu = HostGpu()
    sweeps, left_out = sweep(gpu)
    assert (sweeps.tally.miscompares, left_out, sweeps.tally.steps) == (0, "", 5)
    assert sweeps.tally.covered == [gpu.taken, gpu.taken] and gpu.taken >= 0.97 * len(gpu.memory)


@pytest.mark.parametrize("bit", range(12, 23))
def test_a_stuck_address_line_is_found(bit: int) -> None:
    """Each address bit from the page up stuck at 0: half the memory holds the other half's data."""
    gpu = HostGpu()
    gpu.address = lambda page: page & ~(1 << bit)
    sweeps, _ = sweep(gpu)
    assert sweeps.tally.miscompares > 100_000
    assert sweeps.tally.first[0].step == "unique"


def test_lost_writes_are_found() -> None:
    """A page that keeps its old content."""
    gpu = HostGpu()

    def lose(memory: bytearray) -> None:
        memory[MIB : MIB + 4096] = bytes(4096)

    gpu.after = lose
    sweeps, _ = sweep(gpu)
    # unique, inverted and ones differ in all its words; where it is copied from, the copy differs too
    assert sweeps.tally.miscompares >= 3 * 512


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("bit", [0, 17, 63])
def test_a_stuck_data_bit_is_found_whatever_it_is_stuck_at(bit: int, value: int) -> None:
    """Both polarities are written to every address."""
    gpu = HostGpu()

    def stick(memory: bytearray) -> None:
        place, mask = 3 * MIB + 8 * 1000 + bit // 8, 1 << bit % 8
        memory[place] = memory[place] | mask if value else memory[place] & ~mask

    gpu.after = stick
    sweeps, _ = sweep(gpu)
    assert sweeps.tally.miscompares >= 2
    assert {m.xor for m in sweeps.tally.first} == {f"{1 << bit:016x}"}
    first = sweeps.tally.first[0]
    chunk = take_memory(HostGpu(), 8 * MIB)[first.chunk]  # type: ignore[arg-type]
    assert chunk.address + first.word * 8 == 3 * MIB + 8000


def test_an_ecc_error_in_the_middle_keeps_what_was_done(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """CUDA 214 ends the workload with its word; coverage says how little was verified."""
    gpu = HostGpu()
    gpu.fails_at = 12
    chunks = take_memory(gpu, len(gpu.memory))  # type: ignore[arg-type]
    sweeps = Sweeps(gpu, Reporter("hbm", 0), chunks, "seed", 60)  # type: ignore[arg-type]
    fill_verify._run(Reporter("hbm", 0), sweeps, 1, len(gpu.memory), len(gpu.memory), tmp_path / "m.json")
    said = list(load(capfd.readouterr().out.splitlines()))
    values = {r.metric: r.value for r in said if r.record == "measurement"}
    assert values["cuda_result"] == "ecc_uncorrectable" and values["hbm_coverage"] == 0
    assert "hbm_miscompares" not in values, "none found in memory nobody looked at is no measurement"
    assert said[-1].outcome == "crashed" and "cuMemcpyHtoD_v2 gave 214" in said[-1].detail


def test_a_budget_that_ends_early_is_told_and_costs_coverage() -> None:
    """Partial work is partial coverage, never a rounded-up one."""
    gpu = HostGpu()
    sweeps, left_out = sweep(gpu, seconds=0)
    assert "stopped in step 1" in left_out and sweeps.tally.covered == [0]


def test_memory_in_small_pieces_is_taken_all_the_same() -> None:
    """A driver that has no large piece left still gives 97 %."""
    gpu = HostGpu(size=8 * MIB, largest_piece=128 * 1024)
    chunks = take_memory(gpu, len(gpu.memory))  # type: ignore[arg-type]
    assert sum(c.size for c in chunks) >= 0.97 * len(gpu.memory)


def test_hopeless_memory_ends_the_search(tmp_path: Path) -> None:
    """All words wrong: the count stops at a million instead of taking an hour."""
    gpu = HostGpu(size=9 * MIB)
    gpu.after = lambda memory: memory.__setitem__(slice(None), bytes([7]) * len(memory))
    sweeps, left_out = sweep(gpu)
    assert 1_000_000 <= sweeps.tally.miscompares < 1_100_000 and "stopped after" in left_out
    assert len(sweeps.tally.first) == 64
    json.dumps([m.xor for m in sweeps.tally.first])


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_no_two_blocks_have_the_same_window(one: int, other: int) -> None:
    """What is fetched from a wrong block differs."""
    assert (patterns.window(one) == patterns.window(other)) == (one == other)
    assert patterns.window(one) % 64 == 0, "copies stay aligned"


def test_the_patterns_are_what_they_are_called() -> None:
    """The complement is the complement; the same seed gives the same data; words do not repeat."""
    unique, inverted = (patterns.source(p, 1 << 16, "s") for p in (Pattern.UNIQUE, Pattern.INVERTED))
    assert all(a ^ b == 255 for a, b in zip(unique, inverted, strict=True))
    assert patterns.source(Pattern.UNIQUE, 1 << 16, "s") == unique != patterns.source(Pattern.UNIQUE, 1 << 16, "t")
    words = [unique[i : i + 8] for i in range(0, len(unique), 8)]
    assert len(set(words)) == len(words)


def test_blocks_cover_their_chunks_without_gap_or_overlap() -> None:
    """Coverage is counted in blocks."""
    gpu = HostGpu()
    chunks = take_memory(gpu, len(gpu.memory))  # type: ignore[arg-type]
    found = list(blocks(chunks, block_bytes(chunks)))
    assert [b.number for b in found] == list(range(len(found)))
    for chunk in chunks:
        mine = [b for b in found if b.chunk is chunk]
        assert sum(b.size for b in mine) == chunk.size
        assert all(a.offset + a.size == b.offset for a, b in itertools.pairwise(mine))
