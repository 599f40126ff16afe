"""nvidia-smi, nccl-tests and ibstat as an operator and a parser see them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from toolkit.virtual.devices import ibstat, nvidia_smi, state
from toolkit.virtual.faults import Fault, FaultKind

Run = Callable[..., tuple[int, str]]
FILES = Path(nvidia_smi.__file__).parent.parent


@pytest.fixture(name="smi")
def _smi(node: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        code = nvidia_smi.main(arguments)
        return code, capsys.readouterr().out

    return run


@pytest.fixture(name="collective")
def _collective(node: Any) -> Run:
    def run(*arguments: str, program: str = "all_reduce_perf", **environment: str) -> tuple[int, str]:
        code = (
            f"import sys; sys.path.insert(0, {str(FILES)!r}); sys.argv[0] = {program!r};"
            "from devices.nccl_tests import main; sys.exit(main())"
        )
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    return run


def _document(smi: Run) -> ElementTree.Element:
    return ElementTree.fromstring(smi("-q", "-x")[1])  # noqa: S314 - our own stand-in wrote it


def _rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if re.match(r"\s+\d+\s", line)]


def _busbw(output: str) -> float:
    return float(_rows(output)[-1][7])


def test_the_list_names_every_gpu(smi: Run) -> None:
    """`-L`: one line a GPU, with its UUID."""
    code, output = smi("-L")
    lines = output.splitlines()
    assert (code, len(lines)) == (0, 8)
    assert re.fullmatch(r"GPU 3: NVIDIA H100 80GB HBM3 \(UUID: GPU-[0-9a-f-]{36}\)", lines[3])


def test_the_query_has_the_tools_three_shapes(smi: Run) -> None:
    """Header with units, no header, no units."""
    fields = "--query-gpu=index,serial,memory.total,fabric.state"
    assert smi(fields, "--format=csv", "-i", "1")[1].splitlines() == [
        "index, serial, memory.total [MiB], fabric.state",
        "1, 16500000101, 16 MiB, Completed",
    ]
    assert smi(fields, "--format=csv,noheader,nounits", "-i", "1")[1] == "1, 16500000101, 16, Completed\n"


def test_an_unknown_field_is_refused_as_the_tool_refuses_it(smi: Run) -> None:
    """Exit code 2 and the tool's sentence."""
    code, output = smi("--query-gpu=index,colour", "--format=csv")
    assert (code, output.strip()) == (2, 'Field "colour" is not a valid field to query.')


def test_the_xml_document_says_what_the_node_is(smi: Run, node: Any, make_fault: Callable[..., Fault]) -> None:
    """Well-formed XML with eight GPUs; errors of the dripping one in volatile and aggregate."""
    node.set(make_fault(FaultKind.ECC_DRIP))
    (node.folder / "load/gpu3").write_text(f"{1 << 30}\n")
    root = _document(smi)
    gpus = root.findall("gpu")
    assert (root.findtext("driver_version"), root.findtext("attached_gpus"), len(gpus)) == ("580.95.05", "8", 8)
    assert gpus[3].get("id") == "00000000:61:00.0"
    for life in ("volatile", "aggregate"):
        assert [gpu.findtext(f"ecc_errors/{life}/dram_correctable") for gpu in gpus[2:4]] == ["0", "64"]
    node.set(make_fault(FaultKind.SLOW_GPU))
    braked = "clocks_event_reasons_counters/clocks_event_reasons_counters_hw_power_brake"
    assert [gpu.findtext(braked) for gpu in _document(smi).findall("gpu")[2:4]] == ["0 us", "1073741 us"]
    assert gpus[0].findtext("fabric/state") == "Completed"
    assert gpus[0].findtext("fb_memory_usage/total") == "16 MiB"


def test_a_lost_gpu_shows_in_every_answer(smi: Run, node: Any, make_fault: Callable[..., Fault]) -> None:
    """The handle cannot be had (exit 15); the XML and the table say `GPU is lost` where they had to ask it."""
    node.set(make_fault(FaultKind.XID_79, value=0))
    code, listed = smi("-L")
    assert code == 15
    assert listed.splitlines()[3] == (
        "Unable to determine the device handle for gpu 0000:61:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU"
    )
    assert smi()[0] == 15
    gpus = _document(smi).findall("gpu")
    assert [g.findtext("fabric/state") for g in gpus[2:4]] == ["Completed", "GPU is lost"]
    assert gpus[3].findtext("remapped_rows") == "GPU is lost"
    row = smi("--query-gpu=serial,temperature.gpu", "--format=csv,noheader", "-i", "3")
    assert row == (15, "16500000103, [GPU is lost]\n")


