"""The NVLink verdict on services: who must run on a node, and who must not, by mode."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nvlink_racks import ABSENT, MASKED, RUNS, STOPPED, dgx, found, healthy, in_mode, nvl72, only, service, trays

from toolkit.judge.nvlink.finding import Blame
from toolkit.judge.nvlink.seen import ServiceSeen
from toolkit.judge.nvlink.services import IMEX, MANAGER
from toolkit.judge.nvlink.verdict import judge_nvlink
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Mode


@pytest.mark.parametrize(
    ("mode", "name", "state", "code"),
    [
        (Mode.MNNVL_HOST_IMEX, MANAGER, RUNS, "FABRIC_MANAGER_PRESENT"),
        (Mode.MNNVL_HOST_IMEX, MANAGER, STOPPED, "FABRIC_MANAGER_NOT_MASKED"),
        (Mode.MNNVL_HOST_IMEX, IMEX, STOPPED, "IMEX_DOWN"),
        (Mode.MNNVL_HOST_IMEX, IMEX, ABSENT, "IMEX_DOWN"),
        (Mode.MNNVL_HOST_IMEX, IMEX, MASKED, "IMEX_DOWN"),
        (Mode.MNNVL_DRA, IMEX, RUNS, "IMEX_PRESENT"),
        (Mode.MNNVL_DRA, IMEX, STOPPED, "IMEX_NOT_MASKED"),
        (Mode.MNNVL_DRA, MANAGER, RUNS, "FABRIC_MANAGER_PRESENT"),
    ],
)
def test_a_service_against_the_mode_of_an_nvl72_rack_is_configuration(
    mode: Mode, name: str, state: ServiceSeen, code: str
) -> None:
    """Each with the fix; no part is blamed."""
    rack = in_mode(nvl72(), mode)
    look = trays(healthy(rack), service(name, state), "tray04")
    finding = next(f for f in judge_nvlink(rack, look).findings if f.code == code)
    assert (finding.blame, finding.nodes, finding.part) == (Blame.SOFTWARE, ("tray04",), "")
    assert "systemctl" in finding.settled_by or "journalctl" in finding.settled_by


@pytest.mark.parametrize("state", [MASKED, ABSENT])
def test_masked_and_absent_are_both_out_of_the_way(state: ServiceSeen) -> None:
    """On NVL72 the fabric manager is masked or not installed."""
    look = trays(healthy(nvl72()), service(MANAGER, state))
    assert judge_nvlink(nvl72(), look).answer is Answer.PASS


@pytest.mark.parametrize(
    ("name", "state", "code"),
    [(MANAGER, STOPPED, "FABRIC_MANAGER_DOWN"), (MANAGER, ABSENT, "FABRIC_MANAGER_DOWN"), (IMEX, RUNS, "IMEX_PRESENT")],
)
def test_a_service_against_the_mode_of_a_single_node_is_configuration(name: str, state: ServiceSeen, code: str) -> None:
    """An HGX node runs the fabric manager and no IMEX."""
    rack = dgx("dgx-h100")
    finding = only(judge_nvlink(rack, trays(healthy(rack), service(name, state), rack.nodes[0].name)))
    assert (finding.code, finding.blame) == (code, Blame.SOFTWARE)


def test_nvlink5_nodes_need_nvlsm_and_its_modules() -> None:
    """Without them the fabric manager takes the wrong path, and the fabric stays In Progress for ever."""
    rack = dgx("dgx-b200")
    node = rack.nodes[0].name
    look = trays(healthy(rack), lambda t: replace(t, modules=frozenset({"mlx5_ib"}), packages=frozenset()), node)
    report = judge_nvlink(rack, look)
    assert found(report) == ["NVLSM_MODULES_MISSING", "NVLSM_MISSING"]
    assert "modprobe ib_umad" in report.findings[0].settled_by
    unread = trays(healthy(rack), lambda t: replace(t, modules=None), node)
    assert judge_nvlink(rack, unread).answer is Answer.INCONCLUSIVE
    h100 = dgx("dgx-h100")
    without = trays(healthy(h100), lambda t: replace(t, modules=frozenset(), packages=frozenset()))
    assert judge_nvlink(h100, without).answer is Answer.PASS


def test_a_manager_of_another_version_names_the_pin() -> None:
    """The service aborts by itself; the finding says which pin to fix."""
    rack = dgx("dgx-h100")
    look = trays(healthy(rack), lambda t: replace(t, manager="580.82.07"), rack.nodes[0].name)
    finding = only(judge_nvlink(rack, look))
    assert finding.code == "FABRIC_MANAGER_SKEW"
    assert "pin nvidia-fabricmanager to 580.95.05" in finding.settled_by


def test_services_that_were_not_read_are_no_pass() -> None:
    """Neither all of them nor one."""
    look = trays(healthy(nvl72()), lambda t: replace(t, services=None), "tray01")
    assert judge_nvlink(nvl72(), look).answer is Answer.INCONCLUSIVE
    look = trays(healthy(nvl72()), lambda t: replace(t, services=((IMEX, RUNS),)), "tray01")
    assert judge_nvlink(nvl72(), look).answer is Answer.INCONCLUSIVE


def test_lines_of_the_managers_log_are_findings_and_nothing_to_do_is_none() -> None:
    """A missing NVSwitch is a board; too old a path is a module."""
    rack = dgx("dgx-b200")
    node = rack.nodes[0].name
    lines = (("FM_TOPOLOGY_UNKNOWN", "detected number of ..."), ("FM_NOTHING_TO_DO", "NV_WARN_NOTHING_TO_DO"))
    finding = only(judge_nvlink(rack, trays(healthy(rack), lambda t: replace(t, manager_log=lines), node)))
    assert (finding.code, finding.blame, finding.evidence) == (
        "FM_TOPOLOGY_UNKNOWN", Blame.TRAY, ("detected number of ...",),
    )  # fmt: skip
