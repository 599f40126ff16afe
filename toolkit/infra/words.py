"""Words of a red test: what failed, why it matters, which part, by whose limit, and the command to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from toolkit.errors import RackproofError
from toolkit.infra.questions import GOOD, Answered
from toolkit.judge.nvlink.finding import NvlinkFinding, Standing
from toolkit.judge.part import GpuSeat, blames_hardware, part
from toolkit.judge.verdict import Answer, Finding
from toolkit.rack.model import Rack, Unit

SHOWN = 4
_MOST = 400  # characters of a line: some of it is the node's own text


def of_findings(rack: Rack, node: Unit, findings: Sequence[Finding], seats: Mapping[int, GpuSeat]) -> Answered:
    """The answer of gates with one code on one part: FAIL if any fails; INCONCLUSIVE if any is open, or none is."""
    failed = [f for f in findings if f.answer is Answer.FAIL]
    open_ = [f for f in findings if f.answer is Answer.INCONCLUSIVE]
    worst = failed or open_
    if not findings:
        return inconclusive("EVIDENCE_MISSING", f"{node.name}: no gate was asked", f"rackproof gates lint {rack.name}")
    if not worst:
        return GOOD
    first = worst[0]
    lines = [f"{'' if failed else 'INCONCLUSIVE: '}{f.code}: {said(f)}" for f in worst[:SHOWN]]
    lines += [f"and {len(worst) - SHOWN} more of its kind"] if len(worst) > SHOWN else []
    lines.append(f"  why:    {first.gate.why}")
    if failed and blames_hardware(first):
        lines.append(f"  part:   {part(first, node, seats, failed, rack.links)}")
    lines.append(f"  limit:  {first.gate.source} ({first.gate.date})")
    lines.append(f"  next:   {next_of(node, first) if failed else f'rackproof facts {node.name}'}")
    answer = Answer.FAIL if failed else Answer.INCONCLUSIVE
    return Answered(answer, first.code, shown(lines))


def said(finding: Finding) -> str:
    """Where, and what was found against what must be."""
    return f"{finding.subject}: {finding.detail}"


def next_of(node: Unit, finding: Finding) -> str:
    """A part is taken out of the pool first; a setting is played again."""
    explain = f"rackproof explain {finding.code}; then "
    if blames_hardware(finding):
        return f"{explain}rackproof drain {node.name} --reason {finding.code}"
    return f"{explain}{play(node, finding.gate.stage)}"


def play(node: Unit, stage: str) -> str:
    """The playbook of a stage on one node. `hosts`: the inventory of two lines that `rackproof inventory` is."""
    return f"ansible-playbook -i hosts playbooks/{stage}.yml --limit {node.name} (hosts: rackproof inventory --help)"


def of_nvlink(node: str, findings: Sequence[NvlinkFinding]) -> Answered:
    """The first finding in full, the codes of the others."""
    if not findings:
        return GOOD
    first = findings[0]
    others = sorted({finding.code for finding in findings} - {first.code})
    why = [*(f"seen:   {line}" for line in first.evidence[:SHOWN])]
    why += [f"part:   {first.part}"] if first.part else []
    why += [f"also:   {', '.join(others)}"] if others else []
    explain = f"rackproof explain {first.code}"
    next_ = f"{first.settled_by}; {explain}" if first.settled_by else explain
    told = failed if first.standing is Standing.FAIL else inconclusive
    return told(first.code, f"{node}: {first.text}", next_, *why)


def failed(code: str, what: str, next_: str, *why: str) -> Answered:
    """FAIL: the evidence says no."""
    return Answered(Answer.FAIL, code, shown([f"{code}: {what}", *(f"  {w}" for w in why), f"  next:   {next_}"]))


def inconclusive(code: str, what: str, next_: str, *why: str) -> Answered:
    """INCONCLUSIVE: nothing is blamed, and nothing passes."""
    lines = [f"INCONCLUSIVE: {code}: {what}", *(f"  {w}" for w in why), f"  next:   {next_}"]
    return Answered(Answer.INCONCLUSIVE, code, shown(lines))


def of_error(error: RackproofError, name: str) -> Answered:
    """An error of ours: a host that does not answer, a file that is not there."""
    lines = [f"{type(error).__name__.removesuffix('Error').upper()}: {error.message}"]
    hint = error.hint or f"rackproof why {shlex.quote(name)}"
    return Answered(Answer.INCONCLUSIVE, type(error).__name__, shown([*lines, f"  next:   {hint}"]))


def shown(lines: Sequence[str]) -> tuple[str, ...]:
    """Printable, each of bounded length: a node may send anything."""
    told = [part for line in lines for part in line.split("\n")]
    return tuple("".join(c if c.isprintable() else "?" for c in line)[:_MOST] for line in told)
