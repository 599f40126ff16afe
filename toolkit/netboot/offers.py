"""Boot scripts that are served once: armed by the controller, taken by the node's next network boot, then disarmed.

One JSON file a node below `offers/` of the provisioning root, changed under a lock of its own, so that controllers and
services of several racks work in one root without meeting. A script is on record as taken before its first byte is
sent: a machine that loses it in a power cut is armed again by whoever watches it, never by booting again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.errors import RackproofError
from toolkit.netboot.site import OFFERS, hyphenated

EXIT_SCRIPT = "#!ipxe\necho rackproof: nothing to be imaged here, booting from disk\nexit\n"
_MAX_BYTES = 256 * 1024
_KEY = re.compile(r"[0-9a-f]{2}(-[0-9a-f]{2}){5}")


class OfferState(StrEnum):
    """ARMED: the next network boot gets the script. TAKEN: it was given. DISARMED: taken back by the controller."""

    ARMED = "armed"
    TAKEN = "taken"
    DISARMED = "disarmed"


@dataclass(frozen=True, slots=True)
class Offer:
    """What one node may boot.

    token            the attempt it belongs to
    address          the only one that the script is given to
    script           "" once it is disarmed
    armed_at         when, ISO 8601, UTC; `taken_at` and `again_at` alike, "" for never
    again            network boots after it was taken, each answered `exit`: a BMC that ignores "Once" shows here
    """

    token: str
    address: str
    script: str
    state: OfferState
    armed_at: str
    taken_at: str = ""
    again: int = 0
    again_at: str = ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class BootOffers:
    """The offers of a provisioning root. Raises RackproofError for an offer's file that cannot be read."""

    provision: Path
    clock: Callable[[], str] = _now

    def arm(self, mac: str, address: str, token: str, script: str) -> Offer:
        """From now on the node's next network boot gets this script, once. Whatever was offered before is void."""
        offer = Offer(token, address, script, OfferState.ARMED, self.clock())
        with self._held(mac) as folder:
            self._write(folder, offer)
        return offer

    def take(self, mac: str, address: str) -> tuple[Offer | None, bool]:
        """A network boot of the node: the offer after it, and whether the script is this boot's.

        None: nothing was ever offered to it. Another address than the planned one changes nothing.
        """
        if not self._folder(mac).is_dir():
            return None, False
        with self._held(mac) as folder:
            offer = self._read(folder)
            if offer is None or offer.address != address:
                return offer, False
            if offer.state is OfferState.ARMED:
                taken = replace(offer, state=OfferState.TAKEN, taken_at=self.clock())
                self._write(folder, taken)
                return taken, True
            if offer.state is OfferState.TAKEN:
                offer = replace(offer, again=offer.again + 1, again_at=self.clock())
                self._write(folder, offer)
            return offer, False

    def disarm(self, mac: str, token: str) -> None:
        """Takes that attempt's script back; nothing happens where it is another attempt's turn, or nobody's."""
        if not self._folder(mac).is_dir():
            return
        with self._held(mac) as folder:
            offer = self._read(folder)
            if offer is not None and offer.token == token and offer.state is not OfferState.DISARMED:
                self._write(folder, replace(offer, state=OfferState.DISARMED, script=""))

    def look(self, mac: str) -> Offer | None:
        """What is offered now; None: nothing ever was."""
        return self._read(self._folder(mac))

    def _folder(self, mac: str) -> Path:
        key = hyphenated(mac)
        if not _KEY.fullmatch(key):
            raise RackproofError(f"{mac!r} is no MAC address", "this is a defect of rackproof")
        return self.provision / OFFERS / key

    @contextmanager
    def _held(self, mac: str) -> Iterator[Path]:
        """The node's folder, ours alone until the end of the block."""
        folder = self._folder(mac)
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(lock)

    @staticmethod
    def _write(folder: Path, offer: Offer) -> None:
        write_whole(folder / "offer.json", json.dumps(asdict(offer)).encode() + b"\n", 0o600)

    @staticmethod
    def _read(folder: Path) -> Offer | None:
        file = folder / "offer.json"
        try:
            with file.open("rb") as stream:
                raw = json.loads(stream.read(_MAX_BYTES))
            return Offer(**{**raw, "state": OfferState(raw["state"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise RackproofError(
                f"{file}: not an offer of ours: {error}", "remove it; the image stage offers again"
            ) from error
