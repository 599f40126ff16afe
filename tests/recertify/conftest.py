"""Racks of files in service. Bringing one up costs seconds: it is done once, and copied."""

import shutil
from dataclasses import fields, replace

import pytest
from rehearsal import folder, in_process

from tests.bringup.test_kill import small
from tests.recertify.service import Clock, Service, Watch
from toolkit.virtual import in_process_burnin


@pytest.fixture
def tmp_path(tmp_path):
    """In memory."""
    with folder(tmp_path / "folder") as made:
        yield made


def little(lab):
    """The same rack with one GPU and one rail a node: what is tested here is of no single GPU. Its levels stay."""
    made = small(lab)
    return replace(made, rack=replace(made.rack, profile=replace(made.rack.profile, levels=lab.rack.profile.levels)))


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """Two nodes, both admitted."""
    with folder(tmp_path_factory.mktemp("served") / "two") as place:
        yield Service(little(in_process(place, "demo-small"))).bring_up()


@pytest.fixture
def whole(tmp_path, clock):
    """The same with all its GPUs and rails, for tests that are of one of them among others."""
    made = Service(in_process(tmp_path, "demo-small"), clock).bring_up()
    made.later(days=3)
    return made


@pytest.fixture
def clock(monkeypatch):
    """The time of everybody: also of the rack of files, which stamps what it measures."""
    made = Clock()
    monkeypatch.setattr(in_process_burnin, "datetime", Watch(made))
    return made


def copied(service, place, clock=None, floor=0.0, kind=None):
    """The same installation in another folder."""
    home = service.lab.settings.home
    shutil.copytree(home.parent, place)
    settings = replace(service.lab.settings, home=place / home.name,
                       ledger_url=f"sqlite:///{place / home.name / 'ledger.db'}")  # fmt: skip
    told = {f.name: getattr(service.lab, f.name) for f in fields(service.lab)}
    lab = type(service.lab)(
        **told | {"settings": settings, "folder": place / service.lab.folder.name, "faults": [], "serials": {}}
    )
    return Service(lab, clock, floor, kind)


@pytest.fixture
def service(served, tmp_path, clock):
    """Two admitted nodes, three days later: what was measured of them counts for nothing but their certificate."""
    made = copied(served, tmp_path / "copy", clock)
    made.later(days=3)
    return made
