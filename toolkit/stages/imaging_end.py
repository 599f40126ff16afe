"""How an attempt to image a node ended: named, from the node's reports and the fate of its boot script. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.netboot.offers import Offer, OfferState
from toolkit.netboot.probe import DhcpServer
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.model import Unit
from toolkit.redfish import Power
from toolkit.stages.boot_script import disk_of, host_of
from toolkit.stages.deploy_reports import Report, ReportEvent

HOST_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}")
_REFUSALS = frozenset({"NODE_SERIAL_MISMATCH", "DISK_SERIAL_MISMATCH", "DISK_SIZE_MISMATCH"})
# What the deploy ramdisk fails with, where an operator does something about it that is not trying again.
_CODES = {
    "DISK_AMBIGUOUS": "correct the rack file: name each disk by a serial or a wwn that no other one has",
    "DISK_IN_USE": "see what holds it on the node's console, and why the deploy ramdisk started that",
    "DISK_TOO_SMALL": "plan a larger disk in the rack file, or an image that fits",
    "DISK_READBACK": "the disk does not keep what is written to it: replace it, then rackproof release {node}",
    "ERASE_REFUSED": "allow a method that the disk has under `erase:` of the profile, or replace the disk",
    "MANIFEST_UNTRUSTED": "rackproof image verify and publish it again; somebody changed what the server offers",
    "MANIFEST_WRONG": "publish the image again; then {again}",
    "RAID_FAILED": "look at the node's console and at the log that is kept with this run",
}


@dataclass(frozen=True, slots=True)
class ImageResult:
    """How it ended. FAILED only on the word of BMC or ramdisk that this is not the planned machine or disk.

    certified  the host key has a certificate of the site's SSH CA
    """

    outcome: Outcome
    code: str = ""
    part: str = ""
    message: str = ""
    next_command: str = ""
    host_key: str = ""
    certified: bool = False
    image_sha256: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Silence:
    """What is known of a node that said nothing any more.

    power  by its BMC's word; None where the BMC does not answer either
    macs   of its interfaces, as its BMC lists them
    strangers   DHCP servers beside the boot service's, looked for where nobody fetched the boot script; `not_looked`
                says why nobody could
    """

    reports: Sequence[Report]
    offer: Offer | None
    power: Power | None
    macs: Sequence[str] = ()
    strangers: Sequence[DhcpServer] = ()
    not_looked: str = ""


def refused(node: Unit, code: str, message: str) -> ImageResult:
    """Not the planned machine, or not the planned disk."""
    disk = disk_of(node)
    machine = f"tray {node.name} in slot {node.slot} ({node.serial})"
    part = f"disk {disk.device} of {node.name} ({disk.serial or disk.wwn})" if code.startswith("DISK_") else machine
    hint = f"correct the rack file or put the planned part in, then rackproof release {node.name}"
    return ImageResult(Outcome.FAILED, code, part, f"{node.name}: {message}", hint)


def error(node: Unit, code: str, message: str, next_command: str) -> ImageResult:
    """We could not, or could not tell."""
    return ImageResult(Outcome.ERROR, code, "", f"{node.name}: {message}", next_command)


def override_left(node: Unit, passed: ImageResult, why: str, again: str) -> ImageResult:
    """The image is up, and nobody can say that the next boot is from the disk: whoever answers it then is obeyed."""
    text = f"{passed.message}, and its BMC may keep the boot override, so that it boots from the network again: {why}"
    hint = f"set the override to Disabled at its BMC and see it there; then {again}"
    return error(node, "BMC_OVERRIDE_STAYS", text, hint)


def judge_report(node: Unit, report: Report, again: str) -> ImageResult:
    """The end that a node reported, but for BOOTED and HASH_MISMATCH."""
    if report.event is ReportEvent.REFUSED and report.code in _REFUSALS:
        text = f"the deploy ramdisk found {report.found or 'nothing'}, the plan says {report.expected}"
        return refused(node, report.code, f"{text}; nothing was written")
    if report.code in _CODES:
        hint = _CODES[report.code].format(node=node.name, again=again)
        return error(node, report.code, f"the deploy ramdisk gave up: {report.message}", hint)
    said = f"{report.code or report.event}: {report.message or report.found}"
    return error(node, "IMAGE_FAILED", f"the deploy ramdisk gave up: {said}", again)


def judge_silence(node: Unit, silence: Silence, again: str) -> ImageResult:
    """No end was reported: which step did not happen, by what is known from outside."""
    offer, last = silence.offer, silence.reports[-1] if silence.reports else None
    console = f"look at its console, then {again}"
    if offer is not None and offer.again:
        text = (
            f"it boots from the network again and again ({offer.again} times since its boot script was given out; each "
            f"was sent on to the disk): {_last_word(last)}"
        )
        hint = f"the BMC keeps the override, or the firmware's order has the network first: correct it, then {again}"
        if last is None:
            hint = f"a damaged kernel or ramdisk that restarts the machine (look at its console); else {hint}"
        return error(node, "BOOT_LOOP", text, hint)
    if last is not None:
        code = "IMAGE_POWER_LOST" if silence.power is Power.OFF else "IMAGE_TIMEOUT"
        lost = ", and it is switched off now" if silence.power is Power.OFF else ""
        return error(node, code, f"no end was reported: {_last_word(last)}{lost}", console)
    power = "the BMC does not answer any more" if silence.power is None else f"the BMC says power {silence.power}"
    if offer is not None and offer.state is OfferState.TAKEN:
        text = f"it never came up in the deploy ramdisk: it fetched its boot script at {offer.taken_at}, {power}"
        hint = f"kernel, ramdisk or a driver for its boot NIC is at fault: {console}"
        return error(node, "DEPLOY_SILENT", text, hint)
    return _no_network_boot(node, silence, power, again)


def _no_network_boot(node: Unit, silence: Silence, power: str, again: str) -> ImageResult:
    mac = host_of(node).mac.lower()
    text = f"it never came up in the deploy ramdisk: nobody fetched its boot script, {power}"
    if silence.macs and mac not in silence.macs:
        text += f"; the plan boots from {mac}, the BMC lists {', '.join(silence.macs)}"
    rogues = [server for server in silence.strangers if server.boot_file]
    if rogues:
        said = ", ".join(f"{s.address} at {s.hardware} offers {s.offered} and boot file {s.boot_file}" for s in rogues)
        hint = f"find the port of that hardware address in the switches and shut it, power the node off, then {again}"
        return error(node, "ROGUE_DHCP", f"{text}; another DHCP server answers it: {said}", hint)
    if silence.strangers:
        said = ", ".join(f"{s.address} at {s.hardware}" for s in silence.strangers)
        text += f"; other DHCP servers, which name nothing to boot, answer it: {said}"
    if silence.not_looked:
        text += f"; nobody looked for other DHCP servers: {silence.not_looked}"
    hint = (
        "its BMC ignored the boot override, its boot NIC has no link, or another DHCP server answered it: "
        f"rackproof netboot status, its console, then {again}"
    )
    return error(node, "NETWORK_BOOT_ABSENT", text, hint)


def _last_word(last: Report | None) -> str:
    if last is None:
        return "it never came up in the deploy ramdisk"
    if last.event is ReportEvent.PROGRESS:
        return f"its last word was '{last.step} {last.percent} %'"
    return f"its last word was '{last.event}'"
