"""The closed forms of what must cross, and what the two witnesses come to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.facts.nccl_counters import Carried, carried
from toolkit.facts.nccl_path import Answer, Fabric, Run, Shape, Volume, prove
from toolkit.facts.nccl_transport import Transport, parse

GIB = 1 << 30
HEAD = "node1:4711:4720 [0] NCCL INFO "


@pytest.mark.parametrize(
    ("collective", "nvls", "least", "most"),
    [
        ("all_reduce", False, 3.5, 3.5),  # 2 x 2 x 7/8
        ("all_reduce", True, 2.25, 3.5),  # 2 x 9/8
        ("all_gather", False, 1.75, 1.75),
        ("reduce_scatter", True, 1.125, 1.75),
        ("alltoall", True, 1.75, 1.75),
        ("sendrecv", False, 2.0, 2.0),
    ],
)
def test_eight_gpus_move_what_the_closed_form_says(collective: str, nvls: bool, least: float, most: float) -> None:
    """Sent and received by one GPU, as multiples of the size."""
    assert Shape(collective, 8).over_nvlink(1, nvls) == Volume(least, most)


@pytest.mark.parametrize(
    ("collective", "sharp", "least", "most"),
    [
        ("all_reduce", False, 6.0, 7.75),  # 2 x 3; rings: 2 x 31/32 x 4
        ("all_reduce", True, 4.0, 7.75),
        ("all_gather", False, 3.0, 3.875),
        ("alltoall", False, 24.0, 24.0),  # each of 8 ranks to 24 others of 32, S/32 each, 4 nodes
        ("sendrecv", False, 4.0, 4.0),
    ],
)
def test_four_nodes_send_what_the_closed_form_says(collective: str, sharp: bool, least: float, most: float) -> None:
    """Over all HCAs of all nodes, as multiples of the size."""
    assert Shape(collective, 32, 4).over_nics(1, sharp) == Volume(least, most)


def test_the_closed_forms_agree_with_the_published_bandwidth() -> None:
    """NIC-bound all_reduce: bytes of a node over its rate R give busbw R N/(N-1) (n-1)/n: 423 for 16 nodes of 400."""
    shape = Shape("all_reduce", 128, 16)
    seconds_a_byte = shape.over_nics(1, in_network=False).least / 16 / 400
    assert 1 / seconds_a_byte * 2 * 127 / 128 == pytest.approx(423, abs=1)


def test_the_switches_ceiling_follows_from_what_they_carry() -> None:
    """NVLS: each way (n+1)/n S at 450 GB/s gives busbw 700 on eight H100."""
    each_way = Shape("all_reduce", 8).over_nvlink(1, nvls=True).least / 2
    assert 450 / each_way * 2 * 7 / 8 == pytest.approx(700, abs=1)


def log(via: str, ends: str = "0[0] -> 1[1]", more: str = "") -> Transport:
    """A log with one channel."""
    return parse([f"{HEAD}Channel 00/0 : {ends} via {via}\n{more}"])


RUN = Run(Shape("all_gather", 2), [GIB], 20)
MUST = 2 * 0.5 * GIB * 40  # 2 (n-1)/n S, 20 out of place and 20 in place


def gpus(*fractions: float | None) -> list[Carried]:
    """What two GPUs carried, in fractions of what they had to."""
    return [Carried("node1", {i: None if f is None else int(f * MUST) for i, f in enumerate(fractions)})]


@pytest.mark.parametrize(
    ("transport", "counted", "answer", "words"),
    [
        (log("P2P/CUMEM/read"), gpus(1.05, 1.0), Answer.PROVEN, "P2P/CUMEM, nvlink counted 1.00"),
        (log("P2P/CUMEM/read"), gpus(1.05, 0.4), Answer.WRONG, "node1/gpu1 counted 0.40 of the bytes"),
        (log("P2P/CUMEM/read"), gpus(1.05, 2.0), Answer.WRONG, "something else used it"),
        (log("SHM/direct/direct"), gpus(1.0, 1.0), Answer.WRONG, "SHM between ranks 0 and 1"),
        (log("NET/IB/0/GDRDMA"), gpus(0.0, 0.0), Answer.WRONG, "NET/IB between ranks 0 and 1"),
        (log("PIGEON/0"), gpus(1.0, 1.0), Answer.WRONG, "unknown between ranks 0 and 1"),
        (log("P2P/CUMEM/read"), gpus(1.0), Answer.UNPROVEN, "no byte counter of 1 of 2 GPUs"),
        (log("P2P/CUMEM/read"), gpus(1.0, None), Answer.UNPROVEN, "no byte counter of node1/gpu1"),
        (log("P2P/CUMEM/read"), [], Answer.UNPROVEN, "no byte counter of 2 of 2 GPUs"),
        (Transport(), gpus(1.0, 1.0), Answer.UNPROVEN, "NCCL's log names no way"),
        (log("P2P/CUMEM", more=f"{HEAD}comm 0x1 rank 0 nRanks 3 nNodes 1\n"), gpus(1, 1), Answer.UNPROVEN, "3 ranks"),
    ],
)
def test_two_witnesses_must_agree(transport: Transport, counted: list[Carried], answer: Answer, words: str) -> None:
    """What contradicts is the wrong fabric; what is silent proves nothing."""
    proof = prove(RUN, Fabric.NVLINK, transport, counted)
    assert (proof.answer, words in proof.text) == (answer, True), proof.text


def rails(*shares: float) -> Carried:
    """What a node's HCAs sent, in fractions of a fair share of what two nodes of one GPU must send."""
    return Carried("node1", {}, {}, {f"mlx5_{i}": int(s * MUST / 2 / len(shares)) for i, s in enumerate(shares)})