def test_links_that_are_down_are_inactive_and_have_no_counters(
    smi: Run, node: Any, make_fault: Callable[..., Fault]
) -> None:
    """`nvlink -s` marks the one link, `nvlink -e` leaves it out."""
    node.set(make_fault(FaultKind.NVLINK_LANE_DOWN, link=7))
    status, errors = smi("nvlink", "-s", "-i", "3")[1], smi("nvlink", "-e", "-i", "3")[1]
    assert re.findall(r"Link (\d+): <inactive>", status) == ["7"]
    assert status.count("26.562 GB/s") == 17
    assert "Link 7:" not in errors
    assert errors.count("CRC Errors: 0") == 17


def test_without_a_driver_nvidia_smi_cannot_communicate(smi: Run, node: Any) -> None:
    """Exit code 9 and the sentence every operator knows."""
    (node.folder / "state").unlink()
    code, output = smi("-L")
    assert code == 9
    assert output.startswith("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")


def test_all_reduce_reaches_what_an_h100_node_reaches(collective: Run, node: Any) -> None:
    """Eight ranks once each, every size, no wrong value, 480 GB/s at 8 GiB; the load shows on every GPU."""
    code, output = collective("-b", "8", "-e", "8G", "-f", "32", "-g", "8")
    assert code == 0
    assert re.findall(r"# +Rank +(\d+) Group +0 Pid +\d+ on +\S+ device +\d+ \[0000:[0-9a-f]{2}:00\]", output) == [
        str(rank) for rank in range(8)
    ]
    rows = _rows(output)
    assert [int(row[0]) for row in rows] == [8 * 32**step for step in range(7)]
    assert {(row[8], row[12]) for row in rows} == {("0", "0")}
    assert 470 < _busbw(output) < 482
    assert "# Out of bounds values : 0 OK\n" in output
    assert re.search(r"# Avg bus bandwidth    : [\d.]+ \n#\n# Collective test concluded: all_reduce_perf\n$", output)
    assert all(node.moved(gpu) > 2 * 21 * (8 << 30) for gpu in range(8))
    assert (node.folder / "load/gpu7.nvlink").exists()


@pytest.mark.parametrize(
    ("program", "low", "high"),
    [("all_gather_perf", 355, 372), ("alltoall_perf", 355, 372), ("sendrecv_perf", 355, 372)],
)
def test_collectives_without_the_switch_go_by_rings(collective: Run, program: str, low: float, high: float) -> None:
    """Without reduction in the switch: 369 GB/s, the rate of NVLink rings."""
    code, output = collective("-b", "4G", "-e", "8G", "-f", "2", "-g", "8", program=program)
    assert code == 0
    assert low < _busbw(output) < high


@pytest.mark.parametrize(
    ("kind", "value", "low", "high"),
    [
        (FaultKind.SLOW_GPU, 0.5, 230, 245),
        (FaultKind.NVLINK_LANE_DOWN, None, 445, 456),
        (FaultKind.WRONG_TRANSPORT, None, 2.9, 3.1),
    ],
)
def test_a_fault_costs_bandwidth(
    collective: Run, node: Any, make_fault: Callable[..., Fault], kind: FaultKind, value: float, low: float, high: float
) -> None:
    """The slowest GPU sets the pace of all; sockets are two orders slower."""
    node.set(make_fault(kind, value=value))
    code, output = collective("-b", "8G", "-e", "8G", "-g", "8")
    assert code == 0
    assert low < _busbw(output) < high


def test_nccl_logs_the_path_it_took(
    collective: Run, node: Any, make_fault: Callable[..., Fault], tmp_path: Path
) -> None:
    """P2P and NVLS on a healthy node, sockets with the fault; and NVLink's byte counters agree."""
    wanted = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_FILE": str(tmp_path / "nccl.%h.%p")}
    _, output = collective("-b", "1G", "-e", "1G", "-g", "8", **wanted)
    assert "NCCL INFO" not in output
    log = next(tmp_path.glob("nccl.*")).read_text()
    assert len(re.findall(r"Channel \d\d/0 : (\d)\[\1\] -> (\d)\[\2\] via P2P/direct pointer/read", log)) == 8 * 24
    assert "Connected NVLS tree" in log
    assert "NET/Socket" not in log
    sent = int((node.folder / "load/gpu0.nvlink").read_text())
    assert sent == 2 * 21 * int((1 << 30) * 1.125)
    node.set(make_fault(FaultKind.WRONG_TRANSPORT))
    _, output = collective("-b", "1G", "-e", "1G", "-g", "8", NCCL_DEBUG="INFO")
    assert re.search(r"0\[0\] -> 1\[1\] \[send\] via NET/Socket/0", output)
    assert int((node.folder / "load/gpu0.nvlink").read_text()) == sent


