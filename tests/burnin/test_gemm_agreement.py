"""Which answer of several is believed, and who is blamed for the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.gemm.agreement import Vote, settle, suspects
from burnin.gemm.shape import shape_of
from burnin.gemm.units import UNITS

GIB = 1 << 30
BY_NAME = {unit.name: unit for unit in UNITS}


def test_the_answer_that_most_sms_give_is_the_reference_and_the_other_one_is_wrong() -> None:
    """One bad SM among three is outvoted and named."""
    reference = settle([Vote(0, 1, 7, None), Vote(0, 2, 8, None), Vote(0, 3, 7, None)], tiles=1)
    assert reference.digests == (7,)
    assert [v.sm for v in reference.wrong] == [2]
    assert reference.refuted == ()


def test_a_proven_answer_outweighs_a_majority() -> None:
    """Two SMs that share a fault do not make it true."""
    reference = settle([Vote(0, 1, 7, False), Vote(0, 2, 7, False), Vote(0, 3, 8, True)], tiles=1)
    assert reference.digests == (8,)
    assert [v.sm for v in reference.wrong] == [1, 2]


def test_the_same_sm_twice_is_one_witness() -> None:
    """Two blocks of one SM do not outvote another SM that was first."""
    reference = settle([Vote(0, 3, 8, None), Vote(0, 1, 7, None), Vote(0, 1, 7, None)], tiles=1)
    assert reference.digests == (8,)


def test_an_answer_that_all_give_and_the_proof_refutes_is_wrong_everywhere() -> None:
    """A deterministic fault of the design or of memory agrees with itself, and is found all the same."""
    reference = settle([Vote(0, sm, 7, False) for sm in range(3)], tiles=1)
    assert reference.refuted == (0,)
    assert len(reference.wrong) == 3


def test_a_tile_that_nobody_computed_has_no_answer() -> None:
    """Missing evidence is an error, not a digest of nothing."""
    with pytest.raises(ValueError, match="tile 1 of 2"):
        settle([Vote(0, 0, 7, True)], tiles=2)


@given(bad=st.integers(0, 7), tiles=st.integers(2, 8))
def test_one_bad_sm_never_becomes_the_reference(bad: int, tiles: int) -> None:
    """Whichever SM it is: three attempts on different SMs leave it alone with its answers."""
    votes = [
        Vote(tile, sm, 1000 + tile + (sm == bad), None)
        for tile in range(tiles)
        for sm in {tile % 8, (tile + 3) % 8, (tile + 5) % 8}
    ]
    reference = settle(votes, tiles)
    assert reference.digests == tuple(1000 + tile for tile in range(tiles))
    assert {v.sm for v in reference.wrong} <= {bad}


def test_suspects_are_named_unless_they_are_most_of_the_gpu() -> None:
    """What more than half of the SMs get wrong is not any SM's fault."""
    assert suspects({}, 132) == "none"
    assert suspects({5: 0}, 132) == "none"
    assert suspects({17: 3, 4: 1}, 132) == "4 17"
    assert suspects(dict.fromkeys(range(100), 1), 132) == "all"
    assert len(suspects(dict.fromkeys(range(60), 1), 132)) < 256


def test_an_h100_gets_a_tile_for_every_block_and_full_depth() -> None:
    """132 SMs with two blocks each: 16 x 16 tiles, 4096 deep."""
    shape = shape_of(BY_NAME["bf16"], 128, 2, 64, 132, 80 * GIB)
    assert (shape.side, shape.depth, shape.slots, shape.tiles) == (16, 4096, 264, 256)
    assert shape.operations == 2 * 128 * 128 * 4096 * 264


@given(
    unit=st.sampled_from(UNITS),
    sms=st.integers(1, 300),
    memory=st.integers(1 << 24, 300 * GIB),
    tile=st.sampled_from([8, 64, 128]),
)
def test_shapes_have_a_block_for_every_tile_and_stay_within_their_share(
    unit: object, sms: int, memory: int, tile: int
) -> None:
    """Any GPU: no tile without a block, whole chunks, operands within 1/256 of memory unless one chunk is more."""
    shape = shape_of(unit, tile, 2, 64, sms, memory)  # type: ignore[arg-type]
    row_bytes = shape.depth * unit.bytes_per_element  # type: ignore[attr-defined]
    assert 1 <= shape.tiles <= shape.slots
    assert row_bytes % 64 == 0
    assert shape.depth <= 4096
    assert row_bytes == 64 or 2 * shape.rows * row_bytes <= memory // 256
