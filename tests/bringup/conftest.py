"""Racks of files for the tests of this folder."""

import pytest
from rehearsal import in_process


@pytest.fixture
def lab_of(tmp_path):
    """Makes a rack of files with faults."""
    return lambda rack_name, *faults: in_process(tmp_path, rack_name, *faults)
