"""What nccl-tests and NCCL print, read strictly: no number out of a table that is not whole."""

from __future__ import annotations

import pytest

from burnin.nccl import parse

MIB, GIB = 1 << 20, 1 << 30
HEADER = """\
# nThread 1 nGpus 2 minBytes 536870912 maxBytes 2147483648 step: 2(factor) warmup iters: 1 iters: 20 agg iters: 1
#
# Using devices
#  Rank  0 Group  0 Pid   4711 on node1 device  0 [0000:1b:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   4711 on node1 device  1 [0000:43:00] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
ROWS = """\
   536870912     134217728     float     sum      -1   2106.0  300.00  300.00      0   2106.0  300.00  300.00      0
  1073741824     268435456     float     sum      -1   4029.4  266.48  466.33      0   4016.4  267.34  467.85      0
  2147483648     536870912     float     sum      -1   7939.1  270.50  473.37      0   7938.0  270.53  461.43      0
"""
FOOTER = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 411.24\n#\n"
WHOLE = HEADER + ROWS + FOOTER


def test_a_whole_table_gives_the_lowest_number_of_its_large_rows() -> None:
    """Rows under 1 GiB do not count, in place counts as much as out of place, the average never."""
    table = parse.table(WHOLE)
    assert table.complete(512 * MIB, 2 * GIB)
    assert (table.ranks, table.busbw(), table.wrong_values()) == (2, (461.43, 467.09), 0)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (HEADER + ROWS, "no footers"),
        (HEADER + ROWS + "# Out of bounds values : 0 OK\n", "one footer"),
        (HEADER + ROWS[: ROWS.rindex("  2147483648")] + FOOTER, "a size is missing"),
        (HEADER + ROWS.replace("461.43      0", "461.43") + FOOTER, "a column is missing"),
        (HEADER + ROWS.replace("461.43      0", "461.43      0  9") + FOOTER, "a column too many"),
        (ROWS + FOOTER, "no header"),
        (HEADER + ROWS.replace("  2147483648 ", "[1,0]<stdout>: 2147483648 ") + FOOTER, "tagged by a launcher"),
        ("", "nothing"),
        ("Usage: all_reduce_perf [-b 8]\n", "usage, with exit status 0"),
    ],
)
def test_a_table_that_is_not_whole_is_not_complete(text: str, what: str) -> None:
    """Each way a table can be cut or torn."""
    assert not parse.table(text).complete(512 * MIB, 2 * GIB), what


def test_a_size_that_memory_did_not_allow_is_not_missed() -> None:
    """nccl-tests says to what it reduced the largest size."""
    text = HEADER.replace("#\n# Using", "# Reducing maxBytes to 3221225472 due to memory limitation\n#\n# Using", 1)
    assert parse.table(text + ROWS + FOOTER).complete(512 * MIB, 8 * GIB)
    assert not parse.table(WHOLE).complete(512 * MIB, 8 * GIB)


def test_a_value_that_is_not_a_number_gives_no_number() -> None:
    """N/A, nan and inf are not numbers; neither is the row's neighbour a stand-in for it."""
    for word in ("N/A", "nan", "inf", "-"):
        table = parse.table(HEADER + ROWS.replace("461.43", word) + FOOTER)
        assert table.busbw() is None
        assert parse.table(HEADER + ROWS.replace("461.43      0", f"461.43    {word}") + FOOTER).wrong_values() is None


def test_wrong_values_are_counted_as_nccl_tests_prints_them() -> None:
    """Large counts come as %g."""
    wrong = ROWS.replace("467.85      0", "467.85  763876").replace("461.43      0", "461.43  1.2e+07")
    assert parse.table(HEADER + wrong + FOOTER).wrong_values() == 12_763_876


def test_the_error_column_of_old_versions_is_no_count() -> None:
    """2.11 prints a deviation where newer ones print a count."""
    table = parse.table((HEADER + ROWS + FOOTER).replace("#wrong", " error"))
    assert table.wrong_values() is None and table.busbw() == (461.43, 467.09)


@pytest.mark.parametrize(
    "ranks",
    [
        "",
        "#  Rank  0 Group  0 Pid 1 on a device  0 [0x00] X\n" * 2,
        "#  Rank  1 Group  0 Pid 1 on a device  0 [0x00] X\n",
    ],
    ids=["none", "two communicators of one rank", "not from 0"],
)
def test_ranks_that_are_not_one_communicator_have_no_count(ranks: str) -> None:
    """A build without MPI under a launcher runs many jobs of one rank that look fine."""
    head = HEADER[: HEADER.index("#  Rank  0")]
    tail = HEADER[HEADER.index("#\n#                        ") :]
    assert parse.table(head + ranks + tail + ROWS + FOOTER).ranks is None


