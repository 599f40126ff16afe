"""Playbooks and roles keep their own rules: everything is documented, small, and ends with the marker."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.runners.proof import marker

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
ROLES = sorted(p for p in (PLAYBOOKS / "roles").iterdir() if p.is_dir())
BOOKS = sorted(PLAYBOOKS.glob("*.yml"))
MOST_VARIABLES = 15
# Of no role: the lock of a rack or of the control plane, the cluster's versions, the site's mirror.
TOLD = {"rackproof_versions", "rackproof_pins", "rackproof_mirror"}
KEYWORDS = {
    "name", "when", "loop", "register", "notify", "changed_when", "check_mode", "delegate_to", "become", "vars",
    "loop_control", "failed_when", "until", "retries", "delay", "no_log", "block", "always",
}  # fmt: skip


def load(file: Path) -> Any:
    """A YAML file of ours; None when there is none."""
    return yaml.safe_load(file.read_text()) if file.exists() else None


def steps(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every task, those of a block too."""
    for task in tasks:
        yield task
        yield from steps([*task.get("block", []), *task.get("always", [])])


@pytest.mark.parametrize("book", BOOKS, ids=lambda p: p.name)
def test_a_playbook_ends_with_its_marker(book: Path) -> None:
    """One play, whose last task runs on the node, also in check mode and whatever tags a role has."""
    (play,) = load(book)
    last = play["post_tasks"][-1]
    assert last["name"] == marker(book.name)
    assert "ansible.builtin.raw" in last
    assert last["check_mode"] is False
    assert "tags" not in last
    assert play["gather_facts"] is False


@pytest.mark.parametrize("book", BOOKS, ids=lambda p: p.name)
def test_plain_ansible_accepts_a_playbook(book: Path) -> None:
    """The toolkit adds nothing that a playbook needs to be understood."""
    argv = [sys.executable, "-P", "-m", "ansible", "playbook", "--syntax-check", "-i", "node1,", book.name]
    done = subprocess.run(argv, cwd=PLAYBOOKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_a_role_documents_exactly_its_variables(role: Path) -> None:
    """Few, prefixed, each with a default or told by the inventory."""
    defaults = load(role / "defaults" / "main.yml")
    documented = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    assert len(defaults) <= MOST_VARIABLES
    assert all(name.startswith(f"{role.name}_") for name in defaults)
    assert set(documented) - set(defaults) <= TOLD
    assert set(defaults) <= set(documented)
    assert all(option.get("description") for option in documented.values())


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_a_role_needs_no_collection(role: Path) -> None:
    """ansible.builtin only: a controller needs ansible-core and nothing from a registry."""
    for file in [*(role / "tasks").glob("*.yml"), *(role / "handlers").glob("*.yml")]:
        for task in steps(load(file)):
            assert {key for key in task if key not in KEYWORDS and not key.startswith("ansible.builtin.")} == set()


def test_group_variables_are_variables_of_roles() -> None:
    """A typo in a site's value is not a value that nobody reads."""
    known = {name for role in ROLES for name in load(role / "defaults" / "main.yml")}
    for file in (PLAYBOOKS.parent / "inventory" / "group_vars").glob("*.yml"):
        assert set(load(file) or {}) <= known | TOLD, file.name


def test_every_mode_of_a_role_is_one_of_ours() -> None:
    """A mode named in a role is a mode that a profile can state."""
    from toolkit.rack.model import Mode

    modes = {str(mode) for mode in Mode}
    text = "\n".join(f.read_text() for role in ROLES for f in role.rglob("*.yml"))
    assert set(re.findall(r"'((?:nvswitch|nvlink\d|mnnvl|pcie)[a-z0-9_]*)'", text)) <= modes
    named = {f.stem.removeprefix("mode_") for f in (PLAYBOOKS.parent / "inventory" / "group_vars").glob("mode_*.yml")}
    assert named <= modes


def test_every_role_of_the_fabric_can_be_taken_back() -> None:
    """`undo.yml` knows it and every other role with an undo, whose entry point has the same variables documented."""
    (play,) = load(PLAYBOOKS / "undo.yml")
    played = {r["role"] for book in ("nvlink.yml", "infiniband.yml") for r in load(PLAYBOOKS / book)[0]["roles"]}
    others = {role.name for role in ROLES if (role / "tasks/remove.yml").exists()}
    assert set(play["vars"]["undo_known"]) == (played - {"nvlink_mode"}) | others  # nvlink_mode changes nothing
    for name in play["vars"]["undo_known"]:
        documented = load(PLAYBOOKS / "roles" / name / "meta" / "argument_specs.yml")["argument_specs"]
        assert (PLAYBOOKS / "roles" / name / "tasks" / "remove.yml").exists()
        assert documented["remove"]["options"] == documented["main"]["options"]
        assert documented["remove"]["description"]


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_a_command_says_whether_it_changed_anything(role: Path) -> None:
    """Read-only ones run in check mode too; no failure is ignored."""
    for file in [*(role / "tasks").glob("*.yml"), *(role / "handlers").glob("*.yml")]:
        for task in steps(load(file)):
            assert "ignore_errors" not in task
            if {"ansible.builtin.command", "ansible.builtin.raw"} & set(task):
                assert "changed_when" in task, (file, task["name"])
                if task["changed_when"] is False and "apt-get" not in str(task):
                    assert task.get("check_mode") is False, (file, task["name"])
