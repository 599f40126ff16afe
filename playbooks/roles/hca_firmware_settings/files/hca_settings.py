"""Settings in the firmware of host channel adapters, compared and set with mlxconfig. Runs on the node.

    hca_settings.py {"adapters": ["mlx5_0"], "settings": {"PCI_WR_ORDERING": "1"}, "check": true, "default": false, ...}

Answers one JSON object: {"changed": bool, "lines": [what differs, one a line], "pending": [what waits for a boot]}.
With "check" it sets nothing and says what it would. With "default" it wants the firmware's defaults of the settings'
names. Ends with words and status 1 where an adapter could not be asked, lacks a setting, or kept another value.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}(\[\d{1,4}\])?")
VALUE = re.compile(r"[A-Za-z0-9_.]{1,64}")
ROW = re.compile(r"[\s*]*(?:RO\s+)?([A-Z][A-Z0-9_]*(?:\[\d+\])?)\s+(\S+)\s+(\S+)\s+(\S+)\s*")


class Setting(NamedTuple):
    """Values as mlxconfig prints them: `force_relax(1)`, `128`."""

    default: str
    current: str
    following: str


def mlxconfig(timeout_s: float, *arguments: str) -> str:
    """The tool's answer; ends the program with its words when it fails."""
    argv = ["mlxconfig", *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        sys.exit("mlxconfig is not installed: it comes with DOCA-OFED's mft; play doca_ofed first")
    except subprocess.TimeoutExpired:
        sys.exit(f"{' '.join(argv)}: no answer in {timeout_s:g} s")
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["it said nothing"]
        sys.exit(f"{' '.join(argv)}: exit status {done.returncode}: {said[0][:300]}")
    return done.stdout


def address(adapter: str) -> str:
    """Its PCI address, which every release of mlxconfig takes; the name itself where the kernel has no such device."""
    device = Path("/sys/class/infiniband", adapter, "device")
    return device.resolve().name if device.exists() else adapter


def query(adapter: str, names: list[str], timeout_s: float) -> dict[str, Setting]:
    """The settings as they are. Ends the program where one is missing."""
    text = mlxconfig(timeout_s, "-d", address(adapter), "-e", "query", *names)
    rows = (ROW.fullmatch(line) for line in text.splitlines())
    found = {row[1]: Setting(row[2], row[3], row[4]) for row in rows if row}
    for name in names:
        if name not in found:
            sys.exit(f"{adapter}: mlxconfig answered without {name}")
    return found


def is_same(shown: str, wanted: str) -> bool:
    """`1` and `force_relax` are both `force_relax(1)`; words are compared whatever their case."""
    row = re.fullmatch(r"(.*)\((\w+)\)", shown)
    meant = {shown, row[1], row[2]} if row else {shown}
    return wanted.lower() in {word.lower() for word in meant}


def number(shown: str) -> str:
    """What `set` takes of a value as shown."""
    row = re.fullmatch(r".*\((\w+)\)", shown)
    return row[1] if row else shown


def checked(request: dict[str, object]) -> tuple[list[str], dict[str, str]]:
    """Adapters and settings. Ends the program where a name could not be one of mlxconfig's."""
    adapters = [str(adapter) for adapter in request["adapters"]]  # type: ignore[attr-defined]
    settings = {str(name): str(value) for name, value in dict(request["settings"]).items()}  # type: ignore[call-overload]
    for name, value in settings.items():
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            sys.exit(f"{name}={value} is no setting of mlxconfig: a name in capitals and a number or a word")
    return adapters, settings


def set_anew(adapter: str, wanted: dict[str, str], timeout_s: float) -> None:
    """Sets the values for the next boot and reads them back. Ends the program where the adapter kept another."""
    mlxconfig(timeout_s, "-d", address(adapter), "-y", "set", *(f"{name}={wanted[name]}" for name in wanted))
    kept = query(adapter, list(wanted), timeout_s)
    for name, value in wanted.items():
        if not is_same(kept[name].following, value):
            sys.exit(f"{adapter}: {name} is still {kept[name].following} after it was set to {value}")


def main(request: dict[str, object]) -> dict[str, object]:
    """Compares all adapters before it sets the first."""
    adapters, settings = checked(request)
    timeout_s = float(str(request["timeout_s"]))
    names = sorted(settings)
    before = {adapter: query(adapter, names, timeout_s) for adapter in adapters if names}
    lines, pending = [], []
    for adapter, found in before.items():
        wanted = {n: number(found[n].default) if request.get("default") else settings[n] for n in names}
        differs = {n: wanted[n] for n in names if not is_same(found[n].following, wanted[n])}
        lines += [f"{adapter}: {n}: {found[n].following} -> {wanted[n]} at the next boot" for n in differs]
        if differs and not request["check"]:
            set_anew(adapter, differs, timeout_s)
        waiting = [n for n in names if not is_same(found[n].current, wanted[n])]
        pending += [f"{adapter}: {n} is {found[n].current} until a boot, then {wanted[n]}" for n in waiting]
    return {"changed": bool(lines), "lines": lines, "pending": pending}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201  its stdout is the answer
