"""A rack of files with the real stages over it."""

import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from toolkit.ledger import Ledger
from toolkit.rack.loading import load_rack
from toolkit.settings import load
from toolkit.stages.context import Context
from toolkit.stages.hands import make_keys
from toolkit.virtual.in_process import InProcessRack, publish_blank_image

# What pytest's cache.mkdir("burnin") answers: kernels take long to compile, and are the same for every test.
BUILT = Path(__file__).parents[1] / ".pytest_cache/d/burnin"
# A process that is killed loses nothing that it wrote: whether the disk has it is another question, and waiting for the
# disk at every commit of hundreds of bringups would take most of their time.
MEMORY = Path("/dev/shm")


def now():
    """Wall clock."""
    return datetime.now(UTC)


@contextmanager
def folder(otherwise):
    """A folder in memory; `otherwise`, where there is none to write to. It is removed at the end."""
    if not os.access(MEMORY, os.W_OK):
        otherwise.mkdir()
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="rackproof-", dir=MEMORY) as made:
        yield Path(made)


def in_process(tmp_path, rack_name, *faults):
    """An installation with a rack of files, its image published and its keys made."""
    settings = load({"RACKPROOF_HOME": str(tmp_path / "home"), "RACKPROOF_CACHE": str(BUILT)})
    rack = load_rack(rack_name, settings.inventory)
    make_keys(settings)
    publish_blank_image(settings, rack)
    return InProcessRack(rack, settings, tmp_path / "machines", list(faults))


def without_rails(lab):
    """The same rack with its rails left alone: of two nodes, a sound one has no partner when the other fails.

    Rails, and what becomes of a node alone: test_rail_partners.py and test_kill.py.
    """
    return replace(lab, rack=replace(lab.rack, profile=replace(lab.rack.profile, rail_test=False)))


def open_ledger(settings):
    """The installation's ledger."""
    return Ledger.open(settings.ledger_url, settings.artifacts, "test", now)


def context_over(lab, ledger):
    """A context whose hands are the rack of files; it does not wait."""
    return Context(lab.rack, lab.settings, ledger, lab, now, lambda s: None, lambda p: None)
