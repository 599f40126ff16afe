"""Faults of a virtual GPU's memory: each shows exactly as described, for kernels and for copies, and nowhere else."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from driver_api import MIB, Cuda

from toolkit.virtual.faults import Fault, FaultKind

U64 = ctypes.c_uint64
VECTORS = 15 * MIB // 16 - 256  # nearly all that is free
ROW, LINE = 64, 8
MEMORY_KINDS = [
    FaultKind.HBM_STICKY_BIT, FaultKind.HBM_ADDRESS_LINE, FaultKind.HBM_FLIP, FaultKind.HBM_COUPLING,
    FaultKind.HBM_LOST_WRITE, FaultKind.HBM_RETENTION, FaultKind.HBM_ROW_DISTURB,
]  # fmt: skip


@dataclass
class Memory:
    """All of a GPU's free memory, looked at by the probe's kernels and by copies."""

    cuda: Cuda
    node: Any
    start: ctypes.c_uint64
    result: ctypes.c_uint64

    def key(self, name: str) -> int:
        """A number of the state, of GPU 3."""
        lines = dict(line.split(" ", 1) for line in (self.node.folder / "state").read_text().splitlines())
        return int(lines[f"gpu3.memory.{name}"])

    def write(self, word: int) -> None:
        """Every vector's number and a word into it, ascending."""
        function = self.cuda.function("probe_write")
        assert self.cuda.launch(function, 4, self.start, U64(VECTORS), U64(word)) == 0

    def check(self, word: int) -> tuple[int, int, int]:
        """Errors, and the first one's vector and wrong bits."""
        self.cuda.ok("cuMemsetD8_v2", self.result, 0, ctypes.c_size_t(64))
        results = (U64(self.result.value + offset) for offset in (0, 8, 16))
        function = self.cuda.function("probe_check")
        assert self.cuda.launch(function, 4, self.start, U64(VECTORS), U64(word), *results) == 0
        errors, first, low, high = (U64 * 4).from_buffer_copy(self.cuda.get(self.result, 32))
        return errors, first, low | high << 64

    def put(self, vector: int, value: int) -> None:
        """One vector by a copy."""
        self.cuda.put(self.start, value.to_bytes(16, "little"), 16 * vector)

    def get(self, vector: int) -> int:
        """One vector by a copy."""
        return int.from_bytes(self.cuda.get(self.start, 16, 16 * vector), "little")

    def take_turns(self, one: int, other: int, times: int) -> None:
        """Reads two vectors in turn, by a kernel."""
        places = (U64(self.start.value + 16 * vector) for vector in (one, other))
        function = self.cuda.function("probe_take_turns")
        assert self.cuda.launch(function, 1, *places, U64(times), self.result) == 0


@pytest.fixture(name="memory")
def _memory(node: Any, probing: Path) -> Iterator[Memory]:
    cuda = Cuda(probing)
    cuda.ok("cuInit", 0)
    cuda.open(3)
    yield Memory(cuda, node, cuda.allocate(16 * VECTORS), cuda.allocate(64))
    cuda.close()


Breaks = Callable[..., None]


@pytest.fixture(name="breaks")
def _breaks(node: Any, make_fault: Callable[..., Fault]) -> Breaks:
    def set_fault(kind: FaultKind, value: float | None = None) -> None:
        node.set(make_fault(kind, value=value))

    return set_fault


def test_without_a_fault_nothing_is_ever_wrong(memory: Memory) -> None:
    """Written and checked three times, kernels and copies mixed."""
    for word in (0, 0xFFFFFFFFFFFFFFFF, 0x5555555555555555):
        memory.write(word)
        assert memory.check(word) == (0, 0, 0)
    assert memory.get(VECTORS - 1) == VECTORS - 1 | 0x5555555555555555 << 64


@pytest.mark.parametrize("kind", MEMORY_KINDS)
def test_a_fault_is_of_one_gpu_and_ends_when_it_is_cleared(
    memory: Memory, node: Any, make_fault: Callable[..., Fault], kind: FaultKind
) -> None:
    """The neighbour's fault leaves us alone; ours, once cleared, leaves no wrong word behind that was written since."""
    node.set(make_fault(kind, gpu=2, value=1 if kind is not FaultKind.HBM_STICKY_BIT else None))
    memory.write(1)
    assert memory.check(1)[0] == 0
    node.set(make_fault(kind))
    memory.write(2)
    node.set()
    memory.write(3)
    assert memory.check(3)[0] == 0


