"""From a failed finding to the part a technician can pull: the one its gate names, with its serial and its place.

What a gate cannot name alone is narrowed down by elimination: `toolkit.judge.locate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.judge.verdict import Finding
from toolkit.rack.model import Link, Unit

# Config before hardware: a known misconfiguration is ruled out before a part is blamed; then a part inside the tray
# before the tray. A symptom (a program that failed) and too little evidence blame nobody, and hide no part that failed.
SOFTWARE, SYMPTOM, EVIDENCE = "software", "symptom", "evidence"
_RANK = {SOFTWARE: 0, "tray": 2, SYMPTOM: 3, EVIDENCE: 4}
BLAMELESS = (SOFTWARE, SYMPTOM, EVIDENCE)
_AT_A_GPU = ("gpu", "slot", "cooling")
_UNKNOWN = "serial unknown"
# A serial is a node's own word: what could end the brackets it stands in, or begin others, is not taken from it.
_NOT_A_WORD = re.compile(r"[^\w.:\-]", re.ASCII)
_NAMED = re.compile(
    r"\bGPU (\d{1,3})(?:, NVLink \d{1,3})? \((serial unknown|[\w.:\-?]{1,64})(?: at ([\w.:\-?]{1,64}))?\)"
    r"|\btray ([\w.\-]{1,63})(?: in slot \d{1,3})? \(([\w.:\-?]{1,64})\)|\bHCA ([\w.\-]{1,64}) \(([\w.:\-]{1,64})\)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class GpuSeat:
    """A GPU by the node's own word: its serial and the PCI address it sits at. Empty text: it did not say."""

    serial: str = ""
    pci: str = ""

    def __str__(self) -> str:
        return (_word(self.serial) or _UNKNOWN) + (f" at {_word(self.pci)}" if self.pci else "")


@dataclass(frozen=True, slots=True)
class NamedPart:
    """A part that `part` named: what it is, its serial (of an HCA its GUID; empty: unknown), and where it sat."""

    kind: str
    serial: str
    place: str


def named_parts(text: str) -> tuple[NamedPart, ...]:
    """The GPUs, trays and HCAs in the words of `part`. What has no serial of its own (a cable, a slot) is not there."""
    found = []
    for match in _NAMED.finditer(text):
        gpu, gpu_serial, pci, tray, tray_serial, hca, guid = match.groups()
        if gpu is not None:
            serial = "" if gpu_serial == _UNKNOWN else gpu_serial
            found.append(NamedPart("gpu", serial, f"GPU {gpu}" + (f" at {pci}" if pci else "")))
        elif tray is not None:
            found.append(NamedPart("tray", tray_serial, tray))
        else:
            found.append(NamedPart("hca", guid, hca))
    return tuple(dict.fromkeys(found))


def first_cause(failed: Iterable[Finding]) -> Finding:
    """The failed finding to act on first. ValueError if there is none."""
    return min(failed, key=lambda finding: _RANK.get(finding.gate.part, 1))


def blames_hardware(finding: Finding) -> bool:
    """Whether a failed finding speaks of something that can be pulled."""
    return finding.gate.part not in BLAMELESS


def part(
    finding: Finding,
    node: Unit,
    seats: Mapping[int, GpuSeat],
    others: Iterable[Finding] = (),
    links: Iterable[Link] = (),
) -> str:
    """The suspect part in words: kind, position, serial where it is known.

    `seats` are the GPUs the node reported, by index: what is pulled is what is in the slot now. A finding about the
    whole node that blames a GPU takes the GPUs that `others`, the verdict's failed findings, name. A cable is named by
    both its ends where the rack's `links` plan it.
    """
    kind, subject = finding.gate.part, finding.subject
    if kind in _AT_A_GPU and subject.gpu >= 0:
        link = f", NVLink {subject.link}" if subject.link >= 0 else ""
        gpu = _gpu(subject.gpu, seats, link)
        return gpu if kind == "gpu" else f"{kind} of {gpu}"
    if kind in _AT_A_GPU:
        named = sorted({f.subject.gpu for f in others if f.subject.gpu >= 0 and blames_hardware(f)})
        if named:
            gpus = ", ".join(_gpu(index, seats) for index in named)
            return gpus if kind == "gpu" else f"{kind} of {gpus}"
    if kind in ("hca", "cable") and subject.hca:
        here = f"{node.name}:{subject.hca}"
        planned = next((k for k in links if here in (str(k.a), str(k.b))), None)
        if kind == "cable" and planned is not None:
            return f"cable {planned.a} - {planned.b}"
        guid = next((h.guid for h in node.hcas if h.name == subject.hca), "")
        return f"{'cable at' if kind == 'cable' else 'HCA'} {subject.hca} ({guid})"
    if kind == "tray":
        return f"tray {node.name} ({node.serial})"
    if subject.gpu >= 0:  # nothing to pull, but the operator looks there first
        return f"{kind} of {_gpu(subject.gpu, seats)}"
    return f"{kind} of {subject}"


def _word(text: str) -> str:
    return _NOT_A_WORD.sub("?", text)[:64]


def _gpu(index: int, seats: Mapping[int, GpuSeat], more: str = "") -> str:
    return f"GPU {index}{more} ({seats.get(index, GpuSeat())})"
