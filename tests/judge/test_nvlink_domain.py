"""The NVLink verdict on domains: what each GPU says of its fabric, by mode, and whether all are one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nvlink_racks import (
    LOCAL,
    MEMBER,
    UUID,
    blocks,
    codes,
    dgx,
    far_port,
    found,
    healthy,
    in_mode,
    nvl72,
    only,
    peer,
    switches,
    trays,
)

from toolkit.judge.nvlink.finding import Blame, Standing
from toolkit.judge.nvlink.seen import ZERO_UUID, FabricBlock, ImexSeen, PartitionSeen
from toolkit.judge.nvlink.verdict import judge_nvlink
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Mode, Partition, Rack

HALVES = (
    Partition("a", tuple(f"tray{n:02d}" for n in range(1, 10))),
    Partition("b", tuple(f"tray{n:02d}" for n in range(10, 19))),
)


@pytest.mark.parametrize(
    "rack",
    [
        nvl72(), in_mode(nvl72(), Mode.MNNVL_DRA), dgx("dgx-h100"), dgx("dgx-h200"), dgx("dgx-b200"),
        in_mode(dgx("dgx-h100"), Mode.PCIE),
    ],
    ids=lambda rack: str(rack.profile.mode),
)  # fmt: skip
def test_a_healthy_rack_of_every_mode_passes(rack: Rack) -> None:
    """All GPUs, all links, and nothing found."""
    report = judge_nvlink(rack, healthy(rack))
    assert (report.answer, report.findings) == (Answer.PASS, ())
    assert report.gpus_seen == report.gpus_planned == len(rack.nodes) * rack.profile.gpus_per_node
    assert not report.holding


def test_an_nvl72_rack_is_one_domain_of_72_gpus_and_1296_links_seen_from_both_ends() -> None:
    """The figures an operator compares with the data sheet."""
    report = judge_nvlink(nvl72(), healthy(nvl72()))
    assert report.domains == ((f"{UUID}.32766", 72),)
    assert (report.links_planned, report.links_up, report.links_joined) == (1296, 1296, 1296)


@pytest.mark.parametrize(
    ("block", "code", "standing", "blame"),
    [
        (replace(MEMBER, cluster=ZERO_UUID), "FABRIC_UUID_ZERO", Standing.FAIL, Blame.SOFTWARE),
        (replace(MEMBER, cluster=None), "FABRIC_UUID_ZERO", Standing.FAIL, Blame.SOFTWARE),
        (replace(MEMBER, clique="0"), "FABRIC_CLIQUE_ZERO", Standing.FAIL, Blame.SOFTWARE),
        (replace(MEMBER, clique=None), "FABRIC_CLIQUE_ZERO", Standing.FAIL, Blame.SOFTWARE),
        (replace(MEMBER, status="Insufficient Resources"), "FABRIC_INSUFFICIENT_RESOURCES", Standing.FAIL,
         Blame.SOFTWARE),
        (replace(MEMBER, status="Unknown Failure"), "FABRIC_REFUSED", Standing.FAIL, Blame.SYMPTOM),
        (replace(MEMBER, bandwidth="Degraded"), "FABRIC_BANDWIDTH_DEGRADED", Standing.FAIL, Blame.SYMPTOM),
        (replace(MEMBER, route_unhealthy="True"), "FABRIC_ROUTE_UNHEALTHY", Standing.FAIL, Blame.SYMPTOM),
        (replace(MEMBER, summary="Limited Capacity"), "FABRIC_UNHEALTHY", Standing.FAIL, Blame.SYMPTOM),
        (replace(MEMBER, configuration="Incorrect Chassis SN"), "FABRIC_MISCONFIGURED", Standing.FAIL,
         Blame.SOFTWARE),
        (replace(MEMBER, state="In Progress"), "FABRIC_IN_PROGRESS", Standing.HOLD, Blame.SYMPTOM),
        (replace(MEMBER, state="Not Started"), "FABRIC_NOT_STARTED", Standing.HOLD, Blame.SYMPTOM),
        (replace(MEMBER, route_recovery="True"), "FABRIC_ROUTE_RECOVERY", Standing.HOLD, Blame.SYMPTOM),
        (replace(MEMBER, access_timeout="True"), "FABRIC_ACCESS_TIMEOUT", Standing.HOLD, Blame.SYMPTOM),
        (replace(MEMBER, state="Not Supported"), "MODE_CONTRADICTED", Standing.FAIL, Blame.SOFTWARE),
        (replace(MEMBER, state="Odd"), "FABRIC_NOT_COMPLETED", Standing.FAIL, Blame.SYMPTOM),
        (replace(MEMBER, state=None), "FABRIC_UNREADABLE", Standing.UNKNOWN, Blame.EVIDENCE),
        (replace(MEMBER, status=None), "FABRIC_UNREADABLE", Standing.UNKNOWN, Blame.EVIDENCE),
        (replace(MEMBER, bandwidth=None), "FABRIC_HEALTH_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE),
        (replace(MEMBER, route_unhealthy=None), "FABRIC_HEALTH_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", [Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA])
def test_one_gpu_of_72_decides_by_the_table_of_nvl72(
    mode: Mode, block: FabricBlock, code: str, standing: Standing, blame: Blame
) -> None:
    """Any GPU, not only the first: tray11's third. What may still come up holds; what is not said is no verdict."""
    rack = in_mode(nvl72(), mode)
    look = blocks(healthy(rack), block, ("tray11", 2))
    finding = only(judge_nvlink(rack, look, final=False))
    assert (finding.code, finding.standing, finding.blame) == (code, standing, blame)
    assert finding.nodes == ("tray11",)
    assert finding.evidence == ("tray11 gpu2",)
    assert finding.settled_by
    assert judge_nvlink(rack, look, final=False).holding is (standing is Standing.HOLD)
    last = judge_nvlink(rack, look).answer
    assert last is (Answer.INCONCLUSIVE if standing is Standing.UNKNOWN else Answer.FAIL)


