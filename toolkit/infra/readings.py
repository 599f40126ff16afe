"""What the nodes say now, each thing read once a process; a node that did not answer is not asked again and again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from toolkit.certificate.fingerprint import NodeFacts
from toolkit.errors import RackproofError, UndecidedError, UnreachableError, UsageError
from toolkit.facts import probe
from toolkit.facts.measure import measurements_of
from toolkit.facts.probe import Fact, Probe
from toolkit.facts.tray import tray_seen
from toolkit.infra.areas import Area
from toolkit.infra.questions import Plan
from toolkit.infra.targets import Target
from toolkit.judge.evidence import Measurement
from toolkit.judge.nvlink.finding import NvlinkFinding
from toolkit.judge.nvlink.seen import NvlinkSeen, TraySeen
from toolkit.judge.nvlink.services import judge_services
from toolkit.judge.nvlink.verdict import NvlinkReport, judge_nvlink
from toolkit.judge.part import GpuSeat
from toolkit.judge.skew import Installed
from toolkit.judge.verdict import Verdict
from toolkit.ledger import Ledger
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import MNNVL, Mode, Rack, Unit
from toolkit.runners.shell import Shell
from toolkit.runners.ssh import SshShell
from toolkit.stages import fabric, version_guard
from toolkit.stages.context import Context, Hands
from toolkit.stages.identity import identity_of
from toolkit.stages.nvlink_control import seen_of, switch_trays
from toolkit.stages.readback import Reading, gpu_seats, judge_node

T = TypeVar("T")
_NVLINK = (
    probe.GPUS, probe.NVLINK, probe.FABRIC_MANAGER, probe.STATES, probe.IMEX, probe.IMEX_NODES, probe.MANAGER_LOG,
)  # fmt: skip
_NVLSM = (probe.MODULES, probe.PACKAGES)
_OF_SERVICES = frozenset(
    {
        "SERVICES_UNREAD", "FABRIC_MANAGER_DOWN", "FABRIC_MANAGER_PRESENT", "FABRIC_MANAGER_NOT_MASKED", "IMEX_DOWN",
        "IMEX_PRESENT", "IMEX_NOT_MASKED",
    }
)  # fmt: skip
_IDENTITY = (probe.IDENTITY, probe.GPUS, probe.IBSTAT)


@dataclass(frozen=True, slots=True)
class Reach:
    """What hosts are reached with: their shell, and what else a rack has (None without one).

    sleep   between the two readings of the fabric's counters
    """

    shell: Shell
    hands: Hands | None
    sleep: Callable[[float], None] = time.sleep


def now() -> datetime:
    """Wall clock, with zone."""
    return datetime.now(UTC)


class Readings:
    """Everything that questions need, read at its first use and kept: values and failures alike.

    Nothing is recorded: what a look leaves on record goes to a folder of this process, which goes with it.
    """

    def __init__(self, plan: Plan, reach: Callable[[], Reach]) -> None:
        self.plan = plan
        self._reach = reach
        self._kept: dict[tuple[str, str], object] = {}
        self._dead: dict[str, UnreachableError] = {}
        self._stack = ExitStack()

    def close(self) -> None:
        """Ends with what was left on record, and with our connections."""
        self._stack.close()
        if "reach" in self.__dict__ and isinstance(self.shell, SshShell):
            self.shell.close()

    @property
    def rack(self) -> Rack:
        """The rack as designed; UsageError without one: questions that need it are not asked then."""
        if self.plan.rack is None:
            raise UsageError("no rack was given", "--rack RACK")
        return self.plan.rack

    @cached_property
    def reach(self) -> Reach:
        """What the hosts are reached with; nothing is before the first question."""
        return self._reach()

    @property
    def shell(self) -> Shell:
        """To the hosts."""
        return self.reach.shell

    @property
    def hands(self) -> Hands:
        """To everything else of the rack."""
        if self.reach.hands is None:
            raise UsageError("no rack was given", "--rack RACK")
        return self.reach.hands

    @cached_property
    def context(self) -> Context:
        """For what the stages know how to look at. Its ledger is nobody's."""
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="rackproof-infra-")))
        ledger = Ledger.open(f"sqlite:///{folder}/ledger.db", folder / "artifacts", "toolkit.infra", now)
        self._stack.callback(ledger.close)
        return Context(self.rack, self.plan.settings, ledger, self.hands, now, self.reach.sleep, lambda _: None)

    def fact(self, target: Target, what: Probe) -> Fact:
        """What the node answers. UnreachableError where it does not, or did not before."""
        if target.name in self._dead:
            raise self._dead[target.name]
        try:
            return self._once((target.name, what.name), lambda: probe.read(self.shell, target.asked_as, what, now))
        except UnreachableError as error:
            self._dead[target.name] = error
            raise

    def reading(self, target: Target, probes: Iterable[Probe]) -> Reading:
        """Several facts, and what they measure."""
        facts = tuple(self.fact(target, what) for what in probes)
        unit = target.asked_as
        origins = [hashlib.sha256(fact.raw).hexdigest() for fact in facts]
        told = (m for fact, origin in zip(facts, origins, strict=True) for m in measurements_of(fact, unit, "", origin))
        return Reading(facts, tuple(told))

    def verdict(self, target: Target, area: Area) -> Verdict:
        """The gates of an area on the node, by what it says now."""

        def judged() -> Verdict:
            reading = self.reading(target, area.probes)
            measured = (*reading.measurements, *self.fabric_measured(target)) if area.fabric else reading.measurements
            silent = {g.metric for g in self.rack.profile.gates} - area.metrics(self.rack.profile)
            return judge_node(self.context, target.asked_as, tuple(Stage), measured, silent)

        return self._once((target.name, f"verdict {area.name}"), judged)

    def seats(self, target: Target) -> Mapping[int, GpuSeat]:
        """Serials and places of its GPUs, by its own word; empty where it did not say."""
        fact = self.fact(target, probe.GPUS)
        return gpu_seats(Reading((fact,), ()))

    # NVLink

    def tray(self, target: Target) -> TraySeen:
        """The node as the NVLink rules see it."""
        probes = (*_NVLINK, *(_NVLSM if self.rack.profile.mode is Mode.NVLINK5_SINGLE else ()))
        return tray_seen(target.name, [self.fact(target, what) for what in probes])

    def nvlink(self, target: Target) -> NvlinkReport:
        """The joined view that the node is judged by: of the whole rack where NVLink spans it, else of the node."""
        if self.rack.profile.mode not in MNNVL:
            return judge_nvlink(self.rack, NvlinkSeen((self.tray(target),), None))
        return self._once(("", "nvlink"), self._domain)

    def _domain(self) -> NvlinkReport:
        trays = []
        for target in self.plan.targets:
            try:
                trays += [self.tray(target)] if target.unit else []
            except UndecidedError:
                continue  # a tray that nobody looked at leaves the domain unproven; the report says which
        units = switch_trays(self.context)
        switches = tuple(seen_of(self.context, unit) for unit in units) if units else None
        return judge_nvlink(self.rack, NvlinkSeen(tuple(trays), switches))

    def of_services(self, target: Target) -> tuple[NvlinkFinding, ...]:
        """What the mode's rules say of fabric manager and IMEX as services, by their states alone."""
        seen = tray_seen(target.name, [self.fact(target, probe.STATES)])
        return tuple(f for f in judge_services(self.rack, seen) if f.code in _OF_SERVICES)

    # InfiniBand

    def fabric(self) -> fabric.Judged:
        """A look at the rack's InfiniBand from all its nodes that are asked."""
        units = [target.unit for target in self.plan.targets if target.unit is not None]
        return self._once(("", "fabric"), lambda: fabric.look_and_judge(self.context, units))

    def fabric_measured(self, target: Target) -> tuple[Measurement, ...]:
        """What that look says of the node's own HCAs."""
        self.fact(target, probe.IBSTAT)  # a node that does not answer is told as that
        return self.fabric().measured(target.asked_as, "")

    # Versions and identity

    def installed(self, target: Target) -> Installed:
        """Packages, loaded driver and adapter firmware. None of each that could not be read."""
        packages, gpus, adapters = (self.fact(target, p).value for p in (probe.PACKAGES, probe.GPUS, probe.IBSTAT))
        driver = gpus.get("driver") if isinstance(gpus, Mapping) else None
        firmware = version_guard.adapter_firmware(adapters) if isinstance(adapters, Mapping) else None
        return Installed(packages if isinstance(packages, Mapping) else None, driver, firmware)

    def identity(self, target: Target) -> NodeFacts:
        """What a certificate binds, but for what the BMC says. UndecidedError names the facts that were not read."""
        return identity_of(self.context, replace(target.asked_as, bmc=None), self.reading(target, _IDENTITY))

    def board_firmware(self, unit: Unit) -> tuple[tuple[str, str], ...]:
        """BIOS and BMC by the BMC's own word."""
        board = self._once((unit.name, "bmc"), lambda: self.context.hands.bmc(unit).identity())
        return (("bios", board.bios_version), ("bmc", board.bmc_version))

    def _once(self, key: tuple[str, str], read: Callable[[], T]) -> T:
        """The value, or the failure, of the first time."""
        if key not in self._kept:
            try:
                self._kept[key] = read()
            except RackproofError as error:
                self._kept[key] = error
        kept = self._kept[key]
        if isinstance(kept, RackproofError):
            raise kept
        return kept  # type: ignore[return-value]  # what `read` of this key gave
