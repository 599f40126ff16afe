"""Images one node: says who it must be, offers it image and seed, makes it boot from the network, waits for its word.

May be cut off at any instant. Every attempt has a token that is on record before anything outside is touched; whoever
comes next finds it, reads what the node reported under it, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.netboot.offers import OfferState
from toolkit.netboot.probe import DhcpServer
from toolkit.rack.imaging import BY_DEFAULT, ImagingPolicy
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.model import Profile, Unit
from toolkit.redfish import BmcClient, BmcRefusedError, OverrideIgnoredError, OverrideStaysError, Power, Reset
from toolkit.stages.boot_override import AttemptOverride, Released
from toolkit.stages.boot_script import ImageSource, disk_of, render_boot_script
from toolkit.stages.deploy_reports import ENDINGS, Report, ReportEvent
from toolkit.stages.imaging_end import (
    HOST_KEY,
    ImageResult,
    Silence,
    error,
    judge_report,
    judge_silence,
    override_left,
    refused,
)
from toolkit.stages.imaging_record import ERASED, IMAGE, POWER, Journal
from toolkit.stages.provisioning import ImageSite
from toolkit.stages.seeds import seed_files

CERTIFIED = "certified"  # code of WRITTEN: the host key's certificate is on the disk
_NOT_DONE = 0.99  # of a progress bar: 1 says that the stage has its result
_ATTEMPTS = 2  # an image that arrives damaged twice is damaged on the server; power that goes twice is no accident


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """What is asked for.

    image       name of the image in the provisioning root
    login_keys  SSH public keys that may log in as root
    again       the command that tries again
    profile     how disks are erased and laid out; None: as if it said nothing
    """

    node: Unit
    image: str
    login_keys: tuple[str, ...]
    again: str
    profile: Profile | None = None

    @property
    def policy(self) -> ImagingPolicy:
        """The profile's."""
        return self.profile.imaging if self.profile is not None else BY_DEFAULT


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds. `silence_s`: without a word from the node; every report begins it anew."""

    silence_s: float = 900.0
    poll_s: float = 0.5
    power_settles_s: float = 60.0
    power_looks_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Means:
    """Everything reached outside, and time.

    is_running     the node answers SSH with that host key
    sign_host_key  the certificate of the site's SSH CA for the node's host key; None where the site has no CA
    keep_log       keeps the ramdisk's log as an artifact; its sha256
    strangers      DHCP servers that would answer the node and are not the boot service's; UsageError where nobody
                   can look from here, None where nobody does
    """

    bmc: BmcClient
    site: ImageSite
    journal: Journal
    is_running: Callable[[str], bool]
    new_token: Callable[[], str]
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    progress: Callable[[str, float | None], None]
    keep_log: Callable[[bytes], str]
    sign_host_key: Callable[[str], str] | None = None
    strangers: Callable[[], Sequence[DhcpServer]] | None = None


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
    except (OverrideIgnoredError, OverrideStaysError) as problem:
        code = "BMC_OVERRIDE_STAYS" if isinstance(problem, OverrideStaysError) else "BMC_OVERRIDE_IGNORED"
        result = ImageResult(Outcome.ERROR, code, message=problem.message, next_command=problem.hint)
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
        self._said: tuple[str, float | None] = ("", None)
        self._signed: set[str] = set()
        self._override = AttemptOverride(self._node, means.bmc, means.site, means.journal)

    def run(self) -> ImageResult:
        return self._already() or self._wrong_machine() or self._attempts()

    def _already(self) -> ImageResult | None:
        """A node that booted this image, on record, and still answers with the key it had then."""
        last = self._means.journal.find_observed(IMAGE)
        if not last or last.get("event") != ReportEvent.BOOTED or last.get("image") != self._image.sha256:
            return None
        if last.get("serial") != self._node.serial or not self._means.is_running(str(last["host_key"])):
            return None
        passed = self._passed(str(last["host_key"]), bool(last.get("certified")), "runs the planned image already")
        token = str(last["token"])
        if self._override.is_settled(token):
            return passed
        return self._with_override(passed, self._override.release(token, is_certain=True))

    def _wrong_machine(self) -> ImageResult | None:
        self._say("reading the machine's identity")
        identity = self._means.bmc.identity()
        self._macs = identity.macs
        if identity.serial == self._node.serial:
            return None
        text = f"the BMC says serial {identity.serial}, the plan says {self._node.serial}; nothing was touched"
        return refused(self._node, "NODE_SERIAL_MISMATCH", text)

    def _attempts(self) -> ImageResult:
        token, number = self._open_attempt()
        resumed = bool(token)
        while True:
            token = token or self._begin(number)
            self._drive(token, resumed)
            ending = self._wait(token)
            silence = None if ending else self._silence(token)
            released = self._override.release(token, _is_boot_over(ending, silence))  # before the end is on record
            self._conclude(token, ending)
            if number >= _ATTEMPTS or not self._worth_another(ending, silence):
                result = self._judge(ending, token) if ending else self._judge_silence(silence)
                return self._with_override(result, released)
            self._until_off()
            token, number, resumed = "", number + 1, False

    def _worth_another(self, ending: Report | None, silence: Silence | None) -> bool:
        """What may be better at once, with nobody looking: a damaged transfer, a power cut under the ramdisk."""
        if ending is not None and ending.event is ReportEvent.HASH_MISMATCH:
            self._say("the image arrived damaged: once more")
            return True
        if silence is not None and silence.power is Power.OFF and silence.reports:
            self._say("its power went away: once more")
            return True
        return False

    def _silence(self, token: str) -> Silence:
        """What is known of it from outside. Asked before the offer is withdrawn: that tells too."""
        offer = self._means.site.offer(self._node)
        mine = offer if offer is not None and offer.token == token else None
        reports = self._means.site.reports(token)
        silence = Silence(reports, mine, self._power_now(), self._macs)
        if reports or mine is None or mine.state is not OfferState.ARMED or self._means.strangers is None:
            return silence
        try:
            return replace(silence, strangers=tuple(self._means.strangers()))
        except UsageError as problem:
            return replace(silence, not_looked=problem.message)

    def _with_override(self, result: ImageResult, released: Released) -> ImageResult:
        """The result, with what became of a boot override that had stayed."""
        if released.left and result.outcome is Outcome.PASSED:
            return override_left(self._node, result, released.left, self._order.again)
        said = released.said or (released.left and f"its BMC may keep the boot override: {released.left}")
        return replace(result, message=f"{result.message}; {said}") if said else result

    def _open_attempt(self) -> tuple[str, int]:
        """Token and number of the attempt that was cut off, if there is one for this image; else none, and 1."""
        begun, ended = self._means.journal.find_intent(IMAGE), self._means.journal.find_observed(IMAGE)
        if not begun or begun.get("image") != self._image.sha256:
            return "", 1
        if ended and ended.get("token") == begun["token"]:
            return "", 1
        return str(begun["token"]), int(begun["attempt"])

    def _begin(self, number: int) -> str:
        token, disk = self._means.new_token(), disk_of(self._node)
        details = {"token": token, "attempt": number, "image": self._image.sha256, "serial": self._node.serial}
        erase = ",".join(self._order.policy.erase.methods)
        named = {"disk": disk.device, "disk_serial": disk.serial, "disk_wwn": disk.wwn, "erase": erase}
        self._means.journal.intent(IMAGE, details | named)
        return token

    def _drive(self, token: str, resumed: bool) -> None:
        """Puts the attempt in motion, unless the node is on its way already."""
        if resumed:
            reports = self._means.site.reports(token)
            under_way = bool(reports) and self._means.bmc.power() is not Power.OFF
            if under_way or any(report.event in ENDINGS for report in reports):
                self._say("goes on where it was cut off")
                return
        site, node, order = self._means.site, self._node, self._order
        places = site.places(token, signed=self._means.sign_host_key is not None)
        files = seed_files(node, order.profile, self._image.sha256, places.report, order.login_keys)
        seed = site.publish_seed(token, files)
        self._press(token, render_boot_script(node, self._image, seed, places, order.policy))

    def _press(self, token: str, script: str) -> None:
        """Arms the boot script, which is given out once, and restarts the node from the network."""
        self._means.site.publish_boot(self._node, token, script)
        action = Reset.ON if self._settled_power() is Power.OFF else Reset.FORCE_RESTART
        self._say("network boot")
        self._means.journal.intent(POWER, {"token": token, "action": action.value})
        try:
            shown = self._restart_from_network(token, action)
        except UnreachableError:
            # The answer was lost, perhaps not the deed. All again: a first restart would have used the override up, and
            # perhaps the script.
            self._means.site.publish_boot(self._node, token, script)
            shown = self._restart_from_network(token, action)
        self._means.journal.observed(POWER, {"token": token, "action": action.value, "override": shown})

    def _restart_from_network(self, token: str, action: Reset) -> str:
        """Answers the boot override as the BMC showed it before the button was pressed."""
        shown = self._override.ask(token)
        self._means.bmc.reset(action)
        return str(shown)

    def _until_off(self) -> None:
        """The ramdisk said that it switches off; a restart pressed at that moment might be lost."""
        until = self._now() + self._patience.power_settles_s
        while self._now() < until and self._power_now() is not Power.OFF:
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
        """The report that ends the attempt; None if nothing comes any more, or the machine switched itself off.

        A BMC's word that it is off counts only while the node is silent: some say so of a machine that works.
        """
        until = self._now() + self._patience.silence_s
        look_at_power = self._now() + self._patience.power_looks_s
        heard, dark = 0, False
        while self._now() < until:
            reports = self._means.site.reports(token)
            ending = next((report for report in reports if report.event in ENDINGS), None)
            if ending or (dark and len(reports) == heard):
                return ending
            if len(reports) > heard:
                heard, dark = len(reports), False
                until = self._now() + self._patience.silence_s
                look_at_power = self._now() + self._patience.power_looks_s
                self._sign(token, reports)
            self._tell(reports)
            if self._now() > look_at_power:
                dark = self._power_now() is Power.OFF  # once more through the loop: its last word may have come by now
                look_at_power = self._now() + self._patience.power_looks_s
            self._means.sleep(self._patience.poll_s)
        return None

    def _sign(self, token: str, reports: tuple[Report, ...]) -> None:
        """The host key that the ramdisk made gets its certificate while the image is written; the first one counts."""
        made = _host_key(reports)
        if made and token not in self._signed and self._means.sign_host_key is not None:
            self._means.site.publish_certificate(token, self._means.sign_host_key(made))
            self._signed.add(token)

    def _tell(self, reports: tuple[Report, ...]) -> None:
        last = reports[-1] if reports else None
        match last:
            case None:
                self._say("waiting for its network boot")
            case Report(event=ReportEvent.PROGRESS):
                self._say(f"{last.step} {last.percent} %", min(last.percent / 100, _NOT_DONE))
            case Report(event=ReportEvent.WRITTEN):
                self._say("booting")
            case _:
                self._say("writing the image")

    def _power_now(self) -> Power | None:
        """None where the BMC does not answer: the node is what matters now, and it may be doing well."""
        try:
            return self._means.bmc.power()
        except UndecidedError:
            return None

    def _conclude(self, token: str, report: Report | None) -> None:
        """Takes the offer back, then records the end: cut off in between, the same report is read again."""
        site, journal = self._means.site, self._means.journal
        reports, log = site.reports(token), site.log(token)
        site.withdraw(self._node, token)
        details: dict[str, Any] = {"token": token, "event": report.event.value if report else "none"}
        if report:
            details |= {
                "serial": report.serial, "code": report.code, "message": report.message, "found": report.found,
                "expected": report.expected, "image": report.image, "host_key": report.host_key,
                "certified": int(_is_certified(reports)),
            }  # fmt: skip
        if log:
            details["log"] = self._means.keep_log(log)
        for erased in (r for r in reports if r.event is ReportEvent.ERASED):
            told = {"token": token, "disk_serial": erased.found, "method": erased.code, "answer": erased.message}
            journal.observed(ERASED, told)
        journal.observed(IMAGE, details)

    def _judge_silence(self, silence: Silence | None) -> ImageResult:
        return judge_silence(self._node, silence or Silence((), None, None), self._order.again)

    def _judge(self, report: Report, token: str) -> ImageResult:
        if report.event is ReportEvent.BOOTED:
            return self._judge_booted(report, self._means.site.reports(token))
        if report.event is ReportEvent.HASH_MISMATCH:
            text = f"the download has sha256 {report.found[:16]}…, the image {self._image.sha256[:16]}…"
            hint = f"check the provisioning server's copy of {self._order.image}, then {self._order.again}"
            message = f"{_ATTEMPTS} times {text}; the disk was wiped"
            return error(self._node, "IMAGE_HASH_MISMATCH", message, hint)
        return judge_report(self._node, report, self._order.again)

    def _judge_booted(self, report: Report, reports: tuple[Report, ...]) -> ImageResult:
        if report.serial != self._node.serial:
            text = f"the booted system says serial {report.serial}, the plan says {self._node.serial}"
            return refused(self._node, "NODE_SERIAL_MISMATCH", text)
        if report.image != self._image.sha256 or not HOST_KEY.fullmatch(report.host_key):
            text = "the first boot reported another image or no host key"
            return error(self._node, "IMAGE_FAILED", text, self._order.again)
        if _host_key(reports) not in ("", report.host_key):
            text = "the booted system has another host key than the one that was planted"
            return error(self._node, "IMAGE_FAILED", text, self._order.again)
        return self._passed(report.host_key, _is_certified(reports), "runs the planned image")

    def _passed(self, host_key: str, certified: bool, message: str) -> ImageResult:
        return ImageResult(
            Outcome.PASSED, message=message, host_key=host_key, certified=certified, image_sha256=self._image.sha256
        )

    def _say(self, text: str, done: float | None = None) -> None:
        if (text, done) != self._said:
            self._said = (text, done)
            self._means.progress(text, done)

    def _now(self) -> float:
        return self._means.clock().timestamp()


def _is_boot_over(ending: Report | None, silence: Silence | None) -> bool:
    """Whether the network boot is over for certain: it runs from its disk, or came back to the network after it."""
    if ending is not None:
        return ending.event is ReportEvent.BOOTED
    return silence is not None and silence.offer is not None and silence.offer.again > 0


def _host_key(reports: tuple[Report, ...]) -> str:
    """The key that the ramdisk made; empty before it told one, and for one that is none."""
    told = next((r.host_key for r in reports if r.event is ReportEvent.HOST_KEY), "")
    return told if HOST_KEY.fullmatch(told) else ""


def _is_certified(reports: tuple[Report, ...]) -> bool:
    """Whether the ramdisk planted the certificate that it was offered."""
    return any(r.event is ReportEvent.WRITTEN and r.code == CERTIFIED for r in reports)