@pytest.mark.parametrize("profile", ["dgx-h100", "dgx-b200"])
@pytest.mark.parametrize(
    ("block", "code", "standing"),
    [
        (replace(LOCAL, state="In Progress"), "FABRIC_IN_PROGRESS", Standing.HOLD),
        (replace(LOCAL, state="Not Started"), "FABRIC_NOT_COMPLETED", Standing.FAIL),
        (replace(LOCAL, status="Insufficient Resources"), "FABRIC_INSUFFICIENT_RESOURCES", Standing.FAIL),
        (replace(LOCAL, cluster=UUID), "MODE_CONTRADICTED", Standing.FAIL),
        (replace(LOCAL, bandwidth="Degraded"), "FABRIC_BANDWIDTH_DEGRADED", Standing.FAIL),
        (FabricBlock(), "FABRIC_UNREADABLE", Standing.UNKNOWN),
    ],
)
def test_one_gpu_decides_by_the_table_of_nodes_with_their_own_switches(
    profile: str, block: FabricBlock, code: str, standing: Standing
) -> None:
    """Here a zero UUID, clique 0 and a health of N/A are healthy, and a UUID is another machine's."""
    rack = dgx(profile)
    node = rack.nodes[1].name
    finding = only(judge_nvlink(rack, blocks(healthy(rack), block, (node, 7)), final=False))
    assert (finding.code, finding.standing, finding.nodes) == (code, standing, (node,))


def test_a_fabric_on_a_machine_without_one_contradicts_the_mode() -> None:
    """`pcie`: Not Supported and N/A are healthy, In Progress is a machine that somebody mistook."""
    rack = in_mode(dgx("dgx-h100"), Mode.PCIE)
    look = healthy(rack)
    assert judge_nvlink(rack, blocks(look, FabricBlock())).answer is Answer.PASS
    assert found(judge_nvlink(rack, blocks(look, replace(LOCAL, state="In Progress")))) == ["MODE_CONTRADICTED"]


def test_equal_signs_of_many_gpus_are_one_finding() -> None:
    """72 GPUs in progress are one line that names how many, not 72 lines."""
    look = blocks(healthy(nvl72()), replace(MEMBER, state="In Progress"))
    finding = only(judge_nvlink(nvl72(), look, final=False))
    assert finding.text == "72 GPUs of tray01, tray02, tray03, tray04 and 14 more: the fabric is In Progress"
    assert len(finding.nodes) == 18


def test_what_holds_fails_at_the_deadline_and_says_so() -> None:
    """HOLD is never the last word."""
    look = blocks(healthy(nvl72()), replace(MEMBER, state="In Progress"), ("tray02", 0))
    finding = only(judge_nvlink(nvl72(), look))
    assert finding.standing is Standing.FAIL
    assert "did not come up by itself" in finding.text


@pytest.mark.parametrize("gpus", [None, ()])
def test_no_block_at_all_is_no_verdict_and_never_a_pass(gpus: tuple[()] | None) -> None:
    """Output absent, zero blocks parsed, a command that timed out."""
    look = trays(healthy(nvl72()), lambda t: replace(t, gpus=gpus, problems=("gpus: timed out",)), "tray03")
    report = judge_nvlink(nvl72(), look)
    assert report.answer is Answer.INCONCLUSIVE
    assert "FABRIC_UNREADABLE" in found(report)
    assert "gpus: timed out" in report.findings[0].text


