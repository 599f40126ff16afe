"""The NVLink verdict of a rack: every rule of its mode on one look at all trays and switch trays. Pure.

Configuration goes before hardware: while the control plane is known to be wrong, links that are down blame no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from toolkit.judge.nvlink.finding import Blame, NvlinkFinding, Standing
from toolkit.judge.nvlink.gpu import judge_domain, judge_gpus
from toolkit.judge.nvlink.imex import judge_imex
from toolkit.judge.nvlink.join import End, NvlinkView, views
from toolkit.judge.nvlink.links import judge_links
from toolkit.judge.nvlink.seen import ZERO_UUID, NvlinkSeen, TraySeen
from toolkit.judge.nvlink.services import judge_manager_log, judge_services
from toolkit.judge.nvlink.switch import judge_switches
from toolkit.judge.verdict import Answer
from toolkit.rack.model import MNNVL, Mode, Rack, UnitKind

# While one of these stands, links need not be up.
_CONTROL_PLANE = frozenset(
    {
        "NMX_CLUSTER_OFF", "NMX_CLUSTER_TWICE", "NMX_APP_NOT_OK", "NMX_APP_MISSING", "CHASSIS_MAPPING_MISSING",
        "FABRIC_MANAGER_DOWN", "FABRIC_MANAGER_SKEW", "FABRIC_MANAGER_PRESENT", "NVLSM_MISSING",
        "NVLSM_MODULES_MISSING", "FM_PRE_NVL5", "FM_VERSION_SKEW", "MODE_CONTRADICTED",
    }
)  # fmt: skip
_RANK = {Blame.SOFTWARE: 0, Blame.SYMPTOM: 2, Blame.EVIDENCE: 3}  # a part comes between


@dataclass(frozen=True, slots=True)
class NvlinkReport:
    """The verdict and what it rests on.

    holding   something may still come up by itself: look again until the deadline
    notes     said for information; they change nothing
    domains   (UUID.clique, GPUs in it), the largest first
    """

    rack: str
    answer: Answer
    holding: bool
    findings: tuple[NvlinkFinding, ...]
    notes: tuple[str, ...]
    domains: tuple[tuple[str, int], ...]
    gpus_planned: int
    gpus_seen: int
    links_planned: int
    links_up: int
    links_joined: int  # seen from both ends

    def of(self, node: str) -> tuple[NvlinkFinding, ...]:
        """What keeps this tray from passing: its own findings and the rack's."""
        return tuple(finding for finding in self.findings if not finding.nodes or node in finding.nodes)


def judge_nvlink(rack: Rack, seen: NvlinkSeen, *, final: bool = True) -> NvlinkReport:
    """Judges one look. Until it is the final one, what may still come up holds the verdict instead of failing it."""
    planned = () if rack.profile.mode is Mode.PCIE else views(rack, seen.trays, seen.switches or ())
    found = _config_first((*_trays(rack, seen), *judge_links(rack, planned)))
    if final:
        found = tuple(_settled(finding) for finding in found)
    ordered = tuple(sorted(found, key=lambda f: (f.standing is not Standing.FAIL, _RANK.get(f.blame, 1))))
    holding = any(finding.standing is Standing.HOLD for finding in ordered)
    return NvlinkReport(
        rack=rack.name,
        answer=_answer(ordered),
        holding=holding,
        findings=ordered,
        notes=tuple(_notes(rack, seen)),
        domains=_domains(seen.trays),
        gpus_planned=len(rack.nodes) * rack.profile.gpus_per_node,
        gpus_seen=sum(len(tray.gpus or ()) for tray in seen.trays),
        links_planned=len(planned),
        links_up=sum(view.near_end is End.UP and not view.bad for view in planned),
        links_joined=sum(_joined(view) for view in planned),
    )


