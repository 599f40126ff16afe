"""The real stages, end to end, over a rack of files: what becomes of each fault."""

from dataclasses import replace
from datetime import timedelta

import pytest
from rehearsal import context_over, now, open_ledger

from toolkit.bringup import bringup, lapse_expired
from toolkit.certificate.public_key import trusted_keys
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.unverified import Unverified
from toolkit.certificate.verify import verify
from toolkit.ledger import Change, EventKind
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.plan import make_plan
from toolkit.repair import release
from toolkit.report.standing import standings, status_of
from toolkit.stages.image import pin
from toolkit.stages.provisioning import host_of
from toolkit.virtual.faults import Fault, FaultKind

QUARANTINED, PLANNED, ADMITTED = NodeState.QUARANTINED, NodeState.PLANNED, NodeState.ADMITTED


def go(lab):
    """One bringup; answers the summary and where every node stands."""
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        summary = bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
        return summary, {s.node: s for s in standings(ledger, lab.rack)}


def certificate(lab):
    """The rack's certificate, verified."""
    envelope = lab.settings.certificate(lab.rack.name).read_bytes()
    return verify(envelope, trusted_keys([lab.settings.keys / PUBLIC]), now())


def test_a_healthy_rack_is_admitted_with_a_whole_certificate(lab_of):
    """Nothing is left out, every node is in the pool under that certificate's digest."""
    lab = lab_of("demo-small")
    summary, _ = go(lab)
    assert summary.exit_code == 0
    issued = certificate(lab)
    assert issued.nodes == ("node1", "node2")
    assert not issued.partial
    assert {(n.admitted, n.certificate) for n in lab.pool.nodes().values()} == {(True, issued.digest)}