def test_a_gpu_that_is_missing_is_a_gpu_to_find() -> None:
    """71 of 72: the node answered, and one of its GPUs did not. Its links are not blamed on a cartridge."""
    look = trays(healthy(nvl72()), lambda t: replace(t, gpus=(t.gpus or ())[:3]), "tray07")
    for link in range(18):
        unit, port = far_port(nvl72(), "tray07", 3, link)
        look = codes(look, unit, [port], 2, "Negotiation failure")
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.blame, finding.nodes) == ("GPU_MISSING", Blame.GPU, ("tray07",))
    assert "3 of 4 GPUs answer" in finding.text


def test_two_uuids_in_one_rack_fail_the_whole_rack_and_name_the_odd_tray() -> None:
    """One tray in another domain: nobody's domain is whole."""
    other = replace(MEMBER, cluster="11111111-2222-3333-4444-555555555555")
    look = blocks(healthy(nvl72()), other, *(("tray09", gpu) for gpu in range(4)))
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.nodes, finding.blame) == ("FABRIC_TWO_DOMAINS", (), Blame.SOFTWARE)
    assert "tray09 apart from the others" in finding.text


def test_a_clique_within_a_tray_that_differs_is_named_by_gpu() -> None:
    """One GPU of tray05 in another partition."""
    look = blocks(healthy(nvl72()), replace(MEMBER, clique="2"), ("tray05", 3))
    finding = only(judge_nvlink(nvl72(), look))
    assert finding.code == "FABRIC_CLIQUES_DIFFER"
    assert "tray05 gpu3" in finding.text


def test_planned_partitions_have_a_clique_each() -> None:
    """Two cliques in a rack are right where the plan has two, and wrong where it has one."""
    rack = replace(nvl72(), partitions=HALVES)
    look = blocks(
        healthy(rack), replace(MEMBER, clique="2"), *((node, gpu) for node in HALVES[1].nodes for gpu in range(4))
    )
    hosts = {node.name: node.host.address for node in rack.nodes if node.host}
    for half in HALVES:
        addresses = [hosts[name] for name in half.nodes]
        domain = ImexSeen("UP", tuple(peer(a, addresses) for a in addresses))
        look = trays(look, lambda t, d=domain, h=half: replace(t, imex=d, nodes_sha256=h.name * 64), *half.nodes)
    two = tuple(PartitionSeen(str(n), name, 36, "healthy") for n, name in enumerate("ab", 1))
    look = switches(look, lambda s: replace(s, partitions=two), "nvswitch1")
    assert judge_nvlink(rack, look).answer is Answer.PASS
    assert "FABRIC_CLIQUES_DIFFER" in found(judge_nvlink(nvl72(), look))
    assert "FABRIC_PARTITIONS_MERGED" in found(judge_nvlink(rack, blocks(look, MEMBER)))


def test_a_tray_that_nobody_looked_at_leaves_the_domain_unproven() -> None:
    """17 healthy trays of 18 are no NVLink domain."""
    look = healthy(nvl72())
    report = judge_nvlink(nvl72(), replace(look, trays=look.trays[:17]))
    assert (report.answer, found(report)) == (Answer.INCONCLUSIVE, ["RACK_INCOMPLETE"])
    rack = dgx("dgx-h100")
    assert judge_nvlink(rack, replace(healthy(rack), trays=healthy(rack).trays[:1])).answer is Answer.PASS


@pytest.mark.parametrize("field", ["driver", "gpus", "services", "imex", "nodes_sha256"])
def test_a_tray_of_which_anything_needed_was_not_read_never_passes(field: str) -> None:
    """Taking evidence away from a healthy rack leaves it undecided, whatever is taken."""
    look = trays(healthy(nvl72()), lambda t: replace(t, **{field: None}), "tray16")
    assert judge_nvlink(nvl72(), look).answer is Answer.INCONCLUSIVE


def test_a_block_of_which_anything_needed_was_not_said_never_passes() -> None:
    """State, status, clique, cluster, bandwidth, route: each alone."""
    for field in ("state", "status", "clique", "cluster", "bandwidth", "route_unhealthy"):
        look = blocks(healthy(nvl72()), replace(MEMBER, **{field: None}), ("tray18", 3))
        assert judge_nvlink(nvl72(), look).answer is not Answer.PASS, field
