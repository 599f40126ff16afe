"""A virtual node's chassis: the power button, power that comes and goes with a lag, and the firmware's mainboard."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.rack.model import Profile, Unit
from toolkit.redfish import Power
from toolkit.virtual import disk, firmware, hardware_files, network
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.devices import mlxconfig
from toolkit.virtual.fault_table import FaultTable
from toolkit.virtual.faults import FaultKind
from toolkit.virtual.firmware import BootOverride, Phase
from toolkit.virtual.layout import Layout
from toolkit.virtual.machine import Bind, End, Machine, MachineSpec

_EVENTS_KEPT = 256
_CONSOLE_KEPT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Lag:
    """How long hardware takes, in seconds. Fixed values: a rehearsal can be repeated."""

    power_on_s: float = 0.5
    power_off_s: float = 0.5
    self_test_s: float = 1.0


class Button(StrEnum):
    """What a BMC can do to a machine's power: Redfish ResetType."""

    ON = "On"
    FORCE_OFF = "ForceOff"
    FORCE_RESTART = "ForceRestart"
    POWER_CYCLE = "PowerCycle"
    GRACEFUL_SHUTDOWN = "GracefulShutdown"
    GRACEFUL_RESTART = "GracefulRestart"


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the BMC's event log."""

    number: int
    at: datetime
    severity: str
    message: str


class _PowerLostError(Exception):
    """Ends whatever the firmware is doing."""


