"""What a virtual node's hardware is at this moment, as the text its device stand-ins read.

The virtual daemon writes `render_state(...)` to `<hardware>/state` whenever faults change; the stand-ins on the
node (`libnvidia-ml.so.1`, `libcuda.so.1`, `nvidia-smi`, `all_reduce_perf`, ...) read it at every call. One
`key value` a line, ASCII, no quoting; the value is the rest of the line. A key that is absent means "this board does
not have that": a stand-in answers "not supported", never 0.

    product, node, serial          the machine
    count                          GPUs
    driver, cuda                   kernel driver version; CUDA version as 1000*major + 10*minor
    fabric_manager                 `installed`, or the version a skewed fabric manager reports; absent on NVL72 trays
    gpu.KEY                        the same for every GPU; `gpuN.KEY` says otherwise for GPU N
      name vbios inforom board_part part_number minor pci_device_id pci_subsystem_id
      serial uuid pci              pci as 00000000:1B:00.0
      memory_bytes memory_reserved_bytes memory_bus_bits remap_banks sm_count l2_bytes compute_capability
      sm_clock_mhz idle_clock_mhz memory_clock_mhz power_limit_mw idle_power_mw
      pcie_gen pcie_width pcie_replays
      nvlinks nvlink_version nvlink_mb_per_s       nvlink_version as nvmlNvlinkVersion_t
      nvlink.L                     1 active, 0 down
      fabric_state fabric_cluster fabric_clique    of an NVL72 tray: what the control plane made of the GPU
      ecc_corrected_per_gib        corrected DRAM errors for every GiB the GPU moves       (ecc_drip)
      falls_off_after_bytes        lost, with Xid 79, when it has moved that much          (xid_79)
      hangs_after_bytes            a kernel started after that much never ends             (kernel_hang)
      double_bit_after_bytes       the next work then ends with CUDA 214,
      double_bit_times             at most so often in the board's life                    (hbm_double_bit)
      row_remap_after_bytes, row_remap_times                                               (row_remap)
      cuda_context_error           what cuDevicePrimaryCtxRetain answers                   (cuda_error)
      clock_fraction               share of its clocks it reaches under load               (slow_gpu)
      full_load_celsius            temperature it nears under load                         (hot_gpu)
      pcie_width_loaded            lanes of its link while it is busy                      (pcie_narrow)
      compute.wrong_fma_sm, compute.rounding_sm, compute.nan_sm    number of the faulty SM (gemm_*)
      memory.KEY                   faults of memory, for kernels and copies alike. Places are vectors of 16 bytes from
                                   the start of the GPU's memory; a bit is 0 to 127 of a vector
        stuck_vector stuck_bit     that bit reads as 1                                     (hbm_sticky_bit)
        address_line_bit           this bit of a vector's number is 0 on every access,
        address_line_from _to      where the number is from _from up to _to                (hbm_address_line)
        flip_vector flip_bit flip_every     wrong in every n-th read                       (hbm_flip)
        aggressor_vector _bit      written from 0 to 1,
        victim_vector _bit         it inverts this one                                     (hbm_coupling)
        lost_line lost_every       every n-th write to these 8 vectors does not arrive     (hbm_lost_write)
        retention_vector _bit _ms  falls to 0 when it was not written for so long          (hbm_retention)
        disturb_vector _bit        inverted when the rows (64 vectors) beside its own were
        disturb_after              opened so often since it was written                    (hbm_row_disturb)
      health_xid                   the Xid that a health daemon tells the cluster of         (gpu_xid_condition)
    kubelet.KEY                    what the node agent does wrong: toolkit/virtual/agent_faults.py
    cuda_init_error                what cuInit answers                                     (cuda_error)
    nccl.transport                 nvlink | socket                                         (wrong_transport)
    nccl.nvls_gb_per_s nccl.ring_gb_per_s nccl.socket_gb_per_s       busbw the node reaches at large sizes
    nccl.hang                      1: a collective never returns                           (nccl_hang)
    nccl.absent                    1: its ranks never come to NCCL's bootstrap           (nccl_absent)
    hca.NAME.guid .rail .lid .rate_gbit .nominal_gbit                                      (half_rate_rail)
    hca.NAME.carried_gbit          what the port carries at most, below the rate it trained at   (slow_rail)
    hca.NAME.crowded_gbit          the same, in a collective of more than two nodes           (crowded_rail)

Beside `state` lie `infiniband/NAME/ports/1/counters` (as in sysfs, 0 at power-on), `load/gpuN` (bytes moved since
power-on or reset), `load/gpuN.nvlink` (bytes sent over NVLink),
`load/gpuN.dram_uncorrected`, `load/fabric_manager` (what the fabric manager has come to), `kmsg`, and what boards
remember without power: `inforom/gpuN.NAME` (rows remapped and waiting for it, errors in the board's life).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from toolkit.errors import UsageError
from toolkit.rack.model import MNNVL, Mode, Profile, Unit
from toolkit.virtual import agent_faults, board_gb200
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.gpu_faults import MIB, Board, cuda_error, keys_of

_PRODUCT = "DGXH100"
_DRIVER = "580.95.05"
_DRIVER_PACKAGE = "nvidia-driver-580-open"
# PCI addresses of a DGX H100's GPUs in index order (reference: DGX H100 device map).
_DGX_H100_BUSES = (0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF)
_H100 = (
    ("name", "NVIDIA H100 80GB HBM3"),
    ("vbios", "96.00.99.00.01"),
    ("inforom", "G520.0200.00.05"),
    ("board_part", "692-2G520-0200-000"),
    ("part_number", "2330-885-A1"),
    ("pci_device_id", str(0x233010DE)),
    ("pci_subsystem_id", str(0x16C110DE)),
    # 16 MiB stand for 80 GB: eight GPUs filled at once on six nodes stay under 1 GiB of host memory, a kernel passes
    # over them in 20 ms. 4 SMs stand for 132: all of them are covered by few tiles.
    ("memory_bytes", str(16 * MIB)),
    ("memory_reserved_bytes", str(MIB)),
    ("memory_bus_bits", "5120"),
    ("remap_banks", "2560"),
    ("sm_count", "4"),
    ("l2_bytes", str(64 * 1024)),
    ("compute_capability", "90"),
    ("sm_clock_mhz", "1980"),
    ("idle_clock_mhz", "345"),
    ("memory_clock_mhz", "2619"),
    ("power_limit_mw", "700000"),
    ("idle_power_mw", "68500"),
    ("pcie_gen", "5"),
    ("pcie_width", "16"),
    ("nvlink_version", "6"),
)
# Expected facts of a profile that the virtual boards take over, and the state key each one sets.
_EXPECTED_KEYS = {
    "gpu_name": "name",
    "gpu_memory_bytes": "memory_bytes",
    "vbios_version": "vbios",
    "inforom_version": "inforom",
    "pcie_gen": "pcie_gen",
    "pcie_width": "pcie_width",
}
# all_reduce over 8 H100: 480 GB/s with NVLS, 369 GB/s by rings (NVIDIA dgxc-benchmarking; nccl-tests#309),
# as shares of the 18 x 26.562 GB/s a GPU's links carry one way.
_NVLS_SHARE = 480.6 / 478.1
_RING_SHARE = 369.0 / 478.1
_SOCKET_GB_PER_S = 3.0
_NDR_GBIT = 400

_HALF = 0.5
_SKEWED_MANAGER = "580.82.07"
# What they do is for the fabric, the BMC or the firmware to show; a node without such a part could not have them.
_NOT_OF_THE_DEVICES = frozenset(
    (
        FaultKind.BMC_DEAD, FaultKind.BAD_IMAGE, FaultKind.BOOT_HANG, FaultKind.ROGUE_DHCP,
        FaultKind.SWAPPED_CABLES, FaultKind.ROTATED_CABLES, FaultKind.SYMBOL_ERRORS, FaultKind.LINK_DOWNED,
        FaultKind.SWITCH_DOWN, FaultKind.WRONG_GUID, FaultKind.DUPLICATE_GUID, FaultKind.DUPLICATE_LID,
        FaultKind.MAD_LOSS, FaultKind.PKEY_LIMITED, FaultKind.NO_SUBNET_MANAGER, FaultKind.SECOND_SUBNET_MANAGER,
        FaultKind.NVUE_DENIED, FaultKind.NVUE_BROKEN, FaultKind.NVUE_WEB_PAGE, FaultKind.NVUE_SLOW,
        FaultKind.NVUE_APPLIED, FaultKind.NVLINK_PORT, FaultKind.NMX_APP_FAILED, FaultKind.SECOND_CLUSTER,
        FaultKind.SHORT_PARTITION,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU. `faults` holds the state keys of its faults; a healthy board has none."""

    index: int
    serial: str
    pci: str
    pcie_replays: int
    nvlinks: tuple[bool, ...]
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def uuid(self) -> str:
        """The GPU's UUID: made from its serial, so it moves with the board."""
        return f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, self.serial)}"

    def lines(self) -> Iterator[tuple[str, str]]:
        """Keys of this GPU without the `gpuN.` prefix."""
        yield from (("serial", self.serial), ("uuid", self.uuid), ("pci", self.pci), ("minor", str(self.index)))
        yield "pcie_replays", str(self.pcie_replays)
        for link, active in enumerate(self.nvlinks):
            yield f"nvlink.{link}", "1" if active else "0"
        yield from self.faults.items()


