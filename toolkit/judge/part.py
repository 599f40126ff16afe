"""From a failed finding to the part a technician can pull: the one its gate names, with its serial.

What a gate cannot name alone is narrowed down by elimination: `toolkit.judge.locate`.
"""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.judge.verdict import Finding
from toolkit.rack.model import Unit

# Config before hardware: a known misconfiguration is ruled out before a part is blamed. Too little evidence blames
# nobody, and hides no part that failed.
SOFTWARE, EVIDENCE = "software", "evidence"
_RANK = {SOFTWARE: 0, EVIDENCE: 2}


def first_cause(failed: Iterable[Finding]) -> Finding:
    """The failed finding to act on first. ValueError if there is none."""
    return min(failed, key=lambda finding: _RANK.get(finding.gate.part, 1))


def blames_hardware(finding: Finding) -> bool:
    """Whether a failed finding speaks of something that can be pulled."""
    return finding.gate.part not in _RANK


def part(finding: Finding, node: Unit, gpu_serials: dict[int, str]) -> str:
    """The suspect part in words: kind, position, serial where it is known.

    `gpu_serials` are the serials the node reported, by index: what is pulled is what is in the slot now.
    """
    subject = finding.subject
    if finding.gate.part == "gpu" and subject.gpu >= 0:
        serial = gpu_serials.get(subject.gpu, "serial unknown")
        link = f", NVLink {subject.link}" if subject.link >= 0 else ""
        return f"GPU {subject.gpu}{link} ({serial})"
    if finding.gate.part in ("hca", "cable") and subject.hca:
        guid = next((h.guid for h in node.hcas if h.name == subject.hca), "")
        return f"{'cable at' if finding.gate.part == 'cable' else 'HCA'} {subject.hca} ({guid})"
    if finding.gate.part == "tray":
        return f"tray {node.name} ({node.serial})"
    return f"{finding.gate.part} of {subject}"
