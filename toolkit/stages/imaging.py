"""Images one node: says who it must be, offers it image and seed, makes it boot from the network, waits for its word.

May be cut off at any instant. Every attempt has a token that is on record before anything outside is touched; whoever
comes next finds it, reads what the node reported under it, and goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.model import Unit
from toolkit.redfish import BmcClient, BmcRefusedError, Power, Reset
from toolkit.stages.provisioning import (
    ENDINGS,
    ImageSite,
    ImageSource,
    Report,
    ReportEvent,
    host_of,
    render_boot_script,
    seed_files,
)

IMAGE = "image"  # keys of what is on record: an attempt and its end,
POWER = "image-power"  # and the power action of an attempt
_ATTEMPTS = 2  # an image that arrives damaged twice is damaged on the server
_HOST_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}")
_REFUSALS = frozenset({"NODE_SERIAL_MISMATCH", "DISK_SERIAL_MISMATCH"})


class Journal(Protocol):
    """What is on record of this node since it was last PLANNED. `details` hold text and integers."""

    def intent(self, what: str, details: Mapping[str, Any]) -> None:
        """Records, durably, what is about to be done outside."""
        ...

    def observed(self, what: str, details: Mapping[str, Any]) -> None:
        """Records what was seen."""
        ...

    def find_intent(self, what: str) -> Mapping[str, Any] | None:
        """Details of the newest intent."""
        ...

    def find_observed(self, what: str) -> Mapping[str, Any] | None:
        """Details of the newest observation."""
        ...


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """What is asked for.

    image       name of the image in the provisioning root
    login_keys  SSH public keys that may log in as root
    again       the command that tries again
    """

    node: Unit
    image: str
    login_keys: tuple[str, ...]
    again: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds. `attempt_s` is from the power button to sshd."""

    attempt_s: float = 900.0
    poll_s: float = 0.5
    power_settles_s: float = 60.0
    power_looks_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Means:
    """Everything reached outside, and time. `is_running(host_key)`: the node answers SSH with that key."""

    bmc: BmcClient
    site: ImageSite
    journal: Journal
    is_running: Callable[[str], bool]
    new_token: Callable[[], str]
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    progress: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """How it ended. FAILED only on the word of BMC or ramdisk that this is not the planned machine or disk."""

    outcome: Outcome
    code: str = ""
    part: str = ""
    message: str = ""
    next_command: str = ""
    host_key: str = ""
    image_sha256: str = ""
    seconds: float = 0.0


def image_node(order: ImageOrder, means: Means, patience: Patience = Patience()) -> ImageResult:
    """Brings the planned image onto the node's planned disk and waits until it runs.

    The caller has had the loss of the disk confirmed. Raises UsageError where nothing is published, UndecidedError
    where the BMC answers nonsense; a BMC that is silent or not trusted is an ERROR result.
    """
    began = means.clock()
    imaging = _Imaging(order, means, patience, means.site.image(order.image))
    try:
        result = imaging.run()
    except BmcRefusedError as problem:
        result = ImageResult(Outcome.ERROR, "BMC_UNTRUSTED", message=problem.message, next_command=problem.hint)
    except UnreachableError as problem:
        result = ImageResult(Outcome.ERROR, "BMC_UNREACHABLE", message=problem.message, next_command=order.again)
    return replace(result, seconds=(means.clock() - began).total_seconds())


