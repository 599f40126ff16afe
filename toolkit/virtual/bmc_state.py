"""A virtual BMC's state: its account and sessions, the power it is asked for, and the parts that keep the rest."""

from __future__ import annotations

import hmac
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from toolkit.rack.model import Profile, Unit
from toolkit.redfish import Power
from toolkit.virtual import redfish_tree as tree
from toolkit.virtual.bmc_parts import AccountPart, BiosPart, LeakPart, MediaPart, Part, Refused, Reply
from toolkit.virtual.bmc_shapes import BoardShape, shape_of
from toolkit.virtual.bmc_update import UpdatePart
from toolkit.virtual.chassis import Button, Event
from toolkit.virtual.credentials import Login
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.firmware import BootEnabled, BootOverride, BootTarget, Phase

_SESSIONS_MAX = 16
_UPDATE_S = 3.0  # of the virtual rack: a BIOS takes minutes on metal
_INLET_CELSIUS, _HOT_CELSIUS = 24.0, 47.0
_STANDBY_WATTS, _IDLE_WATTS = 90.0, 2400.0  # of a virtual machine, which takes none
_ELSEWHERE = ("UefiHttp", "Cd")  # shown and used up; only machines that run nothing of ours have them
_STARTS = frozenset({Button.ON, Button.FORCE_RESTART, Button.POWER_CYCLE, Button.GRACEFUL_RESTART})
_SHOWN_AFTER = {Button.FORCE_OFF: Power.OFF, Button.GRACEFUL_SHUTDOWN: Power.OFF}
_BOOT_PROGRESS = {
    Phase.OFF: "None",
    Phase.SELF_TEST: "SystemHardwareInitializationComplete",
    Phase.NETWORK_BOOT: "SystemHardwareInitializationComplete",
    Phase.NO_BOOT_DEVICE: "SystemHardwareInitializationComplete",
    Phase.CRASHED: "OEM",
    Phase.RAMDISK: "OSBootStarted",
    Phase.HUNG: "OSBootStarted",
    Phase.OPERATING_SYSTEM: "OSRunning",
}


class Board(Protocol):
    """What a BMC acts on: a chassis with a virtual machine in it, a QEMU machine, or a tray that only has power."""

    @property
    def unit(self) -> Unit:
        """The rack's unit."""
        ...

    @property
    def profile(self) -> Profile:
        """The rack's profile."""
        ...

    @property
    def name(self) -> str:
        """The unit's name."""
        ...

    @property
    def serial(self) -> str:
        """Serial of the machine."""
        ...

    @property
    def mac(self) -> str:
        """MAC of the boot interface; empty where it has none."""
        ...

    @property
    def uuid(self) -> str:
        """UUID of the machine, with dashes."""
        ...

    @property
    def power(self) -> Power:
        """Power state now."""
        ...

    @property
    def phase(self) -> Phase:
        """How far the boot has come."""
        ...

    @property
    def override(self) -> BootOverride:
        """What the next boot was told."""
        ...

    @property
    def events(self) -> tuple[Event, ...]:
        """The event log, oldest first."""
        ...

    def set_override(self, override: BootOverride) -> None:
        """Tells the next boot what to start from."""
        ...

    def clear_events(self) -> None:
        """Empties the event log."""
        ...

    def press(self, button: Button) -> None:
        """Does something to the power; the machine takes its time."""
        ...


