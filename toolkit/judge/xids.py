"""What each Xid means to a burn-in: class, rule, where it applies, what NVIDIA would do at once.

Numbers, names and immediate actions are facts of NVIDIA's Xid catalog (docs.nvidia.com/deploy/xid-errors); classes and
rules are ours, for a rack that is being certified: no user's program runs, so nothing is blamed on one lightly.
173, 175 and 176 are in the driver's nverror.h (open-gpu-kernel-modules 595) and not in the catalog; 177 was seen only.
A number that is not here is UNKNOWN: it is never taken for a note. The units of 144-150 are in `xids_nvlink`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """Class of an event: what broke, as far as its number says."""

    MEMORY = "memory"
    LOST = "lost"
    LINK = "link"
    HARDWARE = "hardware"
    DRIVER = "driver"
    APPLICATION = "application"
    CONSEQUENCE = "consequence"
    NOTE = "note"
    UNKNOWN = "unknown"


class Rule(Enum):
    """What a burn-in does about it, mildest first; `a.worse(b)` is the graver one."""

    NOTE = "note"  # on record, nothing follows
    RERUN = "rerun"  # the test that was hit is run again
    RESTART = "restart"  # the fabric's service (fabric manager, IMEX), then a rerun
    RESET_AND_RERUN = "reset_and_rerun"  # GPU reset, then the whole suite
    REBOOT = "reboot"  # cold boot of the node, then the whole suite
    SERVICE = "service"  # a technician: cable, seat, slot, power, field diagnostics
    RMA_TRIAGE = "rma_triage"  # the part leaves the rack

    @property
    def rank(self) -> int:
        """Position from mild to grave."""
        return _ORDER[self]

    def worse(self, other: Rule) -> Rule:
        """The graver of two."""
        return self if self.rank >= other.rank else other


_ORDER = {rule: position for position, rule in enumerate(Rule)}


class Action(StrEnum):
    """NVIDIA's immediate action (the catalog's resolution buckets, in its own words)."""

    IGNORE = "IGNORE"
    RESTART_APP = "RESTART_APP"
    RESTART_VM = "RESTART_VM"
    RESTART_BM = "RESTART_BM"
    RESET_GPU = "RESET_GPU"
    CHECK_MECHANICALS = "CHECK_MECHANICALS"
    CHECK_UVM = "CHECK_UVM"
    UPDATE_SWFW = "UPDATE_SWFW"
    CONTACT_SUPPORT = "CONTACT_SUPPORT"
    WORKFLOW_XID_45 = "WORKFLOW_XID_45"
    WORKFLOW_XID_48 = "WORKFLOW_XID_48"
    WORKFLOW_NVLINK = "WORKFLOW_NVLINK_ERR"
    WORKFLOW_NVLINK5 = "WORKFLOW_NVLINK5_ERR"
    XID_154 = "XID_154"
    NOT_GIVEN = ""


class Board(StrEnum):
    """Generations the catalog tells apart."""

    A100 = "A"
    H100 = "H"
    B100 = "B"
    GB200 = "G"


@dataclass(frozen=True, slots=True)
class Entry:
    """One Xid.

    boards        generations it applies to; None where no document says
    action        NVIDIA's immediate action
    kind, rule    ours, when it comes once and alone
    repeat        rule when the same number comes again on the same GPU, in another burst; None: the same rule
    repeat_kind   class then
    remark        what an operator should know
    sympathetic   expected beside another event, which explains it; only alone it stands for itself
    source        where number, name and action are from
    """

    number: int
    mnemonic: str
    boards: frozenset[Board] | None
    action: Action
    kind: Kind
    rule: Rule
    repeat: Rule | None = None
    repeat_kind: Kind | None = None
    remark: str = ""
    source: str = "NVIDIA Xid catalog"
    sympathetic: bool = False

    @property
    def counts(self) -> bool:
        """Whether an event of it counts against the GPU."""
        return self.kind not in (Kind.NOTE, Kind.CONSEQUENCE)


_A = Action
_MEM, _LOST, _LINK, _HW = Kind.MEMORY, Kind.LOST, Kind.LINK, Kind.HARDWARE
_DRV, _APP, _THEN, _SAY = Kind.DRIVER, Kind.APPLICATION, Kind.CONSEQUENCE, Kind.NOTE
_RERUN, _RESET, _BOOT, _SERVE, _RMA = Rule.RERUN, Rule.RESET_AND_RERUN, Rule.REBOOT, Rule.SERVICE, Rule.RMA_TRIAGE
_HEADER = "nverror.h of open-gpu-kernel-modules 595, not in the catalog"

# number, mnemonic, boards (A100 H100 B100 GB200), NVIDIA's immediate action, our class, rule, rule on repeat, remark
_Row = tuple[int, str, str, Action, Kind, Rule, Rule | None, str]
_ROWS: tuple[_Row, ...] = (
    (8, "FIFO_ERROR_IDLE_TIMEOUT", "AHBG", _A.RESTART_APP, _DRV, _RERUN, _SERVE, ""),
    (11, "GR_ERROR_MISSING_HW", "AHBG", _A.RESTART_APP, _APP, _RERUN, _SERVE, ""),
    (13, "GR_EXCEPTION", "AHBG", _A.RESTART_APP, _APP, _RERUN, _SERVE, "twice on one GPU: an SM"),
    (14, "FAKE_ERROR", "AHBG", _A.IGNORE, _SAY, Rule.NOTE, None, "injected by a test tool"),
    (25, "GR_ILLEGAL_NOTIFY", "AHBG", _A.RESTART_APP, _APP, _RERUN, _SERVE, ""),
    (31, "FIFO_ERROR_MMU_ERR_FLT", "AHBG", _A.RESTART_APP, _APP, _RERUN, _SERVE, "twice on one GPU: MMU, memory"),
    (32, "PBDMA_ERROR", "AHBG", _A.RESTART_APP, _APP, _RERUN, _SERVE, "look at the PCIe replay counter"),
    (37, "FECS_ERR_UNIMP_FIRMWARE_METHOD", "AHBG", _A.IGNORE, _SAY, Rule.NOTE, None, ""),
    (38, "FECS_ERR_WATCHDOG_TIMEOUT", "AHBG", _A.IGNORE, _DRV, _RERUN, _SERVE, ""),
    (43, "RESETCHANNEL_VERIF_ERROR", "AHBG", _A.IGNORE, _APP, _RERUN, None, "a program of ours died on the GPU"),
    (44, "GR_FAULT_DURING_CTXSW", "AHBG", _A.IGNORE, _DRV, _RESET, _SERVE, ""),
    (45, "PREEMPTIVE_REMOVAL", "AHBG", _A.WORKFLOW_XID_45, _THEN, Rule.RESTART, None, "alone: the fabric"),
    (46, "GPU_TIMEOUT_ERROR", "AHBG", _A.RESET_GPU, _HW, _RESET, _RMA, ""),
    (48, "GPU_ECC_DBE", "AHBG", _A.WORKFLOW_XID_48, _MEM, _RESET, _RMA, "63, 64, 171, 172 tell where"),
    (54, "SILENT_RUNNING_PWR_REDUCED_CLOCKING", "AHB", _A.CHECK_MECHANICALS, _HW, _SERVE, None, "power cable"),
    (60, "SEC2_ERROR", "AHBG", _A.RESTART_APP, _DRV, _RERUN, _SERVE, ""),
    (61, "PMU_BREAKPOINT", "-", _A.CONTACT_SUPPORT, _HW, _RESET, _RMA, "older chips; as 62"),
    (62, "PMU_HALT_ERROR", "AHBG", _A.RESET_GPU, _HW, _RESET, _RMA, ""),
    (63, "INFOROM_DRAM_RETIREMENT_EVENT", "AHBG", _A.IGNORE, _MEM, _RESET, _RMA, "a reset puts the spare row in place"),
    (64, "INFOROM_DRAM_RETIREMENT_FAILURE", "AHBG", _A.RESET_GPU, _MEM, _RESET, _RMA, "the text decides"),
    (65, "NVENC1_ERROR", "-", _A.CONTACT_SUPPORT, _HW, _RESET, _RMA, "older chips; as 62"),
    (66, "FECS_ERR_REG_ACCESS_VIOLATION", "AHBG", _A.IGNORE, _SAY, Rule.NOTE, None, ""),
    (67, "FECS_ERR_VERIF_VIOLATION", "AHBG", _A.IGNORE, _SAY, Rule.NOTE, None, ""),
    (69, "GR_CLASS_ERROR", "AHBG", _A.RESTART_APP, _APP, _RERUN, _SERVE, ""),
    (74, "NVLINK_ERROR", "AH", _A.WORKFLOW_NVLINK, _LINK, _RESET, _SERVE, "either end of the link"),
    (78, "VGPU_START_ERROR", "AHBG", _A.UPDATE_SWFW, _SAY, Rule.NOTE, None, "vGPU"),
    (79, "GPU_HAS_FALLEN_OFF_THE_BUS", "AHBG", _A.RESTART_BM, _LOST, _BOOT, _RMA, "GPU, riser, slot or power"),
    (80, "PBDMA_PUSHBUFFER_CRC_MISMATCH", "AH", _A.RESTART_APP, _APP, _RERUN, _SERVE, "twice: the PCIe path"),
    (92, "EXCESSIVE_SBE_INTERRUPTS", "AHBG", _A.IGNORE, _MEM, _RESET, _RMA, "a storm of corrected errors"),
    (93, "INFOROM_ERASE_LIMIT_EXCEEDED", "A", _A.IGNORE, _SAY, Rule.NOTE, None, ""),
    (94, "CONTAINED_ERROR", "AHBG", _A.RESTART_APP, _MEM, _RESET, _RMA, "uncorrectable, stopped before it spread"),
    (95, "UNCONTAINED_ERROR", "AHBG", _A.RESET_GPU, _MEM, _RESET, _RMA, "uncorrectable, and it spread"),
    (106, "SMBPBI_TEST_MESSAGE", "AHBG", _A.IGNORE, _SAY, Rule.NOTE, None, ""),
    (107, "SMBPBI_TEST_MESSAGE_SILENT", "AHBG", _A.IGNORE, _SAY, Rule.NOTE, None, ""),
    (109, "CTXSW_TIMEOUT_ERROR", "AHBG", _A.RESET_GPU, _DRV, _RESET, _RMA, "work that never ended"),
    (110, "SEC_FAULT_ERROR", "HBG", _A.RESET_GPU, _HW, _RESET, _RMA, "rare without broken hardware"),
    (119, "GSP_RPC_TIMEOUT", "AHBG", _A.RESET_GPU, _DRV, _RESET, _SERVE, "the GPU's own processor does not answer"),
    (120, "GSP_ERROR", "AHBG", _A.RESET_GPU, _DRV, _RESET, _SERVE, ""),
    (121, "C2C_ERROR", "G", _A.IGNORE, _LINK, _RERUN, _SERVE, "corrected; CPU to GPU"),
    (136, "ALI_TRAINING_FAIL", "H", _A.RESET_GPU, _LINK, _RESET, _SERVE, "NVLink did not train"),
    (137, "NVLINK_PRIV_ERR", "AHBG", _A.IGNORE, _SAY, Rule.NOTE, None, "with 145 or 149: follow those"),
    (140, "UNRECOVERABLE_ECC_ERROR_ESCAPE", "AHBG", _A.RESET_GPU, _MEM, _RESET, _RMA, "not contained"),
    (141, "FAST_PATH_ERROR", "HBG", _A.IGNORE, _SAY, Rule.NOTE, None, ""),
    (143, "GPU_INIT_ERROR", "HBG", _A.RESET_GPU, _HW, _RESET, _RMA, ""),
    (144, "NVLINK_SAW_ERROR", "BG", _A.WORKFLOW_NVLINK5, _LINK, _RESET, _SERVE, "see xids_nvlink"),
    (145, "NVLINK_RLW_ERROR", "BG", _A.WORKFLOW_NVLINK5, _LINK, _RESET, _SERVE, "often victim of a 149"),
    (146, "NVLINK_TLW_ERROR", "BG", _A.WORKFLOW_NVLINK5, _LINK, _RESET, _SERVE, "see xids_nvlink"),
    (147, "NVLINK_TREX_ERROR", "BG", _A.WORKFLOW_NVLINK5, _LINK, _RESET, _SERVE, "see xids_nvlink"),
    (148, "NVLINK_NVLPW_CTRL_ERROR", "BG", _A.WORKFLOW_NVLINK5, _LINK, _RESET, _SERVE, "see xids_nvlink"),
    (149, "NVLINK_NETIR_ERROR", "BG", _A.WORKFLOW_NVLINK5, _LINK, _RESET, _SERVE, "the link; causes 145, 45"),
    (150, "NVLINK_MSE_ERROR", "BG", _A.WORKFLOW_NVLINK5, _LINK, _RESET, _SERVE, "see xids_nvlink"),
    (151, "KEY_ROTATION_ERROR", "HBG", _A.RESTART_VM, _DRV, _RERUN, None, "confidential computing"),
    (154, "GPU_RECOVERY_ACTION_CHANGED", "AHBG", _A.XID_154, _THEN, Rule.NOTE, None, "the worst counts"),
    (155, "NVLINK_SW_DEFINED_ERROR", "BG", _A.RESET_GPU, _LINK, _RESET, _SERVE, ""),
    (156, "RESOURCE_RETIREMENT_EVENT", "HBG", _A.RESET_GPU, _HW, _RESET, _RMA, "a TPC was replaced by a spare"),
    (157, "RESOURCE_RETIREMENT_FAILURE", "HBG", _A.IGNORE, _HW, _SERVE, _RMA, "no spare TPC left"),
    (158, "GPU_FATAL_TIMEOUT", "AHBG", _A.RESET_GPU, _HW, _RESET, _RMA, ""),
    (159, "CHI_NON_DATA_ERROR", "BG", _A.CHECK_UVM, _DRV, _RERUN, _SERVE, "CPU to GPU"),
    (160, "CHANNEL_RETIREMENT_EVENT", "BG", _A.IGNORE, _MEM, _RESET, _RMA, "reset or reboot, by text"),
    (161, "CHANNEL_RETIREMENT_FAILURE", "BG", _A.IGNORE, _MEM, _RMA, None, "no spare channel left"),
    (162, "PSHC_REENGAGED", "BG", _A.NOT_GIVEN, _SAY, Rule.NOTE, None, "power smoothing"),
    (163, "PSHC_DISENGAGED", "BG", _A.NOT_GIVEN, _SAY, Rule.NOTE, None, "power smoothing"),
    (164, "PSHC_LOW_LIFETIME", "BG", _A.NOT_GIVEN, _SAY, Rule.NOTE, None, "power smoothing is nearly worn out"),
    (165, "PSHC_ZERO_LIFETIME", "BG", _A.NOT_GIVEN, _HW, _SERVE, None, "power smoothing is worn out"),
    (166, "NVLINK_SECURE_CRYPTO_ERR", "BG", _A.NOT_GIVEN, _SAY, Rule.NOTE, None, "confidential computing"),
    (167, "PCIE_FATAL_TIMEOUT", "HBG", _A.NOT_GIVEN, _HW, _BOOT, _SERVE, "slot, riser or retimer"),
    (168, "REDUCED_GPU_MEMORY_CAPACITY", "AHBG", _A.NOT_GIVEN, _DRV, _RESET, None, "ECC is off: turn it on"),
    (169, "SEC2_HALT_ERROR", "HBG", _A.NOT_GIVEN, _HW, _RESET, _RMA, ""),
    (170, "NVLINK_SECURE_OTHER", "BG", _A.NOT_GIVEN, _SAY, Rule.NOTE, None, "confidential computing"),
    (171, "UNCORRECTABLE_DRAM_ERROR", "AHBG", _A.NOT_GIVEN, _MEM, _RESET, _RMA, "where in DRAM a 48 was"),
    (172, "UNCORRECTABLE_SRAM_ERROR", "AHBG", _A.NOT_GIVEN, _MEM, _RESET, _RMA, "a 48 in SRAM: no row to remap"),
    (173, "C2C_FATAL_LINK_FAILURE", "", _A.NOT_GIVEN, _LINK, _BOOT, _RMA, "CPU to GPU"),
    (175, "MEMORY_SUBSYSTEM_ERROR", "", _A.NOT_GIVEN, _MEM, _RESET, _RMA, ""),
    (176, "PCIE_CORRECTABLE_ERROR_FAULT", "", _A.NOT_GIVEN, _HW, _SERVE, None, "slot or riser"),
    (177, "BANK_REMAPPER", "", _A.NOT_GIVEN, _MEM, _RESET, _RMA, "a reset puts the spare bank in place"),
)  # fmt: skip

_SYMPATHETIC = frozenset((43, 137))  # a killed channel, a fault that another GPU reports
# Engines that differ by their number alone: copy engines 0-19, video engines (decode, JPEG, optical flow, encode 3).
_COPY = (39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136))
_VIDEO = (68, 82, 83, 84, 86, 88, 89, *range(96, 106), 139, 142)
_UNUSED = "NVIDIA Xid catalog: on none of these boards; seen on older ones"
_SOURCES = {61: _UNUSED, 65: _UNUSED, 173: _HEADER, 175: _HEADER, 176: _HEADER, 177: "seen in logs, in no document"}


def _engines() -> Iterator[Entry]:
    for engine, number in enumerate(_COPY):
        boards = frozenset(Board) if number < 126 else frozenset((Board.B100, Board.GB200))
        yield Entry(number, f"CE{engine}_ERROR", boards, _A.RESTART_APP, _DRV, _RERUN, _SERVE, _HW, "copy engine")
    for number in _VIDEO:
        boards = frozenset(Board) if number < 96 else frozenset(Board) - {Board.A100}
        boards = frozenset((Board.GB200,)) if number == 142 else boards - {Board.H100} if number == 139 else boards
        action = _A.CONTACT_SUPPORT if number == 142 else _A.RESTART_APP
        yield Entry(number, "VIDEO_ENGINE_ERROR", boards, action, _DRV, _RERUN, None, None, "video engine")


def _entry(row: _Row) -> Entry:
    number, mnemonic, boards, action, kind, rule, repeat, remark = row
    # what a program could have done once, the hardware has done when it comes back on the same GPU
    again = _HW if repeat is not None and kind in (_APP, _DRV) else None
    source = _SOURCES.get(number, "NVIDIA Xid catalog")
    applies = frozenset(Board(b) for b in boards.strip("-")) if boards else None
    sympathetic = number in _SYMPATHETIC
    return Entry(number, mnemonic, applies, action, kind, rule, repeat, again, remark, source, sympathetic)


XIDS: Mapping[int, Entry] = MappingProxyType({e.number: e for e in (*map(_entry, _ROWS), *_engines())})


def entry(number: int) -> Entry:
    """What is known of an Xid; class UNKNOWN with rule SERVICE for a number in no list of ours."""
    remark = "in no catalog known here: read the line"
    unknown = Entry(number, "UNKNOWN", None, _A.NOT_GIVEN, Kind.UNKNOWN, _SERVE, remark=remark, source="")
    return XIDS.get(number, unknown)


# What decides between reset and replacement in the texts of a repair that failed (64, 161): open-gpu-kernel-modules,
# the row remapper's messages. Anything else that speaks of failing is not taken for the mild case.
_EXHAUSTED = ("table is full", "all reserved rows", "no spare", "no more spare", "limit reached")
_PENDING = ("already pending",)
_REBOOT = ("node reboot", "system reboot")
_SRAM = ("sram", "sm sbe", "ltc", "l2 cache")
_DRAM = ("framebuffer", "dram", "physaddr", "fbpa", "row remap", "fbhub")


def read_text(number: int, text: str) -> Entry:
    """The Xid's entry as its text refines it: 64 by exhausted or pending, 160 by reboot or reset, 92 by DRAM or SM."""
    known = entry(number)
    said = text.lower()
    if number == 64:
        if any(words in said for words in _EXHAUSTED):
            return replace(known, rule=_RMA, remark="no spare row left")
        if any(words in said for words in _PENDING):
            return replace(known, rule=_RESET, remark="the row waits for a reset already")
        return replace(known, rule=_RMA, remark="a repair failed, for a reason not known here")
    if number in (160, 177) and any(words in said for words in _REBOOT):
        return replace(known, rule=_BOOT)
    if number == 92:
        where = memory_part(said)
        return replace(known, remark=f"{known.remark} ({where})") if where else known
    return known


