"""Blocks of pages: `console` in order over the in-process rack, everything else read as strictly as it can be.

A `console` with the title ON_METAL needs real machines: its commands are read by the real CLI and not carried out. A
block with a file's name as its title is that file: it is written where the page's later commands read it.

What a page shows after a command is what must be printed, line by line: a line is matched from its beginning, `…`
within it stands for anything, a line of `…` alone for lines that are not shown. A command ends with 0 unless the last
line that is shown is `exit code N`.
"""

import ast
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from documented import parse_line
from rehearsal import BUILT, context_over, now

import toolkit.cli
from toolkit.cli import VERBS, main, wiring
from toolkit.ledger import Ledger
from toolkit.rack.lifecycle import diagram
from toolkit.stages.hands import make_keys
from toolkit.virtual import lab, rack_cluster, supplies
from toolkit.virtual.control import RackStatus
from toolkit.virtual.in_process import InProcessRack, publish_blank_image

ROOT = Path(__file__).parents[1]
ON_METAL = "on real hardware"
ENDS = re.compile(r"exit code (\d+)")
PROMPT = "$ "


@dataclass(frozen=True)
class Step:
    """A command of a transcript, what is shown of its output, and how it ends."""

    line: str
    shown: tuple[str, ...]
    status: int


def steps(text):
    """The commands of a transcript. ValueError for output before the first, and for a block without any."""
    found = []
    for line in text.splitlines():
        if line.startswith(PROMPT):
            found.append((line.removeprefix(PROMPT), []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0][:-1] + line.strip(), [])
        elif found:
            found[-1][1].append(line)
        else:
            raise ValueError(f"output before the first command: {line}")
    if not found:
        raise ValueError(f"a transcript without a command: a line with one begins with {PROMPT!r}")
    told = []
    for line, shown in found:
        ends = ENDS.fullmatch(shown[-1]) if shown else None
        told.append(Step(line, tuple(shown[:-1] if ends else shown), int(ends[1]) if ends else 0))
    return told


def differs(shown, printed):
    """The first line that is shown and was not printed in its place; None where all are there."""
    lines, anywhere = [line.rstrip() for line in printed.splitlines()], False
    for wanted in (line.rstrip() for line in shown):
        if wanted == "…":
            anywhere = True
            continue
        fits = re.compile(".*".join(re.escape(part) for part in wanted.split("…"))).match
        while lines and not fits(lines[0]) and (anywhere or not lines[0]):
            lines.pop(0)
        if not lines or not fits(lines[0]):
            return wanted
        lines.pop(0)
        anywhere = False
    return None


