"""Who a node is, read from it now: what its certificate binds and what admission compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolkit.certificate.fingerprint import NodeFacts
from toolkit.errors import UndecidedError
from toolkit.facts import probe
from toolkit.rack.model import Unit
from toolkit.stages.context import Context
from toolkit.stages.readback import Reading

IDENTITY_PROBES = (probe.IDENTITY, probe.GPUS, probe.IBSTAT)

Versions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What a node and its BMC told of themselves; a part that is None was not read, and `problems` says why.

    gpus   driver, serials, firmware
    hcas   GUIDs, firmware
    board  BIOS and BMC firmware; empty for a rented node, whose BMC nobody may touch
    """

    node: str
    serial: str | None
    gpus: tuple[str, tuple[str, ...], Versions] | None
    hcas: tuple[tuple[str, ...], Versions] | None
    board: Versions | None
    problems: tuple[str, ...]


def identity_of(context: Context, node: Unit, reading: Reading) -> NodeFacts:
    """Serials, GUIDs, driver and firmware. Raises UndecidedError naming every fact that could not be read."""
    problems = _problems(reading)
    if problems:
        raise UndecidedError(
            f"{node.name} cannot be told apart from another: " + "; ".join(problems),
            f"rackproof facts {node.name}",
        )
    driver, gpus, gpu_firmware = _gpus(reading)
    hcas, hca_firmware = _hcas(node, reading)
    return NodeFacts(
        node.name, _serial(reading), gpus, hcas, driver, (*gpu_firmware, *hca_firmware, *_board(context, node))
    )


def told_by(context: Context, node: Unit, reading: Reading) -> Told:
    """The same, part by part: what one tool or the BMC kept to itself does not hide what the others show."""
    problems = list(_problems(reading))
    board: Versions | None = None
    try:
        board = _board(context, node)
    except UndecidedError as failure:
        problems.append(failure.message)
    return Told(
        node.name,
        _serial(reading) if _is_read(reading, probe.IDENTITY) else None,
        _gpus(reading) if _is_read(reading, probe.GPUS) else None,
        _hcas(node, reading) if _is_read(reading, probe.IBSTAT) else None,
        board,
        tuple(problems),
    )


def _problems(reading: Reading) -> tuple[str, ...]:
    names = {p.name for p in IDENTITY_PROBES}
    return tuple(f"{f.name}: {f.problem}" for f in reading.facts if f.name in names and f.problem)


def _is_read(reading: Reading, asked: probe.Probe) -> bool:
    return reading.fact(asked.name).problem is None


def _serial(reading: Reading) -> str:
    return str(reading.fact(probe.IDENTITY.name).value)


def _gpus(reading: Reading) -> tuple[str, tuple[str, ...], Versions]:
    found: dict[str, Any] = reading.fact(probe.GPUS.name).value
    firmware = tuple((f"gpu{g['index']} vbios", str(g["vbios"] or "")) for g in found["gpus"])
    return str(found["driver"] or ""), tuple(str(g["serial"] or "") for g in found["gpus"]), firmware


def _hcas(node: Unit, reading: Reading) -> tuple[tuple[str, ...], Versions]:
    adapters: dict[str, Any] = reading.fact(probe.IBSTAT.name).value
    planned = {hca.name for hca in node.hcas}
    rails = [a for a in adapters["adapters"] if a["name"] in planned]
    firmware = tuple((f"{a['name']} firmware", str(a["firmware"] or "")) for a in rails)
    return tuple(str(p["guid"] or "") for a in rails for p in a["ports"][:1]), firmware


def _board(context: Context, node: Unit) -> Versions:
    """BIOS and BMC versions by the BMC's own word; none for a rented node, whose BMC nobody may touch."""
    if node.bmc is None:
        return ()
    board = context.hands.bmc(node).identity()
    return (("bios", board.bios_version), ("bmc", board.bmc_version))
