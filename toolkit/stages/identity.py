"""Who a node is, read from it now: what its certificate binds and what admission compares."""

from __future__ import annotations

from typing import Any

from toolkit.certificate.fingerprint import NodeFacts
from toolkit.errors import UndecidedError
from toolkit.facts import probe
from toolkit.rack.model import Unit
from toolkit.stages.context import Context
from toolkit.stages.readback import Reading

IDENTITY_PROBES = (probe.IDENTITY, probe.GPUS, probe.IBSTAT)


def identity_of(context: Context, node: Unit, reading: Reading) -> NodeFacts:
    """Serials, GUIDs, driver and firmware. Raises UndecidedError naming every fact that could not be read."""
    problems = [f"{f.name}: {f.problem}" for f in reading.facts if f in _needed(reading) and f.problem]
    if problems:
        raise UndecidedError(
            f"{node.name} cannot be told apart from another: " + "; ".join(problems),
            f"rackproof facts {node.name}",
        )
    gpus: dict[str, Any] = reading.fact(probe.GPUS.name).value
    adapters: dict[str, Any] = reading.fact(probe.IBSTAT.name).value
    planned = {hca.name for hca in node.hcas}
    rails = [a for a in adapters["adapters"] if a["name"] in planned]
    firmware = [(f"gpu{g['index']} vbios", str(g["vbios"] or "")) for g in gpus["gpus"]]
    firmware += [(f"{a['name']} firmware", str(a["firmware"] or "")) for a in rails]
    return NodeFacts(
        node=node.name,
        serial=str(reading.fact(probe.IDENTITY.name).value),
        gpus=tuple(str(g["serial"] or "") for g in gpus["gpus"]),
        hcas=tuple(str(p["guid"] or "") for a in rails for p in a["ports"][:1]),
        driver=str(gpus["driver"] or ""),
        firmware=(*firmware, *_board_firmware(context, node)),
    )


def _needed(reading: Reading) -> list[object]:
    names = {p.name for p in IDENTITY_PROBES}
    return [f for f in reading.facts if f.name in names]


def _board_firmware(context: Context, node: Unit) -> tuple[tuple[str, str], ...]:
    """BIOS and BMC versions by the BMC's own word; none for a rented node, whose BMC nobody may touch."""
    if node.bmc is None:
        return ()
    board = context.hands.bmc(node).identity()
    return (("bios", board.bios_version), ("bmc", board.bmc_version))
