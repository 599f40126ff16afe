"""A healthy rack of files, brought up once for the tests of this folder."""

import pytest
from rehearsal import folder

from tests.infra.sessions import brought_up
from toolkit.infra.plugin import MARKERS


def pytest_configure(config):
    """Modules of the checks are imported outside of a session of theirs, by tests that look into them."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory):
    """Two nodes of the virtual rack, admitted; each test leaves it without faults."""
    with folder(tmp_path_factory.mktemp("infra") / "folder") as made:
        yield brought_up(made, "demo-small")


@pytest.fixture
def lab(healthy):
    """The same rack, as it was before the test."""
    yield healthy
    healthy.faults.clear()
    healthy.serials.clear()
    healthy.of_node.clear()
