"""After a failure: which rung of the ladder can help against which finding, and which of them is next. Pure.

GPU reset, reboot of the node, power cycle: each undoes more than the one before, and each only what stands below it. A
rung is tried for a finding that a named source says it can mend, never to see what happens: a fault that a rerun
happens to pass over is a fault that a job finds. What comes back after its rung, on the same board, is its maker's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from toolkit.judge.evidence import Value
from toolkit.judge.xids import Rule, recovery_rule


class Rung(StrEnum):
    """From the least that is undone to the most."""

    GPU_RESET = "gpu_reset"
    REBOOT = "reboot"  # of the operating system, by itself
    POWER_CYCLE = "power_cycle"  # by the BMC: standby power too where it can, else off and on


DISRUPTIVE = frozenset({Rung.REBOOT, Rung.POWER_CYCLE})


@dataclass(frozen=True, slots=True)
class Help:
    """Rungs that can mend a finding, lowest first, and who says so; without rungs, why none can."""

    rungs: tuple[Rung, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Cause:
    """A failed finding, as far as the ladder needs it.

    board  serial of the GPU it is of, else of the node; empty where nobody knows
    value  what was read, where the finding is a recovery action
    rules  of the kernel log's events on that GPU, where the finding counts events
    """

    code: str
    subject: str
    board: str = ""
    value: Value | None = None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Tried:
    """A rung on record. `incident`: the failure it was for; `codes`, `boards`: of its causes."""

    rung: Rung
    incident: str
    codes: frozenset[str]
    boards: frozenset[str]
    at: datetime


@dataclass(frozen=True, slots=True)
class Ladder:
    """What is left to try, lowest first, each with its source; without any, why.

    passed_over  rungs that would help and are not there, with why
    """

    rungs: tuple[tuple[Rung, str], ...]
    why: str = ""
    passed_over: tuple[tuple[Rung, str], ...] = ()


_R, _B, _P = Rung.GPU_RESET, Rung.REBOOT, Rung.POWER_CYCLE
_MEMORY = "NVIDIA GPU Memory Error Management: a row is remapped at the next reset of the GPU, which a boot is too"
_LOST = "NVIDIA Xid catalog, 79: RESTART_BM; where a warm boot leaves the GPU away, a cold one (policy of this project)"
_XID = "NVIDIA Xid catalog: the immediate action of the worst event in the kernel's log"
_ACTION = "NVML, GPU recovery action: what the driver itself asks for"
_HUNG = "NVIDIA Xid catalog, 109 and 62: RESET_GPU; a GPU that refuses the reset gets it by a boot"
_TRAINED = "NVIDIA Xid catalog, 136 (a link that did not train): RESET_GPU"
_UNCORRECTED = (
    "NVIDIA GPU Memory Error Management: recovery action after an uncorrectable error; Xid catalog, 95: RESET_GPU"
)
_REFUSED = "nvidia-smi(1), --gpu-reset: what holds the GPUs keeps them from it; a boot ends that and resets them"
_SILENT = "policy of this project: nothing inside the node answers any more, so only its BMC reaches it"

_WRONG_DATA = "wrong data without an error counted: no reset mends that, and a rerun that passes would only hide it"
_REPLACE = (
    "spares are used up, or the board says so itself: replaced, not restarted (NVIDIA GPU Memory Error Management, "
)
_REPLACE += "RMA thresholds; that a second row after its reset is one row too many is policy of this project)"
_BY_HAND = "a seat, a cable, a slot or cooling: a technician's hands, not a restart"
_SETTING = "a setting: rackproof bringup corrects it, no restart does"
_SLOWER = "slower than its siblings, measured again beside them: nothing there waits for a restart"
_FABRIC = "fabric manager or the NVLink switch trays have not brought the fabric up: a reset of the GPUs does not help"
_PARTS = "what it counts is a link's or a switch's: told apart by its two ends, not by a restart"

HELPS: Mapping[str, Help] = MappingProxyType(
    {
        **dict.fromkeys(("ROW_REMAPPED", "ROW_REMAP_PENDING", "REPAIR_PENDING"), Help((_R, _B), _MEMORY)),
        **dict.fromkeys(("HBM_ECC_UNCORRECTED", "SRAM_ECC_UNCORRECTED", "CUDA_ECC_ERROR"), Help((_R,), _UNCORRECTED)),
        **dict.fromkeys(("GPU_LOST", "GPU_GONE", "XID_LOST", "GPU_COUNT_WRONG"), Help((_B, _P), _LOST)),
        "GPU_HUNG": Help((_R, _B), _HUNG),
        "NVLINK_LINK_DOWN": Help((_R,), _TRAINED),
        **dict.fromkeys(("GPU_RESET_FAILED", "GPU_RESET_BY_HAND"), Help((_B,), _REFUSED)),
        "NODE_UNREACHABLE": Help((_P,), _SILENT),
        **dict.fromkeys(
            ("HBM_MISCOMPARE", "TOGETHER_MISCOMPARE", "TOGETHER_WRONG", "GEMM_WRONG", "GEMM_DIGEST_DIFFERS",
             "PCIE_MISCOMPARE", "NCCL_DATA_WRONG", "HBM_ECC_CORRECTED"), Help((), _WRONG_DATA),
        ),
        **dict.fromkeys(
            ("ROW_REMAP_FAILED", "ROW_REMAPPED_AGAIN", "REMAP_BANKS_EXHAUSTED", "SRAM_THRESHOLD", "INFOROM_CORRUPT"),
            Help((), _REPLACE),
        ),
        **dict.fromkeys(
            ("PCIE_WIDTH_LOW", "PCIE_GENERATION_LOW", "PCIE_BANDWIDTH_LOW", "PCIE_REPLAYS", "HCA_DOWN",
             "HCA_LINK_FAULTY", "HCA_RATE_LOW", "RAIL_BUSBW_LOW", "GPU_TOO_HOT", "GPU_HOT", "HBM_HOT",
             "THERMAL_SLOWDOWN"), Help((), _BY_HAND),
        ),
        "ECC_DISABLED": Help((), _SETTING),
        **dict.fromkeys(
            ("HBM_BANDWIDTH_LOW", "HBM_BANDWIDTH_BELOW_PEERS", "GEMM_RATE_BELOW_PEERS", "PCIE_BANDWIDTH_BELOW_PEERS",
             "NCCL_BUSBW_LOW", "NCCL_BUSBW_BELOW_PEERS", "NCCL_COLLECTIVE_SLOW"), Help((), _SLOWER),
        ),
        **dict.fromkeys(("FABRIC_NOT_COMPLETED",), Help((), _FABRIC)),
        **dict.fromkeys(
            ("NVLINK_SLOW", "NVLINK_RECOVERIES", "NVLINK_ERRORS", "C2C_ERRORS", "NCCL_RANKS_MISSING"),
            Help((), _PARTS),
        ),
    }
)  # fmt: skip
"""By code of a finding that blames hardware, or of an ERROR that a restart can end."""

BY_EVENTS = frozenset({"XID_MEMORY", "XID_LINK", "XID_HARDWARE", "SXID_SEEN"})
"""Findings that count events of the kernel's log: what helps is what those events ask for."""
BY_ACTION = frozenset({"RECOVERY_ACTION_PENDING", "RECOVERY_ACTION_AFTER"})
"""Findings whose value is a recovery action."""

