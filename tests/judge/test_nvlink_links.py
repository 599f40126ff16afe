"""The NVLink verdict on links: both ends before a part is blamed, and the work order of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nvlink_racks import (
    STOPPED,
    cluster,
    codes,
    dgx,
    far_port,
    found,
    healthy,
    nvl72,
    only,
    rates,
    service,
    switches,
    trays,
)

from toolkit.judge.fabric.line import Action
from toolkit.judge.nvlink.codes import LinkTrouble, trouble_of
from toolkit.judge.nvlink.finding import Blame
from toolkit.judge.nvlink.seen import ClusterState, NvlinkSeen, TraySeen
from toolkit.judge.nvlink.services import MANAGER
from toolkit.judge.nvlink.verdict import judge_nvlink
from toolkit.judge.nvlink.work import work_lines
from toolkit.judge.verdict import Answer


def broken(look: NvlinkSeen, node: str, gpu: int, link: int, *, near: bool = True, code: int | None = 2) -> NvlinkSeen:
    """The look with one link down at its near end, its far end, or both."""
    if near:
        look = rates(look, node, gpu, [link])
    if code is not None:
        unit, port = far_port(nvl72(), node, gpu, link)
        look = codes(look, unit, [port], code, "Negotiation failure")
    return look


def test_both_ends_down_is_the_cartridge_between() -> None:
    """Both ends and both units are named, with their slots."""
    finding = only(judge_nvlink(nvl72(), broken(healthy(nvl72()), "tray05", 2, 7)))
    assert (finding.code, finding.blame, finding.nodes) == ("NVLINK_CABLE", Blame.CARTRIDGE, ("tray05",))
    assert [str(end) for end in finding.ends] == ["tray05:gpu2.nvlink7", "nvswitch4:acp91"]
    assert "node tray05 (slot 9" in finding.part
    assert "nvlink switch nvswitch4 (slot 16" in finding.part


def test_one_end_alone_is_that_ends_part_with_what_settles_it() -> None:
    """The GPU's end down and the switch's up, and the other way round."""
    near = only(judge_nvlink(nvl72(), broken(healthy(nvl72()), "tray05", 2, 7, code=None)))
    assert (near.code, near.blame) == ("NVLINK_GPU_PORT", Blame.TRAY)
    assert "reset the GPU once" in near.settled_by
    far = only(judge_nvlink(nvl72(), broken(healthy(nvl72()), "tray05", 2, 7, near=False, code=1024)))
    assert (far.code, far.blame) == ("NVLINK_SWITCH_PORT", Blame.SWITCH_TRAY)
    assert "acp91" in far.settled_by


def test_an_end_that_nobody_saw_blames_no_single_part() -> None:
    """The work begins with reading the other end."""
    look = replace(broken(healthy(nvl72()), "tray05", 2, 7, code=None), switches=None)
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, "only one end was seen" in finding.part) == ("NVLINK_LINK_DOWN", True)
    assert "link-diagnostics" in finding.settled_by


def test_all_links_of_a_gpu_are_the_gpu() -> None:
    """18 links, one finding."""
    look = healthy(nvl72())
    for link in range(18):
        look = broken(look, "tray05", 2, link)
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.blame, finding.nodes) == ("NVLINK_GPU_DOWN", Blame.GPU, ("tray05",))
    assert finding.part.startswith("GPU 2 of node tray05")


def test_all_gpus_of_a_tray_are_the_tray() -> None:
    """`Unable to retrieve NVLink information as all links are inactive`, four times."""

    def inactive(tray: TraySeen) -> TraySeen:
        return replace(tray, gpus=tuple(replace(g, all_inactive=True, rates=()) for g in tray.gpus or ()))

    finding = only(judge_nvlink(nvl72(), trays(healthy(nvl72()), inactive, "tray05")))
    assert (finding.code, finding.blame, finding.nodes) == ("NVLINK_TRAY_DOWN", Blame.TRAY, ("tray05",))


def test_all_links_on_one_chip_are_the_switch_tray() -> None:
    """Link 7 of all 72 GPUs: one finding, for the whole rack."""
    look = healthy(nvl72())
    for node in nvl72().nodes:
        for gpu in range(4):
            look = rates(look, node.name, gpu, [7])
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.blame, finding.nodes) == ("NVLINK_CHIP_DOWN", Blame.SWITCH_TRAY, ())
    assert finding.part.startswith("nvlink switch nvswitch4")


def test_both_chips_are_the_switch_tray_once() -> None:
    """Not two chips beside it."""
    look = healthy(nvl72())
    for node in nvl72().nodes:
        for gpu in range(4):
            look = rates(look, node.name, gpu, [6, 7])
    assert found(judge_nvlink(nvl72(), look)) == ["NVLINK_SWITCH_DOWN"]


def test_a_tray_and_a_switch_tray_are_two_findings() -> None:
    """What they share is counted once."""
    look = healthy(nvl72())
    for node in nvl72().nodes:
        for gpu in range(4):
            look = rates(look, node.name, gpu, range(18) if node.name == "tray03" else [6, 7])
    assert found(judge_nvlink(nvl72(), look)) == ["NVLINK_SWITCH_DOWN", "NVLINK_TRAY_DOWN"]


def test_several_links_of_one_cartridge_are_one_line() -> None:
    """Links 6 and 7 of two GPUs of tray05 go to nvswitch4."""
    look = healthy(nvl72())
    for gpu, link in ((0, 6), (0, 7), (1, 6)):
        look = broken(look, "tray05", gpu, link)
    finding = only(judge_nvlink(nvl72(), look))
    assert finding.code == "NVLINK_CABLE"
    assert len(finding.ends) == 6


def test_a_link_below_its_rate_is_slow_and_named_with_its_figure() -> None:
    """Half of 53.125 GB/s against the 50 that are sold."""
    look = rates(healthy(nvl72()), "tray05", 2, [7], 26.5625)
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.blame) == ("NVLINK_SLOW", Blame.CARTRIDGE)
    assert "26.5625 GB/s, at least 50 expected" in finding.evidence[0]


@pytest.mark.parametrize(
    ("code", "expected", "holds"),
    [
        (1, ("NVLINK_PORT_CLOSED", Blame.SOFTWARE), False),
        (128, ("NVLINK_PORT_PENDING", Blame.SYMPTOM), True),
        (18, ("NVLINK_SWITCH_PORT", Blame.SWITCH_TRAY), False),
        (1024, ("NVLINK_CABLE", Blame.CARTRIDGE), False),
        (2, ("NVLINK_CABLE", Blame.CARTRIDGE), False),
        (15, ("NVLINK_CABLE", Blame.CARTRIDGE), False),
    ],
)
def test_the_code_of_the_port_is_read(code: int, expected: tuple[str, Blame], holds: bool) -> None:
    """A port that was closed is opened, not pulled; an internal error is the switch's."""
    report = judge_nvlink(nvl72(), broken(healthy(nvl72()), "tray05", 2, 7, code=code), final=False)
    finding = only(report)
    assert (finding.code, finding.blame) == expected
    assert report.holding is holds


