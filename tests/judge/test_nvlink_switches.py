"""The NVLink verdict on the switch side: cluster, applications, partitions, switch trays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nvlink_racks import cluster, found, healthy, nvl72, only, switches

from toolkit.judge.nvlink.finding import Blame
from toolkit.judge.nvlink.seen import AppSeen, ClusterState, PartitionSeen, SwitchSeen
from toolkit.judge.nvlink.verdict import NvlinkReport, judge_nvlink
from toolkit.judge.verdict import Answer


def test_the_cluster_is_enabled_on_exactly_one_tray() -> None:
    """None and two are both configuration, for the whole rack."""
    look = healthy(nvl72())
    off = judge_nvlink(nvl72(), switches(look, cluster(ClusterState.DISABLED, "n/a"), "nvswitch1"))
    twice = judge_nvlink(nvl72(), switches(look, cluster(ClusterState.ENABLED), "nvswitch5"))
    assert (found(off), only(off).nodes) == (["NMX_CLUSTER_OFF"], ())
    assert found(twice) == ["NMX_CLUSTER_TWICE"]
    assert "nvswitch1, nvswitch5" in only(twice).text


@pytest.mark.parametrize(
    ("app", "code", "holds"),
    [
        (AppSeen("nmx-controller", "ok", "", "Chassis mapping is missing"), "CHASSIS_MAPPING_MISSING", False),
        (AppSeen("nmx-controller", "not ok", "GFM: UNCONFIGURED", ""), "NMX_APP_NOT_OK", True),
        (AppSeen("something-else", "ok"), "NMX_APP_MISSING", True),
    ],
)
def test_applications_that_are_not_ok_are_configuration(app: AppSeen, code: str, holds: bool) -> None:
    """Applications take seconds to start: that holds. A missing chassis mapping does not mend itself."""
    telemetry = AppSeen("nmx-telemetry", "ok")
    look = switches(healthy(nvl72()), lambda s: replace(s, apps=(app, telemetry)), "nvswitch1")
    report = judge_nvlink(nvl72(), look, final=False)
    assert (found(report), report.holding) == ([code], holds)
    assert judge_nvlink(nvl72(), look).answer is Answer.FAIL


def test_a_partition_of_fewer_gpus_and_an_unhealthy_one_fail() -> None:
    """Planned against seen, and the health that the controller states."""
    look = healthy(nvl72())

    def partition(*parts: PartitionSeen) -> NvlinkReport:
        return judge_nvlink(nvl72(), switches(look, lambda s: replace(s, partitions=parts), "nvswitch1"))

    short = partition(PartitionSeen("1", "a", 71, "degraded"))
    assert set(found(short)) == {"NMX_PARTITION_WRONG", "NMX_PARTITION_DEGRADED"}
    assert found(partition(PartitionSeen("1", "a", 72, "unhealthy"))) == ["NMX_PARTITION_UNHEALTHY"]
    asking = PartitionSeen("1", "a", 72, "healthy", "user_action_required")
    assert found(partition(asking)) == ["NMX_PARTITION_UNHEALTHY"]


def test_a_tray_that_cannot_be_read_leaves_the_verdict_open() -> None:
    """NVUE answered 401: eight healthy trays do not speak for it."""

    def unread(switch: SwitchSeen) -> SwitchSeen:
        return SwitchSeen(switch.unit, problems=("NVUE of nvswitch6: HTTP 401",))

    report = judge_nvlink(nvl72(), switches(healthy(nvl72()), unread, "nvswitch6"))
    assert (report.answer, found(report)) == (Answer.INCONCLUSIVE, ["SWITCH_UNREAD"])
    assert report.links_joined == 1296 - 144


def test_an_unhealthy_switch_tray_and_another_firmware_are_told() -> None:
    """One is a part, the other a release."""
    look = switches(
        healthy(nvl72()), lambda s: replace(s, healthy=False, issues=(("FAN2/1", "out of range"),)), "nvswitch3"
    )
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.blame, "FAN2/1: out of range" in finding.part) == (Blame.SWITCH_TRAY, True)
    look = switches(healthy(nvl72()), lambda s: replace(s, firmware=(("ASIC", "35.1"),)), "nvswitch4")
    assert found(judge_nvlink(nvl72(), look)) == ["SWITCH_FIRMWARE_SKEW"]


def test_a_switch_side_that_nobody_planned_to_read_is_a_note() -> None:
    """The rack file gives no access: links are judged by the GPUs' ends, and the report says so."""
    look = replace(healthy(nvl72()), switches=None)
    report = judge_nvlink(nvl72(), look)
    assert report.answer is Answer.PASS
    assert report.links_joined == 0
    assert "9 of 9 switch trays was not looked at" in report.notes[0]


@pytest.mark.parametrize("field", ["healthy", "cluster", "apps", "partitions", "ports", "firmware"])
@pytest.mark.parametrize("unit", ["nvswitch1", "nvswitch6"])
def test_a_switch_tray_of_which_anything_was_not_read_never_passes(unit: str, field: str) -> None:
    """A read that failed is a problem in words, and a problem is no pass."""
    look = switches(healthy(nvl72()), lambda s: replace(s, **{field: None}, problems=("NVUE: HTTP 500",)), unit)
    assert judge_nvlink(nvl72(), look).answer is not Answer.PASS