@dataclass
class Sandbox:
    """An installation of one page: its home, a copy of the inventory, and racks of files in place of virtual ones."""

    folder: Path
    racks: dict = field(default_factory=dict)

    @property
    def home(self):
        """RACKPROOF_HOME."""
        return self.folder / "home"

    def run(self, step):
        """Carries a command out and holds what it printed against what the page shows."""
        words = [os.path.expandvars(word) for word in shlex.split(step.line)]
        if words[0] == "rackproof":
            parse_line(step.line)
            status, printed = self._verb(words[1:])
        else:
            ran = subprocess.run(
                ["bash", "-euc", step.line], cwd=self.folder, env=dict(os.environ, LC_ALL="C.UTF-8"), timeout=60,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            status, printed = ran.returncode, ran.stdout
        assert status == step.status, f"{step.line}: exit code {status}\n{printed[-3000:]}"
        wanted = differs(step.shown, printed)
        assert wanted is None, f"{step.line}: no line as\n  {wanted}\nin its place:\n{printed[-4000:]}"

    def _verb(self, words):
        raw, argv, hook, here = io.BytesIO(), sys.argv, sys.excepthook, Path.cwd()
        out, status = io.TextIOWrapper(raw, encoding="utf-8", write_through=True), 0
        sys.argv = ["rackproof", *words]
        os.chdir(self.folder)
        try:
            with redirect_stdout(out), redirect_stderr(out):
                main()
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            os.chdir(here)
            sys.argv, sys.excepthook = argv, hook
        return status, raw.getvalue().decode("utf-8", "replace")

    def write(self, file, text):
        """A file that a page asks its reader to write, in the copy of the inventory or in the home."""
        path = (self.folder / file.replace("$RACKPROOF_HOME", "home")).resolve()
        assert path.is_relative_to(self.folder.resolve()), file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


@contextmanager
def sandbox(folder, monkeypatch):
    """A sandbox in which the real verbs work: the in-process rack stands in for machines, and for nothing else."""
    made = Sandbox(folder)
    shutil.copytree(ROOT / "inventory", folder / "inventory")
    monkeypatch.setenv("RACKPROOF_HOME", str(made.home))
    monkeypatch.setenv("RACKPROOF_INVENTORY", str(folder / "inventory"))
    monkeypatch.setenv("RACKPROOF_CACHE", str(BUILT))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PATH", f"{ROOT / '.venv/bin'}:{os.environ['PATH']}")

    def up(rack, settings, say, kubernetes=None):
        make_keys(settings)
        publish_blank_image(settings, rack)
        made.racks[rack.name] = InProcessRack(rack, settings, folder / "machines" / rack.name)

    def clear(settings, name, node, kind=None):
        made.racks[name].faults[:] = [f for f in made.racks[name].faults if (f.node, f.kind) != (node, kind)]

    @contextmanager
    def context(rack, progress=lambda _: None):
        assert rack.name in made.racks, f"{rack.name} is no virtual rack that this page has switched on"
        settings = made.racks[rack.name].settings
        with Ledger.open(settings.ledger_url, settings.artifacts, "page", now) as ledger:
            yield replace(context_over(made.racks[rack.name], ledger), progress=progress)

    monkeypatch.setattr(lab, "up", up)
    monkeypatch.setattr(lab, "status", lambda settings, name: RackStatus(name, running=name in made.racks, nodes=()))
    monkeypatch.setattr(lab, "set_fault", lambda settings, name, fault: made.racks[name].faults.append(fault))
    monkeypatch.setattr(lab, "clear_fault", clear)
    monkeypatch.setattr(lab, "down", lambda settings, name: tuple(made.racks.pop(n).rack.name for n in [name] if n))
    monkeypatch.setattr(lab, "enter_namespace", lambda settings, name: None)
    monkeypatch.setattr(supplies, "stock", lambda *_: None)
    monkeypatch.setattr(rack_cluster, "programs", lambda *_: None)
    for module, attribute, _ in VERBS.values():
        __import__(f"toolkit.cli.{module}")
        verbs = getattr(toolkit.cli, module)
        assert hasattr(verbs, attribute)
        if hasattr(verbs, "context_of"):
            monkeypatch.setattr(verbs, "context_of", context)
    monkeypatch.setattr(wiring, "context_of", context)
    yield made


# Blocks that are not carried out


def check(block):
    """Reads a block that nobody runs as its language is read; raises where it cannot be."""
    assert block.language in READERS, f"{block.where}: a block of {block.language}: nothing here reads that"
    READERS[block.language](block)
    for command in commands(block):
        parse_line(command)


def _transcript(block):
    for step in steps(block.text):
        _shell(step.line)


def _drawn(block):
    assert block.text.strip() == diagram().strip(), f"{block.where}: not the lifecycle's own diagram"


def _plain(block):
    hidden = [line for line in block.text.splitlines() if re.match(r"\s*(\$ |rackproof [a-z])", line)]
    assert not hidden, f"{block.where}: a command in a block of plain text: {hidden[0]}"


READERS = {
    "console": _transcript,
    "sh": lambda block: _shell(block.text),
    "yaml": lambda block: yaml.safe_load(block.text),
    "json": lambda block: json.loads(block.text),
    "jsonl": lambda block: [json.loads(line) for line in block.text.splitlines()],
    "python": lambda block: ast.parse(block.text),
    "mermaid": _drawn,
    "text": _plain,
    "": _plain,
}


def commands(block):
    """Every `rackproof ...` command of a block of a shell, without what it is piped to or written to."""
    lines = [step.line for step in steps(block.text)] if block.language == "console" else block.text.splitlines()
    if block.language not in ("console", "sh"):
        return []
    kept = [line for line in lines if not re.match(r"\s*#", line)]
    found = [c for line in kept for c in re.findall(r"(?:^|&&|\|\||;|\|)\s*(?:sudo )?(rackproof [^|;&#]*)", line)]
    return [re.split(r"\s>\s", command)[0] for command in found]


def _shell(text):
    ran = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{text}\n{ran.stderr}"
