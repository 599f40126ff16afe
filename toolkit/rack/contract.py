"""A contract's acceptance criteria as data: each in the contract's words, mapped to what rackproof measures. Pure.

A criterion names gates of ours, or metrics with a limit that the contract itself states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from toolkit.rack.gate import Gate, Limit, Operator, Scope
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Profile

# Both fit on the page that is printed and signed: a contract's whole words stand in the contract.
MAX_CRITERIA = 16
MAX_CRITERION_TEXT = 120
MAX_MEASURES = 32


@dataclass(frozen=True, slots=True)
class Measure:
    """One of the things by which a criterion is judged.

    code      of gates of ours; empty: the contract alone states what of `metric` is right
    metric    of those gates the one that reads it; empty: all gates of the code
    operator  of the contract's own limit; None: that of the gate
    limit     the contract's own, in the metric's unit; None: the gate's
    """

    code: str = ""
    metric: str = ""
    operator: Operator | None = None
    limit: Limit = None

    @property
    def name(self) -> str:
        """In words."""
        return self.code or self.metric


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion: its number in the contract, the clause that has it, a sentence, and what it is judged by."""

    id: str
    clause: str
    text: str
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class Annex:
    """The annex of a contract. `digest` is the sha256 of the file's bytes."""

    name: str
    contract: str
    criteria: tuple[Criterion, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Unasked:
    """A measure that this rack is not asked, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A measure as a gate to ask.

    gate  the profile's own; with the contract's limit where it states one
    ours  the profile's gate that stands behind it; None where the contract alone asks this
    """

    gate: Gate
    ours: Gate | None

    @property
    def by_contract(self) -> bool:
        """Whether the limit is the contract's."""
        return self.ours is None or self.gate.limit != self.ours.limit or self.gate.operator != self.ours.operator


def gates_of(measure: Measure, gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """Those gates that the measure means: of its code and, where it names one, its metric."""
    return tuple(g for g in gates if g.code == measure.code and measure.metric in ("", g.metric))


def asked(criterion: Criterion, source: str, profile: Profile) -> Iterator[Asked | Unasked]:
    """Of each measure the gates to ask of the rack, or why there is none.

    source  of the limits that the contract states
    """
    left_out = dict(profile.left_out)
    for measure in criterion.measures:
        if not measure.code:
            yield Asked(_of_contract(measure, source), None)
            continue
        found = gates_of(measure, profile.gates)
        if not found:
            why = left_out.get(measure.code, f"profile {profile.name} has no such gate")
            yield Unasked(measure.code, why)
        for gate in found:
            yield Asked(_with_limit(gate, measure, source), gate)


def _of_contract(measure: Measure, source: str) -> Gate:
    metric = METRICS[measure.metric]
    assert measure.operator is not None  # noqa: S101 - the schema asks for it
    return Gate(
        measure.metric, measure.metric, metric.unit, metric.scope, measure.operator, measure.limit, "", True,
        "evidence", metric.meaning, source, "",
    )  # fmt: skip


def _with_limit(gate: Gate, measure: Measure, source: str) -> Gate:
    if measure.limit is None:
        return gate
    return replace(gate, operator=measure.operator or gate.operator, limit=measure.limit, source=source)


def compared(mine: Gate, ours: Gate) -> str:
    """How a contract's limit stands to our gate's: stricter, looser, equal, or other where they do not compare."""
    same = mine.operator is ours.operator and mine.operator in (Operator.AT_LEAST, Operator.AT_MOST)
    if mine.operator is ours.operator and mine.limit == ours.limit:
        return "equal"
    if not same or isinstance(mine.limit, str | tuple | None) or isinstance(ours.limit, str | tuple | None):
        return "other"
    return "stricter" if (mine.limit > ours.limit) is (mine.operator is Operator.AT_LEAST) else "looser"


def by_code(gates: Iterable[Gate]) -> Mapping[str, tuple[Gate, ...]]:
    """Gates by their code, each metric of a code once."""
    found: dict[str, dict[str, Gate]] = {}
    for gate in gates:
        found.setdefault(gate.code, {}).setdefault(gate.metric, gate)
    return {code: tuple(of.values()) for code, of in found.items()}


def scope_of(measure: Measure, known: Mapping[str, tuple[Gate, ...]]) -> frozenset[Scope]:
    """What a measure is asked of, by gates of any profile."""
    if not measure.code:
        return frozenset({METRICS[measure.metric].scope})
    return frozenset(g.scope for g in gates_of(measure, known.get(measure.code, ())))
