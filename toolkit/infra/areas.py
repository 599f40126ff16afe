"""Gates at rest by the module of tests that asks them. Every required gate that is not the burn-in's is in one area."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.facts import probe
from toolkit.facts.probe import Probe
from toolkit.infra import words
from toolkit.infra.questions import Answered, Asking, Plan, Question, of_nodes
from toolkit.infra.targets import Target
from toolkit.judge.evidence import Subject
from toolkit.judge.verdict import Answer
from toolkit.rack.gate import WIDE, Gate, Operator, Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Profile, Rack

if TYPE_CHECKING:
    from toolkit.infra.readings import Readings

_PERSISTENCE = frozenset({"persistence_active", "persistenced_active"})
_SERVICES = frozenset(
    {
        "fabric_manager_active", "fabric_manager_masked", "imex_active", "imex_masked", "containerd_active",
        "kubelet_active",
    }
)  # fmt: skip
_LINKS = frozenset({"hca_link_fault"})


@dataclass(frozen=True, slots=True)
class Area:
    """Some gates at rest, and what is read to answer them.

    own     the metrics that belong here whatever their stage; empty: all of the stage's that belong nowhere else
    fabric  a look at the rack's InfiniBand is part of the evidence
    """

    name: str
    stage: Stage | None
    probes: tuple[Probe, ...]
    own: frozenset[str] = frozenset()
    fabric: bool = False

    def gates(self, profile: Profile) -> tuple[Gate, ...]:
        """The profile's required gates of this area."""
        return tuple(g for g in at_rest(profile) if area_of(g) is self)

    def metrics(self, profile: Profile) -> frozenset[str]:
        """What these gates read."""
        return frozenset(gate.metric for gate in self.gates(profile))


PERSISTENCE = Area("persistence", None, (probe.GPUS, probe.STATES), _PERSISTENCE)
SERVICES = Area("services", None, (probe.STATES,), _SERVICES)
LINKS = Area("infiniband_links", None, (), _LINKS, fabric=True)
DRIVER = Area("driver", Stage.BASE, (probe.GPUS,))
FABRIC = Area("fabric", Stage.NVLINK, (probe.GPUS, probe.NVLINK, probe.FABRIC_MANAGER, probe.IMEX, probe.IMEX_NODES))
INFINIBAND = Area("infiniband", Stage.INFINIBAND, (probe.IBSTAT,))
KUBERNETES = Area("kubernetes", Stage.KUBERNETES, (probe.KUBELET,))
AREAS = (PERSISTENCE, SERVICES, LINKS, DRIVER, FABRIC, INFINIBAND, KUBERNETES)


def at_rest(profile: Profile) -> tuple[Gate, ...]:
    """Required gates that a node answers by itself without load: all but the burn-in's and those of many nodes."""
    return tuple(
        g
        for g in profile.gates
        if g.required and g.stage != Stage.BURNIN and g.scope not in WIDE and g.operator is not Operator.PEERS
    )


def area_of(gate: Gate) -> Area | None:
    """The one area of a gate at rest; None where no module of tests asks it."""
    named = next((area for area in AREAS if gate.metric in area.own), None)
    return named or next((area for area in AREAS if area.stage is not None and area.stage == gate.stage), None)


def gates_of(area: Area, scope: Scope | None = None) -> Asking:
    """A question for each code of the area's gates and each part that it is asked of: node, GPU or HCA.

    Links are asked together with their GPU. `scope`: gates of this scope alone.
    """

    def each(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
        gates = [g for g in area.gates(rack.profile) if scope is None or g.scope is scope]
        for code, of in dict.fromkeys((g.code, Scope.GPU if g.scope is Scope.LINK else g.scope) for g in gates):
            for subject in _parts(rack, target, of):
                yield Question(target, "-".join(filter(None, (_short(subject), code))), _gate(area, code, subject))

    return of_nodes(each)


def unplanned_in(area: Area) -> Asking:
    """A question for each node: whether it shows a part that the plan does not have."""

    def each(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
        def ask(readings: Readings) -> Answered:
            found = readings.verdict(target, area).unplanned
            if not found:
                return Answered(Answer.PASS)
            parts = ", ".join(map(str, found[: words.SHOWN]))
            what = f"{target.name} shows what {rack.name} does not plan: {parts}"
            return words.inconclusive("PART_UNPLANNED", what, "correct the rack file or the profile, or what is there")

        if area.gates(rack.profile):
            yield Question(target, "", ask)

    return of_nodes(each)


def _parts(rack: Rack, target: Target, scope: Scope) -> tuple[Subject, ...]:
    node = target.name
    if scope is Scope.GPU:
        return tuple(Subject(Scope.GPU, node, gpu=gpu) for gpu in range(rack.profile.gpus_per_node))
    if scope is Scope.HCA:
        return tuple(Subject(Scope.HCA, node, hca=hca.name) for hca in target.asked_as.hcas)
    return (Subject(Scope.NODE, node),)


def _short(subject: Subject) -> str:
    return f"gpu{subject.gpu}" if subject.gpu >= 0 else subject.hca


def _gate(area: Area, code: str, part: Subject) -> Callable[[Readings], Answered]:
    def ask(readings: Readings) -> Answered:
        target = next(t for t in readings.plan.targets if t.name == part.node)
        findings = readings.verdict(target, area).findings
        mine = [f for f in findings if f.code == code and f.gate.required and _is_of(f.subject, part)]
        bad = any(f.answer is Answer.FAIL for f in mine)
        gpus = bad and any(f.subject.gpu >= 0 or f.gate.part == "gpu" for f in mine)
        return words.of_findings(readings.rack, target.asked_as, mine, readings.seats(target) if gpus else {})

    return ask


def _is_of(subject: Subject, part: Subject) -> bool:
    """A GPU's links are its own; a finding about nobody (nothing of its scope is planned) is everybody's."""
    return not subject.node or (subject.node, subject.gpu, subject.hca) == (part.node, part.gpu, part.hca)
