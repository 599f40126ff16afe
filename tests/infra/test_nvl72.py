"""NVL72: the NVLink domain is judged over all trays and switch trays together."""

import re
from dataclasses import replace

import pytest
from rehearsal import context_over, folder, open_ledger

from tests.infra.matrix import expected, row
from tests.infra.sessions import Lab, run
from toolkit.errors import UnreachableError
from toolkit.rack.loading import load_rack
from toolkit.redfish import Power
from toolkit.settings import load
from toolkit.stages.hands import make_keys
from toolkit.stages.nvlink_control import bring_up
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.switches import faults_of

RACK = "gb200-nvl72"
TRAYS = 4
MODULES = ("toolkit.infra.test_fabric", "toolkit.infra.test_services")


def small(text):
    """The rack file with four trays."""
    text = re.sub(r"(?ms)^  - \{name: tray(0[5-9]|1\d),.*?(?=^  - |^\S)", "", text)
    text = text.replace("tray[01-18]", f"tray[01-0{TRAYS}]")
    text = text.replace("acp[1-72]", f"acp[1-{4 * TRAYS}]").replace("acp[73-144]", f"acp[73-{72 + 4 * TRAYS}]")
    return text.replace("provision:", "partial: true\nprovision:")


class Nvl72(Lab):
    """The rack of files, with switch trays that may not answer."""

    mute = ""

    def nvue(self, tray):
        if tray.name == self.mute:
            raise UnreachableError(f"NVUE of {tray.name} does not answer", "check its power and address")
        return super().nvue(tray)


@pytest.fixture(scope="module")
def brought(tmp_path_factory):
    """Four trays, the control plane up."""
    with folder(tmp_path_factory.mktemp("nvl72") / "folder") as made:
        shipped = load({}).inventory
        inventory = made / "inventory"
        (inventory / "racks").mkdir(parents=True)
        for name in ("profiles", "group_vars", "skus.yml"):
            (inventory / name).symlink_to(shipped / name)
        (inventory / f"racks/{RACK}.yml").write_text(small((shipped / f"racks/{RACK}.yml").read_text()))
        settings = load({"RACKPROOF_HOME": str(made / "home"), "RACKPROOF_INVENTORY": str(inventory)})
        rack = load_rack(RACK, inventory)
        assert len(rack.nodes) == TRAYS
        make_keys(settings)
        lab = Nvl72(rack, settings, made / "machines")
        for node in rack.nodes:
            with lab.changing(node.name) as machine:
                machine.power, machine.image = Power.ON.value, "image"
        with open_ledger(settings) as ledger:
            assert bring_up(replace(context_over(lab, ledger), sleep=lambda _: None)) is None
        yield lab


@pytest.fixture
def nvl72(brought):
    """The same rack, whole again after the test."""
    yield brought
    brought.nvos.replace(())
    brought.mute = ""
    brought.faults.clear()
    brought.imex_shut.clear()


def broken(nvl72, *faults):
    """The switch trays with these faults, their memory as it was."""
    for fault in faults_of(nvl72.rack, faults):
        nvl72.nvos.set(fault)
    return faults


FAULTS = (
    Fault(FaultKind.NVLINK_LANE_DOWN, "tray02", gpu=1, link=7),
    Fault(FaultKind.NVLINK_PORT, "nvswitch3", hca="acp1"),
    Fault(FaultKind.NMX_APP_FAILED, "nvswitch1"),
    Fault(FaultKind.SECOND_CLUSTER, "nvswitch2"),
    Fault(FaultKind.SHORT_PARTITION, "nvswitch1"),
)


def test_a_healthy_domain_is_all_green(nvl72):
    """All trays and switch trays are one domain."""
    seen = run(nvl72, what=MODULES)
    assert seen.red() == {}, seen.output
    assert len(seen.of(".")) > 60


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_turns_exactly_these_tests_red(nvl72, fault):
    """The row of matrix.txt, letter by letter."""
    what = f"{fault} on {fault.node}"
    seen = run(nvl72, what=MODULES, faults=broken(nvl72, fault))
    assert row(what, seen.red()) == expected(what)


def test_a_shut_imex_port_is_seen_by_every_tray(nvl72):
    """The row of matrix.txt, letter by letter."""
    nvl72.imex_shut.add("tray03")
    seen = run(nvl72, what=MODULES)
    assert row("imex port of tray03 shut", seen.red()) == expected("imex port of tray03 shut")


def test_a_switch_tray_that_does_not_answer_leaves_the_domain_undecided(nvl72):
    """The row of matrix.txt, letter by letter: nothing fails, and nothing of the domain is green."""
    nvl72.mute = "nvswitch4"
    seen = run(nvl72, what=MODULES)
    assert row("nvue of nvswitch4 mute", seen.red()) == expected("nvue of nvswitch4 mute")
