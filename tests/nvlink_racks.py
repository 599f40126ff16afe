"""Looks at NVLink racks for tests: healthy ones, and what to change in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from toolkit.judge.nvlink.finding import NvlinkFinding
from toolkit.judge.nvlink.seen import (
    ZERO_UUID,
    AppSeen,
    ClusterSeen,
    ClusterState,
    FabricBlock,
    GpuSeen,
    ImexPeer,
    ImexSeen,
    NvlinkSeen,
    PartitionSeen,
    PortSeen,
    ServiceSeen,
    SwitchSeen,
    TraySeen,
)
from toolkit.judge.nvlink.services import IMEX, MANAGER
from toolkit.judge.nvlink.verdict import NvlinkReport
from toolkit.rack.loading import load_profile, load_rack
from toolkit.rack.model import Mode, Rack

INVENTORY = Path(__file__).parents[1] / "inventory"
UUID = "7d5c1d0e-4a52-4f3c-9d5e-0b6f2f1a9c11"
DRIVER = "580.126.20"
RUNS = ServiceSeen("loaded", "active", "enabled")
STOPPED = ServiceSeen("loaded", "inactive", "disabled")
MASKED = ServiceSeen("masked", "inactive", "masked")
ABSENT = ServiceSeen("not-found", "inactive", "")
MEMBER = FabricBlock(
    "Completed", "Success", "32766", UUID, "Healthy", "Full", "False", "False", "False", "None"
)  # as a GB300 rack shows it
LOCAL = FabricBlock("Completed", "Success", "0", ZERO_UUID)  # as an H100 shows it: health N/A


@cache
def nvl72() -> Rack:
    """The example rack: 18 trays, 72 GPUs, 9 switch trays, 1,296 links."""
    return load_rack("gb200-nvl72", INVENTORY)


@cache
def dgx(profile: str) -> Rack:
    """Four nodes with the NVSwitches inside, of a profile."""
    rack = load_rack("dgx-h100-su", INVENTORY)
    return replace(rack, profile=load_profile(profile, INVENTORY), units=rack.nodes[:4], links=())


def in_mode(rack: Rack, mode: Mode) -> Rack:
    """The rack with another mode stated."""
    return replace(rack, profile=replace(rack.profile, mode=mode))


def healthy(rack: Rack) -> NvlinkSeen:
    """A look at the rack with nothing wrong in it."""
    switches = tuple(_switch(rack, u.name) for u in rack.units if u.kind == "nvlink_switch")
    return NvlinkSeen(tuple(_tray(rack, node.name) for node in rack.nodes), switches or None)


def _tray(rack: Rack, node: str) -> TraySeen:
    mode, profile = rack.profile.mode, rack.profile
    across = mode in (Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA)
    driver = dict(profile.expected)["driver_version"]
    block = MEMBER if across else FabricBlock("Not Supported") if mode is Mode.PCIE else LOCAL
    rates = tuple((link, profile.nvlink_gb_per_s) for link in range(profile.nvlinks_per_gpu))
    local = mode in (Mode.NVSWITCH_GEN3, Mode.NVLINK5_SINGLE)
    imex = RUNS if mode is Mode.MNNVL_HOST_IMEX else MASKED if mode is Mode.MNNVL_DRA else ABSENT
    addresses = [n.host.address for n in rack.nodes if n.host]
    domain = ImexSeen("UP", tuple(peer(a, addresses, driver) for a in addresses))
    return TraySeen(
        node, driver, tuple(GpuSeen(g, block, rates) for g in range(profile.gpus_per_node)),
        services=((MANAGER, RUNS if local else ABSENT), (IMEX, imex)), manager=driver if local else None,
        imex=domain if mode is Mode.MNNVL_HOST_IMEX else None, nodes=tuple(addresses), nodes_sha256="ab" * 32,
        modules=frozenset({"ib_umad", "mlx5_ib", "nvidia"}), packages=frozenset({"nvlsm"}),
    )  # fmt: skip


def peer(host: str, hosts: Iterable[str], version: str = DRIVER, status: str = "READY") -> ImexPeer:
    """A node of an IMEX domain, connected to all."""
    return ImexPeer(host, status, version, tuple((h, "CONNECTED") for h in hosts))


def _switch(rack: Rack, name: str) -> SwitchSeen:
    first = next(u.name for u in rack.units if u.kind == "nvlink_switch")
    controls = name == first
    ports = sorted({end.port for link in rack.links for end in (link.a, link.b) if end.unit == name})
    status = "ok" if controls else "not ok"
    return SwitchSeen(
        name, True, (),
        ClusterSeen(ClusterState.ENABLED, "up") if controls else ClusterSeen(ClusterState.DISABLED, "n/a"),
        tuple(AppSeen(app, status) for app in ("nmx-controller", "nmx-telemetry")),
        (PartitionSeen("32766", "Default Partition", 72, "healthy", "adaptive_bandwidth"),) if controls else (),
        tuple(PortSeen(port, ((0, "No issue was observed"),)) for port in ports),
        (("ASIC", "35.2014.4090"),),
    )  # fmt: skip


def trays(seen: NvlinkSeen, change: Callable[[TraySeen], TraySeen], *names: str) -> NvlinkSeen:
    """The look with some trays changed; all where none is named."""
    return replace(seen, trays=tuple(change(t) if t.node in names or not names else t for t in seen.trays))


def blocks(seen: NvlinkSeen, block: FabricBlock, *places: tuple[str, int]) -> NvlinkSeen:
    """The look with the fabric block of some GPUs replaced; of all where none is named."""

    def changed(tray: TraySeen) -> TraySeen:
        gpus = tuple(
            replace(gpu, fabric=block) if not places or (tray.node, gpu.index) in places else gpu
            for gpu in tray.gpus or ()
        )
        return replace(tray, gpus=gpus)

    return trays(seen, changed)


def rates(seen: NvlinkSeen, node: str, gpu: int, links: Iterable[int], rate: float | None = None) -> NvlinkSeen:
    """The look with the rate of some links of a GPU replaced."""
    wanted = set(links)

    def changed(tray: TraySeen) -> TraySeen:
        gpus = tuple(
            replace(g, rates=tuple((n, rate if n in wanted else r) for n, r in g.rates or ())) if g.index == gpu else g
            for g in tray.gpus or ()
        )
        return replace(tray, gpus=gpus)

    return trays(seen, changed, node)


def switches(seen: NvlinkSeen, change: Callable[[SwitchSeen], SwitchSeen], *names: str) -> NvlinkSeen:
    """The look with some switch trays changed; all where none is named."""
    found = tuple(change(s) if s.unit in names or not names else s for s in seen.switches or ())
    return replace(seen, switches=found)


def codes(seen: NvlinkSeen, unit: str, ports: Iterable[str], code: int, words: str = "") -> NvlinkSeen:
    """The look with link diagnostics of some ports of a switch tray replaced."""
    wanted = set(ports)

    def changed(switch: SwitchSeen) -> SwitchSeen:
        told = tuple(PortSeen(p.name, ((code, words),)) if p.name in wanted else p for p in switch.ports or ())
        return replace(switch, ports=told)

    return switches(seen, changed, unit)


def far_port(rack: Rack, node: str, gpu: int, link: int) -> tuple[str, str]:
    """Switch tray and port at the other end of a GPU's link."""
    near = f"{node}:gpu{gpu}.nvlink{link}"
    cable = next(cable for cable in rack.links if near in (str(cable.a), str(cable.b)))
    far = cable.b if str(cable.a) == near else cable.a
    return far.unit, far.port


def only(report: NvlinkReport) -> NvlinkFinding:
    """The one finding of a report."""
    (finding,) = report.findings
    return finding


def found(report: NvlinkReport) -> list[str]:
    """Codes of the findings, in order."""
    return [finding.code for finding in report.findings]


def service(name: str, state: ServiceSeen) -> Callable[[TraySeen], TraySeen]:
    """A tray with one of its services replaced."""
    return lambda tray: replace(tray, services=tuple({**dict(tray.services or ()), name: state}.items()))


def cluster(state: ClusterState, connection: str = "up") -> Callable[[SwitchSeen], SwitchSeen]:
    """A switch tray with its cluster so."""
    return lambda switch: replace(switch, cluster=ClusterSeen(state, connection))