def memory_part(text: str) -> str | None:
    """`SRAM` or `DRAM`, as a memory error's text says; None where it names neither, or both."""
    said = text.lower()
    sram, dram = any(words in said for words in _SRAM), any(words in said for words in _DRAM)
    return None if sram == dram else "SRAM" if sram else "DRAM"


# Xid 154 and NVML field 230: what each action asks of a burn-in, and how grave it is against the others.
_RECOVERIES: Mapping[int, tuple[int, Rule]] = MappingProxyType(
    {
        0: (0, Rule.NOTE),  # none
        5: (1, Rule.RESTART),  # recover IMEX
        3: (2, _RESET),  # drain peer-to-peer
        1: (3, _RESET),  # GPU reset
        4: (4, _RESET),  # drain and reset
        6: (5, _RESET),  # bus reset
        2: (6, _BOOT),  # node reboot
        7: (7, _BOOT),  # system reboot
    }
)


def recovery_rule(action: int) -> Rule:
    """Rule of a recovery action; one not known here needs a technician."""
    return _RECOVERIES.get(action, (8, _SERVE))[1]


def worse_recovery(one: int, other: int) -> int:
    """The graver of two recovery actions: the driver lowers the action again while the GPU still waits for it."""
    return max(one, other, key=lambda action: _RECOVERIES.get(action, (8, _SERVE))[0])


