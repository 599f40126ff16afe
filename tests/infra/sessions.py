"""Runs of pytest over a rack of files: the checks as a user starts them, in this process, and what became of each."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rehearsal import context_over, in_process, now, open_ledger, without_rails

from toolkit.bringup import bringup
from toolkit.infra.readings import Reach
from toolkit.rack.model import Rack
from toolkit.rack.plan import make_plan
from toolkit.report.standing import status_of
from toolkit.virtual.faults import Fault
from toolkit.virtual.in_process import InProcessRack

_PACKAGE = "toolkit.infra"
_LEAN = ("-q", *(f"-p{name}" for name in (
    "toolkit.infra.entry", "testinfra.plugin", "no:cacheprovider", "no:unraisableexception", "no:threadexception",
    "no:logging",
)))  # fmt: skip
ARGUMENTS = "BOOT_IMAGE=/vmlinuz root=/dev/nvme0n1p2 ro iommu=pt\n"


class Lab(InProcessRack):
    """The rack of files with what only these checks ask: a clock, the kernel's arguments, a reboot that is due.

    of_node  a node's own answers, by words of the command; they go before all others
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.of_node: dict[str, dict[str, str]] = {}

    def _file(self, node: Any, machine: Any, command: str) -> tuple[int, str]:
        for words, text in self.of_node.get(node.name, {}).items():
            if words in command:
                return 0, text
        if command.startswith("date "):
            return 0, f"{now().timestamp():.9f}\n"
        if "/etc/rackproof/node.json" in command:
            return 0, json.dumps({"name": node.name, "image": machine.image})
        if "/proc/cmdline" in command:
            return 0, ARGUMENTS
        if "reboot-required" in command:
            return 0, "none\n"
        return super()._file(node, machine, command)


def brought_up(folder: Path, rack_name: str) -> Lab:
    """A healthy rack, certified and in its pool."""
    made = without_rails(in_process(folder, rack_name))
    lab = Lab(made.rack, made.settings, made.folder)
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        summary = bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
    assert summary.exit_code == 0, summary
    secrets = lab.settings.secrets(lab.rack.site)
    secrets.mkdir(parents=True)
    (secrets / "bmc.yml").write_text("{}\n")  # its BMCs take no password; without a file nobody is asked
    return lab


@dataclass
class Seen:
    """Outcomes by test id without file endings: `fabric::test_gate[node1-gpu0-NVLINK_SLOW]`.

    letter: `.` passed, `F` failed, `E` error before the test, `s` skipped; words: what a red or skipped one said.
    """

    status: int = -1
    output: str = ""
    letters: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    properties: dict[str, dict[str, object]] = field(default_factory=dict)

    def red(self) -> dict[str, str]:
        """Those that are neither passed nor skipped."""
        return {name: letter for name, letter in self.letters.items() if letter in "FE"}

    def of(self, letter: str) -> list[str]:
        """Names with that letter."""
        return [name for name, got in self.letters.items() if got == letter]


class _Watch:
    """A plugin: hands over a rack of files, and writes down what became of each test."""

    def __init__(self, lab: Lab | None) -> None:
        self.lab = lab
        self.seen = Seen()

    @pytest.hookimpl(optionalhook=True)
    def pytest_rackproof_reach(self, rack: Rack, settings: Any) -> Reach | None:
        return None if self.lab is None else Reach(self.lab.shell, self.lab, self._pass_time)

    def _pass_time(self, seconds: float) -> None:
        """Of the fabric's counters: a look waits for nothing else."""
        assert self.lab is not None
        began = self.lab.folder / "fabric_began"
        began.write_text(repr(float(began.read_text()) - seconds))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        letter = "s" if report.skipped else "." if report.passed else "E" if report.when == "setup" else "F"
        name = short(report.nodeid)
        self.seen.letters[name] = letter
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
        self.seen.words[name] = said
        self.seen.properties[name] = dict(report.user_properties)


def short(nodeid: str) -> str:
    """`.../test_fabric.py::test_gate[x]` as `fabric::test_gate[x]`."""
    return re.sub(r"^.*?test_(\w+)\.py::", r"\1::", nodeid)


@contextmanager
def environment(**variables: str) -> Any:
    """Variables of the environment for a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run(
    lab: Lab | None,
    *arguments: str,
    rack: str | None = "",
    faults: Sequence[Fault] = (),
    what: Sequence[str] = (_PACKAGE,),
    home: Path | None = None,
    inventory: Path | None = None,
) -> Seen:
    """One session over the rack of files with these faults; over SSH where there is none.

    rack   None: without --rack;  what   modules to run;  home, inventory   of an installation that is not the lab's
    """
    home, inventory = home or lab.settings.home, inventory or lab.settings.inventory
    if lab is not None:
        lab.faults[:] = faults
        (lab.folder / "fabric_began").unlink(missing_ok=True)  # the fabric's counters begin anew
    watch = _Watch(lab)
    named = () if rack is None else ("--rack", rack or lab.rack.name)
    told = io.StringIO()
    outside = home / "project"
    outside.mkdir(exist_ok=True)
    argv = ["--pyargs", *what, *named, *_LEAN, f"--rootdir={outside}", "-c", os.devnull, *arguments]
    # The entry point is tested by sessions of their own (test_command_line.py); here every plugin costs 30 times.
    variables = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "RACKPROOF_HOME": str(home), "RACKPROOF_INVENTORY": str(inventory),
    }  # fmt: skip
    with environment(**variables), redirect_stdout(told), redirect_stderr(told):
        watch.seen.status = int(pytest.main(argv, plugins=[watch]))
    watch.seen.output = told.getvalue()
    return watch.seen
