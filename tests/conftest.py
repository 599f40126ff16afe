"""What holds for every test: those that need root say so and are skipped without it; built things are shared."""

import faulthandler
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest


def pytest_configure(config):
    """A drawn example is as slow as the machine is busy: that says nothing of the test. Pipelines of tests/infra, which
    pytest runs in a pytest, draw none.
    """
    if config.pluginmanager.hasplugin("timeout"):
        from hypothesis import HealthCheck, settings

        settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("shared machine")


def pytest_collection_modifyitems(config, items):
    """Tests of namespaces, machines and loop devices need root; without it they are skipped by name, not passed.

    A worker of several sorts its tests: the longest pieces, then those with most tests.
    """
    strange = {file_of(item) for item in items if "control_plane" in item.fixturenames} - set(CLUSTER)
    strange = sorted(file for file in strange if not file.startswith("tests/playbooks/"))
    if strange:
        raise pytest.UsageError(f"tests/conftest.py: add to CLUSTER what uses a control plane: {', '.join(strange)}")
    if hasattr(config, "workerinput"):
        pieces = {item: piece(item.nodeid) for item in items}
        many = Counter(pieces.values())
        rank = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: (rank.get(pieces[item], len(LONGEST)), -many[pieces[item]], pieces[item]))
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("rack"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


# What takes longest begins first: the last to begin would leave the other workers idle. What the name of a file begins
# with is one piece of work: all of tests/playbooks, for its files share two machines.
LONGEST = (
    "tests/playbooks/",
    "a control plane",
    "tests/virtual/test_operator.py",
    "tests/bringup/test_kill.py",
    "tests/bringup/test_peers.py",
    "tests/bringup/test_recovery.py",
)


# One piece too: a worker that has a control plane keeps it to its end, and an idle one is still work.
CLUSTER = (
    "tests/export/test_events.py",
    "tests/kubernetes/test_client.py",
    "tests/kubernetes/test_control_plane.py",
    "tests/pool/test_door_installed.py",
    "tests/pool/test_door_verbs.py",
    "tests/pool/test_doorkeeper.py",
    "tests/pool/test_drain.py",
    "tests/pool/test_kubernetes_pool.py",
    "tests/pool/test_ray_and_kueue.py",
    "tests/pool/test_regulator_cluster.py",
    "tests/pool/test_smoke_job.py",
    "tests/recertify/test_cluster.py",
    "tests/runners/test_job_claim.py",
    "tests/runners/test_jobs.py",
    "tests/stages/test_burnin_by_jobs.py",
    "tests/virtual/test_join.py",
    "tests/virtual/test_kubeadm.py",
    "tests/virtual/test_node_agent.py",
)


def file_of(item):
    """The test's file, as its id has it."""
    return item.nodeid.partition("::")[0]


def piece(nodeid):
    """What a test is done together with: its file, or all that is one of LONGEST."""
    file = nodeid.partition("::")[0]
    if file in CLUSTER:
        return "a control plane"
    return next((name for name in LONGEST if file.startswith(name)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadfile` hands out pieces, in the order in which workers found them."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Pieces(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return piece(nodeid)

    config.option.loadscopereorder = False
    return Pieces(config, log)


# A test that hangs takes its worker with it, and what the worker printed is not in the report of the crash.
TELL_BEFORE_S = 10


def where_it_hangs(controller, worker):
    """Where a worker leaves the stacks of a test that is about to be ended."""
    return Path(tempfile.gettempdir()) / f"hangs-{controller}-{worker}.txt"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """In a worker: shortly before the time-out ends everything, all threads are told to a file."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    marker = item.get_closest_marker("timeout")
    limit_s = float(marker.args[0]) if marker and marker.args else float(item.config.getini("timeout"))
    if limit_s <= TELL_BEFORE_S:
        return (yield)
    path = where_it_hangs(os.getppid(), item.config.workerinput["workerid"])
    with path.open("w") as file:
        faulthandler.dump_traceback_later(limit_s - TELL_BEFORE_S, file=file)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            path.unlink(missing_ok=True)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem, report):
    """In the controller: the report of a worker that is gone says where it was."""
    for path in sorted(where_it_hangs(os.getpid(), "x").parent.glob(f"hangs-{os.getpid()}-*.txt")):
        if told := path.read_text():
            report.longrepr = f"{report.longrepr}\n{told}"
            path.unlink()


@pytest.fixture(scope="session")
def built():
    """Where images and packages are built, kept between runs: as in `make demo`."""
    return Path(
        os.environ.get("RACKPROOF_CACHE") or Path(os.environ.get("RACKPROOF_HOME", ".rackproof")) / "cache"
    ).absolute()
