"""A new password for one BMC, and nobody locked out by it, whenever the one who does it is killed.

The site's bmc.yml holds old and new from before the BMC is asked until the new one was proven there:

    "NAME@ADDRESS": {username, password: OLD, next_password: NEW}    written first; the BMC may have either
    "NAME@ADDRESS": {username, password: NEW}                        written last; NEW has opened the BMC

The entry is the BMC's own, so that a login many BMCs shared ends to be shared where one of them gets a new password.
Other lines of the file, comments too, stay as they are.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.errors import UndecidedError, UsageError
from toolkit.redfish.credentials import Credentials, entry_of, load_credentials
from toolkit.redfish.failures import BmcAnswerError
from toolkit.redfish.model import BmcRefusedError
from toolkit.redfish.wire import ROOT, Wire, each, link

# BlueField and switch BMCs take 13 to 20 characters of four classes, and at most 4 pairs of consecutive ones
# (docs.nvidia.com/networking, BlueField BMC, "Changing Default Password").
LENGTH = 20
_MOST_PAIRS = 4
_SPECIAL = "!#%+-=_."
_CLASSES = (string.ascii_uppercase, string.ascii_lowercase, string.digits, _SPECIAL)


class Rotated(StrEnum):
    """How it ended."""

    CHANGED = "changed"
    FINISHED = "finished"  # one that was cut off: the BMC had the new password already


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where a BMC's login is kept: file, the shared name, and the BMC's address."""

    path: Path
    name: str
    address: str


def rotate(keeper: Keeper, wire_as: Callable[[Credentials], Wire], new_password: Callable[[], str]) -> Rotated:
    """Gives the BMC a new password, or ends what a killed run began.

    Raises BmcRefusedError where neither password on record opens it, UndecidedError where it is not known which one
    does: both then stay on record, and the same command goes on.
    """
    with _alone(keeper.path):
        now = load_credentials(keeper.path, keeper.name, at=keeper.address)
        following = now.next_password
        if following and opens(wire_as(Credentials(now.username, following))):
            _write(keeper, Credentials(now.username, following))
            return Rotated.FINISHED
        if not opens(wire_as(now)):
            raise BmcRefusedError(
                f"BMC {keeper.address}: it refuses every password on record of user {now.username!r}",
                f"reset it at its console, then correct {keeper.path}",
            )
        following = following or new_password()
        _write(keeper, replace(now, next_password=following))
        try:
            _change(wire_as(now), now.username, following)
        except BmcAnswerError as refusal:
            if 400 <= refusal.status < 500:  # it was not changed: the next try is with another one
                _write(keeper, replace(now, next_password=""))
            raise
        if not opens(wire_as(Credentials(now.username, following))):
            raise UndecidedError(
                f"BMC {keeper.address}: it took the new password and does not open with it",
                "both stand in bmc.yml; run the same command again",
            )
        _write(keeper, Credentials(now.username, following))
        return Rotated.CHANGED


def opens(wire: Wire) -> bool:
    """Whether the login is accepted, by a resource that nobody may read without one."""
    try:
        document = wire.get(ROOT, "trying a password")
        wire.get(link(document, "Managers") or link(document, "Systems") or f"{ROOT}/Systems", "trying a password")
    except BmcRefusedError:
        return False
    return True


def make_password() -> str:
    """Twenty characters of all four classes, as the strictest of the known BMCs takes them: about 120 bits."""
    alphabet = "".join(_CLASSES)
    while True:
        made = "".join(secrets.choice(alphabet) for _ in range(LENGTH))
        pairs = sum(abs(ord(a) - ord(b)) == 1 for a, b in pairwise(made))
        if pairs <= _MOST_PAIRS and all(set(made) & set(each_class) for each_class in _CLASSES):
            return made


def _change(wire: Wire, username: str, password: str) -> None:
    doing = "changing its password"
    service = link(wire.get(ROOT, doing), "AccountService")
    accounts = link(wire.get_or_none(service, doing) or {}, "Accounts") if service else ""
    for path, account in each(wire, accounts, doing) if accounts else ():
        if account.get("UserName") == username:
            wire.patch(path, {"Password": password}, doing)
            return
    raise UsageError(f"BMC {wire.url}: {doing}: it lists no account {username!r}", "change it by its maker's own tool")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else rewrites the file meanwhile."""
    with os.fdopen(os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600), "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _write(keeper: Keeper, login: Credentials) -> None:
    """The BMC's own entry, on a line of its own; the rest of the file as it was.

    UsageError, and nothing written, where the file would say something else for anybody afterwards.
    """
    import yaml

    key = entry_of(keeper.name, keeper.address)
    body = {"username": login.username, "password": login.password}
    if login.next_password:
        body["next_password"] = login.next_password
    begins = (f'"{key}":', f"{key}:", f"'{key}':")
    before = keeper.path.read_text()
    kept = [line for line in before.splitlines() if not line.startswith(begins)]
    entry = f"{json.dumps(key)}: {json.dumps(body)}"  # JSON is YAML
    after = "\n".join([*kept, entry, ""])
    try:
        others = {name: login for name, login in yaml.safe_load(before).items() if name != key}
        # Without the entry too: YAML takes the last of two that have one key, and another reader may take the first.
        as_wanted = (yaml.safe_load("\n".join(kept)) or {}) == others and yaml.safe_load(after) == others | {key: body}
    except yaml.YAMLError:  # its text would quote the file
        as_wanted = False
    if not as_wanted:
        raise UsageError(
            f"{keeper.path}: the entry {key} cannot be written without touching others",
            "write each BMC's entry on a line of its own: NAME: {username: ..., password: ...}",
        )
    write_whole(keeper.path, after.encode(), mode=0o600)
