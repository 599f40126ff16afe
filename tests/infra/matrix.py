"""Every named fault: what it turns red, or why it shows in no look at rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.virtual.faults import Fault, FaultKind

TABLE = Path(__file__).with_name("matrix.txt")
HCA = "mlx5_3"
# On two nodes of the virtual DGX rack. What is a node's own matter shares a session with another node's.
SESSIONS = (
    (Fault(FaultKind.NVLINK_LANE_DOWN, "node2", gpu=5, link=7), Fault(FaultKind.BMC_DEAD, "node1")),
    (Fault(FaultKind.FABRIC_MANAGER_SKEW, "node2"), Fault(FaultKind.HALF_RATE_RAIL, "node1", hca=HCA)),
    (Fault(FaultKind.NARROW_LINK, "node2", hca=HCA), Fault(FaultKind.CABLE_PULLED, "node1", hca="mlx5_6")),
    (
        Fault(FaultKind.SWAPPED_CABLES, "node2", hca="mlx5_1", other="mlx5_2"),
        Fault(FaultKind.SYMBOL_ERRORS, "node1", hca="mlx5_6"),
    ),
    (
        Fault(FaultKind.ROTATED_CABLES, "node2", hca="mlx5_1", other="mlx5_2,mlx5_3"),
        Fault(FaultKind.LINK_DOWNED, "node1", hca="mlx5_6", value=0.5),
    ),
    (Fault(FaultKind.WRONG_GUID, "node2", hca=HCA), Fault(FaultKind.PKEY_LIMITED, "node1", hca="mlx5_6")),
    (Fault(FaultKind.DUPLICATE_LID, "node2", hca=HCA, other="mlx5_4"),),
    (Fault(FaultKind.SWITCH_DOWN, "leaf4"),),
    (Fault(FaultKind.DUPLICATE_GUID, "node2", hca=HCA, other="mlx5_4"),),
    (Fault(FaultKind.MAD_LOSS, "node2", hca=HCA),),
    (Fault(FaultKind.NO_SUBNET_MANAGER, "node2"),),
)
_LOAD = "shows under load: the burn-in finds it"
_NCCL = "shows in a collective: the burn-in finds it"
_NVL72 = "of an NVLink switch tray: tests/infra/test_nvl72.py"
_NVUE = "of NVUE's own server, tests/nvue/test_nvue.py; test_nvl72.py: a switch tray that does not answer"
_CLUSTER = "a pool in a file sees no kubelet: tests/virtual/test_operator.py has a cluster, test_members.py signs"
_BMC = "a BMC's own: these checks ask the nodes: tests/redfish has them"
_ONCE = "of imaging and boot, which are over"
K = FaultKind
NOT_HERE: Mapping[FaultKind, str] = {
    **dict.fromkeys((k for k in K if k.startswith(("hbm_", "gemm_"))), _LOAD),
    **dict.fromkeys(
        (K.ROW_REMAP, K.ECC_DRIP, K.KERNEL_HANG, K.CUDA_ERROR, K.XID_79, K.SLOW_GPU, K.HOT_GPU, K.PCIE_NARROW), _LOAD
    ),
    **dict.fromkeys((K.NCCL_HANG, K.NCCL_ABSENT, K.WRONG_TRANSPORT, K.SLOW_RAIL, K.CROWDED_RAIL), _NCCL),
    **dict.fromkeys((k for k in K if k.startswith("nvue_")), _NVUE),
    **dict.fromkeys((K.NVLINK_PORT, K.NMX_APP_FAILED, K.SECOND_CLUSTER, K.SHORT_PARTITION), _NVL72),
    **dict.fromkeys(
        (
            K.KUBELET_DEAD, K.NODE_NOT_READY, K.GPU_DEVICE_PLUGIN_GONE, K.GPU_XID_CONDITION, K.PODS_FAIL,
            K.NODE_RENAMES_ITSELF,
        ),
        _CLUSTER,
    ),
    **dict.fromkeys((K.BAD_IMAGE, K.BOOT_HANG, K.ROGUE_DHCP), _ONCE),
    **dict.fromkeys(
        (
            K.BMC_IGNORES_OVERRIDE, K.BMC_OVERRIDE_STAYS, K.BMC_LIES_ABOUT_POWER, K.BMC_UNAUTHORISED,
            K.BMC_SESSIONS_FULL, K.UPDATE_FAILS, K.UPDATE_LIES, K.TASK_LOST, K.INLET_HOT, K.COOLANT_LEAK,
            K.LEAK_DETECTOR_GONE, K.DEFAULT_PASSWORD, K.BIOS_NOT_STICKY,
        ),
        _BMC,
    ),
    K.SECOND_SUBNET_MANAGER: "a rack of files has one manager at most: tests/virtual/test_fabric_matrix.py has two",
}  # fmt: skip


def expected(what: str) -> str:
    """The table's block that begins with this line."""
    blocks = TABLE.read_text().strip().split("\n\n")
    return next((block for block in blocks if block.split("\n")[0] == what), f"{what}: not in {TABLE.name}")


def of_node(node: str, red: Mapping[str, str]) -> dict[str, str]:
    """The red tests of a node."""
    return {name: letter for name, letter in red.items() if re.search(rf"\[{node}[-\]]", name)}


def row(what: str, red: Mapping[str, str]) -> str:
    """A line of the table: tests of one function side by side, F failed, E undecided."""
    by_function: dict[tuple[str, str], list[str]] = {}
    for name, letter in red.items():
        function, _, case = name.partition("[")
        by_function.setdefault((letter, function), []).append(case.rstrip("]"))
    told = [
        f"    {letter} {function}[{', '.join(_shortened(cases))}]" for (letter, function), cases in by_function.items()
    ]
    return "\n".join((what, *sorted(told)))


_PARTS = re.compile(r"(node\d|tray\d\d)-(gpu|mlx5_)(\d)-(.*)")
_COUNTS = {"node": 8, "tray": 4}  # of GPUs, and of HCAs


def _shortened(cases: Sequence[str]) -> list[str]:
    """`node1-mlx5_0-X` to `node1-mlx5_7-X` as `node1-mlx5_*-X`: a star is all that the node has."""
    whole: dict[tuple[str, str, str], set[str]] = {}
    for case in cases:
        if found := _PARTS.fullmatch(case):
            whole.setdefault((found[1], found[2], found[4]), set()).add(case)
    shown = set(cases)
    for (node, part, code), of in whole.items():
        if len(of) == _COUNTS[node[:4]]:
            shown = (shown - of) | {f"{node}-{part}*-{code}"}
    return sorted(shown)