def line(via: str) -> str:
    return f"node1:4711:4720 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via {via}"


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([line("P2P/CUMEM/read")], "P2P/CUMEM"),
        ([line("P2P/IPC")], "P2P/IPC"),
        ([line("P2P/CUMEM/read"), "x [0] NCCL INFO Connected NVLS tree"], "NVLS"),
        ([line("P2P/CUMEM"), line("SHM/direct/direct"), "x [0] NCCL INFO Connected NVLS tree"], "SHM"),
        ([line("P2P/CUMEM"), line("NET/Socket/0")], "Socket"),
        ([line("SHM/direct/direct"), line("NET/IB/0/GDRDMA")], "NET/IB"),
        ([line("P2P/indirect/4[4]"), "x [0] NCCL INFO Connected NVLS tree"], "P2P/indirect"),
        ([line("P2P/CUMEM"), line("PIGEON/0")], "PIGEON"),
        (["x [0] NCCL INFO NVLS multicast support is available on dev 0"], None),
        ([], None),
    ],
)
def test_the_transport_is_the_worst_path_taken(lines: list[str], word: str | None) -> None:
    """One socket among seven NVLinks is sockets; a capability is not a path; an unknown path shows."""
    assert parse.transport(lines) == word


def test_wrong_values_are_not_forgotten_for_a_row_that_was_not_checked() -> None:
    """Some wrong, some unknown: wrong."""
    rows = ROWS.replace("467.85      0", "467.85      7").replace("461.43      0", "461.43    N/A")
    assert parse.table(HEADER + rows + FOOTER).wrong_values() == 7


def curve(*rows: tuple[int, float]) -> parse.Table:
    """A table of these sizes and bandwidths, the same in place."""
    text = "".join(f"{size} {size // 4} float none -1 10 {bw} {bw} 0 10 {bw} {bw} 0\n" for size, bw in rows)
    return parse.table(HEADER + text + FOOTER)


def test_where_memory_allows_no_large_row_the_flat_end_is_judged() -> None:
    """Each doubling there brings less than a twentieth."""
    table = curve((64 * MIB, 200.0), (128 * MIB, 300.0), (256 * MIB, 361.0), (512 * MIB, 369.0))
    assert [row.size for row in table.plateau()] == [256 * MIB, 512 * MIB] and table.busbw() == (361.0, 365.0)


@pytest.mark.parametrize("rows", [((8 * MIB, 60.0), (16 * MIB, 100.0)), ((8 * MIB, 60.0),), ()])
def test_a_curve_that_still_rises_says_nothing_of_the_fabric(rows: tuple[tuple[int, float], ...]) -> None:
    """A message too small measures latency."""
    assert curve(*rows).plateau() == () and curve(*rows).busbw() is None


def test_sizes_cut_to_whole_shares_are_the_sizes_that_were_asked() -> None:
    """Six ranks cannot share 1 GiB evenly: the row is some bytes smaller."""
    six = HEADER.replace("#  Rank  1", "".join(f"#  Rank  {r} Group  0 Pid 1 on n device  {r} [0000:0{r}:00] X\n"
                                               for r in range(1, 5)) + "#  Rank  5")  # fmt: skip
    text = six + ROWS.replace("536870912  ", "536870880  ", 1).replace("1073741824", "1073741760", 1) + FOOTER
    table = parse.table(text)
    assert table.ranks == 6 and table.complete(512 * MIB, 2 * GIB)
    assert len(table.plateau()) == 2
    assert not parse.table(text.replace("1073741760", "1073741000")).complete(512 * MIB, 2 * GIB)


def test_tests_that_cannot_check_in_place_are_judged_by_the_half_that_they_check() -> None:
    """alltoall and sendrecv print N/A there."""
    text = HEADER + ROWS.replace("      0\n", "    N/A\n") + FOOTER
    assert parse.table(text).wrong_values(in_place=False) == 0 and parse.table(text).wrong_values() is None


def test_a_run_that_only_the_switches_reduce_has_no_channels() -> None:
    """NCCL connects what it uses."""
    assert parse.transport(["x [0] NCCL INFO Connected NVLS tree"]) == "NVLS"