@dataclass(frozen=True, slots=True)
class HcaState:
    """One host channel adapter port; rates in Gbit/s."""

    name: str
    guid: str
    rail: int
    lid: int
    nominal_gbit: int
    rate_gbit: int
    carried_gbit: int | None = None  # None: its rate
    crowded_gbit: int | None = None  # None: the same as between two nodes

    def lines(self) -> Iterator[tuple[str, str]]:
        """Keys of this port without the `hca.NAME.` prefix."""
        yield from (("guid", self.guid), ("rail", str(self.rail)), ("lid", str(self.lid)))
        yield from (("nominal_gbit", str(self.nominal_gbit)), ("rate_gbit", str(self.rate_gbit)))
        if self.carried_gbit is not None:
            yield "carried_gbit", str(self.carried_gbit)
        if self.crowded_gbit is not None:
            yield "crowded_gbit", str(self.crowded_gbit)


@dataclass(frozen=True, slots=True)
class HardwareState:
    """A node's hardware at a moment. `board` holds what all its GPUs share, by state key."""

    node: str
    serial: str
    product: str
    driver: str
    board: tuple[tuple[str, str], ...]
    gpus: tuple[GpuState, ...]
    hcas: tuple[HcaState, ...]
    nvlink_gb_per_s: float
    fabric_manager: str = "installed"
    transport: str = "nvlink"
    socket_gb_per_s: float = _SOCKET_GB_PER_S
    nccl_hangs: bool = False
    nccl_absent: bool = False
    cuda_init_error: int | None = None
    agent: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Every key with its value, in the order they are written."""
        yield from (("product", self.product), ("node", self.node), ("serial", self.serial))
        yield from (("count", str(len(self.gpus))), ("driver", self.driver), ("cuda", "13000"))
        if self.fabric_manager:  # on an NVL72 rack it is on a switch tray, and not on the node
            yield "fabric_manager", self.fabric_manager
        if self.cuda_init_error is not None:
            yield "cuda_init_error", str(self.cuda_init_error)
        yield from ((f"kubelet.{key}", value) for key, value in self.agent.items())
        for key, value in self.board:
            yield f"gpu.{key}", value
        for gpu in self.gpus:
            for key, value in gpu.lines():
                yield f"gpu{gpu.index}.{key}", value
        one_way = self.nvlink_gb_per_s * max((len(g.nvlinks) for g in self.gpus), default=0)
        yield from (("nccl.transport", self.transport), ("nccl.hang", "1" if self.nccl_hangs else "0"))
        yield "nccl.absent", "1" if self.nccl_absent else "0"
        yield "nccl.nvls_gb_per_s", f"{one_way * _NVLS_SHARE:.1f}"
        yield "nccl.ring_gb_per_s", f"{one_way * _RING_SHARE:.1f}"
        yield "nccl.socket_gb_per_s", f"{self.socket_gb_per_s:g}"
        for hca in self.hcas:
            for key, value in hca.lines():
                yield f"hca.{hca.name}.{key}", value

    def text(self) -> str:
        """The `state` file."""
        return "".join(f"{key} {value}\n" for key, value in self.lines())


def healthy_state(unit: Unit, profile: Profile) -> HardwareState:
    """The node as designed, without a fault. Raises UsageError for a platform with no device stand-ins."""
    if profile.mode not in (Mode.NVSWITCH_GEN3, *MNNVL):
        raise UsageError(
            f"profile {profile.name}: no device stand-ins for platform mode {profile.mode}",
            f"use a profile of mode {Mode.NVSWITCH_GEN3} for a virtual rack",
        )
    expected = dict(profile.expected)
    across = profile.mode in MNNVL
    board = dict(_H100) | (dict(board_gb200.BOARD) if across else {})
    board |= {key: expected[fact] for fact, key in _EXPECTED_KEYS.items() if fact in expected}
    gbit = int(expected.get("hca_rate_gbit_per_s", _NDR_GBIT))
    board["nvlinks"] = str(profile.nvlinks_per_gpu)
    board["nvlink_mb_per_s"] = str(int(profile.nvlink_gb_per_s * 1000))
    return HardwareState(
        node=unit.name,
        serial=unit.serial,
        product=expected.get("product_name", _PRODUCT),
        driver=_driver_version(profile),
        board=tuple(board.items()),
        gpus=tuple(_healthy_gpu(unit, profile, index) for index in range(profile.gpus_per_node)),
        hcas=tuple(HcaState(h.name, h.guid, h.rail, 16 * unit.slot + h.rail + 1, gbit, gbit) for h in unit.hcas),
        nvlink_gb_per_s=profile.nvlink_gb_per_s,
        fabric_manager="" if across else "installed",
    )


def render_state(unit: Unit, profile: Profile, faults: Sequence[Fault]) -> str:
    """The `state` file of a node with those of `faults` that are its own; the order of faults does not matter.

    Raises UsageError for a fault on a GPU, link or HCA the node does not have.
    """
    state = healthy_state(unit, profile)
    for fault in sorted(faults, key=_fault_order):
        if fault.node == unit.name:
            state = _with_fault(state, fault)
    return state.text()


def _driver_version(profile: Profile) -> str:
    """The loaded driver: the profile's expected fact, else its package lock without epoch and Debian revision."""
    expected = dict(profile.expected).get("driver_version")
    if expected:
        return expected
    locked = dict(profile.versions).get(_DRIVER_PACKAGE, "")
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)+)", locked)
    return found[1] if found else _DRIVER


