"""Whether nodes are still what their certificates say: evidence of another part must not be carried on."""

from __future__ import annotations

from toolkit.certificate.drifted import drift
from toolkit.certificate.reading import Verified
from toolkit.certificate.rotation import installed_trust
from toolkit.certificate.verify import verify
from toolkit.errors import EvidenceError
from toolkit.ledger import Run
from toolkit.rack.model import Unit
from toolkit.report.certificate_record import last_naming
from toolkit.stages.context import Context, Result, StageRunner, Work, error, holding, passed
from toolkit.stages.identity import IDENTITY_PROBES, identity_of
from toolkit.stages.readback import take

DRIFTED = "DRIFTED"


def as_certified(burn_in: StageRunner, *, check: bool = True) -> StageRunner:
    """The burn-in of nodes that are as they were certified; the others get their result here, and no load."""

    def runner(context: Context, work: Work) -> None:
        if not check:
            burn_in(context, work)
            return
        first, held = holding(work)
        first.each(work.nodes, lambda node: _against(context, work.runs[node.name], node))
        nodes = tuple(n for n in work.nodes if n.name in held)
        if nodes:
            burn_in(context, Work(nodes, work.runs, work.finish, work.each))

    return runner


def certificate_of(context: Context, node: str) -> Verified | None:
    """The newest certificate that names the node, verified now; None where there is none on record.

    Raises EvidenceError for one that does not verify.
    """
    mine = last_naming(context.ledger, context.rack.name, node)
    if mine is None:
        return None
    trusted = installed_trust(context.settings.keys, context.clock())
    return verify(context.ledger.artifacts.get(mine.what), trusted, context.clock())


def _against(context: Context, run: Run, node: Unit) -> Result:
    """PASSED stands for "go on"; it is not recorded."""
    again = f"rackproof bringup {context.rack.name}"
    try:
        certificate = certificate_of(context, node.name)
    except EvidenceError as refused:
        return error("CERTIFICATE_REFUSED", refused.message, again)
    certified = certificate.fingerprint.node(node.name) if certificate is not None else None
    if certificate is None or certified is None:
        return error("CERTIFICATE_REFUSED", f"no certificate on record names {node.name}", again)
    changes = drift(certified, identity_of(context, node, take(context, run, node, IDENTITY_PROBES)))
    if changes:
        words = f"{node.name} is not as certificate {certificate.digest[:12]} has it: {'; '.join(changes[:8])}"
        plan = f"rackproof recert run {context.rack.name} --after 'swap {node.name}' (or what was changed)"
        return error(DRIFTED, words, plan)
    return passed("as certified")
