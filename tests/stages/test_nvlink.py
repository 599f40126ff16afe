"""The stage nvlink on racks of files: the control plane, waiting, what fails and what is nobody's fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from rehearsal import context_over, in_process

from toolkit.errors import UsageError
from toolkit.ledger import EventKind, Ledger
from toolkit.nvue import change
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Nvos, Rack, UnitKind
from toolkit.redfish import Power
from toolkit.stages import nvlink
from toolkit.stages.context import Context, Result, Work
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack
from toolkit.virtual.nvos import NvosLag, SwitchFault, SwitchTrouble, VirtualNvos

TRAY = "nvswitch1"


@dataclass
class Bench:
    """A rack of files, switched on, and the stage over it. Its clock moves when somebody sleeps."""

    lab: InProcessRack
    ledger: Ledger
    now: datetime = datetime(2026, 11, 23, 8, tzinfo=UTC)
    ended: dict[str, Result] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def context(self) -> Context:
        """The stage's context."""
        base = context_over(self.lab, self.ledger)
        return replace(
            base, clock=lambda: self.now, sleep=self.sleep, progress=lambda p: self.said.append(f"{p.node} {p.text}")
        )

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)

    def run(self, *names: str) -> dict[str, Result]:
        """Runs the stage on these nodes; on all where none is named."""
        nodes = tuple(n for n in self.lab.rack.nodes if not names or n.name in names)
        runs = {n.name: self.ledger.start_run(self.lab.rack.name, n.name, Stage.NVLINK) for n in nodes}
        self.ended.clear()

        def each(chosen, work):
            for node in chosen:
                result = work(node)
                if result is not None:
                    self.ended[node.name] = result

        nvlink.run(self.context, Work(nodes, runs, self.ended.__setitem__, each))
        return dict(self.ended)

    def intents(self) -> list[str]:
        """What was written ahead of changes to switch trays."""
        events = self.ledger.events(rack=self.lab.rack.name, kind=EventKind.INTENT)
        return [f"{event.what} {event.node}" for event in events]


def with_access(rack: Rack) -> Rack:
    """The rack with NVUE access to its switch trays."""
    units = tuple(
        replace(u, nvos=Nvos(f"10.31.4.{n}", "nvos")) if u.kind is UnitKind.NVLINK_SWITCH else u
        for n, u in enumerate(rack.units)
    )
    return replace(rack, units=units)


def bench_of(tmp_path, name: str, ledger_of, *faults: Fault) -> Bench:
    lab = in_process(tmp_path, name, *faults)
    for node in lab.rack.nodes:
        with lab.changing(node.name) as machine:
            machine.power, machine.image = Power.ON.value, "image"
    return Bench(lab, ledger_of)


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    folder = tmp_path / "home"
    folder.mkdir(exist_ok=True)
    with Ledger.open(
        f"sqlite:///{folder}/ledger.db", folder / "artifacts", "test", lambda: datetime.now(UTC)
    ) as opened:
        yield opened


def across(tmp_path, ledger: Ledger, trays: int) -> Bench:
    """So many trays and 9 switch trays, the cluster off as they are delivered. The switches' clock is the bench's."""
    bench = bench_of(tmp_path, "gb200-nvl72", ledger)
    whole = with_access(bench.lab.rack)
    away = {node.name for node in whole.nodes[trays:]}
    bench.lab.rack = replace(
        whole,
        profile=replace(whole.profile, fabric_wait=timedelta(minutes=2)),
        units=tuple(u for u in whole.units if u.name not in away),
        links=tuple(c for c in whole.links if not {c.a.unit, c.b.unit} & away),
    )
    bench.lab.nvos = VirtualNvos(
        bench.lab.rack,
        NvosLag(0.0, 8.0, 0.0),
        lambda: float(bench.now.timestamp()),
        lambda node: links_down(bench, node),
    )
    return bench


@pytest.fixture
def nvl72(tmp_path, ledger) -> Bench:
    """A whole rack: 72 GPUs."""
    return across(tmp_path, ledger, 18)


@pytest.fixture
def six(tmp_path, ledger) -> Bench:
    """A rack of six trays: all rules are the same, and a look at it takes a third of the time."""
    return across(tmp_path, ledger, 6)


