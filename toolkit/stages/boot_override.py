"""The boot override of an attempt: asked for one network boot, and seen to be gone once the node runs from its disk.

Some BMCs make Continuous of Once (sushy-tools' emulator always does), some show Once and never use it up: every later
boot would be from the network. While the attempt's boot script is given out once, that does no harm, so imaging goes
on; afterwards the override is taken back. What was shown is on record with the power action, so that whoever comes
after a killed run knows that there is something to take back.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import UndecidedError
from toolkit.netboot.offers import OfferState
from toolkit.rack.model import Unit
from toolkit.redfish import (
    BmcClient,
    BootEnabled,
    BootOverride,
    BootTarget,
    OverrideIgnoredError,
    OverrideStaysError,
)
from toolkit.stages.imaging_record import OVERRIDE, POWER, Journal
from toolkit.stages.provisioning import ImageSite

_ONCE = BootOverride(BootTarget.PXE, BootEnabled.ONCE)
_CONTINUOUS = BootOverride(BootTarget.PXE, BootEnabled.CONTINUOUS)


@dataclass(frozen=True, slots=True)
class Released:
    """What became of the override. `said`: of one that had stayed; `left`: why one may stand still, "" where none."""

    said: str = ""
    left: str = ""


@dataclass(frozen=True, slots=True)
class AttemptOverride:
    """The boot override of one node, for the attempts to image it."""

    node: Unit
    bmc: BmcClient
    site: ImageSite
    record: Journal

    def ask(self, token: str) -> BootOverride:
        """Network boot for the next start, as the BMC shows it then: Once, or Continuous under a one-time script.

        Raises OverrideStaysError for Continuous where the script in force is not this attempt's one-time script, after
        the override was cleared; OverrideIgnoredError where the BMC shows neither.
        """
        shown = self.bmc.boot_from_network()
        if shown == _ONCE:
            return shown
        if shown != _CONTINUOUS:
            raise OverrideIgnoredError(
                f"{self.node.name}: its BMC accepted network boot for the next start and shows {shown}",
                "look at the system's Boot property; a BMC reset often helps",
            )
        offer = self.site.offer(self.node)
        if offer is None or (offer.token, offer.state) != (token, OfferState.ARMED):
            self.bmc.clear_boot_override()
            raise OverrideStaysError(
                f"{self.node.name}: its BMC shows Continuous, and its boot script is not one that is given out once",
                "look at rackproof netboot status; then the same command again",
            )
        return shown

    def is_settled(self, token: str) -> bool:
        """Whether the record says that no override of this attempt is left."""
        gone, found = self.record.find_observed(OVERRIDE), self.record.find_intent(OVERRIDE)
        if gone and gone.get("token") == token:
            return True
        return self._was_once(token) and not (found and found.get("token") == token)

    def release(self, token: str, is_certain: bool) -> Released:
        """Takes back what stays. `is_certain`: the boot that it was for is over, so nothing may stand any more.

        A BMC that showed Once and cannot be asked now is believed; one that showed anything else is not.
        """
        believed = self.is_settled(token)
        if believed and not is_certain:
            return Released()
        try:
            shown = self.bmc.boot_override()
        except UndecidedError as problem:
            return Released() if believed else Released(left=problem.message)
        details = {"token": token, "was": str(shown)}
        if not _is_from_network(shown):
            if not believed:
                self.record.observed(OVERRIDE, details | {"shown": str(shown)})
            return Released()
        self.record.intent(OVERRIDE, details)
        try:
            now = self.bmc.clear_boot_override()
        except UndecidedError as problem:
            return Released(left=problem.message)
        self.record.observed(OVERRIDE, details | {"shown": str(now)})
        return Released(f"its BMC kept the boot override ({shown}); it is cleared now ({now})")

    def _was_once(self, token: str) -> bool:
        """Whether the BMC showed Once, on record, when the button of this attempt was pressed last."""
        pressed = self.record.find_observed(POWER)
        return pressed is not None and (pressed.get("token"), pressed.get("override")) == (token, str(_ONCE))


def _is_from_network(shown: BootOverride) -> bool:
    return shown.active and shown.target is not BootTarget.HDD
