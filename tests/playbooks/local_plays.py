"""Plays on this machine, in one process of Ansible: several plays of one book, and what each changed and said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
GROUP_VARS = PLAYBOOKS.parent / "inventory" / "group_vars"
# A folder for PYTHONPATH: a third less work for each task.
COMPILED_ONCE = Path(__file__).with_name("compiled")
_PLAY = re.compile(r"^PLAY \[(.*?)\] \**$", re.MULTILINE)
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?:\S+ : )?(.*?)\] \**$")
_CHANGED = re.compile(r"^changed: \[([^\]\s]+)")


@dataclass(frozen=True)
class Play:
    """One play of the book: what Ansible wrote about it, and the tasks that changed something, as (host, task)."""

    text: str
    changed: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Book:
    """What came of a book: a play is missing that was not reached."""

    code: int
    plays: Mapping[str, Play]
    text: str


def local(**more: object) -> dict[str, object]:
    """Variables of a host that is this machine."""
    return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **more}


def play_book(
    folder: Path,
    plays: Sequence[Mapping[str, object]],
    groups: Mapping[str, Mapping[str, Mapping[str, object]]],
    variables: Mapping[str, object],
    check: bool = False,
    words: int = 0,
) -> Book:
    """Plays them in turn, in one process. `groups`: variables by host by group; all are in `cluster`, whose group_vars
    count. `check`: all of them in check mode; `words`: how much Ansible says (-v).
    """
    folder.mkdir(parents=True, exist_ok=True)
    children: dict[str, Any] = {name: {"hosts": dict(hosts)} for name, hosts in groups.items()}
    children["cluster"] = {"children": dict.fromkeys(groups)}
    (folder / "hosts.json").write_text(json.dumps({"all": {"children": children}}))
    (folder / "site.json").write_text(json.dumps(variables))
    (folder / "book.yml").write_text(json.dumps([{"gather_facts": False, **play} for play in plays]))
    if not (folder / "group_vars").exists():
        (folder / "group_vars").symlink_to(GROUP_VARS)
    argv = [sys.executable, "-P", "-m", "ansible", "playbook", "-i", str(folder / "hosts.json")]
    argv += ["-e", f"@{folder / 'site.json'}", "--diff", *(["--check"] if check else []), str(folder / "book.yml")]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    environment |= {"ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(PLAYBOOKS / "roles")}
    environment |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_HOME": str(folder)}
    environment |= {"ANSIBLE_VERBOSITY": str(words), "PYTHONPATH": str(COMPILED_ONCE)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    parts = _PLAY.split(done.stdout)[1:]
    named: dict[str, str] = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):  # a play of several batches begins several times
        named[name] = named.get(name, "") + text
    plays_done = {name: Play(text, tuple(_changes(text))) for name, text in named.items()}
    return Book(done.returncode, plays_done, done.stdout + done.stderr)


def _changes(text: str) -> list[tuple[str, str]]:
    task, found = "", []
    for line in text.splitlines():
        begun, changed = _TASK.match(line), _CHANGED.match(line)
        task = begun[1] if begun else task
        if changed:
            found.append((changed[1], task))
    return found