class Chassis:
    """One node. Buttons return at once; a thread of the node's own does what they ask, in the node's network.

    Implements `firmware.Board`.
    """

    def __init__(
        self, layout: Layout, unit: Unit, profile: Profile, faults: FaultTable, lag: Lag,
        power_changed: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`power_changed` is called when the node has got its power, and when it loses it."""
        self.layout = layout
        self.unit = unit
        self.profile = profile
        self._places = layout.node(unit.name)
        self._faults = faults
        self._lag = lag
        self._power_changed = power_changed
        self._changed = threading.Condition()
        self._cut = threading.Event()
        self._wanted = False
        self._restart = False
        self._power = Power.OFF
        self._phase = Phase.OFF
        self._override = BootOverride()
        self._machine: Machine | None = None
        self._group = ControlGroup(f"{layout.control_group}/{unit.name}")
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._event_count = 0

    # --- what the BMC sees -------------------------------------------------------------------------------------

    @property
    def power(self) -> Power:
        """Power state; the transitions are visible while they last."""
        return self._power

    @property
    def phase(self) -> Phase:
        """How far the boot has come."""
        return self._phase

    @property
    def override(self) -> BootOverride:
        """What the next boot was told."""
        return self._override

    @property
    def events(self) -> tuple[Event, ...]:
        """The event log, oldest first; bounded."""
        with self._changed:
            return tuple(self._events)

    def set_override(self, override: BootOverride) -> None:
        """Tells the next boot what to start from."""
        with self._changed:
            self._override = override
            self._record(f"Boot override set: {override.target} {override.enabled}")

    def clear_events(self) -> None:
        """Empties the event log; numbering goes on."""
        with self._changed:
            self._events.clear()

    def press(self, button: Button) -> None:
        """Does something to the power; the machine takes its time."""
        with self._changed:
            running = self._machine
            self._record(f"Power button: {button}")
            match button:
                case Button.ON:
                    self._wanted = True
                case Button.FORCE_OFF:
                    self._wanted = False
                    self._cut.set()
                case Button.FORCE_RESTART | Button.POWER_CYCLE:
                    self._wanted = True
                    self._cut.set()
                case Button.GRACEFUL_SHUTDOWN | Button.GRACEFUL_RESTART:
                    self._wanted = self._restart = button is Button.GRACEFUL_RESTART
                    if running is None:
                        self._cut.set()  # nothing runs that could listen
            self._changed.notify_all()
        if running is not None and self._cut.is_set():
            running.cut_power()
        elif running is not None and button in (Button.GRACEFUL_SHUTDOWN, Button.GRACEFUL_RESTART):
            running.press_power_button()

    def memory_bytes(self) -> int | None:
        """Memory the running machine holds; None while none runs or nothing counts it."""
        return self._group.memory_bytes() if self._machine is not None else None

    # --- the node's own thread ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Lays out the node's files and starts its thread; the power stays off."""
        disk_file = self._places.disk
        disk_file.parent.mkdir(parents=True, exist_ok=True)
        disk.create(disk_file)
        hardware_files.lay_out(self._places.hardware, self.unit, self.profile)
        self.refresh_hardware()
        threading.Thread(target=self._live, name=self.unit.name, daemon=True).start()

    def refresh_hardware(self) -> None:
        """Writes the node's hardware state anew: its faults have changed."""
        faults = self._faults.of(self.unit.name)
        hardware_files.write_state(self._places.hardware, self.unit, self.profile, faults)

    def _live(self) -> None:
        network.enter(self.layout.namespace(self.unit.name))
        disk.isolate_mounts()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                self._cut.clear()
                self._restart = False
                self._power = Power.POWERING_ON
            try:
                self._wait(self._lag.power_on_s)
                self._power = Power.ON
                self._power_changed()
                self._run_until_off()
            except _PowerLostError:
                self.say("power lost")
            self._power_down()

    def _run_until_off(self) -> None:
        hardware_files.power_on(self._places.hardware)
        self._trim_console()
        while True:
            mlxconfig.boot(self._places.hardware)
            try:
                end = firmware.boot(self)
            except (RackproofError, OSError) as error:
                # Our plumbing failed, not the machine: it must show on the node and end nothing else.
                self.say(f"the virtual rack failed this node: {error}")
                self.stay(Phase.CRASHED)
            self.check()
            if end is End.POWER_OFF or (end is End.CRASH and self._button_was_pressed()):
                with self._changed:
                    self._wanted = self._restart
                return
            if end is End.CRASH:
                self.say("the machine has stopped")
                self.stay(Phase.CRASHED)

    def _button_was_pressed(self) -> bool:
        """Whether a graceful shutdown or restart was asked for: a ramdisk that is ended by it has not crashed."""
        return self._restart or not self._wanted

    def _power_down(self) -> None:
        self._power = Power.POWERING_OFF
        self._power_changed()
        try:
            network.power_cycle(self.layout, self.unit.name)
        except RackproofError as error:
            self.say(f"the virtual rack failed this node: {error}")
        time.sleep(self._lag.power_off_s)
        with self._changed:
            self._phase = Phase.OFF
            self._power = Power.OFF
            self._record("Power is off")

    def _wait(self, seconds: float) -> None:
        if self._cut.wait(seconds):
            raise _PowerLostError

    def _trim_console(self) -> None:
        console = self._places.console
        if console.exists() and console.stat().st_size > _CONSOLE_KEPT_BYTES:
            console.write_bytes(console.read_bytes()[-_CONSOLE_KEPT_BYTES // 2 :])

    def _record(self, message: str, severity: str = "OK") -> None:
        """Adds to the event log; the caller holds the lock."""
        self._event_count += 1
        self._events.append(Event(self._event_count, datetime.now(UTC), severity, message))

    # --- firmware.Board ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """See Board."""
        return self.unit.name

    @property
    def mac(self) -> str:
        """See Board."""
        return self.unit.host.mac if self.unit.host else ""

    @property
    def serial(self) -> str:
        """See Board."""
        return self.unit.serial

    @property
    def uuid(self) -> str:
        """See Board. Made from the serial: the same machine has the same UUID after `down` and `up`."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.unit.serial))

    @property
    def hangs(self) -> bool:
        """See Board."""
        return self._faults.has(self.unit.name, FaultKind.BOOT_HANG)

    def take_override(self) -> BootOverride:
        """See Board."""
        with self._changed:
            override, self._override = self._override, self._override.consumed()
            return override

    def self_test(self) -> None:
        """See Board."""
        self._wait(self._lag.self_test_s)

    def enter(self, phase: Phase) -> None:
        """See Board."""
        self.check()
        with self._changed:
            self._phase = phase
            severity = "Critical" if phase in (Phase.NO_BOOT_DEVICE, Phase.CRASHED) else "OK"
            self._record(f"Boot progress: {phase}", severity)

    def say(self, text: str) -> None:
        """See Board."""
        stamp = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
        with suppress(OSError), self._places.console.open("a") as console:  # a full disk must not end the node
            console.write(f"[{stamp}] firmware: {text}\r\n")

    def check(self) -> None:
        """See Board."""
        if self._cut.is_set():
            raise _PowerLostError

    def stay(self, phase: Phase) -> None:
        """See Board."""
        self.enter(phase)
        self._cut.wait()
        raise _PowerLostError

    def run(self, root: Path, init: tuple[str, ...], binds: tuple[Bind, ...]) -> End:
        """See Board."""
        spec = MachineSpec(
            name=f"{self.layout.tag}-{self.unit.name}"[:63],
            root=root,
            init=init,
            namespace=network.NAMESPACES / self.layout.namespace(self.unit.name),
            uuid=self.uuid.replace("-", ""),
            binds=binds,
            console=self._places.console,
            group=self._group,
        )
        with self._changed:
            self.check()
            machine = self._machine = Machine(spec)
        try:
            return machine.wait()
        finally:
            with self._changed:
                self._machine = None
