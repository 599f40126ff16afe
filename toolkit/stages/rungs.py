"""Carries out one rung of the ladder: intent on record before the act, what was seen after it, never twice for one.

Whoever comes back after being killed asks what happened before doing anything. A machine that came up again says so by
its boot id; a power cycle that cannot be told by it goes through `off`, which is seen and on record before `on` is
pressed. Where nothing tells, nothing is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.judge.ladder import Rung
from toolkit.judge.recovery import Recovery
from toolkit.ledger import EventKind
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Unit
from toolkit.redfish import BmcClient, Power, Reset
from toolkit.report.text import printable
from toolkit.stages import gpu_reset
from toolkit.stages.context import Context, Progress
from toolkit.stages.failure import FILED, NOT_DONE, Failure, unfinished

OFF = f"{FILED} off"  # the ledger's key of power that was seen to be off
# A DGX takes minutes to its operating system, and memory training of a cold start more: as an image's first boot.
BOOT_POLLS, BOOT_POLL_SECONDS = 180, 5.0
POWER_POLLS, POWER_POLL_SECONDS = 60, 1.0
# A command that was sent and whose sender was killed has begun by then, if it ever does.
LINGER_POLLS = 3
LOOK_SECONDS, ASK_SECONDS = 15.0, 30.0
_OFF_AND_ON = "off and on"
_BOOT_ID = ("cat", "/proc/sys/kernel/random/boot_id")


class End(StrEnum):
    """How a rung ended."""

    SETTLED = "settled"  # it happened, and nothing on the node waits any more
    UNSETTLED = "unsettled"  # it happened, and what it was for is still there
    REFUSED = "refused"  # it was not done: the node would not
    UNKNOWN = "unknown"  # nobody can tell whether it happened, or the node does not answer since


@dataclass(frozen=True, slots=True)
class Climbed:
    """One rung, as it went. `means`: what was done, in words; `said`: what is wrong since, or what the node said."""

    rung: Rung
    end: End
    means: str = ""
    said: str = ""
    boot_before: str = ""
    boot_after: str = ""


def climb(context: Context, node: Unit, failure: Failure, rung: Rung) -> Climbed:
    """Does the rung for this failure, or goes on with one that was cut off. What came of it is on record.

    Raises UnreachableError and UndecidedError where it could not be begun: nothing was touched then.
    """
    act = {Rung.GPU_RESET: _gpu_reset, Rung.REBOOT: _reboot, Rung.POWER_CYCLE: _power_cycle}[rung]
    before = unfinished(context.ledger, context.rack.name, node.name)
    begun = None
    if before is not None:
        told: Mapping[str, Any] = before.body["details"]
        if told["rung"] == rung and told["incident"] == failure.incident:
            begun = told
    return act(_Rung(context, node, failure, rung), begun)


@dataclass(frozen=True, slots=True)
class _Rung:
    """One rung on one node, and its way into the ledger."""

    context: Context
    node: Unit
    failure: Failure
    rung: Rung

    @property
    def base(self) -> dict[str, object]:
        """What every event of it says."""
        f = self.failure
        return {"rung": self.rung, "incident": f.incident, "codes": f.codes, "boards": f.boards, "gpus": list(f.gpus)}

    def intend(self, means: str, boot_id: str) -> None:
        """On record before the act."""
        details = self.base | {"means": means, "boot_id": boot_id}
        self.context.ledger.intent(self.context.rack.name, self.node.name, FILED, details)

    def ended(self, end: End, means: str, boots: tuple[str, str], said: str = "", artifact: str = "") -> Climbed:
        """On record after it."""
        happened = {End.REFUSED: False, End.UNKNOWN: None}.get(end, True)
        details = self.base | {
            "outcome": end, "happened": happened, "means": means, "said": said[:500], "boot_id": boots[1],
            "artifact": artifact,
        }  # fmt: skip
        self.context.ledger.observed(self.context.rack.name, self.node.name, FILED, details)
        return Climbed(self.rung, end, means, said[:500], *boots)

    def was_not_done(self, means: str, boot_id: str) -> None:
        """The one that was cut off is closed: it touched nothing, and the rung may be begun anew."""
        details = self.base | {
            "outcome": NOT_DONE, "happened": False, "means": means, "said": "the same boot: cut off before the act",
            "boot_id": boot_id, "artifact": "",
        }  # fmt: skip
        self.context.ledger.observed(self.context.rack.name, self.node.name, FILED, details)

    def say(self, text: str) -> None:
        """To whoever watches."""
        self.context.progress(Progress(self.node.name, Stage.BURNIN, text))

    def looked(self, means: str, boots: tuple[str, str]) -> Climbed:
        """The node is up again: what its GPUs show."""
        self.say("reading its GPUs")
        gpus = range(self.context.rack.profile.gpus_per_node)
        try:
            look = gpu_reset.settled(self.context, self.node, gpus, gpu_reset.SETTLE_POLLS)
        except UnreachableError as away:
            return self.ended(End.UNKNOWN, means, boots, away.message)
        end = End.SETTLED if look.done else End.UNSETTLED
        return self.ended(end, means, boots, look.problem, look.artifact)


def _gpu_reset(rung: _Rung, begun: Mapping[str, Any] | None) -> Climbed:
    """By the same hands as the burn-in's own: they look before they touch, so a kill is no reason to do it twice."""
    context, node = rung.context, rung.node
    gpus = rung.failure.gpus or tuple(range(context.rack.profile.gpus_per_node))
    means = f"nvidia-smi --gpu-reset for GPUs {', '.join(map(str, gpus))}"
    boot = _boot_id(context, node)
    if begun is None:
        rung.intend(means, boot)
    refused = gpu_reset.recover(context, node, f"{FILED} {rung.failure.incident}", Recovery(gpus, gpus))
    if refused is not None:
        return rung.ended(End.REFUSED, means, (boot, boot), refused.message)
    return rung.looked(means, (boot, boot))


