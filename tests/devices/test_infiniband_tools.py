"""A node's view of the fabric: which adapter a real tool is started for, and ports as the driver shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.virtual.devices import ibstat, infiniband_tools
from toolkit.virtual.devices.ports import folder_of
from toolkit.virtual.devices.state import State, parse

VALUES = "".join(
    f"hca.mlx5_{n}.guid 0x0200de000000010{n}\nhca.mlx5_{n}.rail {n}\nhca.mlx5_{n}.lid {n + 1}\n"
    f"hca.mlx5_{n}.nominal_gbit 400\nhca.mlx5_{n}.rate_gbit 400\n"
    for n in range(3)
)


def _port(home: Path, hca: str, state: str, physical: str, rate: str, guid: str = "0x0200de0000000100") -> None:
    folder = folder_of(home, hca)
    folder.mkdir(parents=True)
    lid = "0x7" if state.startswith("4") else "0x0"
    files = {"state": state, "phys_state": physical, "rate": rate, "lid": lid, "sm_lid": "0x1", "guid": guid}
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


@pytest.fixture
def node(tmp_path: Path) -> State:
    """The first port waits for a manager, the second is Active, the third has no cable."""
    (tmp_path / "state").write_text(f"node node1\n{VALUES}")
    _port(tmp_path, "mlx5_0", "2: INIT", "5: LinkUp", "400 Gb/sec (4X NDR)")
    _port(tmp_path, "mlx5_1", "4: ACTIVE", "5: LinkUp", "200 Gb/sec (4X HDR)", "0x0200deff00000101")
    _port(tmp_path, "mlx5_2", "1: DOWN", "2: Polling", "10 Gb/sec (4X SDR)")
    return parse((tmp_path / "state").read_text(), tmp_path)


@pytest.mark.parametrize(
    ("given", "adapter", "handed"),
    [
        ([], "mlx5_1", []),
        (["-C", "mlx5_2", "-D", "portinfo", "0"], "mlx5_2", ["-C", "ibsim0", "-D", "portinfo", "0"]),
        (["-Cmlx5_0"], "mlx5_0", ["-C", "ibsim0"]),
        (["--Ca", "mlx5_0", "-l"], "mlx5_0", ["-C", "ibsim0", "-l"]),
        (["--Ca=mlx5_0"], "mlx5_0", ["-C", "ibsim0"]),
        (["-C", "mlx5_9"], None, ["-C", "ibsim0"]),
        (["-C"], None, ["-C", "ibsim0"]),
    ],
)
def test_a_tool_is_for_the_adapter_that_is_named_or_the_first_active_one(
    node: State, given: list[str], adapter: str | None, handed: list[str]
) -> None:
    """It sees one device, whose name takes the place of the adapter's; of an adapter that is not there it is told."""
    assert infiniband_tools.chosen(node, "smpquery", given) == (adapter, handed)


def test_opensm_is_for_the_port_with_its_guid(node: State, tmp_path: Path) -> None:
    """By argument, or by its configuration; without either, for the first that has a link."""
    assert infiniband_tools.chosen(node, "opensm", ["-g", "0x0200DEFF00000101"])[0] == "mlx5_1"
    assert infiniband_tools.chosen(node, "opensm", ["--guid=0x1"])[0] is None
    settings = tmp_path / "opensm.conf"
    settings.write_text("# guid 0x1\nguid 0x0200deff00000101\n")
    assert infiniband_tools.chosen(node, "opensm", ["-F", str(settings)])[0] == "mlx5_1"
    settings.write_text("guid 0x0000000000000000\n")
    assert infiniband_tools.chosen(node, "opensm", ["-F", str(settings)])[0] == "mlx5_0"


def test_a_tool_without_a_fabric_says_what_the_real_one_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No hardware, or hardware that no fabric has announced itself to."""
    monkeypatch.setenv("RACKPROOF_HARDWARE", str(tmp_path))
    assert infiniband_tools.main([]) == 1
    (tmp_path / "state").write_text(f"node node1\n{VALUES}")
    assert infiniband_tools.main([]) == 1
    assert capsys.readouterr().err.count("can't open UMAD port") == 2


def test_ibstat_follows_the_fabric(
    node: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Initializing before a manager has swept; the rate it trained at; Down and Polling without a cable."""
    monkeypatch.setenv("RACKPROOF_HARDWARE", str(node.home))
    assert ibstat.main([]) == 0
    first, second, third = capsys.readouterr().out.split("CA '")[1:]
    assert "State: Initializing\n" in first
    assert "Base lid: 65535\n" in first
    assert "State: Active\n" in second
    assert "Rate: 200\n" in second
    assert "Base lid: 7\n" in second
    assert "Port GUID: 0x0200deff00000101\n" in second
    assert "State: Down\n\t\tPhysical state: Polling\n\t\tRate: 10\n" in third


def test_nccl_takes_active_ports_only(node: State) -> None:
    """At the rate they trained at; a port without a link carries nothing."""
    assert node.chosen_hcas("") == ("mlx5_1",)
    assert node.chosen_hcas("=mlx5_0") == ()
    assert node.carried_gb_per_s("mlx5_1") == 25.0
    assert node.carried_gb_per_s("mlx5_2") == 0.0
