"""The state of a node's hardware as a value: what each fault changes, and that nothing else does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.rack.model import Gpu, Hca, Mode, Profile, Unit, UnitKind
from toolkit.virtual.devices import state as on_node
from toolkit.virtual.faults import MEANINGS, Fault, FaultKind
from toolkit.virtual.hardware import healthy_state, render_state

NODE = Unit(
    "node2",
    UnitKind.NODE,
    "VR00000002",
    2,
    hcas=tuple(Hca(f"mlx5_{r}", f"0xb83fd20300a1c2{r:02x}", r) for r in range(8)),
)
PROFILE = Profile(
    "virtual-dgx-h100", "Virtual DGXH100", Mode.NVSWITCH_GEN3, 8, 18, 26.562, 8, (), "image", (), (), (),
    timedelta(days=1), True,
)  # fmt: skip
HEALTHY = render_state(NODE, PROFILE, ())

faults_of_any_node = st.lists(
    st.builds(
        Fault,
        kind=st.sampled_from(list(FaultKind)),
        node=st.sampled_from(["node1", "node2"]),
        gpu=st.one_of(st.none(), st.integers(0, 7)),
        link=st.one_of(st.none(), st.integers(0, 17)),
        hca=st.one_of(st.none(), st.sampled_from([f"mlx5_{r}" for r in range(8)])),
        value=st.one_of(st.none(), st.floats(1, 3)),
        times=st.one_of(st.none(), st.integers(1, 3)),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(faults=faults_of_any_node)
def test_removing_every_fault_restores_the_state_byte_for_byte(faults: list[Fault]) -> None:
    """The text is a function of the faults that are set, and of nothing that was."""
    render_state(NODE, PROFILE, faults)
    assert render_state(NODE, PROFILE, [f for f in faults if f.node == "node1"]) == HEALTHY


@settings(max_examples=60, deadline=None)
@given(faults=faults_of_any_node, random=st.randoms())
def test_the_order_in_which_faults_were_set_does_not_matter(faults: list[Fault], random: object) -> None:
    """Two histories with the same faults give the same bytes."""
    shuffled = list(faults)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert render_state(NODE, PROFILE, shuffled) == render_state(NODE, PROFILE, faults)


@settings(max_examples=60, deadline=None)
@given(faults=faults_of_any_node)
def test_the_nodes_parser_reads_every_key_that_is_written(faults: list[Fault]) -> None:
    """What hardware.py writes, the stand-ins' parser reads: no key twice, no line lost."""
    text = render_state(NODE, PROFILE, faults)
    state = on_node.parse(text)
    assert len(state.values) == len(text.splitlines())
    assert len(state.gpus) == 8
    assert state.hcas == tuple(h.name for h in NODE.hcas)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (FaultKind.HBM_STICKY_BIT, {"gpu3.memory.stuck_vector": "419430", "gpu3.memory.stuck_bit": "36"}),
        (
            FaultKind.HBM_ADDRESS_LINE,
            {
                "gpu3.memory.address_line_bit": "14",
                "gpu3.memory.address_line_from": "262144",
                "gpu3.memory.address_line_to": "786432",
            },
        ),
        (
            FaultKind.HBM_FLIP,
            {
                "gpu3.memory.flip_vector": "471859",
                "gpu3.memory.flip_bit": "77",
                "gpu3.memory.flip_every": "3",
            },
        ),
        (
            FaultKind.HBM_COUPLING,
            {
                "gpu3.memory.aggressor_vector": "524288",
                "gpu3.memory.aggressor_bit": "19",
                "gpu3.memory.victim_vector": "524352",
                "gpu3.memory.victim_bit": "102",
            },
        ),
        (FaultKind.HBM_LOST_WRITE, {"gpu3.memory.lost_line": "72089", "gpu3.memory.lost_every": "5"}),
        (
            FaultKind.HBM_RETENTION,
            {
                "gpu3.memory.retention_vector": "629145",
                "gpu3.memory.retention_bit": "50",
                "gpu3.memory.retention_ms": "500",
            },
        ),
        (
            FaultKind.HBM_ROW_DISTURB,
            {
                "gpu3.memory.disturb_vector": "681574",
                "gpu3.memory.disturb_bit": "8",
                "gpu3.memory.disturb_after": "1000",
            },
        ),
        (FaultKind.HBM_DOUBLE_BIT, {"gpu3.double_bit_after_bytes": str(64 << 20), "gpu3.double_bit_times": "1"}),
        (FaultKind.ROW_REMAP, {"gpu3.row_remap_after_bytes": str(64 << 20), "gpu3.row_remap_times": "1"}),
        (FaultKind.ECC_DRIP, {"gpu3.ecc_corrected_per_gib": "64"}),
        (FaultKind.GEMM_WRONG_FMA, {"gpu3.compute.wrong_fma_sm": "2"}),
        (FaultKind.GEMM_ROUNDING, {"gpu3.compute.rounding_sm": "2"}),
        (FaultKind.GEMM_NAN, {"gpu3.compute.nan_sm": "2"}),
        (FaultKind.KERNEL_HANG, {"gpu3.hangs_after_bytes": str(64 << 20)}),
        (FaultKind.CUDA_ERROR, {"gpu3.cuda_context_error": "999"}),
        (FaultKind.XID_79, {"gpu3.falls_off_after_bytes": str(256 << 20)}),
        (FaultKind.SLOW_GPU, {"gpu3.clock_fraction": "0.6"}),
        (FaultKind.HOT_GPU, {"gpu3.full_load_celsius": "105"}),
        (FaultKind.PCIE_NARROW, {"gpu3.pcie_width_loaded": "8"}),
        (FaultKind.NVLINK_LANE_DOWN, {"gpu3.nvlink.11": "0"}),
        (FaultKind.NCCL_HANG, {"nccl.hang": "1"}),
        (FaultKind.NCCL_ABSENT, {"nccl.absent": "1"}),
        (FaultKind.CROWDED_RAIL, {"hca.mlx5_5.crowded_gbit": "200"}),
        (FaultKind.WRONG_TRANSPORT, {"nccl.transport": "socket"}),
        (FaultKind.FABRIC_MANAGER_SKEW, {"fabric_manager": "580.82.07"}),
        (FaultKind.HALF_RATE_RAIL, {"hca.mlx5_5.rate_gbit": "200"}),
        (FaultKind.SLOW_RAIL, {"hca.mlx5_5.carried_gbit": "200"}),
        (FaultKind.BMC_DEAD, {}),
        (FaultKind.BAD_IMAGE, {}),
        (FaultKind.BOOT_HANG, {}),
        (FaultKind.ROGUE_DHCP, {}),
    ],
)
def test_a_fault_changes_exactly_its_own_keys(kind: FaultKind, changed: dict[str, str]) -> None:
    """Everything a fault does not name stays as on a healthy node."""
    healthy = on_node.parse(HEALTHY).values
    faulty = on_node.parse(render_state(NODE, PROFILE, [Fault(kind, "node2", 3, 11, "mlx5_5")])).values
    assert {key: value for key, value in faulty.items() if healthy.get(key) != value} == changed
    assert healthy.keys() <= faulty.keys()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(FaultKind.ECC_DRIP, "node2", gpu=8), "no GPU 8"),
        (Fault(FaultKind.NVLINK_LANE_DOWN, "node2", gpu=0, link=18), "no NVLink 18"),
        (Fault(FaultKind.HALF_RATE_RAIL, "node2", hca="mlx5_9"), "no HCA mlx5_9"),
        (Fault(FaultKind.GEMM_NAN, "node2", gpu=0, value=4), "SM 4"),
        (Fault(FaultKind.HBM_ADDRESS_LINE, "node2", gpu=0, value=18), "address line 18"),
        (Fault(FaultKind.HBM_FLIP, "node2", gpu=0, value=0), "n 0"),
        (Fault(FaultKind.PCIE_NARROW, "node2", gpu=0, value=17), "lanes 17"),
        (Fault(FaultKind.CUDA_ERROR, "node2", value=0), "CUDA error 0"),
    ],
)
def test_a_fault_on_a_part_the_node_does_not_have_is_refused(fault: Fault, said: str) -> None:
    """A typing error in a fault must not be a silent no-op."""
    with pytest.raises(UsageError, match=said):
        render_state(NODE, PROFILE, [fault])