@pytest.mark.parametrize(
    ("fault", "state", "code"),
    [
        (Fault(FaultKind.ECC_DRIP, "node2", gpu=3), QUARANTINED, "HBM_ECC_CORRECTED"),
        (Fault(FaultKind.HBM_STICKY_BIT, "node2", gpu=1), QUARANTINED, "HBM_MISCOMPARE"),
        (Fault(FaultKind.NVLINK_LANE_DOWN, "node2", gpu=5, link=7), QUARANTINED, "NVLINK_LINK_DOWN"),
        (Fault(FaultKind.SLOW_GPU, "node2", gpu=2), QUARANTINED, "NCCL_BUSBW_LOW"),
        (Fault(FaultKind.HALF_RATE_RAIL, "node2", hca="mlx5_3"), QUARANTINED, "HCA_RATE_LOW"),
        (Fault(FaultKind.XID_79, "node2", gpu=2), QUARANTINED, "GPU_LOST"),
        (Fault(FaultKind.HBM_DOUBLE_BIT, "node2", gpu=2), QUARANTINED, "HBM_ECC_UNCORRECTED"),
        (Fault(FaultKind.ROW_REMAP, "node2", gpu=2, times=2), QUARANTINED, "ROW_REMAPPED_AGAIN"),
        (Fault(FaultKind.GEMM_WRONG_FMA, "node2", gpu=2), QUARANTINED, "GEMM_WRONG"),
        (Fault(FaultKind.GEMM_ROUNDING, "node2", gpu=2), QUARANTINED, "GEMM_DIGEST_DIFFERS"),
        (Fault(FaultKind.KERNEL_HANG, "node2", gpu=2), QUARANTINED, "GPU_HUNG"),
        (Fault(FaultKind.HOT_GPU, "node2", gpu=2), QUARANTINED, "GPU_TOO_HOT"),
        (Fault(FaultKind.PCIE_NARROW, "node2", gpu=2), QUARANTINED, "PCIE_WIDTH_LOW"),
        (Fault(FaultKind.CUDA_ERROR, "node2", gpu=2), NodeState.JOINED, "CUDA_FAILED"),
        (Fault(FaultKind.BMC_DEAD, "node2"), PLANNED, "BMC_UNREACHABLE"),
        (Fault(FaultKind.BAD_IMAGE, "node2", value=9), PLANNED, "IMAGE_HASH_MISMATCH"),
        (Fault(FaultKind.BMC_IGNORES_OVERRIDE, "node2"), PLANNED, "BMC_OVERRIDE_IGNORED"),
        (Fault(FaultKind.NCCL_HANG, "node2"), NodeState.JOINED, "EVIDENCE_INCONCLUSIVE"),
        (Fault(FaultKind.FABRIC_MANAGER_SKEW, "node2"), NodeState.CONFIGURED, "FABRIC_MANAGER_SKEW"),
        (Fault(FaultKind.WRONG_TRANSPORT, "node2"), NodeState.JOINED, "WRONG_FABRIC"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Fault) else None,
)
def test_each_fault_ends_with_its_code_and_never_holds_up_the_other_node(lab_of, fault, state, code):
    """Hardware that failed is quarantined with a part; what we could not do or tell is not held against it."""
    lab = lab_of("demo-small", fault)
    summary, found = go(lab)
    assert (found["node2"].state, found["node2"].code) == (state, code)
    assert found["node1"].state is ADMITTED
    assert bool(found["node2"].part) == (state is QUARANTINED)
    if fault.gpu == 2 and state is QUARANTINED and fault.kind is not FaultKind.SLOW_GPU:
        assert "GPU 2 (16500000202 at 00000000:52:00.0)" in found["node2"].part
    if fault.kind is FaultKind.HALF_RATE_RAIL:
        assert found["node2"].part == "cable node2:mlx5_3 - leaf4:2"
    assert summary.exit_code == (1 if state is QUARANTINED else 3)
    issued = certificate(lab)
    assert issued.nodes == ("node1",)
    assert [node for node, _ in issued.left_out] == ["node2"]
    assert "node2" not in [n for n, member in lab.pool.nodes().items() if member.admitted]


def test_a_node_that_a_stranger_boots_is_named_and_imaged_when_he_is_gone(lab_of):
    """Nobody fetched its boot script, and another DHCP server answers it: the stage's own code; the next run ends."""
    lab = lab_of("demo-small", Fault(FaultKind.ROGUE_DHCP, "node2"))
    brief = replace(lab.rack.profile.imaging, silence=timedelta(seconds=1))
    lab.rack = replace(lab.rack, profile=replace(lab.rack.profile, imaging=brief))
    _, found = go(lab)
    assert (found["node2"].state, found["node2"].code) == (PLANNED, "ROGUE_DHCP")
    assert "52:54:00:99:00:99" in found["node2"].message
    lab.faults.clear()
    summary, _ = go(lab)
    assert summary.exit_code == 0


def test_a_download_damaged_once_is_tried_again_by_itself(lab_of):
    """The second attempt is clean: the node goes on and was written twice, no more."""
    lab = lab_of("demo-small", Fault(FaultKind.BAD_IMAGE, "node2", value=1))
    summary, _ = go(lab)
    assert summary.exit_code == 0
    assert lab.machine("node2").disk_writes == 2


def test_a_node_that_measured_the_wrong_fabric_is_measured_anew_when_that_is_mended(lab_of):
    """The code says what was measured instead; the next bringup takes no number of that burn-in."""
    lab = lab_of("demo-small", Fault(FaultKind.WRONG_TRANSPORT, "node2"))
    _, found = go(lab)
    assert found["node2"].message.startswith("all_reduce, all_gather, reduce_scatter, alltoall, sendrecv measured the")
    assert "wrong fabric: NET/Socket between ranks 0 and 1 and 7 other pairs" in found["node2"].message
    assert "node2/gpu0 counted 0.00 of the bytes it had to carry, and so 7 others" in found["node2"].message
    assert len(lab.burnins("node2")) == 1
    lab.faults.clear()
    summary, _ = go(lab)
    assert summary.exit_code == 0
    assert len(lab.burnins("node2")) == 2
    assert certificate(lab).nodes == ("node1", "node2")


def test_a_part_that_failed_is_condemned_whatever_way_the_collectives_took(lab_of):
    """What memory showed does not wait for NCCL's configuration; bandwidths of sockets blame nothing."""
    faults = (Fault(FaultKind.WRONG_TRANSPORT, "node2"), Fault(FaultKind.HBM_FLIP, "node2", gpu=2))
    _, found = go(lab_of("demo-small", *faults))
    assert (found["node2"].state, found["node2"].code) == (QUARANTINED, "HBM_MISCOMPARE")
    assert "NCCL_PATH_UNPROVEN" in found["node2"].message
    assert "NCCL_BUSBW_LOW" not in found["node2"].message


def test_an_inconclusive_node_is_tested_again_and_admitted_when_the_doubt_is_gone(lab_of):
    """Running again is the resume: burn-in is repeated, imaging is not."""
    lab = lab_of("demo-small", Fault(FaultKind.NCCL_HANG, "node2"))
    go(lab)
    lab.faults.clear()
    summary, _ = go(lab)
    assert summary.exit_code == 0
    assert lab.machine("node2").disk_writes == 1
    assert len(lab.burnins("node2")) == 2
    assert certificate(lab).nodes == ("node1", "node2")


def test_nothing_learnt_before_a_repair_counts_after_it(lab_of):
    """A released node starts at PLANNED: image, burn-in and evidence are taken anew."""
    lab = lab_of("demo-small", Fault(FaultKind.ECC_DRIP, "node2", gpu=3))
    go(lab)
    lab.faults.clear()
    with open_ledger(lab.settings) as ledger:
        ledger.move(lab.rack.name, "node2", Change(QUARANTINED, Move.REPAIR), "GPU 3 replaced")
    summary, _ = go(lab)
    assert summary.exit_code == 0
    assert lab.machine("node2").disk_writes == 2
    assert len(lab.burnins("node2")) == 2


def test_a_rack_at_its_goal_has_nothing_to_do(lab_of):
    """A second bringup starts no run."""
    lab = lab_of("demo-small")
    go(lab)
    with open_ledger(lab.settings) as ledger:
        before = len(ledger.runs(lab.rack.name))
    assert go(lab)[0].exit_code == 0
    with open_ledger(lab.settings) as ledger:
        assert len(ledger.runs(lab.rack.name)) == before


def test_a_part_swapped_between_certificate_and_admission_is_not_admitted(lab_of):
    """The certificate names serials: another GPU in the slot sends the node back to JOINED."""
    lab = lab_of("demo-small")
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        bringup(context, make_plan(lab.rack, {}, NodeState.CERTIFIED))
        swapped = {n.name: n for n in lab.rack.nodes}["node2"]
        lab.serials["node2"] = "1659999999999"
        summary = bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
        found = {s.node: s for s in standings(ledger, lab.rack)}
    assert swapped.name == "node2"
    assert summary.exit_code == 3
    assert (found["node2"].state, found["node2"].code) == (NodeState.JOINED, "CERTIFICATE_REFUSED")
    assert "1659999999999 is new" in found["node2"].message
    assert found["node1"].state is ADMITTED


def test_a_part_swapped_between_burn_in_and_certificate_is_not_certified(lab_of):
    """Another board's burn-in proves nothing of this one: the node is measured again, and then certified."""
    lab = lab_of("demo-small")
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        bringup(context, make_plan(lab.rack, {}, NodeState.TESTED))
        lab.serials["node2"] = "1659999999999"
        bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack), NodeState.CERTIFIED))
        found = {s.node: s for s in standings(ledger, lab.rack)}
        assert found["node1"].state is NodeState.CERTIFIED
        assert (found["node2"].state, found["node2"].code) == (NodeState.JOINED, "BURNIN_OF_OTHER_PARTS")
        assert "GPU 1659999999999 was never burnt in" in found["node2"].message
        again = bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
    assert again.exit_code == 0


