"""As a user types it: the entry point alone brings the plugin, to those who name this package and to nobody else."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.infra.sessions import run

PYTEST = (sys.executable, "-m", "pytest")


def typed(folder, *words, **variables):
    """Runs pytest in a project of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --strict-config\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "RACKPROOF_"))}
    env = {**clean, "RACKPROOF_HOME": str(folder / "home"), **variables}
    return subprocess.run(
        [*PYTEST, "-p", "no:cacheprovider", *words], cwd=folder, env=env, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip


def test_without_a_rack_what_needs_a_plan_is_skipped_by_name_and_workers_share_it(tmp_path):
    """Two workers, each node on one of them; a JUnit file in which classes go by this package's name."""
    ran = typed(
        tmp_path / "project", "--pyargs", "toolkit.infra", "--hosts=local://", "-n2", "--dist=loadgroup", "-rs",
        "--junitxml=junit.xml", "--deselect=toolkit/infra/test_driver.py::test_every_gpu_answers[local]",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "local: no rack" not in ran.stdout
    assert "no rack was given: --rack RACK has the plan that this needs" in ran.stdout
    suite = ET.parse(tmp_path / "project/junit.xml").getroot()[0]  # noqa: S314 - our own file
    cases = {(case.get("classname"), case.get("name")): [part.tag for part in case] for case in suite}
    skipped = {name for name, parts in cases.items() if "skipped" in parts}
    assert ("toolkit.infra.test_certificate", "test_facts[local-needs-a-plan]") in skipped
    assert {name for name in cases if name not in skipped} == {("toolkit.infra.test_clocks", "test_wall_clock[local]")}


def test_a_project_that_does_not_name_this_package_pays_for_two_empty_modules(tmp_path):
    """No option, no marker, no library of ours: what was imported is told by the project itself."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "test_nothing.py").write_text(
        "import sys\n"
        "def test_loaded(pytestconfig):\n"
        "    watched = ('toolkit', 'burnin', 'paramiko', 'pydantic')\n"
        "    ours = sorted(n for n in sys.modules if n.split('.')[0] in watched)\n"
        "    assert ours == ['toolkit', 'toolkit.infra', 'toolkit.infra.entry'], ours\n"
        "    assert not hasattr(pytestconfig.option, 'rack')\n"
    )
    ran = typed(project, "-q", "test_nothing.py")
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(("rack", "said"), [(None, "no rack and no hosts were given"), ("no-such", "no-such")])
def test_a_wrong_command_line_is_a_usage_error_with_the_next_command(lab, rack, said):
    """Exit 4, as pytest has it, and no traceback."""
    seen = run(lab, rack=rack)
    assert seen.status == pytest.ExitCode.USAGE_ERROR
    assert seen.output.startswith("ERROR: rackproof: ")
    assert said in seen.output
    assert "next: " in seen.output
    assert "Traceback" not in seen.output


def test_the_package_is_known_by_name_by_module_and_by_path():
    """And nothing else is: an option's value that looks like it is no argument of ours."""
    from toolkit.infra.entry import names_this_package

    here = Path(__file__).resolve().parents[2]
    for arg in ("toolkit.infra", "toolkit.infra.test_boot", "toolkit.infra.test_boot::test_serial", "toolkit/infra"):
        assert names_this_package([arg], here), arg
    for arg in ("tests", "toolkit.infrared", "-ktoolkit.infra", "toolkit/stages", ""):
        assert not names_this_package([arg], here), arg


def test_nodes_of_the_rack_that_nobody_asks_are_named_at_the_top(lab):
    """A part of a rack that is green is not a rack that is green."""
    seen = run(lab, "--hosts=rackproof://node1", "-vv", what=("toolkit.infra.test_clocks",))
    assert seen.red() == {}
    assert list(seen.letters) == ["clocks::test_wall_clock[node1]"]
    assert "rackproof: NOT ASKED of this rack: node2" in seen.output
