"""The device path of the matrix products, executed: every thread of a block, every instruction as the PTX ISA has it.

Fragments, swizzles, slabs, the ring of copies and the rotation of tiles are index arithmetic that a GPU would be needed
for; here it runs on fibers (lockstep/), and the product is compared with a plain one, element by element.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from burnin.gemm.units import UNITS, Unit

KERNELS = Path(__file__).resolve().parents[2] / "burnin/kernels"
LOCKSTEP = Path(__file__).parent / "lockstep"
UNIT_NAMES = [unit.name for unit in UNITS]
BY_NAME = {unit.name: unit for unit in UNITS}
CHUNK_BYTES = 64


class Wanted(ctypes.Structure):
    """struct Wanted of scenarios.cpp."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in (
            "unit", "side", "depth", "slots", "sms", "iterations", "any", "spoil", "late", "order",
        )),
        ("seed", ctypes.c_uint64),
    )  # fmt: skip


class Seen(ctypes.Structure):
    """struct Seen of scenarios.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("different", "digests_wrong", "tiles", "wrong", "sms_seen", "refuted", "conflicts")
    )

    def values(self) -> dict[str, int]:
        """By name."""
        return {name: getattr(self, name) for name, _ in self._fields_}


def _compile(*arguments: str | Path) -> None:
    command = ("g++", "-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
               "-ffp-contract=off", f"-I{LOCKSTEP}")  # fmt: skip
    subprocess.run([*command, *map(str, arguments)], check=True, timeout=120)


class Lockstep:
    """The library, built from a folder of kernels and the emulation's objects."""

    def __init__(self, kernels: Path, emulation: list[Path], into: Path) -> None:
        target = into / "lockstep.so"
        _compile("-shared", "-I", kernels, LOCKSTEP / "scenarios.cpp", *emulation, "-o", target)
        self.library = ctypes.CDLL(str(target))

    def product(self, unit: Unit, chunks: int, **more: int) -> dict[str, int]:
        """Multiply with rows of so many chunks of 64 bytes; see struct Wanted for what may be said."""
        wanted = Wanted(
            unit=unit.number, side=2, depth=chunks * CHUNK_BYTES // unit.bytes_per_element, slots=4, sms=3, seed=41
        )
        for name, value in more.items():
            setattr(wanted, name, value)
        seen = Seen()
        self.library.lockstep_product(ctypes.byref(wanted), ctypes.byref(seen))
        return seen.values()


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fibers and instructions, compiled."""
    folder = tmp_path_factory.mktemp("emulation")
    objects = {LOCKSTEP / f"{name}.cpp": folder / f"{name}.o" for name in ("fibers", "instructions")}
    for source, target in objects.items():
        _compile("-c", source, "-o", target)
    return list(objects.values())


@pytest.fixture(scope="module")
def lockstep(tmp_path_factory: pytest.TempPathFactory, emulation: list[Path]) -> Lockstep:
    """The kernels as they are."""
    return Lockstep(KERNELS, emulation, tmp_path_factory.mktemp("lockstep"))


@pytest.mark.parametrize("full_mantissas", [0, 1])
@pytest.mark.parametrize("name", UNIT_NAMES)
def test_the_device_path_gives_the_plain_product(lockstep: Lockstep, name: str, full_mantissas: int) -> None:
    """Every element and every digest, with copies as late as they may be and threads in a random order."""
    seen = lockstep.product(BY_NAME[name], chunks=4, late=1, order=7, any=full_mantissas)
    assert (seen["different"], seen["digests_wrong"], seen["refuted"], seen["conflicts"]) == (0, 0, 0, 0)


@pytest.mark.parametrize(("chunks", "late", "order"), [(1, 1, 0), (2, 0, 5), (3, 0, 0), (7, 1, 3)])
@pytest.mark.parametrize("name", ["int8", "fp64"])
def test_any_depth_copy_time_and_order_gives_the_same(
    lockstep: Lockstep, name: str, chunks: int, late: int, order: int
) -> None:
    """Fewer chunks than the ring has places, as many, and more; copies that come at once or late."""
    seen = lockstep.product(BY_NAME[name], chunks=chunks, late=late, order=order)
    assert (seen["different"], seen["digests_wrong"], seen["refuted"]) == (0, 0, 0)


def test_blocks_rotate_over_all_tiles_and_compare_each_with_its_own_reference(lockstep: Lockstep) -> None:
    """5 blocks on 3 SMs, 4 tiles, a full rotation: every result is the one of the tile it is compared with."""
    seen = lockstep.product(BY_NAME["fp64"], chunks=1, slots=5, iterations=4)
    assert seen["tiles"] == 5 + 5 * 4
    assert (seen["wrong"], seen["sms_seen"]) == (0, 3)


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_the_proof_refutes_a_tile_with_one_wrong_bit(lockstep: Lockstep, name: str) -> None:
    """The lowest bit of one element of the last tile; no other tile is accused."""
    assert lockstep.product(BY_NAME[name], chunks=1, spoil=1)["refuted"] == 1


def test_loads_of_doubles_meet_in_no_bank(lockstep: Lockstep) -> None:
    """The swizzle of doubles, which plain loads read; ldmatrix is watched in every product above."""
    assert lockstep.library.lockstep_double_conflicts() == 0


@pytest.mark.parametrize(
    ("file", "text", "instead"),
    [
        ("tensor_tiles.h", "    sync_block(); /* the chunk is here", "    /* the chunk is here"),
        ("tensor_tiles.h", "cp_async_wait<STAGES - 2>()", "cp_async_wait<STAGES - 1>()"),
        ("tensor_tiles.h", "[vector ^ SWIZZLE::of(row)]", "[vector]"),
        ("tensor_tiles.h", "lane % 8 + lane / 16 * 8", "lane % 16"),
        ("tensor_tiles.h", "chunk + STAGES - 1 < chunks", "chunk + STAGES < chunks"),
        ("tiles.h", "blockIdx.x + first + i) % tiles", "blockIdx.x + first) % (tiles + i)"),
    ],
)
def test_a_mistake_in_the_device_path_is_seen(
    tmp_path: Path, emulation: list[Path], file: str, text: str, instead: str
) -> None:
    """The emulation can tell: each of these kernels would be wrong on a GPU."""
    for source in KERNELS.iterdir():
        if source.suffix in (".cu", ".h"):
            (tmp_path / source.name).write_text(source.read_text())
    original = (tmp_path / file).read_text()
    assert original.count(text) == 1
    (tmp_path / file).write_text(original.replace(text, instead))
    broken = Lockstep(tmp_path, emulation, tmp_path)
    seen = broken.product(BY_NAME["bf16"], chunks=4, late=1, order=7, iterations=2, slots=2)
    assert seen["different"] + seen["digests_wrong"] + seen["wrong"] > 0