def test_every_link_down_at_once_is_no_part() -> None:
    """The switches are off, or nobody manages them."""
    look = healthy(nvl72())
    for node in nvl72().nodes:
        for gpu in range(4):
            look = rates(look, node.name, gpu, range(18))
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.blame) == ("NVLINK_ALL_DOWN", Blame.SYMPTOM)


def test_configuration_goes_before_hardware() -> None:
    """While the cluster is off, a link that is down blames no part; the finding says what comes first."""
    look = switches(broken(healthy(nvl72()), "tray05", 2, 7), cluster(ClusterState.DISABLED, "n/a"), "nvswitch1")
    report = judge_nvlink(nvl72(), look)
    assert found(report) == ["NMX_CLUSTER_OFF", "NVLINK_CABLE"]
    assert (report.findings[1].blame, report.findings[1].part) == (Blame.SYMPTOM, "")
    assert "NMX_CLUSTER_OFF first" in report.findings[1].settled_by


def test_links_that_a_gpu_does_not_show_are_unread() -> None:
    """17 of 18 shown: the eighteenth is unknown, not down and not up."""

    def short(tray: TraySeen) -> TraySeen:
        return replace(tray, gpus=tuple(replace(g, rates=(g.rates or ())[:17]) for g in tray.gpus or ()))

    report = judge_nvlink(nvl72(), trays(healthy(nvl72()), short, "tray01"))
    assert (report.answer, found(report)) == (Answer.INCONCLUSIVE, ["NVLINK_UNREAD"])


def test_links_inside_a_node_are_judged_from_the_gpus_end() -> None:
    """One link of a GPU, all of a GPU, all of a node."""
    rack = dgx("dgx-h100")
    node = rack.nodes[0].name
    one = only(judge_nvlink(rack, rates(healthy(rack), node, 3, [11])))
    assert (one.code, one.blame, one.part[:5]) == ("NVLINK_LINK_DOWN", Blame.GPU, "GPU 3")
    whole = only(judge_nvlink(rack, rates(healthy(rack), node, 3, range(18))))
    assert whole.code == "NVLINK_GPU_DOWN"
    look = healthy(rack)
    for gpu in range(8):
        look = rates(look, node, gpu, range(18))
    assert only(judge_nvlink(rack, look)).code == "NVLINK_TRAY_DOWN"


def test_a_node_is_told_its_own_findings_and_the_racks() -> None:
    """Not those of another tray."""
    look = broken(healthy(nvl72()), "tray05", 2, 7)
    report = judge_nvlink(nvl72(), look)
    assert report.of("tray05")
    assert report.of("tray06") == ()


def test_findings_are_lines_of_the_work_order() -> None:
    """Configuration is nobody's walk; a cartridge is reseated at the tray's slot."""
    look = broken(healthy(nvl72()), "tray05", 2, 7)
    look = trays(look, service(MANAGER, STOPPED), "tray06")
    fix, reseat = work_lines(nvl72(), judge_nvlink(nvl72(), look))
    assert (fix.action, fix.place, fix.answer) == (Action.CONFIGURE, None, Answer.FAIL)
    assert (reseat.action, reseat.part, reseat.place and reseat.place.unit) == (Action.RESEAT, "cartridge", "tray05")
    assert [(end.unit, end.port, end.slot) for end in reseat.ends] == [
        ("tray05", "gpu2.nvlink7", 9), ("nvswitch4", "acp91", 16),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        (0, LinkTrouble.NONE), (1, LinkTrouble.CLOSED), (2, LinkTrouble.NEGOTIATION), (8, LinkTrouble.NEGOTIATION),
        (9, LinkTrouble.MISMATCH), (15, LinkTrouble.SIGNAL), (34, LinkTrouble.SPEED), (50, LinkTrouble.INTERNAL),
        (60, LinkTrouble.NEGOTIATION), (128, LinkTrouble.PENDING), (1023, LinkTrouble.UNKNOWN),
        (1024, LinkTrouble.UNPLUGGED), (777, LinkTrouble.UNKNOWN),
    ],
)  # fmt: skip
def test_codes_speak_of_what_the_manual_says(code: int, trouble: LinkTrouble) -> None:
    """NVOS user manual, link diagnostic per port."""
    assert trouble_of(code) is trouble
