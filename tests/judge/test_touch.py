"""Which evidence a change takes away: by the topology, with a reason, and nothing more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.certificate.fingerprint import NodeFacts
from toolkit.errors import UsageError
from toolkit.judge.evidence import Subject
from toolkit.judge.recert.causes import cause_of
from toolkit.judge.recert.changes import Part, changes_between, parse_change
from toolkit.judge.recert.hazard import Cause
from toolkit.judge.recert.touch import Proof, proof_of, touch
from toolkit.rack.gate import Scope
from toolkit.rack.loading import load_rack
from toolkit.settings import load

INVENTORY = load({}).inventory
DGX = load_rack("dgx-h100-su", INVENTORY)
NVL72 = load_rack("gb200-nvl72", INVENTORY)
FACTS = NodeFacts(
    "dgx07", "EX166042400007", ("G0", "G1"), tuple(h.guid for h in DGX.unit("dgx07").hcas), "580.95.05",
    (("bios", "1.0"), ("bmc", "2.0"), ("gpu0 vbios", "96"), ("mlx5_3 firmware", "28.1")),
)  # fmt: skip


def after(rack, *words):
    """What these changes touch."""
    return touch(rack, [parse_change(rack, text) for text in words])


def subjects(found, proof):
    """Of what this kind of test has to be run anew."""
    return {str(t.evidence.subject) for t in found.of(proof)}


def test_every_gate_of_every_profile_has_a_test_that_answers_it():
    """What no kind of evidence stands for, no change would ever touch."""
    for rack in (DGX, NVL72):
        found = touch(rack, [parse_change(rack, "update driver")])
        answered = {gate for t in found.touched for gate in t.evidence.gates(rack.profile)}
        assert answered == set(rack.profile.gates)
        assert not found.holds


def test_a_swapped_node_touches_all_that_it_takes_part_in():
    """Its own parts, its rails, the leaves that they end on, the unit; no other node's suite and no other rail."""
    found = after(DGX, "swap dgx07")
    assert {t.evidence.subject.node for t in found.of(Proof.SUITE)} == {"dgx07"}
    assert len(found.of(Proof.SUITE)) == 1 + 8
    assert len([t for t in found.of(Proof.FACTS) if t.evidence.subject.scope is Scope.LINK]) == 8 * 18
    assert subjects(found, Proof.RAILS) == {f"dgx07/{hca.name}" for hca in DGX.unit("dgx07").hcas}
    assert subjects(found, Proof.LEAF) == {f"leaf{n}" for n in range(1, 9)}
    assert subjects(found, Proof.UNIT) == {"rack"}
    assert all(t.through == ("dgx07",) and t.why for t in found.touched)
    assert not any(e.subject.node == "dgx07" for e in found.holds)


def test_a_swapped_tray_touches_the_domain_and_leaves_that_stand_elsewhere_are_no_evidence_of_this_rack():
    """The rails leave an NVL72 rack: they are measured, and no leaf of it is."""
    found = after(NVL72, "swap tray03")
    assert len(found.of(Proof.DOMAIN)) == 1
    assert len(found.of(Proof.RAILS)) == 4
    assert not found.of(Proof.LEAF) and not found.of(Proof.UNIT)


def test_a_swapped_gpu_leaves_its_siblings_their_evidence():
    """The node as a whole and the one rail that is measured from it, though."""
    found = after(DGX, "swap dgx07:gpu3")
    assert subjects(found, Proof.SUITE) == {"dgx07", "dgx07/gpu3"}
    assert subjects(found, Proof.RAILS) == {"dgx07/mlx5_5"}  # of rail 3
    assert subjects(found, Proof.LEAF) == {"leaf4"}
    assert any(e.subject == Subject(Scope.GPU, "dgx07", gpu=2) for e in found.holds)


def test_an_hca_or_its_cable_touches_one_rail():
    """The node's own suite does not cross it; a cable is no part of the node."""
    hca, cable = after(DGX, "swap dgx07:mlx5_3"), after(DGX, "swap cable dgx07:mlx5_3")
    for found in (hca, cable, after(DGX, "swap cable leaf2:7"), after(DGX, "move cable dgx07:mlx5_3")):
        assert subjects(found, Proof.RAILS) == {"dgx07/mlx5_3"}
        assert subjects(found, Proof.LEAF) == {"leaf2"}
        assert not found.of(Proof.SUITE)
    assert Subject(Scope.NODE, "dgx07") in {t.evidence.subject for t in hca.of(Proof.FACTS)}
    assert Subject(Scope.NODE, "dgx07") not in {t.evidence.subject for t in cable.of(Proof.FACTS)}