def test_every_kind_of_fault_is_explained() -> None:
    """What `rackproof virtual fault --help` prints: a sentence for each kind, and for no other."""
    assert set(MEANINGS) == set(FaultKind)
    assert all(MEANINGS.values())


def test_a_cuda_error_without_a_gpu_is_the_whole_nodes() -> None:
    """cuInit fails for everybody, as with a fabric that is not ready."""
    values = on_node.parse(render_state(NODE, PROFILE, [Fault(FaultKind.CUDA_ERROR, "node2", value=802)])).values
    assert values["cuda_init_error"] == "802"
    assert not [key for key in values if key.endswith("cuda_context_error")]


def test_serials_follow_the_rack_file_and_else_the_nodes_number() -> None:
    """An explicit GPU serial wins; the others are made of the unit's serial and the slot."""
    named = replace(NODE, gpus=(Gpu(1, "1655555555555"),))
    serials = [gpu.serial for gpu in healthy_state(named, PROFILE).gpus]
    assert serials[:3] == ["16500000200", "1655555555555", "16500000202"]
    assert len({gpu.uuid for gpu in healthy_state(named, PROFILE).gpus}) == 8


def test_the_driver_is_the_one_the_profile_expects_or_locks() -> None:
    """The expected fact first, then the package's version without epoch and revision."""
    locked = replace(PROFILE, versions=(("nvidia-driver-580-open", "1:580.105.08-0ubuntu1"),))
    assert healthy_state(NODE, locked).driver == "580.105.08"
    assert healthy_state(NODE, replace(locked, expected=(("driver_version", "580.126.20"),))).driver == "580.126.20"


@pytest.mark.parametrize("mode", [Mode.NVLINK5_SINGLE, Mode.PCIE])
def test_a_platform_without_stand_ins_is_refused(mode: Mode) -> None:
    """A B200 is not an H100 with another name, nor is a board on PCIe alone."""
    with pytest.raises(UsageError, match=f"no device stand-ins for platform mode {mode}"):
        render_state(NODE, replace(PROFILE, mode=mode), ())
