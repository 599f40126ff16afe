"""What holds for every test: those that need root say so and are skipped without it; built things are shared."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    """Tests of namespaces, machines and loop devices need root; without it they are skipped by name, not passed."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("rack"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def built():
    """Where images and packages are built, kept between runs: as in `make demo`."""
    return Path(
        os.environ.get("RACKPROOF_CACHE") or Path(os.environ.get("RACKPROOF_HOME", ".rackproof")) / "cache"
    ).absolute()
