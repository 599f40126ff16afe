"""From the ledger to an archive's files: gathers, knows what is the site's own, packs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolkit.ledger import EventKind, Ledger
from toolkit.rack.model import Rack, Unit
from toolkit.rma.evidence import Evidence, gather
from toolkit.rma.form import Form
from toolkit.rma.pack import Packed, pack
from toolkit.rma.redaction import Redactor

_ACTOR = re.compile(r"([^@\s]{1,64})@(\S{1,253})")


def build(ledger: Ledger, rack: Rack, node: Unit, form: Form) -> Packed:
    """Everything that goes into the archive of this node. UsageError where it never failed on evidence."""
    evidence = gather(ledger, rack, node, form.neighbours)
    actors = [m for name in sorted(_actors(ledger, rack, node)) if (m := _ACTOR.fullmatch(name))]
    redactor = Redactor(
        form.policy,
        hosts=(*(unit.name for unit in rack.units), *(m[2] for m in actors)),
        users=tuple(m[1] for m in actors),
        kept=frozenset(_kept(evidence)),
    )
    return pack(ledger, evidence, form, redactor)


def _actors(ledger: Ledger, rack: Rack, node: Unit) -> set[str]:
    """Who wrote of the node, and who issued what names it: `user@host`."""
    issued = ledger.events(rack.name, kind=EventKind.CERTIFICATE_ISSUED, limit=1000)
    return {e.actor for e in (*ledger.story(rack.name, node.name, 100_000), *issued)}


def _kept(evidence: Evidence) -> Iterator[str]:
    """What a vendor needs as it is, and what a pattern might take for an address."""
    yield evidence.node.serial
    for seat in evidence.seats.values():
        yield from (seat.serial, seat.pci)
    if evidence.read is not None:
        yield from (v for v in (evidence.read.driver, evidence.read.gpu.vbios, *evidence.read.numbers.values()) if v)
    for certified in evidence.certificates:
        yield from (certified.driver, *certified.firmware.values())
