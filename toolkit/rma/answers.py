"""The vendor's questions, answered from the evidence or said to be unknown. Nothing is assumed, nothing is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from toolkit import __version__
from toolkit.judge.evidence import Measurement
from toolkit.rma.evidence import Evidence, tried
from toolkit.rma.form import Question, Source

_SHOWN = 12
_NUMBER = int | float


@dataclass(frozen=True, slots=True)
class Answer:
    """One question with its answer. Where `known` is False, `answer` says why nobody knows, and `how` how it is got.

    evidence  digests of raw outputs, and ids of runs and certificates, that it rests on
    """

    ask: str
    known: bool
    answer: str
    evidence: tuple[str, ...] = ()
    how: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class _Said:
    """What evidence says. `text` empty: it does not, and `why` tells."""

    text: str = ""
    evidence: tuple[str, ...] = ()
    why: str = "it is not on record"
    how: str = ""


def answer(question: Question, evidence: Evidence) -> Answer:
    """One question."""
    said = _ANSWERS[question.by](evidence)
    known = bool(said.text)
    how = "" if known else question.how or said.how
    text = said.text if known else f"unknown: {said.why}"
    return Answer(question.ask, known, text, said.evidence, how, question.source)


def _observed(e: Evidence) -> _Said:
    failed = [f for f in e.findings if f["answer"] == "FAIL" and f["required"]]
    words = [f"{f['code']} on {f['subject']}: {f['detail']}" for f in failed[:_SHOWN]]
    more = [f"and {len(failed) - _SHOWN} more findings"] if len(failed) > _SHOWN else []
    digests = dict.fromkeys(str(f["artifact"]) for f in failed if f.get("artifact"))
    return _Said("; ".join([*words, *more]) or f"{e.run.code}: {e.run.message}", tuple(digests))


def _when(e: Evidence) -> _Said:
    at = e.run.finished or e.run.started
    began = e.run.started.isoformat(timespec="seconds")
    return _Said(f"{at.isoformat(timespec='seconds')}, in a run that began {began}", (e.run.id,))


def _how(e: Evidence) -> _Said:
    measured = f", on what burn-in {e.burnin.id} measured" if e.burnin and e.burnin.id != e.run.id else ""
    gates = f"by the gates of profile {e.rack.profile.name}"
    return _Said(f"by test: rackproof {__version__}, stage {e.run.stage}, {gates}{measured}", (e.run.id,))


def _elsewhere(e: Evidence) -> _Said:
    nodes = dict.fromkeys(r.node for r in e.elsewhere)
    others = f"{e.run.code} also on {len(nodes)} other nodes of the rack" if nodes else (
        f"{e.run.code} on none of the rack's other nodes ({len(e.rack.nodes) - 1}) on record"
    )  # fmt: skip
    times = f"; times the part was taken out, on all racks: {len(e.removals)}" if e.removals else ""
    return _Said(others + times, tuple(r.id for r in e.elsewhere[:_SHOWN]))


def _changed(e: Evidence) -> _Said:
    before = [c for c in e.certificates if c.event < e.run.event]
    if not before or e.read is None:
        why = "no certificate names the part from before" if not before else "the part could not be read at the failure"
        return _Said(why=f"{why}, so there is nothing to compare with", how="ask whoever runs the node")
    last = before[-1]
    now = {"driver": (last.driver, e.read.driver), "VBIOS": (_vbios(last.firmware, e.seat), e.read.gpu.vbios)}
    words = [f"{name} {_compared(was, is_)}" for name, (was, is_) in now.items()]
    text = f"since its certificate of {last.issued[:10]}: {', '.join(words)}; applications are not recorded"
    return _Said(text, (last.certificate, e.read.artifact))


def _vbios(firmware: Mapping[str, str], seat: int | None) -> str:
    return firmware.get(f"gpu{seat} vbios", "")


def _compared(was: str, now: str | None) -> str:
    if not was or not now:
        return "unknown"
    return f"{now} as before" if was == now else f"{was} then, {now} now"


def _serial(e: Evidence) -> _Said:
    words = [f"{p.kind} {p.serial} ({p.place})" for p in e.parts if p.serial]
    return _Said("; ".join(words), (e.run.id,), "the blamed part did not say its serial", "read it from its label")


def _part_number(e: Evidence) -> _Said:
    numbers = e.read.numbers if e.read else {}
    words = [f"{n.replace('_', ' ')} {numbers[n]}" for n in ("board_part_number", "gpu_part_number") if n in numbers]
    digests = (e.read.artifact,) if e.read else ()
    return _Said("; ".join(words), digests, "the part did not say it", "nvidia-smi -q, or the label")


def _slot(e: Evidence) -> _Said:
    places = ", ".join(p.place for p in e.parts)
    where = f"system serial {e.node.serial} in slot {e.node.slot} of rack {e.rack.name}"
    return _Said(f"{e.rack.profile.sku}, {where}" + (f"; {places}" if places else ""))


def _driver(e: Evidence) -> _Said:
    return _of_reading(e, e.read.driver if e.read else None)


def _vbios_now(e: Evidence) -> _Said:
    return _of_reading(e, e.read.gpu.vbios if e.read else None)


def _of_reading(e: Evidence, value: str | None) -> _Said:
    if e.read is None or not value:
        return _Said(why="nvidia-smi could not be read for the part before it failed", how="nvidia-smi -q on the node")
    return _Said(f"{value} (read {e.read.at.isoformat(timespec='seconds')})", (e.read.artifact,))


def _xids(e: Evidence) -> _Said:
    words = [f"Xid {x['number']}: {x['text']}" if x["source"] == "xid" else str(x["text"]) for x in e.xids]
    more = f"; and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    doubt = f" (the logs are not whole: {e.log_doubt})" if e.log_doubt else ""
    if words:
        return _Said("; ".join(words[:_SHOWN]) + more + doubt)
    return (
        _Said(why=e.log_doubt, how="dmesg on the node") if e.log_doubt else _Said("none in the kernel logs on record")
    )


def _remapping(e: Evidence) -> _Said:
    rows = e.read.gpu.remapped if e.read else None
    if rows is None or e.read is None:
        return _Said(why="the part did not say it before it failed", how="nvidia-smi -q -d ROW_REMAPPER on the node")
    said = {"correctable": rows.corr, "uncorrectable": rows.unc, "pending": rows.pending, "failure": rows.failure}
    words = ", ".join(f"{name} {'not said' if value is None else value}" for name, value in said.items())
    return _Said(f"{words} (read {e.read.at.isoformat(timespec='seconds')})", (e.read.artifact,))


def _sram(e: Evidence) -> _Said:
    flag = e.read.gpu.sram_threshold_exceeded if e.read else None
    if flag is None:
        return _Said(why="the part did not say it before it failed", how="nvidia-smi -q -d ECC on the node")
    return _of_reading(e, "yes" if flag else "no")


def _recovery(e: Evidence) -> _Said:
    words = [f"{event.at:%Y-%m-%d}: {' '.join(tried(event))}" for event in e.rungs]
    return _Said("; ".join(words[-_SHOWN:]) or "nothing was tried by rackproof; what was done by hand is not recorded")


def _follows(e: Evidence) -> _Said:
    places = dict.fromkeys((r.rack, r.node, r.place) for r in e.removals)
    if len(places) > 1:
        words = ", ".join(f"{rack}/{node} {place}" for rack, node, place in places)
        return _Said(f"yes: it failed in {len(places)} places: {words}", tuple(r.run for r in e.removals))
    return _Said(why="it failed in one place only", how="exchange it with a sound one and run the same test again")


def _control(e: Evidence) -> _Said:
    words = [_beside(metric, e.failing, e.control) for metric in dict.fromkeys(m.metric for m in e.failing)]
    told = [w for w in words if w]
    if not told:
        return _Said(
            why="the same test is on record of no comparable part", how="burn in a sound node: rackproof burnin"
        )
    neighbours = f"; healthy neighbour nodes among them: {len(e.neighbours)}" if e.neighbours else ""
    return _Said("; ".join(told[:_SHOWN]) + neighbours, tuple(dict.fromkeys(m.run for m in e.control))[:_SHOWN])


def _beside(metric: str, failing: Iterable[Measurement], control: Iterable[Measurement]) -> str:
    own = [m.value for m in failing if m.metric == metric]
    others = [m.value for m in control if m.metric == metric]
    if not own or not others:
        return ""
    numbers = [v for v in others if isinstance(v, _NUMBER)]
    if len(numbers) < len(others):
        common = max(set(map(str, others)), key=list(map(str, others)).count)
        return f"{metric}: here {own[0]}, {sum(str(v) == common for v in others)} of {len(others)} others {common}"
    span = f"{min(numbers):g}" if min(numbers) == max(numbers) else f"{min(numbers):g} to {max(numbers):g}"
    return f"{metric}: here {', '.join(map(str, own[:4]))}, {len(numbers)} others {span}"


def _surroundings(e: Evidence) -> _Said:
    words = [f"{m.metric} {m.value} {m.unit}" for m in e.around]
    why = "its burn-in measured nothing of it" if e.burnin else "it was not burnt in"
    return _Said(", ".join(words), (e.burnin.id,) if e.burnin else (), why, "look at the BMC's event log and sensors")


def _nobody(_: Evidence) -> _Said:
    return _Said(why="rackproof does not record it")


_ANSWERS: Mapping[Source, Callable[[Evidence], _Said]] = {
    Source.OBSERVED: _observed, Source.WHEN: _when, Source.HOW: _how, Source.ELSEWHERE: _elsewhere,
    Source.CHANGED: _changed, Source.SERIAL: _serial, Source.PART_NUMBER: _part_number, Source.SLOT: _slot,
    Source.DRIVER: _driver, Source.VBIOS: _vbios_now, Source.XIDS: _xids, Source.ROW_REMAPPING: _remapping,
    Source.SRAM_THRESHOLD: _sram, Source.RECOVERY: _recovery, Source.FOLLOWS: _follows, Source.CONTROL: _control,
    Source.SURROUNDINGS: _surroundings, Source.NOBODY: _nobody,
}  # fmt: skip