def _reboot(rung: _Rung, begun: Mapping[str, Any] | None) -> Climbed:
    context, node, means = rung.context, rung.node, "systemctl reboot"
    if begun is not None:
        before = str(begun["boot_id"])
        after = _since(context, node, before)
        if after != before:
            return _up(rung, means, before, after)
        rung.was_not_done(means, before)
    before = _boot_id(context, node)
    rung.intend(means, before)
    rung.say("rebooting")
    try:
        answer = context.hands.shell.run(node, ["systemctl", "reboot"], ASK_SECONDS)
    except UnreachableError:
        answer = None  # the connection may go down with the machine: its boot id tells
    if answer is not None and answer.status > 0:
        words = printable((answer.stderr or answer.stdout)[:300].decode("utf-8", "replace").strip())
        return rung.ended(End.REFUSED, means, (before, before), f"systemctl ended with {answer.status}: {words}")
    return _up(rung, means, before, _another_boot(context, node, before))


def _power_cycle(rung: _Rung, begun: Mapping[str, Any] | None) -> Climbed:
    context, node = rung.context, rung.node
    bmc = context.hands.bmc(node)
    _same_machine(bmc, node)
    if begun is not None and begun["means"] != _OFF_AND_ON:
        before = str(begun["boot_id"])
        after = _since(context, node, before)
        if after != before:
            return _up(rung, str(begun["means"]), before, after)
        rung.was_not_done(str(begun["means"]), before)
        begun = None
    if begun is not None:
        return _off_and_on(rung, bmc, str(begun["boot_id"]), begun=True)
    try:
        before = _boot_id(context, node)
    except UndecidedError:
        before = ""  # it does not answer: a cycle that is told by power alone
    how = bmc.ac_cycle() if before else None
    if how is None:
        return _off_and_on(rung, bmc, before, begun=False)
    means = f"AC cycle ({how.value})"
    rung.intend(means, before)
    rung.say("standby power away and back")
    with suppress(UnreachableError):  # the BMC goes down with its own power: the boot id tells
        bmc.cut_ac(how)
    return _up(rung, means, before, _another_boot(context, node, before))