def _healthy_gpu(unit: Unit, profile: Profile, index: int) -> GpuState:
    serial = next((g.serial for g in unit.gpus if g.index == index and g.serial), None)
    digits = re.search(r"(\d+)$", unit.serial)
    number = int(digits[1]) % 1_000_000 if digits else 0
    bus = _DGX_H100_BUSES[index] if index < len(_DGX_H100_BUSES) else 0xE0 + index
    pci = f"00000000:{bus:02X}:00.0"
    if profile.mode in MNNVL and index < len(board_gb200.PCI):
        pci = board_gb200.PCI[index]
    serial = serial or f"165{number:06d}{index:02d}"
    # Healthy H100s show 106 to 174 lifetime replays: only the difference over a run means anything.
    replays = 100 + hashlib.sha256(serial.encode()).digest()[0] % 80
    links = (True,) * profile.nvlinks_per_gpu
    return GpuState(index, serial, pci, replays, links)


def _fault_order(fault: Fault) -> tuple[str, int, int, str, float, int]:
    gpu = -1 if fault.gpu is None else fault.gpu
    link = -1 if fault.link is None else fault.link
    return fault.kind, gpu, link, fault.hca or "", fault.value or 0.0, fault.times or 0


def _with_fault(state: HardwareState, fault: Fault) -> HardwareState:
    """The state with one more fault. Kinds that are not of the devices (BMC, images, boot) change nothing."""
    value = fault.value
    match fault.kind:
        case FaultKind.WRONG_TRANSPORT:  # value: GB/s of the sockets
            return replace(state, transport="socket", socket_gb_per_s=_SOCKET_GB_PER_S if value is None else value)
        case FaultKind.NCCL_HANG | FaultKind.NCCL_ABSENT:
            absent = fault.kind is FaultKind.NCCL_ABSENT
            return replace(state, nccl_hangs=state.nccl_hangs or not absent, nccl_absent=state.nccl_absent or absent)
        case FaultKind.FABRIC_MANAGER_SKEW:
            return replace(state, fabric_manager=_SKEWED_MANAGER)
        case FaultKind.HALF_RATE_RAIL | FaultKind.SLOW_RAIL | FaultKind.CROWDED_RAIL:
            return _with_slow_hca(state, fault)
        case FaultKind.CUDA_ERROR if fault.gpu is None:
            return replace(state, cuda_init_error=cuda_error(fault))
        case FaultKind.NARROW_LINK:
            lanes = 1 if value is None else value
            return _with_slow_hca(state, replace(fault, kind=FaultKind.HALF_RATE_RAIL, value=lanes / 4))
        case FaultKind.CABLE_PULLED:
            return _with_slow_hca(state, replace(fault, kind=FaultKind.HALF_RATE_RAIL, value=0.0))
        case _ if fault.kind in agent_faults.KINDS:
            return replace(state, agent={**state.agent, **agent_faults.keys_of(fault)})
        case _ if fault.kind in _NOT_OF_THE_DEVICES:
            return state
        case _:
            return _with_gpu_fault(state, fault)


