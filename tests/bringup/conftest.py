"""Racks of files for the tests of this folder."""

import pytest
from laddering import LOST, copies
from rehearsal import folder, in_process, without_rails


@pytest.fixture
def tmp_path(tmp_path):
    """In memory: every test here is a bringup or more."""
    with folder(tmp_path / "folder") as made:
        yield made


@pytest.fixture
def lab_of(tmp_path):
    """Makes a rack of files with faults, its rails left alone."""
    return lambda rack_name, *faults: without_rails(in_process(tmp_path, rack_name, *faults))


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """Makes copies of a small rack whose node2 lost its GPU and is set aside."""
    with folder(tmp_path_factory.mktemp("ladder") / "racks") as place:
        yield copies(place, LOST)