ACROSS = Run(Shape("all_gather", 2, 2), [GIB], 20)


@pytest.mark.parametrize(
    ("via", "shares", "answer", "words"),
    [
        ("NET/IB/0/GDRDMA", (1.05, 1.05), Answer.PROVEN, "nic counted 1.05"),
        ("NET/IB/0", (1.05, 1.05), Answer.WRONG, "without GPUDirect RDMA"),
        ("NET/IB/0/GDRDMA", (2.0, 0.1), Answer.WRONG, "mlx5_1 carried 0.10 of its share"),
        ("P2P/CUMEM", (1.0, 1.0), Answer.WRONG, "no channel between nodes takes an HCA"),
        ("NET/Socket/0", (0.0, 0.0), Answer.WRONG, "NET/Socket between ranks 0 and 1"),
    ],
)
def test_between_nodes_every_rail_must_carry_its_share(
    via: str, shares: tuple[float, ...], answer: Answer, words: str
) -> None:
    """A rail at rest is a rail that was not measured."""
    proof = prove(ACROSS, Fabric.NIC, log(via), [rails(*shares), rails(*shares)])
    assert proof.answer is answer and words in proof.text, proof.text


def reading(*links: tuple[int, int | None]) -> dict[str, object]:
    """A reading of one GPU's links: (sent, received)."""
    return {"gpus": [{"gpu": 0, "links": [{"link": i, "sent": s, "received": r} for i, (s, r) in enumerate(links)]}]}


@pytest.mark.parametrize(
    ("before", "after", "bytes_"),
    [
        (reading((100, 50), (7, 7)), reading((300, 150), (7, 7)), 300),
        (reading((100, 50)), reading((90, 60)), None),  # ran backwards: a reset
        (reading((100, 50)), reading((100, None)), None),
        (reading((100, 50)), {"gpus": [{"gpu": 0, "links": []}]}, None),  # the link is gone
        ({"gpus": [{"gpu": 0, "links": []}]}, {"gpus": [{"gpu": 0, "links": []}]}, 0),
        (reading((100, 50)), reading((1 << 70, 50)), None),
        (reading((100, 50)), reading((True, 50)), None),
    ],
)
def test_what_a_gpu_carried_is_a_difference_or_unknown(before: object, after: object, bytes_: int | None) -> None:
    """Lifetime values mean nothing; what is missing is not 0."""
    assert carried("n", json.dumps({"before": before, "after": after})).gpus[0] == bytes_


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["before", "after", "gpus", "gpu", "links", "link", "sent", "hcas", "hca"]), x)))  # fmt: skip
def test_no_reading_makes_it_fail(told: object) -> None:
    """A hostile node writes what it likes."""
    assert isinstance(carried("n", json.dumps(told)), Carried)


def test_text_that_is_no_reading_is_nothing_known() -> None:
    """Cut, empty, nested without end."""
    for text in ("", "{", "[" * 100_000, "nan"):
        assert carried("n", text) == Carried("n")