def test_a_hanging_collective_prints_its_header_and_nothing_more(node: Any, make_fault: Callable[..., Fault]) -> None:
    """It waits until somebody kills it."""
    node.set(make_fault(FaultKind.NCCL_HANG))
    code = f"import sys; sys.path.insert(0, {str(FILES)!r}); sys.argv[0] = 'all_reduce_perf';"
    command = [sys.executable, "-c", f"{code} from devices.nccl_tests import main; main()", "-b", "1M", "-g", "8"]
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        subprocess.run(command, capture_output=True, timeout=3, check=False)
    output = (caught.value.stdout or b"").decode()
    assert "Using devices" in output
    assert not _rows(output)


def test_a_gpu_lost_in_a_collective_ends_it_with_the_xid(
    collective: Run, node: Any, make_fault: Callable[..., Fault]
) -> None:
    """A CUDA failure, exit code 2, no footer; the kernel log has the Xid once; the next run cannot even start."""
    node.set(make_fault(FaultKind.XID_79, value=4096))
    code, output = collective("-b", "1M", "-e", "8G", "-f", "2", "-g", "8")
    assert code == 2
    assert "Test CUDA failure common.cu" in output
    assert "Avg bus bandwidth" not in output
    assert 0 < len(_rows(output)) < 14
    assert sum("Xid (PCI:0000:61:00): 79" in line for line in node.kernel_log()) == 1
    code, output = collective("-b", "1M", "-e", "1M", "-g", "8")
    assert (code, _rows(output)) == (2, [])
    assert sum("Xid" in line for line in node.kernel_log()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-J", "out.json"), 0, "invalid option 'J'"),
        (("-b", "2M", "-e", "1M"), 255, "invalid sizes for 'minbytes' and 'maxbytes'"),
        (("-g", "9"), 5, "Invalid number of GPUs: 9 requested but only 8 were found."),
    ],
)
def test_wrong_use_ends_as_the_tool_ends(collective: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    """A wrong option is exit code 0, as in nccl-tests: a caller must look for rows."""
    got, output = collective(*arguments)
    assert got == code
    assert said in output
    assert not _rows(output)


def test_ibstat_shows_the_rail_at_half_its_rate(
    node: Any, make_fault: Callable[..., Fault], capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight ports Active and LinkUp; 400 everywhere but on the one."""
    node.set(make_fault(FaultKind.HALF_RATE_RAIL, gpu=None, hca="mlx5_6"))
    assert ibstat.main([]) == 0
    output = capsys.readouterr().out
    assert re.findall(r"^CA '(\w+)'$", output, re.MULTILINE) == [f"mlx5_{rail}" for rail in range(8)]
    assert re.findall(r"Rate: (\d+)", output) == ["400"] * 6 + ["200", "400"]
    assert output.count("\t\tState: Active\n\t\tPhysical state: LinkUp\n") == 8
    assert ibstat.main(["mlx5_99"]) == 255


def test_a_rail_that_carries_less_than_it_trained_at_shows_in_traffic_alone(
    node: Any, make_fault: Callable[..., Fault], capsys: pytest.CaptureFixture[str]
) -> None:
    """ibstat says 400 of all eight."""
    node.set(make_fault(FaultKind.SLOW_RAIL, gpu=None, hca="mlx5_6"))
    assert ibstat.main([]) == 0
    assert re.findall(r"Rate: (\d+)", capsys.readouterr().out) == ["400"] * 8
    there = state.read()
    assert [there.carried_gb_per_s(hca) for hca in there.hcas] == [50.0] * 6 + [25.0, 50.0]


@pytest.mark.parametrize(
    ("wanted", "rails"),
    [("", "01234567"), ("=mlx5_3", "3"), ("mlx5_3", "3"), ("=mlx5_1:1,mlx5_2", "12"), ("^=mlx5_0", "1234567"),
     ("^mlx5", ""), ("=mlx5", "")],
)  # fmt: skip
def test_nccl_takes_the_hcas_that_its_environment_names(node: Any, wanted: str, rails: str) -> None:
    """By prefix, by whole name, or all but these (NCCL_IB_HCA)."""
    node.set()
    assert "".join(hca.removeprefix("mlx5_") for hca in state.read().chosen_hcas(wanted)) == rails
