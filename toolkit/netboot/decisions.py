"""What the boot service answers where a file alone is no answer: boot scripts, reports, logs. No sockets here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from toolkit.errors import RackproofError
from toolkit.netboot.hosts import planned
from toolkit.netboot.offers import EXIT_SCRIPT, BootOffers, OfferState
from toolkit.netboot.posts import LOG_MAX_BYTES, REPORT_MAX_BYTES, Posts, Taken
from toolkit.netboot.site import SCRIPT_SUFFIX

_POST = re.compile(r"/(report|log)/([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_SCRIPT = re.compile(r"/boot/([0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5})" + re.escape(SCRIPT_SUFFIX))
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, body, its type."""

    status: int
    body: bytes = b""
    content_type: str = _TEXT


@dataclass(frozen=True, slots=True)
class PostedTo:
    """Where something is posted, and how much of it may be."""

    kind: str
    token: str
    max_bytes: int


def posted_to(target: str) -> PostedTo | None:
    """`/report/TOKEN` or `/log/TOKEN`; None for any other place."""
    found = _POST.fullmatch(urlsplit(target).path)
    if found is None:
        return None
    return PostedTo(found[1], found[2], REPORT_MAX_BYTES if found[1] == "report" else LOG_MAX_BYTES)


def is_script(target: str) -> bool:
    """Whether a boot script is asked for: these are decided here, and never served as files."""
    return unquote(urlsplit(target).path).endswith(SCRIPT_SUFFIX)


@dataclass(frozen=True)
class Decisions:
    """Decides for one provisioning root.

    hosts  folder with the planned nodes of each rack
    say    writes a line for the operator
    """

    hosts: Path
    offers: BootOffers
    posts: Posts
    say: Callable[[str], None]
    _told: set[str] = field(default_factory=set)

    def script(self, target: str, source: str, look_only: bool = False) -> Answer:
        """The boot script of a node, to its own address alone, once; `look_only` (HEAD) takes nothing."""
        found = _SCRIPT.fullmatch(urlsplit(target).path)
        if found is None:
            return Answer(404)
        mac = found[1].lower().replace("-", ":")
        known = planned(self.hosts).get(mac)
        if known is None or known.address != source:
            return self._stranger(mac, source, known.address if known else "")
        if look_only:
            return Answer(200)
        try:
            offer, is_first = self.offers.take(mac, source)
        except RackproofError as error:
            self.say(f"boot {mac}: {error.message}")
            return Answer(500)
        if offer is not None and is_first:
            self.say(f"boot {mac}: attempt {offer.token} is taken by {source}")
            return Answer(200, offer.script.encode())
        if offer is not None and offer.state is OfferState.TAKEN:
            self.say(
                f"boot {mac}: BOOT_LOOP: network boot {offer.again} after attempt {offer.token} was taken; sent to disk"
            )
        else:
            self.say(f"boot {mac}: nothing is armed; sent to disk")
        return Answer(200, EXIT_SCRIPT.encode())

    def keep(self, to: PostedTo, source: str, body: bytes) -> Answer:
        """A post that came whole."""
        add = self.posts.add_report if to.kind == "report" else self.posts.add_log
        taken = add(to.token, source, body)
        if taken is not Taken.KEPT:
            self._once(f"{to.kind} of {source}: refused, {taken.name.lower().replace('_', ' ')}")
        return Answer(int(taken))

    def _stranger(self, mac: str, source: str, address: str) -> Answer:
        why = f"its address is {address} by plan" if address else "no rack file plans it"
        self._once(f"boot {mac}: refused to {source}: {why}")
        return Answer(404)

    def _once(self, text: str) -> None:
        """A stranger can ask without end; the log says it once, and forgets when it has said a thousand."""
        if text in self._told:
            return
        if len(self._told) >= 1000:
            self._told.clear()
        self._told.add(text)
        self.say(text)