def links_down(bench: Bench, node: str) -> list[tuple[int, int]]:
    """Cartridge faults show at both ends."""
    lanes = [f for f in bench.lab.faults if f.node == node and f.kind is FaultKind.NVLINK_LANE_DOWN]
    return [(f.gpu or 0, f.link or 0) for f in lanes]


def test_a_rack_as_delivered_is_brought_up_and_passes(nvl72: Bench) -> None:
    """The cluster is enabled on one tray, waited for, numbered; then 72 GPUs are one domain and 18 trays pass."""
    ended = nvl72.run()
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}
    assert len(ended) == 18
    assert nvl72.lab.nvos.enabled() == (TRAY,)
    assert nvl72.lab.nvos.saved(TRAY)
    assert nvl72.intents() == [f"nvue enable_cluster {TRAY}", f"nvue set_chassis_id {TRAY}"]


def test_a_second_run_changes_no_switch(six: Bench) -> None:
    """It reads, and what is there already is not done again."""
    six.run()
    before = [asked for asked in six.lab.nvos.asked if asked[1] != "GET"]
    ended = six.run()
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}
    assert [asked for asked in six.lab.nvos.asked if asked[1] != "GET"] == before


def test_bringup_never_takes_a_control_plane_down(six: Bench) -> None:
    """No stop, no reset, no disabling, whatever it finds; two controllers are left for a person to decide."""
    six.lab.nvos.enable(TRAY)
    six.lab.nvos.enable("nvswitch4")
    ended = six.run()
    assert {(r.outcome, r.code) for r in ended.values()} == {(Outcome.ERROR, "NMX_CLUSTER_TWICE")}
    assert [asked for asked in six.lab.nvos.asked if asked[1] != "GET"] == []
    assert six.lab.machine("tray01").played == []


def test_a_tray_that_cannot_be_asked_keeps_the_cluster_from_being_enabled_elsewhere(six: Bench) -> None:
    """It may be the one that has it."""
    six.lab.rack = replace(
        six.lab.rack,
        units=tuple(replace(u, nvos=None) if u.name == "nvswitch9" else u for u in six.lab.rack.units),
    )
    ended = six.run()
    assert {(r.outcome, r.code) for r in ended.values()} == {(Outcome.ERROR, "NMX_CLUSTER_UNREAD")}
    assert six.intents() == []


def test_a_broken_link_seen_from_both_ends_fails_its_tray_alone(six: Bench) -> None:
    """The cartridge is the part, both ends are named; the others pass."""
    six.lab.nvos.enable(TRAY)
    six.lab.faults.append(Fault(FaultKind.NVLINK_LANE_DOWN, "tray05", gpu=2, link=7))
    ended = six.run()
    failed = {name: r for name, r in ended.items() if r.outcome is not Outcome.PASSED}
    assert list(failed) == ["tray05"]
    assert (failed["tray05"].outcome, failed["tray05"].code) == (Outcome.FAILED, "NVLINK_CABLE")
    assert "cable cartridge between node tray05 (slot 9" in failed["tray05"].part
    assert "nvswitch4" in failed["tray05"].part
    assert "rackproof release tray05" in failed["tray05"].next


def test_an_application_that_never_comes_up_ends_at_the_deadline_as_configuration(six: Bench) -> None:
    """GPUs In Progress are looked at until `fabric_wait` is over; then it is an error, and nothing is pulled."""
    six.lab.nvos.enable(TRAY)
    six.lab.nvos.set(SwitchFault(SwitchTrouble.APP_FAILED, TRAY))
    began = six.now
    ended = six.run()
    assert {(r.outcome, r.part) for r in ended.values()} == {(Outcome.ERROR, "")}
    assert {r.code for r in ended.values()} == {"NMX_APP_NOT_OK"}
    assert timedelta(minutes=2) <= six.now - began <= timedelta(minutes=5)
    assert any("waiting" in said for said in six.said)


