"""A rack of files with the real stages over it."""

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


def now():
    """Wall clock."""
    return datetime.now(UTC)


def in_process(tmp_path, rack_name, *faults):
    """An installation with a rack of files, its image published and its keys made."""
    settings = load({"RACKPROOF_HOME": str(tmp_path / "home"), "RACKPROOF_CACHE": str(BUILT)})
    rack = load_rack(rack_name, settings.inventory)
    make_keys(settings)
    publish_blank_image(settings, rack)
    return InProcessRack(rack, settings, tmp_path / "machines", list(faults))


def open_ledger(settings):
    """The installation's ledger."""
    return Ledger.open(settings.ledger_url, settings.artifacts, "test", now)


def context_over(lab, ledger):
    """A context whose hands are the rack of files; it does not wait."""
    return Context(lab.rack, lab.settings, ledger, lab, now, lambda s: None, lambda p: None)
