"""Puts real hands, ledger and rack together for a verb."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from toolkit import settings as installed
from toolkit.ledger import Ledger
from toolkit.rack.loading import load_rack

if TYPE_CHECKING:
    from toolkit.pool.model import Pool
    from toolkit.rack.model import Rack
    from toolkit.settings import Settings
    from toolkit.stages.context import Context, Progress


def now() -> datetime:
    """Wall clock, with zone."""
    return datetime.now(UTC)


def rack_named(name: str, settings: Settings | None = None) -> Rack:
    """The rack of that name or file; InputError with every problem in it."""
    return load_rack(name, (settings or installed.load()).inventory)


@contextmanager
def ledger_of(settings: Settings) -> Iterator[Ledger]:
    """The ledger, open."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    actor = f"{getpass.getuser()}@{socket.gethostname()}"
    with Ledger.open(settings.ledger_url, settings.artifacts, actor, now) as ledger:
        yield ledger


@contextmanager
def context_of(rack: Rack, progress: Callable[[Progress], None] = lambda _: None) -> Iterator[Context]:
    """A context with real hands. A virtual rack's hands are in its controller's network namespace."""
    from toolkit.stages.context import Context
    from toolkit.stages.hands import SiteHands

    settings = installed.load()
    if rack.profile.virtual:
        from toolkit.virtual.lab import enter_namespace

        enter_namespace(settings, rack.name)
    with ledger_of(settings) as ledger, SiteHands.over(settings, rack) as hands:
        yield Context(rack, settings, ledger, hands, now, time.sleep, progress)


def pool_of(settings: Settings, rack: Rack) -> Pool:
    """The pool the rack's site admits to. A virtual rack's cluster is in its controller's network namespace."""
    from toolkit.pool.policy import PoolKind
    from toolkit.pool.policy_file import load_policy
    from toolkit.pool.site import open_pool

    policy = load_policy(settings, rack.site)
    if rack.profile.virtual and policy.kind is not PoolKind.FILE:
        from toolkit.virtual.lab import enter_namespace

        enter_namespace(settings, rack.name)
    return open_pool(settings, rack.site, policy)
