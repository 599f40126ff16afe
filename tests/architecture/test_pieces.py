"""How tests are shared out among several workers: tests/conftest.py."""

from pathlib import Path

from tests.conftest import CLUSTER, LONGEST, piece

ROOT = Path(__file__).parents[2]


def test_what_is_said_to_take_longest_is_there():
    """A file that was renamed would begin last again, and nobody would see why all takes longer."""
    paths = [name for name in LONGEST if "/" in name] + list(CLUSTER)
    assert [name for name in paths if not (ROOT / name).exists()] == []
    assert len(paths) == len(set(paths)) == len(LONGEST) + len(CLUSTER) - 1


def test_files_that_share_machines_go_to_one_worker():
    """Their fixture is of the session: in two workers it would be brought up twice, with the same addresses."""
    files = ("test_all_roles", "test_infiniband_roles", "test_trays")
    assert {piece(f"tests/playbooks/{name}.py::test_x[y::z]") for name in files} == {"tests/playbooks/"}
    assert {piece(f"{file}::test_x") for file in CLUSTER} == {"a control plane"} <= set(LONGEST)
    assert piece("tests/virtual/test_machine.py::test_x[a]") == "tests/virtual/test_machine.py"
