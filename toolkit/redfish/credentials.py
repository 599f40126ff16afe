"""Logins at BMCs and switches: read from a site's secret file, never from argv."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import InputError, Problem, UsageError


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login at a BMC. The password shows in no repr and no error.

    next_password  where a change of it was begun and its end is not on record: the BMC has one of the two
    """

    username: str
    password: str = field(repr=False)
    next_password: str = field(repr=False, default="")


def entry_of(name: str, address: str) -> str:
    """The entry of one BMC among those that share the login `name`."""
    return f"{name}@{address}"


def load_credentials(path: Path, name: str, what: str = "BMC", at: str = "") -> Credentials:
    """The entry `name` of a site's bmc.yml or nvos.yml: `{NAME: {username: ..., password: ...}}`. `what` it opens.

    at  address of one BMC: its own entry `NAME@ADDRESS` counts where there is one

    Raises UsageError where the file is missing or others may read it, InputError where it is wrong.
    """
    import yaml

    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(64 * 1024)
    except OSError as error:
        raise UsageError(
            f"reading {what} credentials: {path}: {error.strerror}", f"write it, with mode 0600: {name}: {{...}}"
        ) from None
    if mode & 0o077:
        raise UsageError(f"{path} has mode {mode:04o}: others can read the {what} passwords", f"chmod 600 {path}")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the error's text would quote the file
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise InputError((Problem(str(path), line, column, "", "not YAML"),)) from None
    entry = None
    if isinstance(document, dict):
        entry = document.get(entry_of(name, at), document.get(name)) if at else document.get(name)
    values = [entry.get(key) if isinstance(entry, dict) else None for key in ("username", "password")]
    if not all(isinstance(value, str) and value for value in values):
        right = "{username: NAME, password: TEXT}; quote a password of digits"
        raise InputError((Problem(str(path), 1, 1, name, "no such login, or an incomplete one", right),))
    following = entry.get("next_password") if isinstance(entry, dict) else None
    return Credentials(str(values[0]), str(values[1]), following if isinstance(following, str) else "")