def test_a_swapped_leaf_touches_every_rail_on_it_through_every_node():
    """All its ports are new; the other leaves stay good."""
    found = after(DGX, "swap leaf2")
    assert subjects(found, Proof.RAILS) == {f"dgx{n:02}/mlx5_3" for n in range(1, 32)}
    (leaf,) = found.of(Proof.LEAF)
    assert (leaf.evidence.subject.node, len(leaf.through)) == ("leaf2", 31)
    assert len([e for e in found.holds if e.proof is Proof.LEAF]) == 7


@pytest.mark.parametrize("words", ["swap spine1", "swap cable leaf1:33"])
def test_what_joins_switches_touches_the_unit_alone_and_through_all_nodes(words):
    """Routing decides which pair of nodes crosses it."""
    found = after(DGX, words)
    assert [t.evidence.proof for t in found.touched] == [Proof.UNIT]
    assert len(found.touched[0].through) == 31


def test_an_nvlink_switch_touches_links_and_collectives_and_no_memory():
    """Two links of every GPU, every tray's collectives, the domain."""
    found = after(NVL72, "swap nvswitch2")
    assert len([t for t in found.of(Proof.FACTS) if t.evidence.subject.scope is Scope.LINK]) == 2 * 72
    assert len(found.of(Proof.COLLECTIVES)) == 72 + 18
    assert not found.of(Proof.SUITE) and not found.of(Proof.RAILS)
    assert len(found.of(Proof.DOMAIN)[0].through) == 18


def test_a_cartridge_touches_all_nvlinks_for_nobody_says_which_share_it():
    """More than needed, never less."""
    found = after(NVL72, "swap cable tray01:gpu0.nvlink3")
    assert len([t for t in found.of(Proof.FACTS) if t.evidence.subject.scope is Scope.LINK]) == 18 * 72


@pytest.mark.parametrize(
    ("words", "proofs"),
    [
        ("update driver dgx07", {*Proof} - {Proof.DOMAIN}),
        ("update firmware dgx07:bios", {*Proof} - {Proof.DOMAIN}),
        ("update firmware dgx07:vbios", {*Proof} - {Proof.DOMAIN}),
        ("update firmware dgx07:bmc", {Proof.FACTS, Proof.SUITE}),
        ("update firmware dgx07:mlx5_3", {Proof.FACTS, Proof.RAILS, Proof.LEAF, Proof.UNIT}),
        ("update firmware leaf2", {Proof.FACTS, Proof.RAILS, Proof.LEAF, Proof.UNIT}),
        ("update package kubelet", {Proof.FACTS}),
        ("update package doca-ofed", {Proof.FACTS, Proof.RAILS, Proof.LEAF, Proof.UNIT}),
        ("update package nccl-tests", {Proof.COLLECTIVES, Proof.RAILS, Proof.LEAF, Proof.UNIT}),
        ("update package datacenter-gpu-manager-4-cuda13", {Proof.FACTS, Proof.SUITE}),
        ("update package something-else", {*Proof} - {Proof.DOMAIN}),
        ("update profile", {Proof.FACTS}),
    ],
)
def test_an_update_touches_what_was_measured_with_it(words, proofs):
    """What nobody knows touches everything."""
    assert {t.evidence.proof for t in after(DGX, words).touched} == proofs


def test_a_power_shelf_is_said_to_be_spoken_of_by_no_gate():
    """Nothing to measure is not the same as nothing changed."""
    found = after(NVL72, "swap shelf1")
    assert not found.touched
    assert "no gate speaks of shelf1" in found.remarks[0]


def test_two_changes_give_one_piece_of_evidence_two_reasons():
    """And both nodes are to take part."""
    found = after(DGX, "swap dgx09", "swap cable dgx07:mlx5_3")
    (leaf,) = [t for t in found.of(Proof.LEAF) if t.evidence.subject.node == "leaf2"]
    assert leaf.through == ("dgx07", "dgx09")
    assert len(leaf.why) == 2