def test_a_shut_port_of_imex_is_configuration_on_every_tray(six: Bench) -> None:
    """No tray is blamed; the fix names the port."""
    six.lab.nvos.enable(TRAY)
    six.lab.imex_shut.add("tray06")
    ended = six.run()
    assert {(r.outcome, r.code) for r in ended.values()} == {(Outcome.ERROR, "IMEX_PORT_BLOCKED")}
    assert "50005" in ended["tray01"].next


def test_trays_that_are_off_leave_the_others_undecided(six: Bench) -> None:
    """Four trays of six are no domain."""
    six.lab.nvos.enable(TRAY)
    for node in six.lab.rack.nodes[4:]:
        with six.lab.changing(node.name) as machine:
            machine.power = Power.OFF.value
    ended = six.run("tray01", "tray02")
    assert set(ended) == {"tray01", "tray02"}
    assert {r.outcome for r in ended.values()} == {Outcome.ERROR}


def test_a_part_of_the_whole_rack_fails_no_tray(six: Bench) -> None:
    """A switch tray's fan: an error that names the tray to service; the compute trays stay where they are."""
    six.lab.nvos.enable(TRAY)
    six.lab.nvos.set(SwitchFault(SwitchTrouble.UNHEALTHY, "nvswitch7"))
    ended = six.run()
    assert {(r.outcome, r.code) for r in ended.values()} == {(Outcome.ERROR, "SWITCH_UNHEALTHY")}
    assert "nvswitch7" in ended["tray01"].message


def test_what_was_seen_of_switches_and_links_is_on_record(nvl72: Bench) -> None:
    """One observation of each switch tray with its artifact, one judgement of the rack."""
    nvl72.lab.nvos.enable(TRAY)
    nvl72.run()
    judged = [e for e in nvl72.ledger.events(rack="gb200-nvl72", kind=EventKind.JUDGED) if e.what == "nvlink"]
    assert judged[-1].body["gpus"] == [72, 72]
    assert judged[-1].body["links"] == [1296, 1296, 1296]
    looked = [e for e in nvl72.ledger.events(rack="gb200-nvl72", kind=EventKind.OBSERVED) if e.what == "nvue"]
    assert len(looked) == 9
    assert b"nmx-controller" in nvl72.ledger.artifacts.get(str(looked[0].body["artifact"]))


def test_a_rack_without_access_to_its_switches_is_judged_by_its_gpus(tmp_path, ledger) -> None:
    """The rack file gives no `nvos`: nothing is asked of them, and the report says that nobody looked."""
    bench = bench_of(tmp_path, "gb200-nvl72", ledger)
    bench.lab.nvos.enable(TRAY)
    bench.lab.rack = replace(bench.lab.rack, units=tuple(replace(u, nvos=None) for u in bench.lab.rack.units))
    ended = bench.run()
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}
    assert bench.lab.nvos.asked == []


def test_single_nodes_are_judged_each_for_itself(tmp_path, ledger) -> None:
    """A skewed fabric manager is that node's; nobody waits for it to come up."""
    bench = bench_of(tmp_path, "demo", ledger, Fault(FaultKind.FABRIC_MANAGER_SKEW, "node2"))
    began = bench.now
    ended = bench.run()
    assert ended["node1"].outcome is Outcome.PASSED
    assert (ended["node2"].outcome, ended["node2"].code) == (Outcome.ERROR, "FABRIC_MANAGER_SKEW")
    assert bench.now - began < timedelta(seconds=60)


def test_destructive_changes_need_the_target_typed_out_and_a_drained_rack(six: Bench) -> None:
    """Neither is reachable by bring-up; a person types what is taken down."""
    six.lab.nvos.enable(TRAY)
    client = six.lab.nvue(six.lab.rack.unit(TRAY))
    with pytest.raises(UsageError, match="was not typed out"):
        change.stop_app(client, TRAY, "nmx-controller", typed="yes", working=())
    with pytest.raises(UsageError, match="2 nodes of the rack are in use"):
        change.reset_sdn(client, TRAY, typed=f"{TRAY}/factory-default", working=("tray01", "tray02"))
    change.stop_app(client, TRAY, "nmx-controller", typed=f"{TRAY}/nmx-controller", working=())
    assert {app.name: app.reason for app in client.apps()}["nmx-controller"] == "stopped by user"