def test_a_sticky_bit_is_one_whatever_was_written(memory: Memory, breaks: Breaks) -> None:
    """One vector with one wrong bit; none where the bit was written as 1; the same by copies."""
    breaks(FaultKind.HBM_STICKY_BIT)
    vector, bit = memory.key("stuck_vector"), 1 << memory.key("stuck_bit")
    memory.write(0)
    assert memory.check(0) == (1, vector, bit)
    assert memory.get(vector) == vector | bit
    memory.put(vector, (1 << 128) - 1)
    assert memory.get(vector) == (1 << 128) - 1


def test_an_address_line_makes_places_coincide(memory: Memory, breaks: Breaks) -> None:
    """Half of the vectors of the faulty half hold what was written to another; solid data shows nothing."""
    breaks(FaultKind.HBM_ADDRESS_LINE)
    line, low, high = memory.key("address_line_bit"), memory.key("address_line_from"), memory.key("address_line_to")
    memory.write(5)
    assert memory.check(5) == ((high - low) // 2, low, 1 << line)
    memory.cuda.ok("cuMemsetD8_v2", memory.start, 0xAA, ctypes.c_size_t(16 * VECTORS))
    assert memory.cuda.get(memory.start, 16 * VECTORS) == b"\xaa" * 16 * VECTORS
    memory.put(low + (1 << line), 77)
    assert memory.get(low) == 77
    memory.put(low - (1 << line), 78)
    assert memory.get(low - (1 << line)) == 78, "outside of it the line is whole"


def test_a_flip_is_seen_every_third_time_and_never_stays(memory: Memory, breaks: Breaks) -> None:
    """Read by a kernel or by a copy: right, right, wrong; the vector itself is right all the time."""
    breaks(FaultKind.HBM_FLIP)
    vector, bit = memory.key("flip_vector"), 1 << memory.key("flip_bit")
    memory.write(0)
    seen = [
        memory.check(0),
        memory.get(vector),
        memory.check(0),
        memory.check(0),
        memory.get(vector),
        memory.get(vector),
    ]
    assert seen == [(0, 0, 0), vector, (1, vector, bit), (0, 0, 0), vector, vector ^ bit]
    breaks(FaultKind.HBM_FLIP, 1)
    assert [memory.get(vector) for _ in range(3)] == [vector ^ bit] * 3


def test_a_rising_bit_inverts_its_victim(memory: Memory, breaks: Breaks) -> None:
    """0 to 1 does, each time; 1 to 1 and 1 to 0 do not, nor do other bits of the aggressor."""
    breaks(FaultKind.HBM_COUPLING)
    aggressor, victim = memory.key("aggressor_vector"), memory.key("victim_vector")
    rises, hurt = 1 << memory.key("aggressor_bit"), 1 << memory.key("victim_bit")
    memory.put(aggressor, 0)
    memory.put(victim, 0)
    seen = []
    for value in (rises << 1, rises, rises, rises, 0, rises):
        memory.put(aggressor, value)
        seen.append(memory.get(victim))
    assert seen == [0, hurt, hurt, hurt, hurt, 0]
    memory.cuda.ok("cuMemsetD8_v2", memory.start, 0, ctypes.c_size_t(16 * VECTORS))
    memory.cuda.ok("cuMemsetD8_v2", memory.start, 0xFF, ctypes.c_size_t(16 * (victim - 1)))
    assert memory.get(victim) == hurt, "its new content is in place before the aggressor rises"


def test_some_writes_to_a_line_are_lost(memory: Memory, breaks: Breaks) -> None:
    """Every fifth of those to the line's eight vectors; what was there before stays."""
    breaks(FaultKind.HBM_LOST_WRITE)
    first = LINE * memory.key("lost_line")
    memory.write(1)
    memory.write(2)
    wrong = [vector for vector in range(first - LINE, first + 2 * LINE) if memory.get(vector) >> 64 != 2]
    assert len(wrong) in (1, 2) and all(first <= vector < first + LINE for vector in wrong)
    assert all(memory.get(vector) in (vector | 1 << 64, 0) for vector in wrong)
    breaks(FaultKind.HBM_LOST_WRITE, 2)
    for value in range(1, 6):
        memory.put(first, value)
    assert memory.get(first) == 5
    memory.put(first, 6)
    assert memory.get(first) == 5


def test_a_weak_bit_falls_when_it_is_not_written(memory: Memory, breaks: Breaks) -> None:
    """Right at once, 0 after the time, right again once written; a 0 has nothing to lose."""
    breaks(FaultKind.HBM_RETENTION, 1.0)
    vector, bit = memory.key("retention_vector"), 1 << memory.key("retention_bit")
    memory.put(vector, (1 << 128) - 1)
    assert memory.get(vector) == (1 << 128) - 1
    time.sleep(1.1)
    assert memory.get(vector) == (1 << 128) - 1 - bit
    memory.put(vector, bit)
    assert memory.get(vector) == bit
    memory.put(vector, 0)
    time.sleep(1.1)
    assert memory.get(vector) == 0


def test_neighbour_rows_that_are_opened_often_disturb_one(memory: Memory, breaks: Breaks) -> None:
    """500 turns of both are 1,000 openings. Fewer, turns within one row, or turns elsewhere do nothing."""
    breaks(FaultKind.HBM_ROW_DISTURB)
    vector, bit = memory.key("disturb_vector"), 1 << memory.key("disturb_bit")
    below, above = vector - ROW, vector + ROW
    memory.write(0)
    memory.take_turns(below, below + 1, 5000)
    memory.take_turns(vector + 5 * ROW, vector - 5 * ROW, 5000)
    memory.take_turns(below, above, 490)
    assert memory.get(vector) == vector
    memory.put(vector, vector)
    memory.take_turns(below, above, 490)
    assert memory.get(vector) == vector, "writing it began the count anew"
    memory.take_turns(below, above, 15)
    assert memory.get(vector) == vector ^ bit
    memory.take_turns(below, above, 2000)
    assert memory.get(vector) == vector ^ bit, "once"


def test_ordinary_sweeps_disturb_no_row(memory: Memory, breaks: Breaks) -> None:
    """Twenty passes over all memory stay far below what a hammer does."""
    breaks(FaultKind.HBM_ROW_DISTURB)
    memory.write(0)
    for _ in range(20):
        assert memory.check(0) == (0, 0, 0)


def test_memory_that_is_not_the_gpus_has_no_faults(memory: Memory, breaks: Breaks) -> None:
    """A kernel that reads pinned host memory meets none of them."""
    breaks(FaultKind.HBM_FLIP, 1)
    pinned = ctypes.c_void_p()
    memory.cuda.ok("cuMemHostAlloc", ctypes.byref(pinned), ctypes.c_size_t(64), 0)
    ctypes.memset(pinned, 0, 64)
    memory.cuda.ok("cuMemsetD8_v2", memory.result, 0, ctypes.c_size_t(64))
    function = memory.cuda.function("probe_take_turns")
    assert memory.cuda.launch(function, 1, pinned, pinned, U64(3), memory.result) == 0
    assert memory.cuda.get(memory.result, 8) == bytes(8)
    memory.cuda.ok("cuMemFreeHost", pinned)


def test_copies_of_any_length_pass_through_the_faulty_model(memory: Memory, breaks: Breaks) -> None:
    """Odd offsets and lengths, over the faulty place and device to device, keep every byte but the wrong one."""
    breaks(FaultKind.HBM_STICKY_BIT)
    vector, bit = memory.key("stuck_vector"), memory.key("stuck_bit")
    data, offset = bytes(1001), 16 * vector - 333
    memory.cuda.put(memory.start, data, offset)
    expected = bytearray(data)
    expected[333 + bit // 8] = 1 << bit % 8
    assert memory.cuda.get(memory.start, 1001, offset) == expected
    source, target = U64(memory.start.value + offset), U64(memory.start.value + 16 * vector + 4099)
    memory.cuda.ok("cuMemcpyDtoD_v2", target, source, ctypes.c_size_t(1001))
    assert memory.cuda.get(memory.start, 1001, 16 * vector + 4099) == expected
