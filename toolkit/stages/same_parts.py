"""Whether what was measured is what stands there now: a burn-in of another GPU proves nothing of this one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from toolkit.certificate.drifted import drift
from toolkit.certificate.fingerprint import NodeFacts
from toolkit.certificate.rotation import installed_trust
from toolkit.certificate.trust import Trust
from toolkit.certificate.verify import verify
from toolkit.errors import EvidenceError
from toolkit.rack.model import Unit
from toolkit.report.certificate_record import last_naming
from toolkit.stages.burnin_records import seats_on_record
from toolkit.stages.context import Context

OTHER_PARTS = "BURNIN_OF_OTHER_PARTS"
_NAMED = 8


def unmeasured(context: Context, node: Unit, facts: NodeFacts) -> str:
    """Why the node's burn-in is not of the GPUs that it has now, in words; empty where it is of exactly these."""
    seats = seats_on_record(context, node)
    if not seats:
        return "its burn-in does not say which GPUs it measured"
    measured, there = Counter(seat.serial for seat in seats.values()), Counter(facts.gpus)
    new, gone = sorted((there - measured).elements()), sorted((measured - there).elements())
    if not new and not gone:
        return ""
    words = [f"GPU {serial or 'without a serial'} was never burnt in" for serial in new]
    words += [f"GPU {serial or 'without a serial'} was, and is gone" for serial in gone]
    return "; ".join(words[:_NAMED])


def changed_since(context: Context, node: Unit, facts: NodeFacts) -> str:
    """What of a certified node is not as its newest certificate has it, in words; empty where all is the same.

    The certificate is one of our own record: it counts here whether or not its key was retired or stolen since.
    """
    mine = last_naming(context.ledger, context.rack.name, node.name)
    if mine is None:
        return "no certificate on record names it"
    trust = installed_trust(context.settings.keys, context.clock())
    ever = Trust(tuple(replace(known, until=None, stamped=False) for known in trust.keys))
    try:
        certified = verify(context.ledger.artifacts.get(mine.what), ever, context.clock()).fingerprint.node(node.name)
    except EvidenceError as refused:
        return refused.message
    if certified is None:
        return f"certificate {mine.what[:12]} does not name it"
    return "; ".join(drift(certified, facts)[:_NAMED])