def _with_gpu_fault(state: HardwareState, fault: Fault) -> HardwareState:
    """A fault of one GPU; GPU 0 (and link 0) where the fault names none."""
    index = fault.gpu or 0
    if not 0 <= index < len(state.gpus):
        raise _no_such(state, fault, f"GPU {index}", f"0 to {len(state.gpus) - 1}")
    gpu = state.gpus[index]
    if fault.kind is FaultKind.NVLINK_LANE_DOWN:
        link = fault.link or 0
        if not 0 <= link < len(gpu.nvlinks):
            raise _no_such(state, fault, f"NVLink {link}", f"0 to {len(gpu.nvlinks) - 1}")
        gpu = replace(gpu, nvlinks=(*gpu.nvlinks[:link], False, *gpu.nvlinks[link + 1 :]))
    else:
        gpu = replace(gpu, faults={**gpu.faults, **keys_of(fault, _board(state))})
    return replace(state, gpus=(*state.gpus[:index], gpu, *state.gpus[index + 1 :]))


def _board(state: HardwareState) -> Board:
    numbers = dict(state.board)
    return Board(int(numbers["memory_bytes"]), int(numbers["sm_count"]), int(numbers["pcie_width"]))


def _with_slow_hca(state: HardwareState, fault: Fault) -> HardwareState:
    """An HCA (the first where the fault names none) that trains at a share of its rate, or only carries that much, or
    does so among many nodes.
    """
    names = [hca.name for hca in state.hcas]
    name = fault.hca or (names[0] if names else "")
    if name not in names:
        raise _no_such(state, fault, f"HCA {name or 'at all'}", ", ".join(names) or "none in the rack file")
    share = _HALF if fault.value is None else fault.value

    def slowed(hca: HcaState) -> HcaState:
        gbit = int(hca.nominal_gbit * share)
        if fault.kind is FaultKind.HALF_RATE_RAIL:
            return replace(hca, rate_gbit=gbit)
        return replace(hca, carried_gbit=gbit) if fault.kind is FaultKind.SLOW_RAIL else replace(hca, crowded_gbit=gbit)

    return replace(state, hcas=tuple(slowed(hca) if hca.name == name else hca for hca in state.hcas))


def _no_such(state: HardwareState, fault: Fault, what: str, known: str) -> UsageError:
    return UsageError(f"fault {fault.kind} on {state.node}: the node has no {what}", f"it has {known}")
