"""Stand-in of `mlxconfig` (MFT): settings in the firmware of the node's host channel adapters.

    mlxconfig -d DEVICE [-e] query [PARAMETER...]
    mlxconfig -d DEVICE -y set PARAMETER=VALUE...
    mlxconfig -d DEVICE -y reset

As on metal, a value that is set is the next boot's; the current one stays until the machine boots. Both are kept in
<hardware folder>/mlxconfig/DEVICE.{current,next}, which survive a power cycle: it is the board's own memory.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .state import NoDriverError, folder, read

_FALSE_TRUE = {"0": "False", "1": "True"}
# The parameters a site's profile of a ConnectX-7 sets, with their words; an empty mapping is a plain number.
_PARAMETERS: dict[str, tuple[str, dict[str, str]]] = {
    "ADVANCED_PCI_SETTINGS": ("0", _FALSE_TRUE),
    "ATS_ENABLED": ("0", _FALSE_TRUE),
    "LINK_TYPE_P1": ("1", {"1": "IB", "2": "ETH"}),
    "MAX_ACC_OUT_READ": ("0", {}),
    "NUM_OF_VFS": ("0", {}),
    "P2P_ORDERING_MODE": ("0", {"0": "DEVICE_DEFAULT", "1": "NONE"}),
    "PCI_WR_ORDERING": ("0", {"0": "per_mkey", "1": "force_relax"}),
    "SRIOV_EN": ("0", _FALSE_TRUE),
}
_HEAD = "\nDevice #1:\n----------\n\nDevice type:        ConnectX7           \nDevice:             {}\n\n"
_REBOOT = "-I- Please reboot machine to load new configurations.\n"


class _RefusedError(Exception):
    """What the tool says when it does not do as asked."""


@dataclass(frozen=True)
class _Call:
    device: str
    shows_all: bool
    verb: str
    words: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tool; returns its exit code."""
    try:
        call = _parse(list(sys.argv[1:] if arguments is None else arguments))
        if call.device not in read().hcas:
            raise _RefusedError(f"-E- Failed to open the device {call.device}")
        sys.stdout.write(_do(call))
    except NoDriverError:
        sys.stdout.write("-E- Failed to open the device\n")
        return 3
    except _RefusedError as refused:
        sys.stdout.write(f"{refused}\n")
        return 3
    return 0


def boot(home: Path) -> None:
    """What a boot of the machine does: the adapters start with what was set for it."""
    for waiting in (home / "mlxconfig").glob("*.next"):
        waiting.with_suffix(".current").write_text(waiting.read_text())


def _parse(words: list[str]) -> _Call:
    device, shows_all, confirmed, rest = "", False, False, []
    while words:
        word = words.pop(0)
        if word in ("-d", "--dev"):
            device = words.pop(0) if words else ""
        elif word in ("-e", "--show_default"):
            shows_all = True
        elif word in ("-y", "--yes"):
            confirmed = True
        else:
            rest.append(word)
    verb = {"q": "query", "s": "set", "r": "reset"}.get(rest[0], rest[0]) if rest else ""
    if verb not in ("query", "set", "reset") or not device:
        raise _RefusedError("-E- mlxconfig -d DEVICE [-e] query|set|reset")
    if verb != "query" and not confirmed:
        raise _RefusedError("Apply new Configuration? (y/n) [n] : n\n-E- Operation was not confirmed")
    return _Call(device, shows_all, verb, tuple(rest[1:]))


def _do(call: _Call) -> str:
    current, following = _load(call.device, "current"), _load(call.device, "next")
    if call.verb == "query":
        return _HEAD.format(call.device) + _table(call, current, following)
    wanted = following | _assignments(call.words) if call.verb == "set" else _defaults()
    path = folder() / "mlxconfig" / f"{call.device}.next"
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".new")
    aside.write_text("".join(f"{key} {value}\n" for key, value in sorted(wanted.items())))
    aside.replace(path)
    shown = _table(call, current, wanted)
    return f"{_HEAD.format(call.device)}{shown}\n Apply new Configuration? (y/n) [n] : y\nApplying... Done!\n{_REBOOT}"


def _defaults() -> dict[str, str]:
    return {key: default for key, (default, _) in _PARAMETERS.items()}


def _load(device: str, moment: str) -> dict[str, str]:
    try:
        text = (folder() / "mlxconfig" / f"{device}.{moment}").read_text()
    except FileNotFoundError:
        return _defaults()
    return _defaults() | dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def _assignments(words: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE`, the value as number or word. Raises _RefusedError where the adapter has no such thing."""
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _PARAMETERS:
            raise _RefusedError(f"-E- The Device doesn't support {key} parameter")
        names = _PARAMETERS[key][1]
        numbers = {name: number for number, name in names.items()}
        number = numbers.get(value, value)
        if (names and number not in names) or not re.fullmatch(r"\d{1,9}", number, re.ASCII):
            raise _RefusedError(f"-E- Unknown value '{value}' for parameter {key}")
        found[key] = number
    if not found:
        raise _RefusedError("-E- Nothing to set")
    return found


def _table(call: _Call, current: Mapping[str, str], following: Mapping[str, str]) -> str:
    asked = [w.partition("=")[0] for w in call.words] or sorted(_PARAMETERS)
    unknown = [key for key in asked if key not in _PARAMETERS]
    if unknown:
        raise _RefusedError(f"-E- The Device doesn't support {unknown[0]} parameter")
    titles = ("Default", "Current", "Next Boot") if call.shows_all else ("Next Boot",)
    lines = ["Configurations:".ljust(44) + "".join(title.ljust(20) for title in titles).rstrip()]
    differs = False
    for key in asked:
        values = (_PARAMETERS[key][0], current[key], following[key])
        star = len(set(values)) > 1
        differs |= star
        cells = [_shown(key, value) for value in (values if call.shows_all else values[2:])]
        head = ("*" if star and call.shows_all else " ").ljust(8) + key.ljust(36)
        lines.append(head + "".join(cell.ljust(20) for cell in cells).rstrip())
    if differs and call.shows_all:
        lines.append("The '*' shows parameters with next value different from default/current value.")
    return "\n".join(lines) + "\n"


def _shown(key: str, value: str) -> str:
    word = _PARAMETERS[key][1].get(value)
    return f"{word}({value})" if word else value