@pytest.mark.parametrize(
    ("words", "said", "next_"),
    [
        ("swap dgx7", "has no unit 'dgx7'", "dgx07"),
        ("swap dgx07:gpu8", "dgx07 has no 'gpu8'", "gpu"),
        ("swap leaf2:7", "is swapped as a whole", "swap leaf2"),
        ("swap cable dgx07:mlx5_1", "no cable ends on port 'mlx5_1'", "mlx5_"),
        ("swap cable", "names 0 things", "one change for each"),
        ("move dgx07", "only a cable is moved", "such as"),
        ("update firmware dgx07:psu", "dgx07 has no 'psu'", ""),
        ("update firmware leaf2:7", "is one", "update firmware leaf2"),
        ("update driver leaf2", "leaf2 is a leaf, no node", ""),
        ("update", "is no change", "such as"),
        ("explode dgx07", "is no change", "swap node07"),
        ("swap " + "x" * 300, "is no change", "such as"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_what_would_be_right(words, said, next_):
    """Before anything is planned on it."""
    with pytest.raises(UsageError) as refused:
        parse_change(DGX, words)
    assert said in refused.value.message
    assert next_ in refused.value.hint


def test_facts_that_drifted_become_changes():
    """Each fact its own; the same facts are no change."""
    assert changes_between(DGX, FACTS, FACTS) == ()
    hcas = ("0x02cefe00000007ff", *FACTS.hcas[1:])
    now = replace(
        FACTS, serial="EX2", gpus=("G0", "G9"), hcas=hcas, driver="590",
        firmware=(("bios", "1.1"), ("bmc", "2.1"), ("gpu0 vbios", "97"), ("mlx5_3 firmware", "28.2")),
    )  # fmt: skip
    found = changes_between(DGX, FACTS, now)
    assert [(c.part, c.at) for c in found] == [
        (Part.NODE, ""), (Part.GPU, ""), (Part.HCA, "mlx5_0"), (Part.DRIVER, ""), (Part.NODE, ""), (Part.BMC, ""),
        (Part.GPU, "gpu0"), (Part.HCA, "mlx5_3"),
    ]  # fmt: skip
    assert all(c.unit == "dgx07" for c in found)
    assert "G1 gone" in found[1].words


def test_a_gpu_of_unknown_place_touches_all_of_the_node():
    """A fingerprint says which serials there are, not where."""
    found = touch(DGX, changes_between(DGX, FACTS, replace(FACTS, gpus=("G0", "G9"))))
    assert len(found.of(Proof.SUITE)) == 1 + 8
    assert len(found.of(Proof.RAILS)) == 8


def test_guids_of_no_hca_of_the_rack_file_touch_all_hcas():
    """Nothing says which of them it was."""
    then, now = replace(FACTS, hcas=("0x1",)), replace(FACTS, hcas=("0x2",))
    assert len(changes_between(DGX, then, now)) == 8


@pytest.mark.parametrize(
    ("code", "part", "cause"),
    [
        ("HBM_MISCOMPARE", "gpu 3 S1", Cause.HBM),
        ("ROW_REMAP_FAILED", "GPU 3", Cause.HBM),
        ("HBM_HOT", "cooling of GPU 3", Cause.THERMAL),
        ("RAIL_SLOW", "cable dgx07:mlx5_3 - leaf2:7", Cause.NETWORK),
        ("XID_LOST", "GPU 1", Cause.GPU),
        ("GEMM_WRONG", "gpu", Cause.DATA_CORRUPTION),
        ("SOMETHING_NEW", "GPU 4 (serial unknown)", Cause.GPU),
        ("SOMETHING_NEW", "tray", None),
        ("DRIVER_VERSION_WRONG", "software", None),
        ("OPERATOR", "", None),
    ],
)
def test_a_finding_counts_towards_the_published_cause_it_is_of(code, part, cause):
    """Or towards none: a symptom is not made somebody's fault."""
    assert cause_of(code, part) is cause


def test_kinds_of_evidence_are_told_apart_by_what_measures_them():
    """One gate of each kind of the profile."""
    kinds = {gate.metric: proof_of(gate) for gate in (*DGX.profile.gates, *NVL72.profile.gates)}
    assert kinds["driver_version"] is Proof.FACTS
    assert kinds["hbm_miscompares"] is Proof.SUITE
    assert kinds["nccl_busbw_gb_per_s"] is Proof.COLLECTIVES
    assert kinds["rail_busbw_gb_per_s"] is Proof.RAILS
    assert kinds["domain_nccl_all_reduce_busbw_gb_per_s"] is Proof.DOMAIN
    assert kinds["leaf_nccl_all_reduce_busbw_gb_per_s"] is Proof.LEAF
    assert kinds["rack_nccl_all_reduce_busbw_gb_per_s"] is Proof.UNIT