_OF_RULE: Mapping[Rule, tuple[Rung, ...]] = MappingProxyType(
    {Rule.RESET_AND_RERUN: (_R, _B), Rule.REBOOT: (_B, _P)}
)  # a milder rule needs no rung, a graver one a technician
# What another finding on the same GPU leaves behind it: it stands or falls with that one.
_ECHOES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "HBM_ECC_CORRECTED": frozenset({"ROW_REMAPPED", "ROW_REMAP_PENDING"}),
        "NCCL_RANKS_MISSING": frozenset({"GPU_LOST", "GPU_GONE", "XID_LOST", "GPU_COUNT_WRONG"}),
        "NVLINK_LINK_DOWN": frozenset({"GPU_LOST", "GPU_GONE", "XID_LOST", "GPU_COUNT_WRONG"}),
    }
)


def help_for(cause: Cause) -> Help:
    """What can mend this finding. One that nobody has thought of is mended by nothing."""
    if cause.code in BY_EVENTS:
        if not cause.rules:
            return Help((), "the kernel's log of that run is not on record, so nobody knows what its events ask for")
        worst = max(cause.rules, key=lambda rule: rule.rank)
        return Help(_OF_RULE.get(worst, ()), f"{_XID}: {worst.value}")
    if cause.code in BY_ACTION:
        asked = int(cause.value) if isinstance(cause.value, int | float) else -1
        return Help(_OF_RULE.get(recovery_rule(asked), ()), f"{_ACTION} ({cause.value})")
    return HELPS.get(cause.code, Help((), "no source says that a restart mends it"))


