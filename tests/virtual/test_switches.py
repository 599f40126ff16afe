"""NVLink switch trays of a virtual rack: up with it, asked over TLS with the site's secrets, broken while it runs."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.judge.nvlink.seen import ClusterState
from toolkit.nvue.client import NvueClient, NvueRefusedError, NvueShapeError, connect
from toolkit.rack.model import Bmc, Disk, Gpu, Host, Link, LinkKind, Mode, Nvos, Port, Rack, Unit, UnitKind
from toolkit.redfish import load_credentials
from toolkit.settings import Settings
from toolkit.virtual import lab, network
from toolkit.virtual.fault_table import check
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.layout import layout_of
from toolkit.virtual.nvos import VirtualNvos
from toolkit.virtual.switches import faults_of, links_down


def a_small_nvl_rack(like: Rack) -> Rack:
    """One tray of four GPUs and two switch trays; link 0 of each GPU goes to the first, link 1 to the second."""
    profile = replace(like.profile, mode=Mode.MNNVL_HOST_IMEX, gpus_per_node=4, nvlinks_per_gpu=2)
    tray = Unit(
        "tray01", UnitKind.NODE, "VT01", 1, Bmc("10.67.0.11", "bmc"),
        Host("10.66.0.11", "52:54:00:66:0a:01", Disk("/dev/nvme0n1", "VTD01")), tuple(Gpu(n) for n in range(4)),
    )  # fmt: skip
    switches = tuple(
        Unit(f"nvswitch{n}", UnitKind.NVLINK_SWITCH, f"VS0{n}", 1 + n, nvos=Nvos(f"10.67.4.{n}", "nvos"))
        for n in (1, 2)
    )
    links = tuple(
        Link(Port("tray01", f"gpu{gpu}.nvlink{n - 1}"), Port(f"nvswitch{n}", f"acp{gpu + 1}"), LinkKind.NVLINK, 50,
             "cartridge")
        for n in (1, 2) for gpu in range(4)
    )  # fmt: skip
    return replace(like, name="nvlbench", profile=profile, units=(tray, *switches), links=links)


@dataclass
class Bench:
    """A rack that is up."""

    rack: Rack
    settings: Settings

    def ask(self, unit: str, question: Callable[[NvueClient], object]) -> object:
        """What a client in the controller's network gets to hear."""
        secrets = self.settings.secrets(self.rack.site)
        at = self.rack.unit(unit).nvos
        assert at is not None
        client = connect(unit, at, load_credentials(secrets / "nvos.yml", "nvos", "switch"), secrets / "nvos-ca.pem")
        return network.inside(layout_of(self.settings, self.rack.name).controller, lambda: question(client))


@pytest.fixture
def nvl(rack: Rack, settings: Settings) -> Iterator[Bench]:
    bench = Bench(a_small_nvl_rack(rack), settings)
    try:
        lab.up(bench.rack, settings, lambda _: None)
        yield bench
    finally:
        lab.down(settings)


@pytest.mark.root
def test_switch_trays_come_up_with_the_rack_and_break_while_it_runs(nvl: Bench) -> None:
    """Two listeners with certificates of the site's CA; the cluster is enabled over REST; faults show at once."""
    secrets = nvl.settings.secrets(nvl.rack.site)
    assert stat.S_IMODE((secrets / "nvos.yml").stat().st_mode) == 0o600
    nvl.ask("nvswitch1", lambda c: c.enable_cluster())
    assert nvl.ask("nvswitch1", lambda c: c.cluster().state) is ClusterState.ENABLED
    assert nvl.ask("nvswitch2", lambda c: c.cluster().state) is ClusterState.DISABLED
    lab.set_fault(nvl.settings, "nvlbench", Fault(FaultKind.NVLINK_PORT, "nvswitch2", hca="acp3", value=1024))
    lab.set_fault(nvl.settings, "nvlbench", Fault(FaultKind.NVLINK_LANE_DOWN, "tray01", gpu=0, link=0))
    troubled = nvl.ask("nvswitch2", lambda c: [p.name for p in c.ports() if p.trouble])
    cartridge = nvl.ask("nvswitch1", lambda c: [p.name for p in c.ports() if p.trouble])
    assert (troubled, cartridge) == (["acp3"], ["acp1"])
    lab.set_fault(nvl.settings, "nvlbench", Fault(FaultKind.NVUE_DENIED, "nvswitch2"))
    with pytest.raises(NvueRefusedError):
        nvl.ask("nvswitch2", lambda c: c.cluster())
    lab.clear_fault(nvl.settings, "nvlbench", "nvswitch2", FaultKind.NVUE_DENIED)
    lab.set_fault(nvl.settings, "nvlbench", Fault(FaultKind.NVUE_APPLIED, "nvswitch1"))
    with pytest.raises(NvueShapeError, match="rev=applied"):
        nvl.ask("nvswitch1", lambda c: c.cluster())


def test_a_fault_of_a_tray_or_port_that_is_not_there_is_refused(rack: Rack) -> None:
    """A node has no NVUE, and an uncabled port no diagnostics that anybody planned."""
    small = a_small_nvl_rack(rack)
    check(small, Fault(FaultKind.NVLINK_PORT, "nvswitch1", hca="acp1"))
    for wrong in (
        Fault(FaultKind.NVUE_DENIED, "tray01"),
        Fault(FaultKind.NVUE_DENIED, "nvswitch9"),
        Fault(FaultKind.NVLINK_PORT, "nvswitch1", hca="acp99"),
        Fault(FaultKind.NVLINK_PORT, "nvswitch1"),
    ):
        with pytest.raises(UsageError, match="nvswitch1"):
            check(small, wrong)


def test_faults_are_told_apart_by_who_shows_them(rack: Rack) -> None:
    """A switch's own trouble is the switch's; a cartridge shows at both ends."""
    small = a_small_nvl_rack(rack)
    faults = (
        Fault(FaultKind.NMX_APP_FAILED, "nvswitch1"), Fault(FaultKind.NVLINK_LANE_DOWN, "tray01", gpu=2, link=1),
    )  # fmt: skip
    assert [str(found.kind) for found in faults_of(small, faults)] == ["app_failed"]
    assert links_down(faults, "tray01") == ((2, 1),)
    nvos = VirtualNvos(small, links_down=lambda node: links_down(faults, node))
    shown = nvos.shown("nvswitch2", "interface", operational=True)
    assert isinstance(shown, dict)
    assert [name for name, port in shown.items() if "2" in port["link"]["diagnostics"]] == ["acp3"]


def test_a_site_that_has_a_login_keeps_it(rack: Rack, settings: Settings, tmp_path: Path) -> None:
    """A second `up` writes no other password."""
    from toolkit.virtual import switches

    small = a_small_nvl_rack(rack)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    layout = layout_of(settings, "nvlbench")
    switches.prepare(layout, small, secrets)
    first = (secrets / "nvos.yml").read_text()
    switches.prepare(layout, small, secrets)
    assert (secrets / "nvos.yml").read_text() == first
    assert load_credentials(secrets / "nvos.yml", "nvos", "switch").username == "admin"