class Bmc:
    """One BMC's state beside its board: account, sessions, and the parts that keep something of their own."""

    def __init__(
        self, chassis: Board, login: Login, address: str, faults: Callable[[], Iterable[Fault]] = tuple,
        shape: BoardShape | None = None, update_s: float = _UPDATE_S,
    ) -> None:  # fmt: skip
        """`faults`: those that are set on this unit now. `update_s`: how long an update of firmware takes."""
        self.chassis = chassis
        self.address = address
        self.shape = shape or shape_of(chassis.unit, chassis.profile)
        self.tree = tree.Tree(self.shape)
        self._faults = faults
        self._lock = threading.Lock()
        self._sessions: dict[str, str] = {}  # token -> id, oldest first
        self._requests = 0
        self._claimed: Power | None = None
        self._elsewhere: tuple[str, str] | None = None  # an override that this rack's firmware has no name for
        self.account = AccountPart(login, self.fault)
        self.updates = UpdatePart(dict(self.shape.firmware), self.fault, update_s)
        self.bios = BiosPart(self.tree.system, dict(self.shape.bios) or {"Ipv4Http": "Disabled"}, self.fault)
        self.media = MediaPart(self.tree.system)
        leaks = LeakPart(dict(self.shape.detectors), self.fault)
        self._parts: tuple[Part, ...] = (self.updates, self.bios, self.media, leaks, self.account)

    @property
    def login(self) -> Login:
        """The account, as it is now."""
        return self.account.login

    def fault(self, kind: FaultKind) -> Fault | None:
        """The fault of that kind, where it is set."""
        return next((fault for fault in self._faults() if fault.kind is kind), None)

    def values(self) -> Mapping[str, object]:
        """Live values of the resource tree."""
        chassis, override, elsewhere = self.chassis, self.chassis.override, self._elsewhere
        versions = {name: self.updates.version(name) for name, _ in self.shape.firmware}
        lies = self._claimed is not None and self.fault(FaultKind.BMC_LIES_ABOUT_POWER) is not None
        return {
            "name": chassis.name,
            "serial": chassis.serial,
            "model": chassis.profile.sku,
            "product": self.shape.product,
            "username": self.login.username,
            "mac": chassis.mac,
            "uuid": chassis.uuid,
            "bmc_uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"bmc {chassis.serial}")),
            "bmc_address": self.address,
            "bmc_version": next((v for name, v in versions.items() if "BMC" in name.upper()), ""),
            "bios_version": next((v for name, v in versions.items() if "BIOS" in name or name == "UEFI"), ""),
            "power": (self._claimed if lies and self._claimed else chassis.power).value,
            "boot_targets": list(self.shape.targets),
            "boot_target": elsewhere[0] if elsewhere else override.target.value,
            "boot_enabled": elsewhere[1] if elsewhere else override.enabled.value,
            "inlet_celsius": _HOT_CELSIUS if self.fault(FaultKind.INLET_HOT) else _INLET_CELSIUS,
            "inlet_health": "Critical" if self.fault(FaultKind.INLET_HOT) else "OK",
            "power_watts": _STANDBY_WATTS if chassis.power is Power.OFF else _IDLE_WATTS,
            "boot_progress": _BOOT_PROGRESS[chassis.phase],
        }

    def resource(self, path: str) -> tree.Json | None:
        """What a GET of this path answers; None for 404."""
        events = self.chassis.events
        if path == self.tree.entries:
            return self.tree.log_entries(events)
        if path == tree.SESSIONS:
            return tree.collection(path, "Session", tuple(self._sessions.values()))
        folder, _, name = path.rpartition("/")
        if folder == self.tree.entries:
            return next((self.tree.log_entry(event) for event in events if str(event.number) == name), None)
        if folder == tree.SESSIONS:
            return tree.session(name, self.login.username) if name in self._sessions.values() else None
        for part in self._parts:
            found = part.get(path)
            if found is not None:
                return found
        return self.tree.resource(path, self.values())

    def act(self, path: str, body: tree.Json) -> Reply:
        """A POST, but of a session."""
        if path == self.tree.reset:
            self.reset(body)
            return Reply(204)
        if path == self.tree.clear_log:
            self.chassis.clear_events()
            return Reply(204)
        for part in self._parts:
            reply = part.post(path, body)
            if reply is not None:
                return reply
        raise Refused(404, "ActionNotSupported", f"there is no action at {path}")

    def change(self, path: str, body: tree.Json) -> Reply:
        """A PATCH."""
        if path == self.tree.system:
            self.patch_system(body)
            return Reply(204)
        for part in self._parts:
            reply = part.patch(path, body)
            if reply is not None:
                return reply
        raise Refused(405, "OperationNotAllowed", f"{path} cannot be changed")

    def is_denied(self) -> bool:
        """Whether this request is refused though its login is right."""
        fault = self.fault(FaultKind.BMC_UNAUTHORISED)
        with self._lock:
            self._requests += 1
            return fault is not None and self._requests % int(fault.value or 5) == 0

    def knows(self, username: object, password: object) -> bool:
        """Whether this is an account; takes the same time whatever is wrong."""
        return any([_is(login, username, password) for login in self.account.logins()])

    def has_session(self, token: str) -> bool:
        """Whether the token belongs to an open session."""
        return token in self._sessions

    def sessions(self) -> tuple[str, ...]:
        """Ids of those that are open."""
        return tuple(self._sessions.values())

    def open_session(self) -> tuple[str, str]:
        """Token and id of a new session; the oldest goes when there are too many."""
        if self.fault(FaultKind.BMC_SESSIONS_FULL) is not None:
            raise Refused(503, "SessionLimitExceeded", "every session is in use")
        token, identity = secrets.token_hex(16), secrets.token_hex(4)
        with self._lock:
            while len(self._sessions) >= _SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[token] = identity
        return token, identity

    def close_session(self, identity: str) -> bool:
        """Ends a session; False if there was none."""
        with self._lock:
            tokens = [token for token, known in self._sessions.items() if known == identity]
            for token in tokens:
                del self._sessions[token]
        return bool(tokens)

    def patch_system(self, body: tree.Json) -> None:
        """PATCH of the system: only the boot override can be changed."""
        boot = body.get("Boot")
        if not isinstance(boot, dict) or set(body) != {"Boot"}:
            raise Refused(400, "PropertyNotWritable", "only Boot can be written")
        target, enabled = boot.get("BootSourceOverrideTarget"), boot.get("BootSourceOverrideEnabled", "Once")
        elsewhere = target in _ELSEWHERE and target in self.shape.targets
        override = BootOverride() if elsewhere else _override(self.chassis.override, boot)
        if self.fault(FaultKind.BMC_IGNORES_OVERRIDE) is not None:
            return
        self._elsewhere = (str(target), str(enabled)) if elsewhere else None
        if override.active and self.fault(FaultKind.BMC_OVERRIDE_STAYS) is not None:
            override = replace(override, enabled=BootEnabled.CONTINUOUS)
        self.chassis.set_override(override)

    def reset(self, body: tree.Json) -> None:
        """The ComputerSystem.Reset action."""
        kind = body.get("ResetType")
        if kind not in [button.value for button in Button]:
            raise Refused(400, "ActionParameterValueNotInList", f"ResetType {kind!r} is not supported")
        button = Button(kind)
        self._claimed = _SHOWN_AFTER.get(button, Power.ON)
        if self.fault(FaultKind.BMC_LIES_ABOUT_POWER) is not None:
            return
        if button in _STARTS:
            if self._elsewhere and self._elsewhere[1] == BootEnabled.ONCE:
                self._elsewhere = None
            for part in self._parts:
                part.started()
        self.chassis.press(button)


def _is(login: Login, username: object, password: object) -> bool:
    user = hmac.compare_digest(str(username).encode(), login.username.encode())
    return hmac.compare_digest(str(password).encode(), login.password.encode()) and user


def _override(now: BootOverride, boot: dict[str, object]) -> BootOverride:
    """The override after a PATCH of `Boot`; a target without `Enabled` means `Once`, as iDRAC and OpenBMC take it."""
    try:
        target = BootTarget(str(boot.get("BootSourceOverrideTarget", now.target)))
        enabled = BootEnabled(str(boot.get("BootSourceOverrideEnabled", BootEnabled.ONCE)))
    except ValueError as error:
        raise Refused(400, "PropertyValueNotInList", str(error)) from error
    if boot.get("BootSourceOverrideMode", "UEFI") != "UEFI":
        raise Refused(400, "PropertyValueNotInList", "BootSourceOverrideMode: this firmware boots UEFI only")
    if target is BootTarget.NONE or enabled is BootEnabled.DISABLED:
        return BootOverride()
    return replace(now, target=target, enabled=enabled)