def test_a_part_swapped_in_a_certified_node_gets_no_certificate_beside_another_node(lab_of):
    """A certificate that is issued for node2 later names node1 only as long as it is what it was."""
    lab = lab_of("demo-small", Fault(FaultKind.HBM_STICKY_BIT, "node2", gpu=1))
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        bringup(context, make_plan(lab.rack, {}, NodeState.CERTIFIED))
        lab.serials["node1"] = "1659999999999"
        lab.faults.clear()
        release(ledger, lab.rack, lab.rack.unit("node2"), "GPU replaced")
        bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack), NodeState.CERTIFIED))
        newest = ledger.events(lab.rack.name, kind=EventKind.CERTIFICATE_ISSUED, limit=100)[-1]
        run = ledger.last_run(lab.rack.name, "node1", Stage.CERTIFY)
    assert newest.body["nodes"] == ["node2"]
    assert run.outcome is Outcome.ERROR and "GPU 1659999999999 was never burnt in" in run.message


def test_no_stage_is_skipped(lab_of):
    """Every node of a healthy rack has one passed run of every stage."""
    lab = lab_of("demo-small")
    go(lab)
    with open_ledger(lab.settings) as ledger:
        stages = [run.stage for run in ledger.runs(lab.rack.name, "node1")]
    assert stages == list(Stage)


def test_a_rented_node_enters_imaged_and_its_certificate_says_what_is_not_verified(lab_of):
    """Nobody may touch its BMC: it is never imaged by us, and BIOS and BMC versions are not bound.

    The operator pins the host key that its owner tells: no image stage of ours has met it.
    """
    lab = lab_of("demo-small")
    units = tuple(replace(u, bmc=None) if u.name == "node2" else u for u in lab.rack.units)
    takes_rented = replace(lab.policy, accepts=frozenset(Unverified))
    lab = replace(lab, rack=replace(lab.rack, units=units), policy=takes_rented)
    with lab.changing("node2") as machine:
        machine.power, machine.image = "On", "its owner's"
    told_by_its_owner = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "C" * 43
    pin(lab.settings.known_hosts(lab.rack.name), host_of(lab.rack.unit("node2")), told_by_its_owner)
    summary, _ = go(lab)
    assert summary.exit_code == 0
    assert lab.machine("node2").disk_writes == 0
    issued = certificate(lab)
    assert any("node2 is rented" in line.what for line in issued.not_verified)
    assert not any("node1 is rented" in line.what for line in issued.not_verified)
    rented = issued.fingerprint.node("node2")
    assert rented is not None
    assert "bmc" not in dict(rented.firmware)


def test_a_node_whose_certificate_expired_leaves_the_pool_and_is_tested_again(lab_of):
    """Evidence does not last: burn-in and certificate are renewed, the disk is left alone."""
    lab = lab_of("demo-small")
    go(lab)
    lifetime = lab.rack.profile.certificate_lifetime
    with open_ledger(lab.settings) as ledger:
        assert lapse_expired(context_over(lab, ledger)) == ()
        later = replace(context_over(lab, ledger), clock=lambda: now() + lifetime + timedelta(hours=1))
        assert lapse_expired(later) == ("node1", "node2")
        assert [member.admitted for member in lab.pool.nodes().values()] == [False, False]
        assert {row.state for row in ledger.node_states(lab.rack.name).values()} == {NodeState.JOINED}
    summary, _ = go(lab)
    assert summary.exit_code == 0
    assert lab.machine("node1").disk_writes == 1
    assert len(lab.burnins("node1")) == 2