def ladder(
    causes: Sequence[Cause], tried: Iterable[Tried], incident: str, absent: Mapping[Rung, str] = MappingProxyType({})
) -> Ladder:
    """What may be tried for the causes of one failure, lowest rung first.

    Every cause must be one that some rung mends, or the node goes to a technician at once. A cause whose board had a
    rung for the same code in an earlier failure is past the ladder. Rungs of this failure are not tried again.
    absent  rungs that this node does not have, with why
    """
    own = [c for c in causes if not _is_echo(c, causes)]
    if not own:
        return Ladder((), "no failed finding is on record that speaks of hardware")
    helps = {c: help_for(c) for c in own}
    for cause, found in helps.items():
        if not found.rungs:
            return Ladder((), f"{cause.code} on {cause.subject}: {found.source}")
    known = tuple(tried)
    for cause in own:
        if before := _earlier(cause, known, incident):
            words = f"{before.rung} on {before.at:%Y-%m-%d} was for the same, and it is back: a matter for its maker"
            return Ladder((), f"{cause.code} on {cause.subject} ({cause.board}): {words}")
    done = {t.rung for t in known if t.incident == incident}
    # The lowest rung that helps all of them: what a lower one leaves is not mended twice.
    first = max(min(_height(r) for r in found.rungs) for found in helps.values())
    wanted = [r for r in Rung if _height(r) >= first and any(r in found.rungs for found in helps.values())]
    left = [r for r in wanted if r not in done and _height(r) > max(map(_height, done), default=-1)]
    source = "; ".join(dict.fromkeys(found.source for found in helps.values()))
    here = tuple((r, source) for r in left if r not in absent)
    over = tuple((r, absent[r]) for r in left if r in absent)
    return Ladder(here, "" if here else _nothing_left(done, over), over)


def _is_echo(cause: Cause, causes: Iterable[Cause]) -> bool:
    """Whether a finding it can come from was made in the same place: the GPU, or the node as a whole."""
    of = _ECHOES.get(cause.code, frozenset())
    return any(other.code in of and _overlap(cause.subject, other.subject) for other in causes)


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _earlier(cause: Cause, tried: Iterable[Tried], incident: str) -> Tried | None:
    """A rung for the same code and board in another failure, the newest; none where the board is not known."""
    found = [t for t in tried if t.incident != incident and cause.code in t.codes and cause.board in t.boards]
    return max(found, key=lambda t: t.at) if cause.board and found else None


def _height(rung: Rung) -> int:
    return tuple(Rung).index(rung)


def _nothing_left(done: Iterable[Rung], over: Iterable[tuple[Rung, str]]) -> str:
    tried = ", ".join(rung for rung in Rung if rung in set(done))
    words = [f"{tried} did not mend it"] if tried else []
    return "; ".join([*words, *(f"{rung} is not to be had: {why}" for rung, why in over)]) or "no rung is left"