class _Imaging:
    """One call of `image_node`."""

    def __init__(self, order: ImageOrder, means: Means, patience: Patience, image: ImageSource) -> None:
        self._order = order
        self._node = order.node
        self._means = means
        self._patience = patience
        self._image = image
        self._macs: tuple[str, ...] = ()
        self._said = ""

    def run(self) -> ImageResult:
        return self._already() or self._wrong_machine() or self._attempts()

    def _already(self) -> ImageResult | None:
        """A node that booted this image, on record, and still answers with the key it had then."""
        last = self._means.journal.find_observed(IMAGE)
        if not last or last.get("event") != ReportEvent.BOOTED or last.get("image") != self._image.sha256:
            return None
        if last.get("serial") != self._node.serial or not self._means.is_running(str(last["host_key"])):
            return None
        return self._passed(str(last["host_key"]), "runs the planned image already")

    def _wrong_machine(self) -> ImageResult | None:
        self._say("reading the machine's identity")
        identity = self._means.bmc.identity()
        self._macs = identity.macs
        if identity.serial == self._node.serial:
            return None
        return self._refused(
            "NODE_SERIAL_MISMATCH",
            f"the BMC says serial {identity.serial}, the plan says {self._node.serial}; nothing was touched",
        )

    def _attempts(self) -> ImageResult:
        token, number = self._open_attempt()
        resumed = bool(token)
        while True:
            token = token or self._begin(number)
            self._drive(token, resumed)
            report = self._wait(token)
            if report is None:
                return self._timed_out(token)
            self._conclude(token, report)
            if report.event is not ReportEvent.HASH_MISMATCH or number >= _ATTEMPTS:
                return self._judge(report)
            self._say("the image arrived damaged: once more")
            self._until_off()
            token, number, resumed = "", number + 1, False

    def _open_attempt(self) -> tuple[str, int]:
        """Token and number of the attempt that was cut off, if there is one for this image; else none, and 1."""
        begun, ended = self._means.journal.find_intent(IMAGE), self._means.journal.find_observed(IMAGE)
        if not begun or begun.get("image") != self._image.sha256:
            return "", 1
        if ended and ended.get("token") == begun["token"]:
            return "", 1
        return str(begun["token"]), int(begun["attempt"])

    def _begin(self, number: int) -> str:
        token, disk = self._means.new_token(), host_of(self._node).disk
        details = {"token": token, "attempt": number, "image": self._image.sha256, "serial": self._node.serial}
        self._means.journal.intent(IMAGE, details | {"disk": disk.device, "disk_serial": disk.serial})
        return token

    def _drive(self, token: str, resumed: bool) -> None:
        """Puts the attempt in motion, unless the node is on its way already."""
        if resumed:
            reports = self._means.site.reports(token)
            under_way = bool(reports) and self._means.bmc.power() is not Power.OFF
            if under_way or any(report.event in ENDINGS for report in reports):
                self._say("goes on where it was cut off")
                return
        site, node = self._means.site, self._node
        url = site.report_url(token)
        seed = site.publish_seed(token, seed_files(node, self._image.sha256, url, self._order.login_keys))
        site.publish_boot(node, render_boot_script(node, self._image, seed, url, token))
        self._press(token)

    def _press(self, token: str) -> None:
        action = Reset.ON if self._settled_power() is Power.OFF else Reset.FORCE_RESTART
        self._say("network boot")
        self._means.journal.intent(POWER, {"token": token, "action": action.value})
        try:
            self._restart_from_network(action)
        except UnreachableError:
            # The answer was lost, perhaps not the deed. Both again: a first restart would have used the override up.
            self._restart_from_network(action)
        self._means.journal.observed(POWER, {"token": token, "action": action.value})

    def _restart_from_network(self, action: Reset) -> None:
        self._means.bmc.boot_once_from_network()
        self._means.bmc.reset(action)

    def _until_off(self) -> None:
        """The ramdisk said that it switches off; a restart pressed at that moment might be lost."""
        until = self._now() + self._patience.power_settles_s
        while self._now() < until and not self._is_off():
            self._means.sleep(self._patience.poll_s)

    def _settled_power(self) -> Power:
        until = self._now() + self._patience.power_settles_s
        while True:
            power = self._means.bmc.power()
            if power in (Power.ON, Power.OFF):
                return power
            if self._now() > until:
                raise UndecidedError(
                    f"{self._node.name}: its power has been {power.value} for {self._patience.power_settles_s:.0f} s",
                    "look at the BMC; an AC power cycle may be needed",
                )
            self._means.sleep(self._patience.poll_s)

    def _wait(self, token: str) -> Report | None:
        """The report that ends the attempt; None if it does not come, or the machine switched itself off."""
        until = self._now() + self._patience.attempt_s
        look_at_power = self._now() + self._patience.power_looks_s
        withdrawn = dark = False
        while self._now() < until:
            reports = self._means.site.reports(token)
            ending = next((report for report in reports if report.event in ENDINGS), None)
            if ending or dark:
                return ending
            if reports and reports[-1].event is ReportEvent.WRITTEN and not withdrawn:
                self._means.site.withdraw(self._node, token)  # a second network boot would write the disk again
                withdrawn = True
            self._say(
                {"": "waiting for its network boot", "started": "writing the image", "written": "booting"}[
                    reports[-1].event if reports else ""
                ]
            )
            if self._now() > look_at_power:
                dark = self._is_off()  # once more through the loop: its last word may have come in between
                look_at_power = self._now() + self._patience.power_looks_s
            self._means.sleep(self._patience.poll_s)
        return None

    def _is_off(self) -> bool:
        try:
            return self._means.bmc.power() is Power.OFF
        except UndecidedError:
            return False  # the node is what matters now, and it may be doing well

    def _timed_out(self, token: str) -> ImageResult:
        reports = self._means.site.reports(token)
        last = f"its last word was '{reports[-1].event}'" if reports else "it never came up in the deploy ramdisk"
        mac = host_of(self._node).mac.lower()
        if not reports and self._macs and mac not in self._macs:
            last += f"; the plan boots from {mac}, the BMC lists {', '.join(self._macs)}"
        self._conclude(token, None)
        return self._error("IMAGE_TIMEOUT", f"no end was reported: {last}", f"look at its console, then {self._again}")

    def _conclude(self, token: str, report: Report | None) -> None:
        """Takes the offer back, then records the end: cut off in between, the same report is read again."""
        self._means.site.withdraw(self._node, token)
        details = {"token": token, "event": report.event.value if report else "none"}
        if report:
            details |= {
                "serial": report.serial, "code": report.code, "message": report.message, "found": report.found,
                "expected": report.expected, "image": report.image, "host_key": report.host_key,
            }  # fmt: skip
        self._means.journal.observed(IMAGE, details)

    def _judge(self, report: Report) -> ImageResult:
        match report.event:
            case ReportEvent.BOOTED:
                return self._judge_booted(report)
            case ReportEvent.REFUSED if report.code in _REFUSALS:
                text = f"the deploy ramdisk found {report.found or 'nothing'}, the plan says {report.expected}"
                return self._refused(report.code, f"{text}; nothing was written")
            case ReportEvent.HASH_MISMATCH:
                text = f"the download has sha256 {report.found[:16]}…, the image {self._image.sha256[:16]}…"
                hint = f"check the provisioning server's copy of {self._order.image}, then {self._again}"
                return self._error("IMAGE_HASH_MISMATCH", f"{_ATTEMPTS} times {text}; the disk was wiped", hint)
            case _:
                said = f"{report.code or report.event}: {report.message or report.found}"
                return self._error("IMAGE_FAILED", f"the deploy ramdisk gave up: {said}", self._again)

    def _judge_booted(self, report: Report) -> ImageResult:
        if report.serial != self._node.serial:
            text = f"the booted system says serial {report.serial}, the plan says {self._node.serial}"
            return self._refused("NODE_SERIAL_MISMATCH", text)
        if report.image != self._image.sha256 or not _HOST_KEY.fullmatch(report.host_key):
            return self._error("IMAGE_FAILED", "the first boot reported another image or no host key", self._again)
        return self._passed(report.host_key, "runs the planned image")

    @property
    def _again(self) -> str:
        return self._order.again

    def _passed(self, host_key: str, message: str) -> ImageResult:
        return ImageResult(Outcome.PASSED, message=message, host_key=host_key, image_sha256=self._image.sha256)

    def _error(self, code: str, message: str, next_command: str) -> ImageResult:
        return ImageResult(Outcome.ERROR, code, "", f"{self._node.name}: {message}", next_command)

    def _refused(self, code: str, message: str) -> ImageResult:
        node, disk = self._node, host_of(self._node).disk
        machine = f"tray {node.name} in slot {node.slot} ({node.serial})"
        part = f"disk {disk.device} of {node.name} ({disk.serial})" if code == "DISK_SERIAL_MISMATCH" else machine
        hint = f"correct the rack file or put the planned part in, then rackproof release {node.name}"
        return ImageResult(Outcome.FAILED, code, part, f"{node.name}: {message}", hint)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._means.progress(text)

    def _now(self) -> float:
        return self._means.clock().timestamp()