def _trays(rack: Rack, seen: NvlinkSeen) -> Iterable[NvlinkFinding]:
    """Everything but the links, what is wrong with the configuration first."""
    mode = rack.profile.mode
    for tray in seen.trays:
        yield from judge_services(rack, tray)
        yield from judge_manager_log(tray)
    if mode in MNNVL and seen.switches is not None:
        yield from judge_switches(rack, seen.switches)
    yield from judge_gpus(rack, seen.trays)
    if mode not in MNNVL:
        return
    yield from _absent(rack, seen.trays)
    yield from judge_domain(rack, seen.trays)
    if mode is Mode.MNNVL_HOST_IMEX:
        yield from judge_imex(rack, seen.trays)


def _absent(rack: Rack, trays: Sequence[TraySeen]) -> Iterable[NvlinkFinding]:
    """A domain of which some trays were not looked at is not proven."""
    looked = {tray.node for tray in trays}
    absent = [node.name for node in rack.nodes if node.name not in looked]
    if absent:
        yield NvlinkFinding(
            "RACK_INCOMPLETE", Standing.UNKNOWN, Blame.EVIDENCE,
            f"{len(absent)} of {len(rack.nodes)} trays were not looked at: {', '.join(absent[:6])}",
            settled_by="bring these trays to this stage; an NVLink domain is judged as a whole",
        )  # fmt: skip


def _config_first(findings: Iterable[NvlinkFinding]) -> tuple[NvlinkFinding, ...]:
    """Under a wrong control plane, links that are down are symptoms of it, and nobody waits for a fabric to come up."""
    found = tuple(findings)
    causes = [f for f in found if f.code in _CONTROL_PLANE]
    lasting = [f for f in causes if f.standing is Standing.FAIL]
    judged = []
    for finding in found:
        waits = finding.standing is Standing.HOLD and finding.code.startswith("FABRIC_")
        link = finding.code.startswith("NVLINK_") and finding.blame.is_hardware
        cause = _cause(finding, lasting if waits else causes) if waits or link else None
        if cause is None:
            judged.append(finding)
            continue
        standing = Standing.FAIL if waits else finding.standing
        blamed = replace(finding, standing=standing, settled_by=f"{cause.code} first; then look again")
        judged.append(replace(blamed, blame=Blame.SYMPTOM, part=""))
    return tuple(judged)


def _cause(finding: NvlinkFinding, causes: Sequence[NvlinkFinding]) -> NvlinkFinding | None:
    """What explains a finding: a cause of the whole rack, or causes on every tray that it names."""
    wide = next((cause for cause in causes if not cause.nodes), None)
    if wide is not None:
        return wide
    covered = {node: cause for cause in causes for node in cause.nodes}
    if finding.nodes and set(finding.nodes) <= covered.keys():
        return covered[finding.nodes[0]]
    return None


def _settled(finding: NvlinkFinding) -> NvlinkFinding:
    if finding.standing is not Standing.HOLD:
        return finding
    return replace(finding, standing=Standing.FAIL, text=f"{finding.text}; it did not come up by itself")


def _answer(findings: Sequence[NvlinkFinding]) -> Answer:
    standings = {finding.standing for finding in findings}
    if Standing.FAIL in standings:
        return Answer.FAIL
    return Answer.INCONCLUSIVE if standings else Answer.PASS


def _joined(view: NvlinkView) -> bool:
    return view.near_end is not End.UNKNOWN and view.far_end is not End.UNKNOWN


def _notes(rack: Rack, seen: NvlinkSeen) -> Iterable[str]:
    if rack.profile.mode not in MNNVL:
        return
    trays = [unit.name for unit in rack.units if unit.kind is UnitKind.NVLINK_SWITCH]
    looked = {switch.unit for switch in seen.switches or ()}
    absent = [name for name in trays if name not in looked]
    if absent:
        yield (
            f"the switch side of {len(absent)} of {len(trays)} switch trays was not looked at: the rack file gives no "
            "`nvos` of them; links are judged by the GPUs' ends"
        )


def _domains(trays: Sequence[TraySeen]) -> tuple[tuple[str, int], ...]:
    counted: dict[str, int] = {}
    for tray in trays:
        for gpu in tray.gpus or ():
            if gpu.fabric.domain and gpu.fabric.cluster != ZERO_UUID:
                counted[gpu.fabric.domain] = counted.get(gpu.fabric.domain, 0) + 1
    return tuple(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
