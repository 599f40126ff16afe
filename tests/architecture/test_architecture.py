"""The shape of the house is a test: layers, sizes, words, docstrings."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for top in ("toolkit", "burnin") for p in (ROOT / top).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 450


def name_of(path):
    """A readable id for a parametrised file."""
    return str(path.relative_to(ROOT))


def test_imports_point_downwards_only():
    """Every contract of pyproject.toml holds."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_is_one_subject(path):
    """A module fits in one's head, says what lives in it, and is not called utils."""
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert path.stem not in {"utils", "helpers", "common", "misc", "manager"}


def test_broad_excepts_stand_in_two_places_only():
    """One turns a node's failure into a recorded result, the other a workload's."""
    broad = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception"})
            ):
                broad.add(name_of(path))
    assert broad <= {"toolkit/driving.py", "burnin/suite.py"}


def test_no_test_mocks():
    """Fakes stand at the hardware boundary and ship as the virtual rack."""
    for path in TESTS:
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not {i for i in imported if i.startswith(("unittest", "mock"))}, path


def test_the_pure_core_reads_no_clock():
    """judge, plan and lifecycle are told the time; they never ask."""
    for path in [
        *(ROOT / "toolkit/judge").glob("*.py"),
        ROOT / "toolkit/rack/plan.py",
        ROOT / "toolkit/rack/lifecycle.py",
    ]:
        text = path.read_text()
        assert ".now(" not in text, path
        assert "time.time" not in text, path


def test_help_is_quick_because_heavy_libraries_are_not_loaded():
    """`rackproof --help` imports neither rich nor pydantic nor paramiko nor ansible_runner."""
    code = (
        "import sys; import toolkit.cli as c\n"
        "try: c.rackproof(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy={'rich','pydantic','paramiko','ansible_runner','sushy','yaml','jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_verb_has_help_and_json():
    """Each verb loads, explains itself and can answer as JSON (groups: each of their commands can)."""
    import click

    from toolkit.cli import VERBS, rackproof

    for verb in VERBS:
        command = rackproof.get_command(click.Context(rackproof), verb)
        assert command is not None
        assert command.help
        parts = command.commands.values() if isinstance(command, click.Group) else [command]
        for part in parts:
            options = {o for p in part.params for o in p.opts}
            assert part.help, f"{verb} {part.name}"
            assert "--json" in options or part.name in {"exec", "demo", "inventory"}, (
                f"{verb} {part.name} has no --json"
            )


def test_every_verb_is_in_the_readme():
    """What is not documented does not exist."""
    from toolkit.cli import VERBS

    readme = (ROOT / "README.md").read_text()
    missing = [verb for verb in VERBS if f"rackproof {verb}" not in readme]
    assert not missing
