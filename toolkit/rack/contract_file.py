"""Reads the annex of a contract: every criterion, checked against the gates and metrics that there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.rack.contract import Annex, Criterion, Measure, by_code, gates_of, scope_of
from toolkit.rack.document import Problems, parse, read_bytes, shown
from toolkit.rack.gate import Gate, Operator
from toolkit.rack.loading import list_profiles, load_profile
from toolkit.rack.metric import METRICS

if TYPE_CHECKING:
    from toolkit.rack.contract_schema import AnnexFile, MeasureFile

Known = Mapping[str, tuple[Gate, ...]]
Loc = tuple[str | int, ...]
_ORDERS = (Operator.AT_LEAST, Operator.AT_MOST)
_OF_CONTRACTS = (*_ORDERS, Operator.EQUALS, Operator.ONE_OF)


def load_annex(file: Path, inventory: Path) -> Annex:
    """The annex. Raises InputError with everything that is wrong in it, UsageError where it cannot be read.

    A code is known if a gate of any profile has it: whether this rack is asked is the report's to say.
    """
    from toolkit.rack.contract_schema import AnnexFile
    from toolkit.rack.fields import validate

    raw = read_bytes(file)
    document = parse(raw, str(file))
    problems = Problems(document)
    written = validate(AnnexFile, document.data)
    if isinstance(written, list):
        for loc, wrong, right, of_key in written:
            problems.add(loc, wrong, right, of_key)
        problems.raise_any()
        raise AssertionError("a file that does not fit its schema has problems")
    known = by_code(g for name in list_profiles(inventory) for g in load_profile(name, inventory).gates)
    criteria = tuple(_criteria(written, known, problems))
    problems.raise_any()
    return Annex(written.annex, written.contract, criteria, hashlib.sha256(raw).hexdigest())


def _criteria(written: AnnexFile, known: Known, problems: Problems) -> Iterator[Criterion]:
    seen: dict[str, int] = {}
    for number, one in enumerate(written.criteria):
        loc: Loc = ("criteria", number)
        first = seen.setdefault(one.id, number)
        if first != number:
            line, _ = problems.document.place(("criteria", first, "id"))
            problems.add((*loc, "id"), f"the criterion {one.id} is written twice", f"line {line} has it too")
        measures = [_measure(m, (*loc, "gates", i), known, problems) for i, m in enumerate(one.gates)]
        for i, measure in enumerate(measures):
            if measure in measures[:i] and measure is not None:
                problems.add((*loc, "gates", i), f"{measure.name} is asked twice", "once is enough")
        yield Criterion(one.id, one.clause, one.text, tuple(m for m in measures if m is not None))


def _measure(written: MeasureFile, loc: Loc, known: Known, problems: Problems) -> Measure | None:
    """None where something is wrong with it; `problems` says what."""
    before = problems.count
    named = Measure(written.code or "", written.metric or "")
    if not named.name:
        problems.add(loc, "names neither a gate nor a metric", "code: NCCL_BUSBW_LOW, or metric: with limit and unit")
    elif named.code:
        _check_code(named, loc, known, problems)
    if problems.count == before:
        _check_scope(written, named, loc, known, problems)
    if problems.count == before and written.limit is None:
        _check_without_limit(written, loc, problems)
    if problems.count != before or written.limit is None:
        return named if problems.count == before else None
    return _with_limit(written, named, loc, known, problems)


def _check_code(named: Measure, loc: Loc, known: Known, problems: Problems) -> None:
    from toolkit.rack.fields import nearest

    if named.code not in known:
        problems.add((*loc, "code"), f"no profile has a gate {shown(named.code)}", nearest(named.code, tuple(known)))
    elif not gates_of(named, known[named.code]):
        metrics = ", ".join(g.metric for g in known[named.code])
        problems.add((*loc, "metric"), f"{named.code} does not read {named.metric}", f"it reads {metrics}")


def _check_scope(written: MeasureFile, named: Measure, loc: Loc, known: Known, problems: Problems) -> None:
    scopes = scope_of(named, known)
    if written.scope is not None and {written.scope} != scopes:
        of = " and ".join(sorted(scopes))
        problems.add((*loc, "scope"), f"{named.name} is asked of each {of}, not {written.scope}", f"scope: {of}")


def _check_without_limit(written: MeasureFile, loc: Loc, problems: Problems) -> None:
    if written.code is None:
        right = "operator, limit and unit as the contract states them; or code: a gate of ours"
        problems.add(loc, f"nobody says what of {written.metric} is right", right)
        return
    for name in ("operator", "unit"):
        if getattr(written, name) is not None:
            wrong = f"{name} without a limit"
            problems.add((*loc, name), wrong, "add the contract's limit, or leave all to the gate", True)


def _with_limit(
    written: MeasureFile, named: Measure, loc: Loc, known: Known, problems: Problems
) -> Measure | None:  # fmt: skip
    """A measure with the contract's own limit, typed by the unit of its one metric."""
    from toolkit.rack.checks import UnfitLimit, typed_limit

    metrics = [named.metric] if named.metric else [g.metric for g in gates_of(named, known[named.code])]
    if len(metrics) != 1:
        problems.add((*loc, "limit"), f"{named.code} reads {len(metrics)} metrics", f"metric: {' or '.join(metrics)}")
        return None
    operator = written.operator or next((g.operator for g in gates_of(named, known.get(named.code, ()))), None)
    if operator not in _OF_CONTRACTS:
        wrong = "how values compare with the limit is missing" if operator is None else f"{operator} takes no limit"
        problems.add((*loc, "limit"), wrong, f"operator: {', '.join(_OF_CONTRACTS)}")
        return None
    unit = METRICS[metrics[0]].unit
    if written.unit is not unit:
        told = "no unit" if written.unit is None else str(written.unit)
        problems.add((*loc, "unit" if written.unit else "limit"), f"{told}; {metrics[0]} is in {unit}", f"unit: {unit}")
        return None
    if operator in _ORDERS and unit.is_text:
        problems.add((*loc, "limit"), f"{operator} does not order a {unit}", "operator: equals or one_of")
        return None
    limit = typed_limit(written.model_copy(update={"operator": operator}), unit)
    if isinstance(limit, UnfitLimit):
        problems.add((*loc, "limit"), limit.wrong, limit.right)
        return None
    return Measure(named.code, metrics[0], operator, limit)
