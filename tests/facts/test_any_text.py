"""Properties of every parser: whatever a node sends, the answer is bounded, finite, JSON, and never made up."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.facts import kernel_log, nccl_tests
from toolkit.facts.nccl_run import Outcome
from toolkit.facts.parse import KINDS
from toolkit.facts.unreadable import UnreadableError

CASES = Path(__file__).parent / "cases"
SEEDS = {kind: [p.read_bytes().decode() for p in sorted(CASES.glob(f"{kind}/*/input.txt"))] for kind in KINDS}
WORDS = st.sampled_from(
    [
        "NVRM: ", "Xid (PCI:", "0000:1b:00", "): 79, ", "SXid ", "pid=", "name=", "GPU has fallen off the bus",
        "#", "\n", "\r", "[1,0]<stdout>:", "N/A", "nan", "1e999", "\x1b[31m", "{", "}",
        "  1073741824  268435456  float  sum  -1", " 4029.4 266.48 466.33 0", "Rank  0 Pid 1 on a device 0 [0x00] x",
        "# Avg bus bandwidth    : ", "# Out of bounds values : 0 OK", "Link 3: ", "GPU 0: x (UUID: GPU-1)",
        '{"DCGM Diagnostic": {"test_categories": [', '"tests": [{"name": "a", "results": [{"status": "Pass"}]}]}]}}',
        "| Error | words |", "|-----  Deployment  --------+---|", "gpuId 0:", "U U D", "Running a_b.", "\n0  1\n",
        "0   12.50  N/A", "SUM a_b 1.00", "50.0%  proc'd: 1 (2 Gflop/s) - ", "errors: 0 - 3 (WARNING!)",
        "temps: 40 C - --", "Tested 2 GPUs:", "GPU 0: FAULTY", "gemm_x=1", "name, pci.bus_id", "    ECC Errors",
        "GPU 00000000:1B:00.0", " : ", "#bytes #iterations BW peak[MB/sec]",
        "CA 'a'", "Port 1:", "<nvidia_smi_log>", "</nvidia_smi_log>", "<gpu id='1'>", "</gpu>",
    ]
)  # fmt: skip
TEXT = st.one_of(st.text(max_size=400), st.lists(st.one_of(WORDS, st.text(max_size=12)), max_size=60).map("".join))


def _answer(kind: str, text: str) -> dict[str, object] | None:
    try:
        return KINDS[kind](text).as_json()
    except UnreadableError:
        return None


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(text=TEXT)
@settings(max_examples=150, deadline=None)
def test_any_text_gives_finite_json_or_says_it_is_unreadable(kind: str, text: str) -> None:
    """No text makes a parser raise anything else, and no number of its answer is NaN or infinite."""
    found = _answer(kind, text)
    if found is not None:
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_real_output_cut_and_spliced_anywhere_is_survived(kind: str, data: st.DataObject) -> None:
    """Real output torn at any place, with any bytes put in, still gives finite JSON or says it is unreadable."""
    seed = data.draw(st.sampled_from(SEEDS[kind]))
    at, cut = data.draw(st.integers(0, len(seed))), data.draw(st.integers(0, 200))
    noise = data.draw(st.binary(max_size=40)).decode("utf-8", "replace")
    found = _answer(kind, seed[:at] + noise + seed[at + cut :])
    if found is not None:
        json.dumps(found, allow_nan=False)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_cutting_the_end_off_a_run_never_completes_it(data: st.DataObject) -> None:
    """An output cut before its last footer is not `completed`, wherever the cut is."""
    seed = (CASES / "nccl-tests" / "whole_table" / "input.txt").read_text()
    cut = data.draw(st.integers(0, seed.index("# Avg bus bandwidth")))
    assert nccl_tests.parse(seed[:cut]).outcome is not Outcome.COMPLETED


@given(before=st.text(max_size=80), after=st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_an_xid_is_found_whatever_stands_around_it(before: str, after: str) -> None:
    """A prefix of any logger and a tail of any length hide no Xid."""
    line = f"{before} NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 07 (0x1) {after}"
    found = [x for x in kernel_log.parse(line.replace("\n", " ")).xids if x.number == 149]
    assert [(x.pci, x.link) for x in found[:1]] == [("0009:01:00", 7)]


@pytest.mark.parametrize(
    "text",
    [
        "NVRM: Xid (PCI:0000:1b:00): 31, " + "a" * 1_000_000,
        "NVRM: Xid (PCI:0000:1b:00): 31, x\n" * 30_000,
        "Rank " * 200_000,
        " " * 1_000_000,
        "[1,0]<stdout>:" * 70_000,
        "1 1 float " * 100_000,
        "A" * 500_000 + " Fatal " + " " * 500_000,
        "GPU 0: " * 125_000,
        "<a>" * 300_000,
        "# Out of bounds values" + " " * 1_000_000,
        "| a " * 250_000,
        "| Error | x |\n" + "|  | a |\n" * 100_000,
        "50.0%  proc'd: " + "1 (2 Gflop/s) - " * 60_000,
        "Running a.\n0 1\n" + "0 1.00 2.00\n" * 80_000,
        "GPU 00000000:1B:00.0\n" + "    a : b\n" * 100_000,
        "name, uuid\n" + "a, " * 300_000,
        "a" * 80 + ": b" * 300_000,
        "{" * 500_000,
    ],
    ids=range(18),
)
def test_a_megabyte_of_anything_is_read_in_seconds(text: str) -> None:
    """No pattern backtracks: the worst text within the bound takes seconds, for all parsers together."""
    began = time.process_time()
    for kind in KINDS:
        _answer(kind, text)
    assert time.process_time() - began < 10
