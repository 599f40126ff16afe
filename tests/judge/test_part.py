"""Which finding is acted on first, and what a technician reads on the work order."""

from toolkit.judge.evidence import Subject
from toolkit.judge.part import GpuSeat, blames_hardware, first_cause, part
from toolkit.judge.verdict import Answer, Finding
from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.loading import load_rack
from toolkit.settings import load

NODE = load_rack("demo-small", load({}).inventory).nodes[0]
SEATS = {3: GpuSeat("16500000103", "00000000:61:00.0"), 4: GpuSeat()}


def finding(code, kind, scope=Scope.GPU, **where):
    """A failed finding that blames a part of this kind."""
    gate = Gate(code, "m", "count", scope, Operator.AT_MOST, 0, "burnin", True, kind, "why", "source", "2026-11-23")
    return Finding(gate, Subject(scope, NODE.name, **where), Answer.FAIL, 1, "detail")


def test_configuration_comes_before_parts_and_a_symptom_after_them():
    """A program that failed says nothing of whose fault it is, where a part has failed too."""
    symptom, lost = finding("CUDA_FAILED", "symptom", gpu=3), finding("GPU_LOST", "gpu", Scope.NODE)
    skew, slow = finding("FABRIC_NOT_READY", "software", gpu=3), finding("NCCL_BUSBW_LOW", "tray", Scope.NODE)
    thin = finding("HBM_COVERAGE_LOW", "evidence", gpu=3)
    assert first_cause([symptom, thin, lost]) is lost
    assert first_cause([slow, symptom, lost]) is lost, "a part inside the tray before the tray"
    assert first_cause([symptom, slow]) is slow
    assert first_cause([lost, skew]) is skew
    assert first_cause([thin, symptom]) is symptom
    assert [blames_hardware(f) for f in (symptom, thin, skew, slow, lost)] == [False, False, False, True, True]


def test_a_gpu_is_named_by_serial_and_slot():
    """What did not say its serial is not given one."""
    assert part(finding("HBM_MISCOMPARE", "gpu", gpu=3), NODE, SEATS) == "GPU 3 (16500000103 at 00000000:61:00.0)"
    assert part(finding("GPU_TOO_HOT", "cooling", gpu=3), NODE, SEATS).startswith("cooling of GPU 3 (16500000103")
    assert part(finding("PCIE_WIDTH_LOW", "slot", gpu=3), NODE, SEATS).startswith("slot of GPU 3 (16500000103")
    assert part(finding("HBM_MISCOMPARE", "gpu", gpu=4), NODE, SEATS) == "GPU 4 (serial unknown)"
    assert "NVLink 7" in part(finding("NVLINK_SLOW", "gpu", Scope.LINK, gpu=3, link=7), NODE, SEATS)


def test_a_finding_about_the_node_takes_the_gpu_that_another_one_names():
    """`a GPU is lost` becomes the GPU whose Xid says so; a symptom names nobody."""
    lost, xid = finding("GPU_LOST", "gpu", Scope.NODE), finding("XID_LOST", "gpu", gpu=3)
    symptom = finding("CUDA_FAILED", "symptom", gpu=4)
    assert part(lost, NODE, SEATS, [lost, xid, symptom]) == "GPU 3 (16500000103 at 00000000:61:00.0)"
    assert part(lost, NODE, SEATS, [lost, symptom]) == f"gpu of {NODE.name}"


def test_a_cable_is_named_by_both_its_ends_where_the_rack_plans_it():
    """The technician pulls it at the leaf too; without a plan the port is all that is known."""
    rack = load_rack("demo", load({}).inventory)
    slow = finding("HCA_RATE_LOW", "cable", Scope.HCA, hca="mlx5_3")
    assert part(slow, rack.unit("node1"), {}, (), rack.links) == "cable node1:mlx5_3 - leaf4:1"
    assert part(slow, rack.unit("node1"), {}) == "cable at mlx5_3 (0x0200de0000000103)"
    hca = finding("HCA_DOWN", "hca", Scope.HCA, hca="mlx5_3")
    assert part(hca, rack.unit("node1"), {}, (), rack.links) == "HCA mlx5_3 (0x0200de0000000103)"
