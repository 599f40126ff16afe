"""image: bring the planned image onto each node's planned disk, and pin the host key that the node then has."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.durable import write_whole
from toolkit.errors import UndecidedError, UsageError
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Host, Unit
from toolkit.runners.inventory import LOGIN_KEY, SSH_CA_KEY
from toolkit.stages.context import Context, Progress, Result, Work
from toolkit.stages.imaging import ImageOrder, Means, Patience, image_node
from toolkit.stages.imaging_end import ImageResult
from toolkit.stages.provisioning import host_of

LOOK_SECONDS = 15.0
_AUTHORITY = "@cert-authority"
_CERTIFICATE_DAYS = ("365", "90")  # lifetime and renewal, as the role's defaults have them
_PINNING = threading.Lock()  # the nodes of a rack share one file of pinned keys


def run(context: Context, work: Work) -> None:
    """Images every node, side by side: they wait for hardware, not for us."""
    login_key = _login_key(context.settings.keys / f"{LOGIN_KEY}.pub")

    def one(node: Unit) -> Result:
        profile = context.rack.profile
        order = ImageOrder(node, profile.image, (login_key,), f"rackproof bringup {context.rack.name}", profile)
        patience = Patience(silence_s=profile.imaging.silence.total_seconds())
        ended = image_node(order, _means(context, node), patience)
        if ended.outcome is Outcome.PASSED:
            known_hosts = context.settings.known_hosts(context.rack.name)
            pin(known_hosts, host_of(node), ended.host_key)
            if ended.certified:
                trust_authority(known_hosts, host_of(node), context.settings.keys / f"{SSH_CA_KEY}.pub")
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
    name = _known_as(host)
    _keep(known_hosts, f"{name} {host_key}", lambda words: words[0] == name)


def trust_authority(known_hosts: Path, host: Host, authority: Path) -> None:
    """From now on ssh takes any key that the site's CA certified for this host. UsageError without the CA's public key.

    Clients that know no certificates (our own, in Python) go by the key that is pinned beside it.
    """
    try:
        key = " ".join(authority.read_text().split()[:2])
    except OSError as problem:
        raise UsageError(
            f"the SSH CA's public key cannot be read: {authority}: {problem.strerror}",
            f"ssh-keygen -y -f {authority.with_suffix('')} > {authority}",
        ) from None
    name = _known_as(host)
    _keep(known_hosts, f"{_AUTHORITY} {name} {key}", lambda words: words[:2] == [_AUTHORITY, name])


def _known_as(host: Host) -> str:
    return host.address if host.ssh_port == 22 else f"[{host.address}]:{host.ssh_port}"


def _keep(known_hosts: Path, line: str, replaces: Callable[[list[str]], bool]) -> None:
    """The line in the file, and none that it replaces."""
    with _PINNING:
        before = known_hosts.read_text().splitlines() if known_hosts.exists() else []
        others = [known for known in before if not replaces(known.split(" "))]
        if [*others, line] == before:
            return
        write_whole(known_hosts, "\n".join([*others, line, ""]).encode())


def _means(context: Context, node: Unit) -> Means:
    known_hosts = context.settings.known_hosts(context.rack.name)

    def is_running(host_key: str) -> bool:
        pin(known_hosts, host_of(node), host_key)
        try:
            return context.hands.shell.run(node, ["cat", "/etc/rackproof/image"], LOOK_SECONDS).status == 0
        except UndecidedError:
            return False

    def keep_log(log: bytes) -> str:
        return context.ledger.store_artifact(context.rack.name, node.name, "deploy.log", log)

    return Means(
        bmc=context.hands.bmc(node),
        site=context.hands.site,
        journal=LedgerJournal.of(context, node),
        is_running=is_running,
        new_token=lambda: secrets.token_hex(16),
        clock=context.clock,
        sleep=context.sleep,
        progress=lambda text, done: context.progress(Progress(node.name, Stage.IMAGE, text, done)),
        keep_log=keep_log,
        sign_host_key=_signer(context, node),
        strangers=lambda: context.hands.strangers(node),
    )


def _signer(context: Context, node: Unit) -> Callable[[str], str] | None:
    """Signs as the role `ssh_host_certificate` does later on: that role then finds nothing to change."""
    authority = context.settings.keys / SSH_CA_KEY
    if not authority.is_file():
        return None
    program = context.settings.playbooks / "roles/ssh_host_certificate/files/sign_host_key.py"
    identity = f"{context.rack.name}/{node.name}/{node.serial}"
    names = f"{node.name},{host_of(node).address}"

    def sign(host_key: str) -> str:
        argv = [sys.executable, "-I", str(program), str(authority), identity, names, *_CERTIFICATE_DAYS]
        done = subprocess.run(
            argv, input=f"{host_key}\n", capture_output=True, text=True, timeout=LOOK_SECONDS, check=False
        )
        if done.returncode != 0:
            raise UsageError(f"signing the host key of {node.name}: {done.stderr.strip()[:300]}", "correct the SSH CA")
        return done.stdout.strip()

    return sign


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
