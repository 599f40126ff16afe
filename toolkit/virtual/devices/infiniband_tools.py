"""Starts a real InfiniBand tool of this node (ibnetdiscover, perfquery, opensm, ...) over the virtual rack's fabric.

The tool is Debian's own; what it takes for /dev/infiniband/umad0 is the fabric at the address that the hardware tells.
It sees one adapter: the one that `-C`, `--Ca` or, of opensm, `-g`, `--guid` names; else the first that is active.
It works in a folder of its own: relative file names are relative to /run/rackproof-infiniband.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .state import NoDriverError, State, read

HOME = Path("/usr/lib/rackproof-virtual/infiniband")
WORK = Path("/run/rackproof-infiniband")
FABRIC = "infiniband/fabric"  # in the hardware folder: address and UDP port
_DEVICE = "ibsim0"  # the only adapter that libumad2sim shows
_CA, _GUID = ("-C", "--Ca"), ("-g", "--guid")
_CONFIG = ("-F", "--config")


def main(arguments: Sequence[str] | None = None) -> int:
    """Becomes the tool. Returns only where it cannot: its exit code."""
    name = Path(sys.argv[0]).name
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        state = read()
        address, port = (state.home / FABRIC).read_text().split()
    except (NoDriverError, FileNotFoundError):
        return _fail(name, "can't open UMAD port ((null):0)")
    adapter, handed = chosen(state, name, given)
    if adapter is None:
        return _fail(name, f"can't open UMAD port ({' '.join(given)})")
    program = HOME / "bin" / name
    environment = os.environ | {
        "LD_PRELOAD": str(HOME / "lib/umad2sim/libumad2sim.so"),
        "LD_LIBRARY_PATH": str(HOME / "lib"),
        "IBSIM_SERVER_NAME": address,
        "IBSIM_SERVER_PORT": port,
        "SIM_HOST": f"{state.values['node']} {adapter}",
    }
    try:
        WORK.mkdir(exist_ok=True)
        os.chdir(WORK)
        _sweep()
        os.execve(program, [name, *handed], environment)  # noqa: S606 - a program of ours by its path, no shell
    except PermissionError:
        return _fail(name, "can't open UMAD port: Permission denied")


def chosen(state: State, name: str, given: Sequence[str]) -> tuple[str | None, list[str]]:
    """The adapter a tool is for (None: the node has no such), and its arguments for the one device it will see."""
    words = list(given)
    if name == "opensm":
        return _by_guid(state, words), words
    for place, word in enumerate(words):
        flag = next((flag for flag in _CA if word == flag or word.startswith(f"{flag}=")), None)
        attached = word[2:] if word.startswith("-C") and word not in _CA else ""
        if flag is None and not attached:
            continue
        wanted = attached or word.partition("=")[2] or "".join(words[place + 1 : place + 2])
        words[place : place + (1 if attached or "=" in word else 2)] = ["-C", _DEVICE]
        return (wanted if wanted in state.hcas else None), words
    active = [hca for hca in state.hcas if state.port(hca).active]
    return next(iter(active or state.hcas), None), words


def _by_guid(state: State, words: Sequence[str]) -> str | None:
    """The adapter opensm is bound to by its arguments, or by its configuration file."""
    text = _option(words, _GUID)
    if text is None:
        with suppress(OSError, UnicodeDecodeError):
            lines = Path(_option(words, _CONFIG) or "/etc/opensm/opensm.conf").read_text()
            found = re.search(r"^\s*guid\s+(0x[0-9a-fA-F]+)", lines, re.MULTILINE)
            text = found[1] if found and int(found[1], 16) else None
    if text is None:
        active = [hca for hca in state.hcas if state.port(hca).physical == "LinkUp"]
        return next(iter(active or state.hcas), None)
    with suppress(ValueError):
        return next((hca for hca in state.hcas if int(state.port(hca).guid, 16) == int(text, 16)), None)
    return None


def _option(words: Sequence[str], names: Sequence[str]) -> str | None:
    for place, word in enumerate(words):
        if word in names:
            return next(iter(words[place + 1 : place + 2]), None)
        if word.startswith(tuple(f"{name}=" for name in names)):
            return word.partition("=")[2]
    return None


def _sweep() -> None:
    """Removes what tools have left that were killed: their files are in `sys-PID`."""
    for left in WORK.glob("sys-*"):
        if not Path(f"/proc/{left.name.partition('-')[2]}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _fail(name: str, why: str) -> int:
    sys.stderr.write(f"ibwarn: [{os.getpid()}] mad_rpc_open_port: {why}\n{name}: iberror: failed\n")
    return 1
