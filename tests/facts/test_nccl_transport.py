"""NCCL's log, whatever version and however hostile: which way joins which ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.facts import nccl_transport
from toolkit.facts.nccl_transport import Kind, Via, parse

HEAD = "node1:4711:4720 [0] NCCL INFO "
USING = HEAD + "NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_3:1/RoCE [RO]; OOB eth0:10.0.0.1<0>\n"


def channel(via: str, ends: str = "0[0] -> 1[1]", channel: str = "00/0") -> str:
    """A channel line."""
    return f"{HEAD}Channel {channel} : {ends} via {via}\n"


@pytest.mark.parametrize(
    ("words", "via"),
    [
        ("P2P/CUMEM/read", Via(Kind.P2P_CUMEM)),
        ("P2P/CUMEM/CE", Via(Kind.P2P_CUMEM)),
        ("P2P/MNNVL", Via(Kind.MNNVL)),
        ("P2P/IPC", Via(Kind.P2P_IPC)),
        ("P2P/direct pointer/read", Via(Kind.P2P_DIRECT)),
        ("P2P/indirect/4[4]", Via(Kind.P2P_INDIRECT)),
        ("SHM/direct/direct", Via(Kind.SHM)),
        ("NET/Socket/0", Via(Kind.SOCKET)),
        ("NET/IB/1/GDRDMA", Via(Kind.IB, "mlx5_3", gdr=True)),
        ("NET/IB/1(5)/GDRDMA(PCI)/Shared", Via(Kind.IB, "mlx5_3", gdr=True)),
        ("NET/IB/0/Shared", Via(Kind.IB, "mlx5_0")),
        ("NET/IBext_v8/0/GDRDMA", Via(Kind.IB, "mlx5_0", gdr=True)),
        ("NET/IB/7/GDRDMA", Via(Kind.IB, "7", gdr=True)),
        ("NET/AWS Libfabric/2/GDRDMA", Via(Kind.OTHER_NET, "AWS Libfabric/2", gdr=True)),
        ("COLLNET/SHARP/0/GDRDMA", Via(Kind.COLLNET, gdr=True)),
        ("PIGEON/0", Via(Kind.UNKNOWN)),
        ("P2P/PIGEON", Via(Kind.UNKNOWN)),
    ],
)
def test_each_way_is_told_by_its_own_words(words: str, via: Via) -> None:
    """As NCCL's transports print them; an HCA by the name NCCL announced for its number."""
    assert parse([USING + channel(words)]).ways == {via}


@pytest.mark.parametrize(
    "line",
    [
        "Channel 00 : 0[1b000] -> 1[43000] via SHM/direct/direct",
        "Channel 23/1 : 0[0] -> 1[1] [receive] via NET/IB/0/GDRDMA",
        "Channel 00/0 : 0[0] -> 1[1] [send] via NET/Socket/0",
    ],
)
def test_channels_of_all_versions_are_read(line: str) -> None:
    """Bus numbers or devices, with and without a connection's number and direction."""
    assert set(parse([f"{HEAD}{line}\n"]).pairs) == {(0, 1)}


def test_many_processes_tell_one_story() -> None:
    """A log each; the pairs are those of all, and each names HCAs by its own numbers."""
    mine = USING + channel("NET/IB/0/GDRDMA", "0[0] -> 8[0] [send]") + HEAD + "comm 0x1 rank 0 nRanks 16 nNodes 2\n"
    other = HEAD.replace("node1", "node2") + "NET/IB : Using [0]mlx5_9:1/IB [RO]; OOB eth0:10.0.0.2<0>\n"
    other += channel("NET/IB/0/GDRDMA", "8[0] -> 0[0] [send]")
    other += "node2:12:12 [0] NCCL INFO comm 0x2 rank 8 nRanks 16 nNodes 2 localRanks 8\n"
    found = parse([mine, other])
    assert found.hcas == {"mlx5_0", "mlx5_9"}
    assert (found.ranks, found.nodes, found.hosts) == (16, 2, {0: "node1", 8: "node2"})
    assert found.word == "NET/IB"


def test_logs_of_two_communicators_agree_on_nothing() -> None:
    """A build without MPI under a launcher: every process is a communicator of one."""
    logs = [f"{HEAD}comm 0x1 rank 0 nRanks {n} nNodes 1\n" for n in (8, 16)]
    assert parse(logs).ranks is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (channel("P2P/CUMEM") + HEAD + "Connected NVLS tree\n", "NVLS"),
        (HEAD + "Connected NVLS tree\n", "NVLS"),
        (HEAD + "NVLS multicast support is available on dev 0\n", None),
        (channel("P2P/CUMEM") + channel("NET/Socket/0", "1[1] -> 0[0]") + HEAD + "Connected NVLS tree\n", "Socket"),
        (channel("P2P/MNNVL"), "P2P/MNNVL"),
        ("", None),
    ],
)
def test_the_word_is_the_worst_way(text: str, word: str | None) -> None:
    """One socket among many NVLinks is sockets; a capability is no way."""
    assert parse([text]).word == word


def test_a_rank_order_is_no_channel() -> None:
    """`Channel 00/24 :  0  1  2  3` lists a ring."""
    assert parse([f"{HEAD}Channel 00/24 :    0   1   2   3\n"]).pairs == {}


def test_a_log_without_end_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not read proves nothing."""
    monkeypatch.setattr(nccl_transport, "MAX_CHARACTERS", 200)
    found = parse([channel("P2P/CUMEM"), channel("NET/Socket/0") * 40])
    assert found.cut and found.ways <= {Via(Kind.P2P_CUMEM), Via(Kind.SOCKET)}


@given(st.lists(st.text(alphabet="01NCLIFO chanel:[]->viaPT/\n\x00\u2028", max_size=300), max_size=4))
def test_no_text_makes_it_fail(logs: list[str]) -> None:
    """A hostile node writes what it likes."""
    assert isinstance(parse(logs).as_json(), dict)
