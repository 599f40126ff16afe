"""README.txt of an archive: what happened, the vendor's questions, what lies where. A node's text is made printable."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Protocol

from toolkit.report.text import printable
from toolkit.rma.answers import Answer
from toolkit.rma.evidence import Evidence
from toolkit.rma.redaction import Redactor

WIDTH = 100
_MOST = 2000
_ABOUT = {
    "questions.json": "the questions below with the digests their answers rest on",
    "subject.json": "the blamed part, the system it sits in, serials and firmware",
    "findings.json": "every finding of the verdict that is no pass",
    "xids.json": "events of the kernel's logs, of the part where they name it",
    "counters.json": "ECC, remapped rows, PCIe and temperature of the part, when it was last read",
    "measurements.json": "what failed, and the same measurements on sound parts",
    "history.json": "removals of this serial, its certificates, what was tried",
}


class Missing(Protocol):
    """A raw output that is not in the archive."""

    @property
    def name(self) -> str:
        """What it is."""
        ...

    @property
    def sha256(self) -> str:
        """Its digest."""
        ...

    @property
    def why(self) -> str:
        """Why it is not there."""
        ...


def readme(
    evidence: Evidence, answers: Sequence[Answer], paths: Sequence[str], left_out: Sequence[Missing], redactor: Redactor
) -> str:
    """Plain text, folded."""
    return "\n".join(_lines(evidence, answers, paths, left_out, redactor)) + "\n"


def _lines(
    evidence: Evidence, answers: Sequence[Answer], paths: Sequence[str], left_out: Sequence[Missing], redactor: Redactor
) -> Iterator[str]:
    def said(text: str) -> str:
        return printable(redactor.text(text), _MOST)

    yield f"RETURN OF {said(evidence.run.part or evidence.run.code)}"
    yield ""
    yield from _folded(f"{said(evidence.run.code)}: {said(evidence.run.message)}", "")
    yield ""
    yield "QUESTIONS"
    yield "What is not on record is said to be unknown. Evidence: sha256 of raw outputs as recorded, ids of runs."
    for told in answers:
        yield ""
        yield from _folded(told.ask, "")
        yield from _folded(printable(told.answer, _MOST), "    ")
        if told.how:
            yield from _folded(f"to be got: {told.how}", "    ")
        if told.evidence:
            yield from _folded(f"evidence: {', '.join(printable(e, 80)[:64] for e in told.evidence[:4])}", "    ")
        yield from _folded(f"asked by: {told.source}", "    ")
    yield ""
    yield "FILES"
    for path in sorted(paths):
        if path in _ABOUT:
            yield f"{path:<20}{_ABOUT[path]}"
    yield f"{'raw/':<20}{sum(p.startswith('raw/') for p in paths)} raw outputs, named by the sha256 of the original"
    yield f"{'manifest.json':<20}every file with its sha256, what was hidden, what was left out"
    yield f"{'SHA256SUMS':<20}sha256sum -c SHA256SUMS"
    for one in left_out:
        yield from _folded(f"left out: {printable(one.name, 80)} ({one.sha256[:16]}): {printable(one.why, 200)}", "")
    yield ""
    yield "HIDDEN"
    yield from _folded(
        "Names of hosts and users, addresses and secrets are replaced by stand-ins or removed, as the site's policy "
        "has it: the same name has the same stand-in. manifest.json counts them.", "",
    )  # fmt: skip


def _folded(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False) or [""]
