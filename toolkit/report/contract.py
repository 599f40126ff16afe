"""A contract's acceptance criteria with their answers: for the terminal, as JSON, and as one page of A4 to sign."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit import __version__
from toolkit.certificate.canonical import canonical
from toolkit.judge.contract import CriterionAnswer, GateAnswer, overall
from toolkit.judge.verdict import Answer, Finding
from toolkit.rack.contract import MAX_CRITERIA, Annex, compared
from toolkit.rack.gate import Limit, Operator, Scope
from toolkit.rack.model import Rack
from toolkit.report.burnin import ANSWER_STYLE
from toolkit.report.in_force import InForce
from toolkit.report.text import printable

if TYPE_CHECKING:
    from jinja2 import Template

    from toolkit.report.contract_document import ContractReport, CriterionLine, GateLine

LONGEST = 2000
MUST_BE = {Operator.AT_LEAST: "≥", Operator.AT_MOST: "≤", Operator.EQUALS: "=", Operator.ONE_OF: "one of"}
PLURAL = {Scope.GPU: "GPUs", Scope.LINK: "NVLinks", Scope.HCA: "HCAs", Scope.NODE: "nodes", Scope.LEAF: "leaves",
          Scope.DOMAIN: "NVLink domains", Scope.RACK: "racks"}  # fmt: skip
SINGULAR = {Scope.GPU: "GPU", Scope.LINK: "NVLink", Scope.HCA: "HCA", Scope.NODE: "node", Scope.LEAF: "leaf",
            Scope.DOMAIN: "NVLink domain", Scope.RACK: "rack"}  # fmt: skip


def contract_report(
    annex: Annex, rack: Rack, answers: Iterable[CriterionAnswer], held: InForce, now: datetime
) -> ContractReport:  # fmt: skip
    """The document of what was judged."""
    from toolkit.report.contract_document import CertificateLine, ContractReport, Unproven, Unvouched

    answers = tuple(answers)
    certificates = [
        CertificateLine(
            sha256=c.digest, keyid=c.keyid, issued_at=_zulu(c.issued_at), expires_at=_zulu(c.expires_at),
            nodes=tuple(sorted(n for n, of in held.vouched.items() if of.digest == c.digest)),
        )
        for c in held.certificates
    ]  # fmt: skip
    unproven = dict.fromkeys((line.kind.value, line.what) for c in held.certificates for line in c.not_verified)
    return ContractReport(
        tool_version=__version__,
        made_at=_zulu(now),
        contract=annex.contract,
        annex=annex.name,
        annex_sha256=annex.digest,
        rack=rack.name,
        site=rack.site,
        sku=rack.profile.sku,
        profile=rack.profile.name,
        topology=rack.digest,
        answer=overall(a.answer for a in answers),
        nodes=tuple(sorted(held.vouched)),
        left_out=tuple(Unvouched(node=n, reason=_text(why)) for n, why in sorted(held.doubts.items())),
        certificates=tuple(certificates),
        criteria=tuple(_criterion(a) for a in answers),
        not_verified=tuple(Unproven(kind=kind, what=_text(what)) for kind, what in unproven),
    )


def _criterion(found: CriterionAnswer) -> CriterionLine:
    from toolkit.report.contract_document import CriterionLine, NotAsked, Worst

    worst = found.worst
    return CriterionLine(
        id=found.criterion.id,
        clause=found.criterion.clause,
        text=found.criterion.text,
        answer=found.answer,
        subjects=dict(sorted(Counter(s.scope for s in found.subjects).items())),
        passed=found.count(Answer.PASS),
        failed=found.count(Answer.FAIL),
        inconclusive=found.count(Answer.INCONCLUSIVE),
        gates=tuple(_gate(g) for g in found.gates),
        unasked=tuple(NotAsked(name=u.name, why=_text(u.why)) for u in found.unasked),
        worst=None if worst is None else Worst(
            subject=str(worst.subject), metric=worst.gate.metric, value=_value(worst), unit=str(worst.gate.unit),
            answer=worst.answer, detail=_text(worst.detail), evidence=worst.origin,
        ),
        evidence=tuple(sorted({f.origin for f in found.findings if f.origin})),
    )  # fmt: skip


def _gate(found: GateAnswer) -> GateLine:
    from toolkit.report.contract_document import GateLine

    gate, ours = found.asked.gate, found.asked.ours
    mine = found.asked.by_contract
    answers = Counter(f.answer for f in found.findings)
    return GateLine(
        name=gate.code,
        metric=gate.metric,
        scope=gate.scope,
        operator=gate.operator,
        limit=gate.limit,
        unit=str(gate.unit),
        stated_by="contract" if mine else "profile",
        ours=ours.limit if ours is not None and mine else None,
        against_ours=compared(gate, ours) if ours is not None and mine else "",
        answer=found.answer,
        passed=answers[Answer.PASS],
        failed=answers[Answer.FAIL],
        inconclusive=answers[Answer.INCONCLUSIVE],
    )


def _value(finding: Finding) -> float | int | str | None:
    return _text(finding.value) if isinstance(finding.value, str) else finding.value


def _text(text: str) -> str:
    """What a node said, in one line without control characters, and no longer than the document takes."""
    return printable(text, LONGEST)


def _zulu(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def report_digest(report: ContractReport) -> str:
    """sha256 of the signed text: what the page shows, and what `--verify` shows again."""
    return hashlib.sha256(canonical(report.document())).hexdigest()


def contract_view(report: ContractReport, said: str = "") -> RenderableType:
    """A line a criterion and what lies behind it. `said`: of its signature."""
    head = Text(f"{report.rack}: {printable(report.contract)}  ", "bold")
    head += Text(report.answer, ANSWER_STYLE[report.answer])
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for column in ("criterion", "answer", "passed", "worst"):
        table.add_column(column, overflow="fold", header_style="dim")
    for line in report.criteria:
        what = Text(printable(f"{line.id} {line.text}")) + Text(printable(f"\n{gates_of(line)}"), "dim")
        table.add_row(what, Text(line.answer, ANSWER_STYLE[line.answer]), counted(line), printable(worst_of(line), 240))
    notes = [("left out", f"{n.node}: {n.reason}") for n in report.left_out]
    notes += [("not verified", n.what) for n in report.not_verified]
    notes += [
        ("certificate", f"{c.sha256[:16]} until {c.expires_at}: {', '.join(c.nodes)}") for c in report.certificates
    ]
    notes += [("report", report_digest(report))]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", justify="right")
    grid.add_column(overflow="fold")
    for name, words in [*notes, *([("signature", said)] if said else [])]:
        grid.add_row(name, printable(words))
    return Group(head, table, grid)


def counted(line: CriterionLine) -> str:
    """`47 of 48 GPUs` passed; what it is of where there is more than one kind."""
    planned = sum(line.subjects.values())
    if not planned:
        return "nothing was asked"
    if len(line.subjects) != 1:
        of = ", ".join(f"{count} {_of(scope, count)}" for scope, count in line.subjects.items())
        return f"{line.passed} of {planned}: {of}"
    ((scope, count),) = line.subjects.items()
    return f"{line.passed} of {count} {_of(scope, count)}"


def _of(scope: Scope, count: int) -> str:
    return SINGULAR[scope] if count == 1 else PLURAL[scope]


def limit_of(gate: GateLine) -> str:
    """`≥ 470 GB/s (contract; ours 440)`: the limit, and whose it is where it is not ours."""
    if gate.operator is Operator.PEERS:
        return f"no more than {float(str(gate.limit)):.0%} below its peers" if gate.limit is not None else "no limit"
    if gate.operator is Operator.SAME_ACROSS:
        return "the same on all"
    unit = "" if gate.unit in ("word", "version", "flag", "code", "count") else f" {gate.unit}"
    words = f"{MUST_BE[gate.operator]} {_limit(gate.limit, gate.unit)}{unit}" if gate.limit is not None else "no limit"
    if gate.stated_by == "profile":
        return words
    beside = f"; ours {_limit(gate.ours, gate.unit)}" if gate.ours is not None else ""
    return f"{words} (contract{beside})"


def _limit(limit: Limit, unit: str) -> str:
    if isinstance(limit, tuple):
        return ", ".join(limit)
    if unit == "flag":
        return "true" if limit else "false"
    return f"{limit:.12g}" if isinstance(limit, float) else str(limit)


def gates_of(line: CriterionLine, shown: int = 2) -> str:
    """Its gates with their limits, those first that are not asked."""
    words = [f"{u.name} not asked" for u in line.unasked]
    words += dict.fromkeys(f"{g.name} {limit_of(g)}" for g in line.gates)
    more = f"; and {len(words) - shown} more" if len(words) > shown else ""
    return "; ".join(words[:shown]) + more


def worst_of(line: CriterionLine) -> str:
    """The subject that decides with its value; why, where it is not a pass."""
    if line.answer is Answer.INCONCLUSIVE and line.unasked:
        return f"{line.unasked[0].name} is not asked of this rack: {line.unasked[0].why}"
    worst = line.worst
    if worst is None:
        return ""
    if worst.answer is Answer.INCONCLUSIVE:
        return f"{worst.subject}: {worst.detail}"
    unit = "" if worst.unit in ("word", "version", "flag", "code", "count") else f" {worst.unit}"
    value = f"{worst.value:,.6g}" if isinstance(worst.value, float) else f"{worst.value}"
    return f"{worst.subject}: {value}{unit}"


PAGE_LINES = 4  # of nodes left out, of certificates, and of what was not verified: the JSON has all

# Rows -> how small they are set so that as many of the longest, in a wide face, are on one page.
DENSITIES = ((8, "roomy"), (12, "dense"), (MAX_CRITERIA, "densest"))


def contract_page(report: ContractReport) -> str:
    """One page of A4 with two signatures to give. It loads nothing and runs nothing."""
    rows = [
        {"line": line, "counted": counted(line), "gates": gates_of(line), "worst": worst_of(line),
         "evidence": _evidence(line)}
        for line in report.criteria
    ]  # fmt: skip
    return _template().render(
        report=report,
        rows=rows,
        tallies=[(answer.value, sum(c.answer is answer for c in report.criteria)) for answer in Answer],
        density=next(name for most, name in DENSITIES if len(rows) <= most),
        left_out=_first([f"{n.node}: {n.reason}" for n in report.left_out]),
        certificates=_first([f"{c.sha256[:16]}… until {c.expires_at[:10]}" for c in report.certificates]),
        not_verified=_first([n.what for n in report.not_verified]),
        digest=report_digest(report),
    )


def _evidence(line: CriterionLine) -> str:
    """The artifact of the worst subject, which can be looked up, and how many there are."""
    if not line.evidence:
        return "no evidence"
    first = line.worst.evidence if line.worst and line.worst.evidence else line.evidence[0]
    return first[:12] + (f" + {len(line.evidence) - 1:,}" if len(line.evidence) > 1 else "")


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - PAGE_LINES
    return lines if more <= 0 else [*lines[: PAGE_LINES - 1], f"and {more + 1} more: see the JSON"]


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("toolkit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = lambda text, limit=LONGEST: printable(str(text), limit)
    return environment.get_template("contract.html")
