"""The nccl-tests stand-in as many ranks, started as mpirun starts them; and what it moves, by its own counters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.virtual.devices import nccl_model
from toolkit.virtual.devices.nccl_model import COLLECTIVES
from toolkit.virtual.faults import Fault, FaultKind

FILES = Path(nccl_model.__file__).parent.parent


def ranks(count: int, *arguments: str, program: str = "all_reduce_perf", jobid: int = 4242) -> list[tuple[int, str]]:
    """Exit status and output of each rank of one job on this machine."""
    code = (
        f"import sys; sys.path.insert(0, {str(FILES)!r}); sys.argv[0] = {program!r};"
        "from devices.nccl_tests import main; sys.exit(main())"
    )
    started = []
    for rank in range(count):
        told = {
            "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(count),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_MCA_ess_base_jobid": str(jobid << 16 | 1),
            "OMPI_MCA_orte_hnp_uri": f"{jobid << 16}.0;tcp://127.0.0.1:4711;tcp6://[::1]:4712",
        }  # fmt: skip
        command = [sys.executable, "-c", code, *arguments]
        started.append(
            subprocess.Popen(
                command, env=os.environ | told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    return [(process.wait(60), process.stdout.read() if process.stdout else "") for process in started]


def test_ranks_are_one_communicator_and_rank_0_prints(node: Any) -> None:
    """Every rank with its own GPU, process and line; one table."""
    (code, output), *others = ranks(3, "-b", "1M", "-e", "4M", "-f", "2", "-g", "1")
    assert code == 0 and [o for o in others if o != (0, "")] == []
    found = re.findall(r"# +Rank +(\d) Group +0 Pid +(\d+) on +\S+ device +(\d)", output)
    assert [(r, d) for r, _, d in found] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert len({pid for _, pid, _ in found}) == 3
    assert len(re.findall(r"^ +\d{7} ", output, re.MULTILINE)) == 3 and "# Avg bus bandwidth" in output


def test_a_rank_that_fails_takes_the_others_with_it(node: Any, make_fault: Callable[..., Fault]) -> None:
    """CUDA on its own GPU, NCCL on all others."""
    node.set(make_fault(FaultKind.XID_79, gpu=2, value=16))
    ended = ranks(3, "-b", "1M", "-e", "64M", "-f", "2", "-g", "1", jobid=4243)
    assert [code for code, _ in ended] == [3, 3, 2]
    assert "Test CUDA failure" in ended[2][1] and "Test NCCL failure" in ended[0][1]


@pytest.mark.parametrize("program", ["alltoall_perf", "sendrecv_perf"])
def test_what_cannot_be_checked_in_place_says_so(node: Any, program: str) -> None:
    """N/A in the second half, a count in the first."""
    (_, output), *_ = ranks(1, "-b", "1M", "-e", "1M", "-g", "1", program=program)
    row = next(line.split() for line in output.splitlines() if re.match(r" +1048576 ", line))
    assert (row[8], row[12]) == ("0", "N/A")


@pytest.mark.parametrize(
    ("program", "kind", "sent"),
    [
        ("all_reduce_perf", "ring", 1.75),
        ("all_reduce_perf", "nvls", 1.125),
        ("all_gather_perf", "ring", 0.875),
        ("sendrecv_perf", "ring", 1.0),
        ("all_reduce_perf", "socket", 0.0),
    ],
)
def test_a_gpu_sends_over_nvlink_what_its_path_takes(program: str, kind: str, sent: float) -> None:
    """As multiples of the size, over eight ranks; sockets move nothing over NVLink."""
    path = nccl_model.Path(kind, 1.0)
    assert path.nvlink_bytes(COLLECTIVES[program], 1 << 30, 8) == sent * (1 << 30)


def test_the_slowest_rail_paces_all_and_a_node_on_sockets_ends_it() -> None:
    """Sixteen ranks on two nodes: eight rails of 50 GB/s leave NVLink the bottleneck, one at half its rate does not."""
    inside, reduce = nccl_model.Path("nvls", 480.0), COLLECTIVES["all_reduce_perf"]
    whole, half = (50.0,) * 8, (50.0,) * 7 + (25.0,)
    assert nccl_model.between_nodes([inside] * 2, [whole, whole], reduce, 16).gb_per_s == 480
    slow = nccl_model.between_nodes([inside] * 2, [whole, half], reduce, 16)
    assert slow.gb_per_s == pytest.approx(0.95 * 200 * 2 * 15 / 16)
    sockets = nccl_model.between_nodes([inside, nccl_model.Path("socket", 3.0)], [whole, whole], reduce, 16)
    assert sockets == nccl_model.Path("socket", 3.0)