def _off_and_on(rung: _Rung, bmc: BmcClient, before: str, *, begun: bool) -> Climbed:
    """One cycle, however often it is cut off: `on` is pressed only after `off` was seen and is on record."""
    context, node = rung.context, rung.node
    if not begun:
        rung.intend(_OFF_AND_ON, before)
    if not (begun and _off_on_record(context, node)):
        rung.say("power off")
        if bmc.power() is not Power.OFF:
            bmc.reset(Reset.FORCE_OFF)
        if not _power_is(context, bmc, Power.OFF):
            return rung.ended(End.UNKNOWN, _OFF_AND_ON, (before, ""), "its power did not go off in a minute")
        context.ledger.observed(context.rack.name, node.name, OFF, rung.base)
    rung.say("power on")
    if bmc.power() is Power.OFF:
        bmc.reset(Reset.ON)
    return _up(rung, _OFF_AND_ON, before, _another_boot(context, node, before))


def _off_on_record(context: Context, node: Unit) -> bool:
    """Whether power was seen off since the rung was begun."""
    ledger, rack = context.ledger, context.rack.name
    intent = ledger.find(rack, node.name, EventKind.INTENT, FILED)
    off = ledger.find(rack, node.name, EventKind.OBSERVED, OFF)
    return intent is not None and off is not None and off.id > intent.id


def _same_machine(bmc: BmcClient, node: Unit) -> None:
    serial = bmc.identity().serial
    if serial != node.serial:
        raise UndecidedError(
            f"the BMC of {node.name} says serial {printable(serial, 64)}, the plan says {node.serial}: nothing touched",
            "correct the rack file or the BMC's cabling: this would be another machine's power",
        )


def _power_is(context: Context, bmc: BmcClient, wanted: Power) -> bool:
    for poll in range(POWER_POLLS):
        if poll:
            context.sleep(POWER_POLL_SECONDS)
        if bmc.power() is wanted:
            return True
    return False


def _up(rung: _Rung, means: str, before: str, after: str) -> Climbed:
    """The GPUs of a node that came up; a node that did not come is told as that."""
    if after and after != before:
        return rung.looked(means, (before, after))
    minutes = BOOT_POLLS * BOOT_POLL_SECONDS / 60
    said = "it goes on in the same boot" if after else "it did not answer again"
    return rung.ended(End.UNKNOWN, means, (before, after), f"{said}, {minutes:.0f} minutes after: {means}")


def _boot_id(context: Context, node: Unit) -> str:
    """Of the kernel that runs now (proc(5)). UndecidedError where the node does not say."""
    answer = context.hands.shell.run(node, _BOOT_ID, LOOK_SECONDS)
    text = answer.stdout[:64].decode("ascii", "replace").strip()
    if answer.status != 0 or len(text) != len("00000000-0000-0000-0000-000000000000") or not text.isprintable():
        raise UndecidedError(
            f"{node.name} does not say which boot it is in: {printable(text, 40) or answer.status}",
            "without that nobody could tell a restart that happened from one that did not",
        )
    return text


def _another_boot(context: Context, node: Unit, before: str) -> str:
    """The boot id once it is another one; the last one seen when time is up, empty if it never answered."""
    seen = ""
    for poll in range(BOOT_POLLS):
        if poll:
            context.sleep(BOOT_POLL_SECONDS)
        try:
            seen = _boot_id(context, node)
        except UndecidedError:
            seen = ""
        if seen and seen != before:
            break
    return seen


def _since(context: Context, node: Unit, before: str) -> str:
    """The boot id after a rung that was cut off: `before` only where it is proven that nothing happens any more."""
    for poll in range(LINGER_POLLS):
        if poll:
            context.sleep(BOOT_POLL_SECONDS)
        try:
            if _boot_id(context, node) != before or _is_stopping(context, node):
                return _another_boot(context, node, before)
        except UndecidedError:
            return _another_boot(context, node, before)
    return before


def _is_stopping(context: Context, node: Unit) -> bool:
    """Whether the node is on its way down (systemctl(1), is-system-running)."""
    answer = context.hands.shell.run(node, ["systemctl", "is-system-running"], LOOK_SECONDS)
    return answer.stdout[:64].strip() == b"stopping"
