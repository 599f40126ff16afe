"""From a failed finding to the part a technician can pull: the one its gate names, with its serial.

What a gate cannot name alone is narrowed down by elimination: `toolkit.judge.locate`.
"""

from __future__ import annotations

from toolkit.judge.verdict import Finding
from toolkit.rack.model import Unit


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
