"""A node's chassis with a QEMU machine in it: what the virtual BMC acts on, as it acts on `toolkit.virtual.chassis`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.rack.model import Profile, Unit
from toolkit.redfish import Power
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.chassis import Button, Event
from toolkit.virtual.firmware import BootOverride, Phase, boot_order
from toolkit.virtual.qemu import machine
from toolkit.virtual.qemu.machine import MachineSpec
from toolkit.virtual.qemu.qmp import QmpError
from toolkit.virtual.qemu.running import RunningMachine

_EVENTS_KEPT = 256


class QemuChassis:
    """One node. Buttons return at once; a thread of the node's own starts the machine and follows it.

    The firmware is told a boot order at each reset. `Once` is therefore used up by the reset that it changes, whatever
    the machine then does: as on hardware, where the BMC clears it when the host has read it.
    """

    def __init__(
        self, unit: Unit, profile: Profile, spec: MachineSpec, namespace: Path, group: ControlGroup,
        console: Path, disk_bytes: int, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`namespace` is the path of the network namespace that has the machine's tap device."""
        self.unit = unit
        self.profile = profile
        self.spec = spec
        self.console = console
        self._namespace = namespace
        self._group = group
        self._disk_bytes = disk_bytes
        self._say = say
        self._changed = threading.Condition()
        self._wanted = False
        self._ended = False
        self._power = Power.OFF
        self._phase = Phase.OFF
        self._override = BootOverride()
        self._machine: RunningMachine | None = None
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._event_count = 0
        self._thread = threading.Thread(target=self._live, name=unit.name, daemon=True)

    # --- what the BMC sees -------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The node's name."""
        return self.unit.name

    @property
    def serial(self) -> str:
        """Serial of the machine."""
        return self.unit.serial

    @property
    def mac(self) -> str:
        """MAC of the boot interface."""
        return self.spec.mac

    @property
    def uuid(self) -> str:
        """UUID of the machine, with dashes."""
        return self.spec.uuid

    @property
    def pid(self) -> int | None:
        """Process id of QEMU; None while there is no power."""
        running = self._machine
        return running.pid if running is not None else None

    @property
    def power(self) -> Power:
        """Power state."""
        return self._power

    @property
    def phase(self) -> Phase:
        """How far the boot has come, as the serial line tells it."""
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

    def clear_events(self) -> None:
        """Empties the event log; numbering goes on."""
        with self._changed:
            self._events.clear()

    def set_override(self, override: BootOverride) -> None:
        """Tells the next boot what to start from."""
        with self._changed:
            self._override = override
            self._record(f"Boot override set: {override.target} {override.enabled}")
            self._tell_boot_order()

    def press(self, button: Button) -> None:
        """Does something to the power; the machine takes its time."""
        with self._changed:
            self._record(f"Power button: {button}")
            running = self._machine
            graceful = button in (Button.GRACEFUL_SHUTDOWN, Button.GRACEFUL_RESTART)
            self._wanted = button not in (Button.FORCE_OFF, Button.GRACEFUL_SHUTDOWN)
            self._changed.notify_all()
            if running is None:
                return
            try:
                if button is Button.FORCE_RESTART:
                    self._tell_boot_order()
                    running.reset()
                elif graceful:
                    running.press_power_button()
                elif button in (Button.FORCE_OFF, Button.POWER_CYCLE):
                    running.cut_power()
            except QmpError as error:
                self._record(f"Power button: {error.message}", "Critical")

    # --- the node's own thread ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Lays out disk and firmware variables and starts the thread; the power stays off."""
        machine.require(self.spec)
        machine.lay_out(self.spec, self._disk_bytes)
        self._thread.start()

    def stop(self) -> None:
        """Takes the power away for good; returns when the machine is gone."""
        with self._changed:
            self._ended, self._wanted = True, False
            running = self._machine
            self._changed.notify_all()
        if running is not None:
            running.cut_power()
        if self._thread.ident is not None:
            self._thread.join()

    def _live(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._ended)
                if self._ended:
                    return
                self._power = Power.POWERING_ON
            try:
                self._follow(self._start())
            except RackproofError as error:
                # Our plumbing failed, not the machine: it must show on the node and end nothing else.
                self._say(error.message)
                with self._changed:
                    self._wanted = False
                    self._record(error.message, "Critical")
            with self._changed:
                self._machine, self._power, self._phase = None, Power.OFF, Phase.OFF
                self._record("Power is off")

    def _start(self) -> RunningMachine:
        with self._changed:  # the whole of it: an override set now would otherwise be told to nobody
            override, self._override = self._override, self._override.consumed()
            self._machine = RunningMachine(
                self.spec, self._namespace, self._group, boot_order(override), self.console, self._enter,
            )  # fmt: skip
            self._power = Power.ON
            self._begin_boot(override)
            return self._machine

    def _follow(self, running: RunningMachine) -> None:
        """Until the machine has no power. One that switched itself off stays off; one whose power was cut may not."""
        shut_down = False
        while (event := running.next_event()) is not None:
            if event.name == "RESET":
                with self._changed:
                    if event.data.get("guest") and self._phase is Phase.SELF_TEST:
                        continue  # firmware that was reset early starts itself over: it has not read the order yet
                    override, self._override = self._override, self._override.consumed()
                    self._begin_boot(override)
            elif event.name == "SHUTDOWN":
                shut_down = True
        status = running.wait()
        with self._changed:
            if shut_down and not self._restart_asked():
                self._wanted = False
            elif not shut_down and status > 0:
                self._wanted = False
                self._record(f"QEMU ended with {status}", "Critical")

    def _restart_asked(self) -> bool:
        """Whether the last word of the BMC was to come back after a shutdown."""
        last = next((event for event in reversed(self._events) if event.message.startswith("Power button")), None)
        return last is not None and last.message.endswith(Button.GRACEFUL_RESTART)

    def _tell_boot_order(self) -> None:
        """Lays down the next boot's order, once the firmware has read this one's; the caller holds the lock."""
        if self._machine is not None and self._power is Power.ON:
            self._machine.set_boot_order(boot_order(self._override))

    def _begin_boot(self, override: BootOverride) -> None:
        """A reset has happened; the caller holds the lock."""
        self._phase = Phase.SELF_TEST
        first = boot_order(override)[0]
        self._record(f"Boot progress: {Phase.SELF_TEST}, first device {first}")

    def _enter(self, phase: Phase) -> None:
        """The serial line shows this phase. Called by the console's thread."""
        with self._changed:
            if phase is self._phase:
                return
            if self._phase is Phase.SELF_TEST:
                with suppress(QmpError):  # it has lost its power: the next machine is made with its order
                    self._tell_boot_order()
            self._phase = phase
            severity = "Critical" if phase in (Phase.NO_BOOT_DEVICE, Phase.CRASHED) else "OK"
            self._record(f"Boot progress: {phase}", severity)

    def _record(self, message: str, severity: str = "OK") -> None:
        """Adds to the event log; the caller holds the lock."""
        self._event_count += 1
        self._events.append(Event(self._event_count, datetime.now(UTC), severity, message))
