"""A page of the site for each runbook of the package, with the limits of every profile, and their index."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolkit import settings
from toolkit.rack.claims import profile_claims
from toolkit.rack.gate import Gate
from toolkit.rack.loading import list_profiles
from toolkit.report.codes import ERROR_CODES
from toolkit.report.runbook import runbook, runbook_codes

_WORD = re.compile(r"(`[^`]*`)|\b([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)\b")
_AREAS = (
    ("Memory of GPUs", ("HBM_", "ROW_", "REMAP_", "SRAM_", "ECC_", "REPAIR_", "INFOROM_", "CUDA_ECC")),
    ("Compute and heat", ("GEMM_", "TOGETHER_", "GPU_", "THERMAL_", "CUDA_", "RECOVERY_", "XID_", "DRIFTS_")),
    ("PCIe and C2C", ("PCIE_", "C2C_")),
    ("NVLink and its fabric", ("NVLINK_", "NVLSM_", "FM_", "NMX_", "IMEX_", "SWITCH_", "CHASSIS_", "SXID_", "MODE_",
                               "RACK_INCOMPLETE", "SERVICES_", "MODULES_", "DOMAIN_")),
    ("InfiniBand and cables", ("FABRIC_", "HCA_", "RAIL_", "LEAF_", "UNIT_")),
    ("Collectives", ("NCCL_", "COLLECTIVE_", "WRONG_FABRIC", "LEVELS_")),
    ("Imaging and power", ("BMC_", "IMAGE_", "DISK_", "NODE_SERIAL", "BOOT_", "ERASE_", "FIRMWARE_", "BIOS_", "POWER_",
                           "LEAK_")),
    ("Certificates", ("CERTIFICATE_", "DRIFTED")),
    ("The pool", ("ADMISSION_", "REGULATOR_", "POOL_", "NODE_", "GPUS_", "PODS_", "SMOKE_", "FEATURES_", "JOB_",
                  "CONDITION", "EVENT", "KUBELET_")),
    ("Limits in files", ("GATE_",)),
)  # fmt: skip
_OTHER = "The run itself"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every page there is, and the gates behind each code, by profile."""

    codes: tuple[str, ...]
    gates: Mapping[str, Sequence[tuple[str, Gate]]]


def catalogue() -> Catalogue:
    """Of this checkout's profiles."""
    inventory = settings.load({}).inventory
    gates: dict[str, list[tuple[str, Gate]]] = defaultdict(list)
    for profile in list_profiles(inventory):
        for gate, _ in profile_claims(profile, inventory):
            gates[gate.code].append((profile, gate))
    return Catalogue(runbook_codes(), gates)


def page_of(found: Catalogue, code: str) -> str:
    """One runbook as a page of the site: codes in its text are links."""
    page = runbook(code)
    if page is None:
        raise LookupError(code)
    lines = [f"# {code}", ""]
    if code in ERROR_CODES:
        lines += [f"> {_linked(ERROR_CODES[code], code, found.codes)}", ""]
    for heading, body in page.sections:
        lines += [f"## {heading}", "", _linked(body, code, found.codes), ""]
    if code in found.gates:
        lines += ["## Limits", "", *_limits(found.gates[code]), ""]
    lines += [f"In a terminal: `rackproof explain {code}`.", ""]
    return "\n".join(lines)


def index_of(found: Catalogue) -> str:
    """Every code by its area, with the sentence that says what it means."""
    areas: dict[str, list[str]] = defaultdict(list)
    for code in found.codes:
        areas[next((name for name, heads in _AREAS if code.startswith(heads)), _OTHER)].append(code)
    lines = [
        "# Runbooks", "",
        f"{len(found.codes)} codes. Every finding and every ERROR that rackproof prints has one, and a page: what it",
        "means, how to make sure, how to mend it, when to replace a part (or why none), and who says so. The same text",
        "is in the package: `rackproof explain CODE` shows it without a network.", "",
    ]  # fmt: skip
    for name in (*(name for name, _ in _AREAS), _OTHER):
        lines += [f"## {name}", "", "| code | what it means |", "| --- | --- |"]
        lines += [f"| [{code}]({code}.md) | {_first_sentence(code)} |" for code in areas[name]]
        lines.append("")
    return "\n".join(lines)


def _first_sentence(code: str) -> str:
    page = runbook(code)
    text = dict(page.sections)["Means"] if page else ""
    return re.split(r"(?<=[a-z0-9)`])\.\s", f"{text} ", maxsplit=1)[0].rstrip(". ").replace("|", "\\|") + "."


def _linked(text: str, own: str, codes: Iterable[str]) -> str:
    known = set(codes) - {own}

    def link(match: re.Match[str]) -> str:
        code = match[2]
        return f"[{code}]({code}.md)" if code in known else match[0]

    return _WORD.sub(link, text)


def _limits(gates: Sequence[tuple[str, Gate]]) -> list[str]:
    lines = ["| profile | metric | must be | source |", "| --- | --- | --- | --- |"]
    for profile, gate in gates:
        limit = "nobody has sourced a limit yet: INCONCLUSIVE" if gate.limit is None else f"{gate.limit} {gate.unit}"
        must = f"{gate.operator.replace('_', ' ')} {limit}"
        cells = (profile, f"`{gate.metric}`", must, f"{gate.source} ({gate.date})")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines
