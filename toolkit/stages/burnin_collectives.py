"""A burn-in's collectives on the controller: which way each took, what may be judged of it, what the suite left out.

A bandwidth is of NVLink only where log and byte counters prove it. What measured another fabric speaks of no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from toolkit.facts import nccl_node
from toolkit.facts.nccl_path import Answer, Proof
from toolkit.facts.nccl_transport import MAX_CHARACTERS
from toolkit.judge.believed import WHATS, believed
from toolkit.judge.compared import Compared
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.verdict import Verdict
from toolkit.rack.burnin_plan import BUDGETS
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.metric import COLLECTIVES, RAIL_METRIC, collective_metric
from toolkit.rack.model import Profile, Suite, Unit
from toolkit.stages.context import Context
from toolkit.stages.readback import judge_node

WRONG_FABRIC = "WRONG_FABRIC"
_DIGEST_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Ways:
    """What carried each collective, and the artifact that tells most of it, by collective."""

    proofs: Mapping[str, Proof] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def complaint(self) -> str:
        """Which collectives measured another fabric, in words; empty where none did."""
        return nccl_node.complaint(self.proofs)

    @property
    def wrong(self) -> tuple[str, ...]:
        """Those collectives."""
        return tuple(c for c, proof in self.proofs.items() if proof.answer is Answer.WRONG)


def ways(context: Context, node: Unit, kept: Mapping[str, str]) -> Ways:
    """The proofs by what the node kept. `kept`: an artifact's digest by its name, or words why we have none."""
    proofs: dict[str, Proof] = {}
    origins: dict[str, str] = {}
    for collective in COLLECTIVES:  # one at a time: a log may be megabytes
        files = {
            place.what: digest
            for name, digest in kept.items()
            if (place := nccl_node.kept(name)) and place.collective == collective and len(digest) == _DIGEST_LENGTH
        }
        texts = {f"{collective}_perf.{what}": _text(context, digest) for what, digest in files.items()}
        proofs |= nccl_node.proofs(node.name, texts)
        origins[collective] = files.get("nccl.txt") or files.get("txt", "")
    return Ways(proofs, origins)


def _text(context: Context, digest: str) -> str:
    # one character more than a parser takes, so that it sees what was cut
    return context.ledger.artifacts.get(digest)[: MAX_CHARACTERS + 1].decode("utf-8", "replace")


def measured(context: Context, node: Unit, run: str, found: Ways) -> list[Measurement]:
    """The ways as measurements of the node."""
    return [
        Measurement(
            metric, unit, value, Subject(Scope.NODE, node.name), context.clock(), run, found.origins[collective]
        )
        for collective, proof in found.proofs.items()
        for metric, unit, value, _ in nccl_node.measured({collective: proof})
    ]


def not_asked(profile: Profile, suite: Suite) -> tuple[str, ...]:
    """Codes of the required gates that a suite cannot answer, because it does not run their collective."""
    unmeasured = _unmeasured(suite)
    return tuple(g.code for g in profile.gates if g.metric in unmeasured and g.required)


def left_out(suite: Suite) -> tuple[str, ...]:
    """Collectives that a suite does not run."""
    planned = {collective.kind for collective in BUDGETS[suite].collectives}
    return tuple(c for c in COLLECTIVES if c not in planned)


def judge_burnin(
    context: Context,
    node: Unit,
    measurements: Iterable[Measurement],
    suite: Suite | None = None,
    wrong: Iterable[str] = (),
    compared: Iterable[Compared] | None = None,
) -> Verdict:
    """The verdict of the burn-in's gates on what may be believed. `compared` as of `judge_node`.

    Every gate is asked, unless a `suite` is named that does not run its collective, or its collective is among the
    `wrong`: those measured another fabric, which is an outcome of its own. The rails are no part of a node's suite.
    """
    silent = (_unmeasured(suite) if suite else frozenset()) | _metrics(wrong)
    if suite or not context.rack.profile.rail_test:
        silent |= {RAIL_METRIC}
    return judge_node(context, node, (Stage.BURNIN,), believed(measurements), silent, compared)


def _unmeasured(suite: Suite) -> frozenset[str]:
    return _metrics(left_out(suite))


def _metrics(collectives: Iterable[str]) -> frozenset[str]:
    return frozenset(collective_metric(c, what) for c in collectives for what in WHATS)
