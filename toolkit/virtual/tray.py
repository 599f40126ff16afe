"""A unit of a virtual rack that has power and a BMC and runs nothing of ours: switch tray, power shelf, bare tray.

Its power follows the clock, not a thread: whoever looks sees what time has made of the last button.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from toolkit.rack.model import Profile, Unit
from toolkit.redfish import Power
from toolkit.virtual.chassis import Button, Event
from toolkit.virtual.firmware import BootOverride, Phase

_EVENTS_KEPT = 256
_OFF = frozenset({Button.FORCE_OFF, Button.GRACEFUL_SHUTDOWN})


class Tray:
    """Implements `bmc_state.Board`. `lag_s`: from a button to the power it asks for."""

    def __init__(
        self, unit: Unit, profile: Profile, lag_s: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.unit = unit
        self.profile = profile
        self._lag_s = lag_s
        self._clock = clock
        self._lock = threading.Lock()
        self._on = False
        self._changed_at = -lag_s
        self._override = BootOverride()
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._count = 0
        self.pressed: list[Button] = []

    @property
    def name(self) -> str:
        """See Board."""
        return self.unit.name

    @property
    def serial(self) -> str:
        """See Board."""
        return self.unit.serial

    @property
    def mac(self) -> str:
        """See Board."""
        return self.unit.host.mac if self.unit.host else ""

    @property
    def uuid(self) -> str:
        """See Board."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.unit.serial))

    @property
    def power(self) -> Power:
        """See Board."""
        if self._clock() - self._changed_at < self._lag_s:
            return Power.POWERING_ON if self._on else Power.POWERING_OFF
        return Power.ON if self._on else Power.OFF

    @property
    def phase(self) -> Phase:
        """See Board: one that is on has its own firmware running."""
        return Phase.OPERATING_SYSTEM if self.power is Power.ON else Phase.OFF

    @property
    def override(self) -> BootOverride:
        """See Board."""
        return self._override

    @property
    def events(self) -> tuple[Event, ...]:
        """See Board."""
        with self._lock:
            return tuple(self._events)

    def set_override(self, override: BootOverride) -> None:
        """See Board."""
        with self._lock:
            self._override = override
            self._record(f"Boot override set: {override.target} {override.enabled}")

    def clear_events(self) -> None:
        """See Board."""
        with self._lock:
            self._events.clear()

    def record(self, message: str, severity: str = "OK") -> None:
        """Adds to the event log."""
        with self._lock:
            self._record(message, severity)

    def press(self, button: Button) -> None:
        """See Board."""
        with self._lock:
            self.pressed.append(button)
            self._on = button not in _OFF
            self._changed_at = self._clock()
            if self._on:
                self._override = self._override.consumed()
            self._record(f"Power button: {button}")

    def _record(self, message: str, severity: str = "OK") -> None:
        self._count += 1
        self._events.append(Event(self._count, datetime.now(UTC), severity, message))