# NVSwitch errors whose line says neither Fatal nor Non-fatal: Fabric Manager user guide, appendix D.
_SXID_NON_FATAL = frozenset(
    (11004, 11012, 11021, 11022, 11023, 12021, 12023, 12028, 15008, 15011, 19049, 19055, 19057, 19059, 19062, 19065,
     19068, 19071, 19084, 20001, 20009, 20012, 22013, 24001, 24002, 24003)
)  # fmt: skip
_SXID_ALWAYS_FATAL = frozenset((12020, 22003, 22011, *range(23001, 23018)))
_SXID_FATAL = frozenset(
    (11001, 11009, 11013, 11018, 11019, 11020, 12001, 12002, 12022, *range(12024, 12028), *range(12030, 12033), 14017,
     15001, 15006, 15009, 15010, 15012, 15013, *range(19047, 19071), 20034, 22012, *range(24004, 24008))
)  # fmt: skip


def sxid_rule(number: int, severity: str | None) -> tuple[Kind, Rule]:
    """Class and rule of an SXid. The line's own word (`fatal`, `nonfatal`) decides; without it the number."""
    if number in _SXID_ALWAYS_FATAL:
        return Kind.HARDWARE, _BOOT
    fatal = {"fatal": True, "nonfatal": False}.get(severity or "")
    if fatal is None and number not in _SXID_NON_FATAL and number not in _SXID_FATAL:
        return Kind.UNKNOWN, _SERVE
    if fatal if fatal is not None else number not in _SXID_NON_FATAL:
        return Kind.LINK, _BOOT
    return Kind.LINK, Rule.NOTE
