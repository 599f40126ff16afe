"""NVLink switch trays of a virtual rack: their secrets, where a real site keeps them, listeners and faults."""

from __future__ import annotations

import secrets as random_words
from collections.abc import Callable, Iterable
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.rack.model import Rack, Unit
from toolkit.virtual import network
from toolkit.virtual.credentials import USER, Login, read_logins, write_logins
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.layout import Layout
from toolkit.virtual.nvos import NvosLag, SwitchFault, SwitchTrouble, VirtualNvos, trays
from toolkit.virtual.nvue import NvueServer
from toolkit.virtual.tls import Authority, write_private

# Faults of a rack that are of a switch tray (it is named instead of a node), as the tray shows them.
TROUBLES = {
    FaultKind.NVUE_DENIED: SwitchTrouble.DENIED,
    FaultKind.NVUE_BROKEN: SwitchTrouble.BROKEN,
    FaultKind.NVUE_WEB_PAGE: SwitchTrouble.WEB_PAGE,
    FaultKind.NVUE_SLOW: SwitchTrouble.SLOW,
    FaultKind.NVUE_APPLIED: SwitchTrouble.APPLIED,
    FaultKind.NVLINK_PORT: SwitchTrouble.PORT,
    FaultKind.NMX_APP_FAILED: SwitchTrouble.APP_FAILED,
    FaultKind.SECOND_CLUSTER: SwitchTrouble.SECOND_CLUSTER,
    FaultKind.SHORT_PARTITION: SwitchTrouble.SHORT_PARTITION,
}


def with_access(rack: Rack) -> tuple[Unit, ...]:
    """Switch trays whose `nvos` the rack file gives."""
    return tuple(unit for unit in trays(rack) if unit.nvos is not None)


def check(rack: Rack, fault: Fault) -> None:
    """Raises UsageError for a fault of a switch tray that this rack cannot have."""
    names = [unit.name for unit in trays(rack)]
    if fault.node not in names:
        known = ", ".join(names) or "none"
        raise UsageError(f"fault {fault.kind}: {fault.node!r} is no NVLink switch tray", f"{rack.name} has {known}")
    if fault.kind is FaultKind.NVLINK_PORT:
        ports = {end.port for link in rack.links for end in (link.a, link.b) if end.unit == fault.node}
        if fault.hca not in ports:
            raise UsageError(f"fault {fault.kind}: {fault.node} has no port {fault.hca!r}", "--hca acp1, as cabled")


def faults_of(rack: Rack, faults: Iterable[Fault]) -> tuple[SwitchFault, ...]:
    """The switch trays' troubles among a rack's faults."""
    names = {unit.name for unit in trays(rack)}
    return tuple(
        SwitchFault(TROUBLES[f.kind], f.node, f.hca or "", f.value)
        for f in faults
        if f.kind in TROUBLES and f.node in names
    )


def links_down(faults: Iterable[Fault], node: str) -> tuple[tuple[int, int], ...]:
    """(GPU, link) of a node whose cable cartridge is broken: both ends see it."""
    lanes = (f for f in faults if f.kind is FaultKind.NVLINK_LANE_DOWN and f.node == node)
    return tuple((f.gpu or 0, f.link or 0) for f in lanes)


def prepare(layout: Layout, rack: Rack, secrets_folder: Path) -> None:
    """Writes nvos.yml, nvos-ca.pem and one certificate per tray; logins that are there already are kept."""
    units = with_access(rack)
    if not units:
        return
    logins = read_logins(secrets_folder / "nvos.yml", "NVOS")
    for unit in units:
        if unit.nvos and unit.nvos.credentials not in logins:
            logins[unit.nvos.credentials] = Login(USER, random_words.token_urlsafe(18))
    write_logins(secrets_folder / "nvos.yml", logins)
    authority = Authority.at(secrets_folder / "nvos-ca.pem", secrets_folder / "nvos-ca.key")
    layout.certificates.mkdir(parents=True, exist_ok=True)
    for unit in units:
        if unit.nvos:
            pem = authority.issue(f"{unit.name}-nvos", unit.nvos.address)
            write_private(layout.certificates / f"{unit.name}-nvos.pem", pem)


def servers(
    layout: Layout, rack: Rack, secrets_folder: Path, faults: Callable[[], Iterable[Fault]]
) -> tuple[VirtualNvos, tuple[NvueServer, ...]]:
    """The trays, and a listener for each, made in the network of the BMCs: management, like them."""
    nvos = VirtualNvos(rack, NvosLag(), links_down=lambda node: links_down(faults(), node))
    logins = read_logins(secrets_folder / "nvos.yml", "NVOS")
    made = []
    for unit in with_access(rack):
        if unit.nvos is None:
            continue
        at = (unit.nvos.address, unit.nvos.port)
        made.append(_server(layout, nvos, unit.name, logins[unit.nvos.credentials], at))
    return nvos, tuple(made)


def _server(layout: Layout, nvos: VirtualNvos, unit: str, login: Login, at: tuple[str, int]) -> NvueServer:
    certificate = layout.certificates / f"{unit}-nvos.pem"
    return network.inside(layout.bmcs, lambda: NvueServer(nvos, unit, login, at, certificate))
