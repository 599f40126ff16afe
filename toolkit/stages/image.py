"""image: bring the planned image onto each node's planned disk, and pin the host key that the node then has."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.durable import write_whole
from toolkit.errors import UndecidedError, UsageError
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Host, Unit
from toolkit.runners.inventory import LOGIN_KEY
from toolkit.stages.context import Context, Progress, Result, Work
from toolkit.stages.imaging import ImageOrder, ImageResult, Means, image_node
from toolkit.stages.provisioning import host_of

LOOK_SECONDS = 15.0
_PINNING = threading.Lock()  # the nodes of a rack share one file of pinned keys


def run(context: Context, work: Work) -> None:
    """Images every node, side by side: they wait for hardware, not for us."""
    login_key = _login_key(context.settings.keys / f"{LOGIN_KEY}.pub")

    def one(node: Unit) -> Result:
        order = ImageOrder(node, context.rack.profile.image, (login_key,), f"rackproof bringup {context.rack.name}")
        ended = image_node(order, _means(context, node))
        if ended.outcome is Outcome.PASSED:
            pin(context.settings.known_hosts(context.rack.name), host_of(node), ended.host_key)
        return _result(ended)

    work.each(work.nodes, one)


@dataclass(frozen=True, slots=True)
class LedgerJournal:
    """`imaging.Journal` over the ledger. What was on record before the node's last move does not count any more."""

    ledger: Ledger
    rack: str
    node: str
    since: int

    @classmethod
    def of(cls, context: Context, node: Unit) -> LedgerJournal:
        """The node's record since it came to rest where it rests."""
        state = context.ledger.node_states(context.rack.name).get(node.name)
        return cls(context.ledger, context.rack.name, node.name, state.event if state else 0)

    def intent(self, what: str, details: Mapping[str, Any]) -> None:
        """See Journal."""
        self.ledger.intent(self.rack, self.node, what, details)

    def observed(self, what: str, details: Mapping[str, Any]) -> None:
        """See Journal."""
        self.ledger.observed(self.rack, self.node, what, details)

    def find_intent(self, what: str) -> Mapping[str, Any] | None:
        """See Journal."""
        return self._find(EventKind.INTENT, what)

    def find_observed(self, what: str) -> Mapping[str, Any] | None:
        """See Journal."""
        return self._find(EventKind.OBSERVED, what)

    def _find(self, kind: EventKind, what: str) -> Mapping[str, Any] | None:
        event = self.ledger.find(self.rack, self.node, kind, what)
        if event is None or event.id <= self.since:
            return None
        details: Mapping[str, Any] = event.body["details"]
        return details


def pin(known_hosts: Path, host: Host, host_key: str) -> None:
    """Makes `host_key` the only key this host may have. Whole file or none: others read it at any time."""
    name = host.address if host.ssh_port == 22 else f"[{host.address}]:{host.ssh_port}"
    line = f"{name} {host_key}"
    with _PINNING:
        before = known_hosts.read_text().splitlines() if known_hosts.exists() else []
        others = [known for known in before if known.split(" ", 1)[0] != name]
        if [*others, line] == before:
            return
        write_whole(known_hosts, "\n".join([*others, line, ""]).encode())


def _means(context: Context, node: Unit) -> Means:
    def is_running(host_key: str) -> bool:
        pin(context.settings.known_hosts(context.rack.name), host_of(node), host_key)
        try:
            return context.hands.shell.run(node, ["cat", "/etc/rackproof/image"], LOOK_SECONDS).status == 0
        except UndecidedError:
            return False

    return Means(
        bmc=context.hands.bmc(node),
        site=context.hands.site,
        journal=LedgerJournal.of(context, node),
        is_running=is_running,
        new_token=lambda: secrets.token_hex(16),
        clock=context.clock,
        sleep=context.sleep,
        progress=lambda text: context.progress(Progress(node.name, Stage.IMAGE, text)),
    )


def _result(ended: ImageResult) -> Result:
    message = ended.message if ended.outcome is not Outcome.PASSED else f"{ended.message} ({ended.image_sha256[:12]})"
    return Result(ended.outcome, ended.code, message, ended.part, ended.next_command)


def _login_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as problem:
        raise UsageError(
            f"no login key for the nodes: {path}: {problem.strerror}",
            f"ssh-keygen -t ed25519 -N '' -f {path.with_suffix('')}",
        ) from None
