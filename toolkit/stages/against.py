"""A certificate against its rack as it is now: every bound fact that drifted, and every node that did not say.

It only reads: machines, BMCs and the rack file. No run is begun and nothing is put on record.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from toolkit.certificate.drifted import Drifted, drifted, drifted_design
from toolkit.certificate.fingerprint import NodeFacts
from toolkit.certificate.reading import Verified
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.errors import UndecidedError
from toolkit.facts.probe import read
from toolkit.stages.context import Context
from toolkit.stages.identity import IDENTITY_PROBES, Told, Versions, told_by
from toolkit.stages.readback import Reading

AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Compared:
    """How a rack stands to its certificate.

    read     nodes that told all that was asked
    drifted  what is no longer what was certified, the rack file's own changes among it
    unread   (node, why) of each node that did not tell, or not all: of these nothing is known
    """

    read: tuple[str, ...]
    drifted: tuple[Drifted, ...]
    unread: tuple[tuple[str, str], ...]


def compare(context: Context, certificate: Verified) -> Compared:
    """Asks every node that the certificate names, side by side.

    Raises CertificateRefusedError OTHER_RACK for a certificate that is not of this rack.
    """
    rack = context.rack
    if certificate.rack != rack.name:
        raise CertificateRefusedError(
            Refusal.OTHER_RACK, f"it is of {ascii(certificate.rack)[:80]}, and proves nothing of {rack.name}"
        )
    planned = {unit.name for unit in rack.nodes}
    there = [facts for facts in certificate.fingerprint.nodes if facts.node in planned]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="verify") as threads:
        looks = list(threads.map(lambda then: _one(context, then), there))
    of_nodes = [one for found, _ in looks for one in found]
    unread = {then.node: why for then, (_, why) in zip(there, looks, strict=True) if why}
    return Compared(
        tuple(then.node for then in there if then.node not in unread),
        (*drifted_design(certificate.fingerprint, rack), *of_nodes),
        tuple(unread.items()),
    )


def _one(context: Context, then: NodeFacts) -> tuple[tuple[Drifted, ...], str]:
    """What drifted on a node, and why some or all of it is not known."""
    unit = context.rack.unit(then.node)
    try:
        facts = tuple(read(context.hands.shell, unit, probe, context.clock) for probe in IDENTITY_PROBES)
    except UndecidedError as failure:
        return (), failure.message
    told = told_by(context, unit, Reading(facts, ()))
    found = drifted(then, _completed(then, told))
    silent = [f"{one.field} was not read" for one in found if one.unread]
    return tuple(one for one in found if not one.unread), "; ".join((*told.problems, *silent))


def _completed(then: NodeFacts, told: Told) -> NodeFacts:
    """What was told; what was not, as it was certified, so that it is not taken for drift. `told.problems` says it."""
    driver, gpus, gpu_firmware = told.gpus or (then.driver, then.gpus, _of(then, "vbios"))
    hcas, hca_firmware = told.hcas or (then.hcas, _of(then, "firmware"))
    board = _of(then, "bios", "bmc") if told.board is None else told.board
    serial = then.serial if told.serial is None else told.serial
    return NodeFacts(told.node, serial, gpus, hcas, driver, (*gpu_firmware, *hca_firmware, *board))


def _of(then: NodeFacts, *kinds: str) -> Versions:
    """Firmware by the last word of its component's name: `gpu3 vbios`, `mlx5_3 firmware`, `bios`, `bmc`."""
    return tuple((name, version) for name, version in then.firmware if name.split()[-1] in kinds)
