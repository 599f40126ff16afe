"""The plugin: options, which hosts are asked, a test for each question, words instead of tracebacks.

`answer` is evaluated before the test begins. What could not be told (no answer from a host, evidence that is missing)
ends there, as an ERROR; what the evidence says no to is a FAILURE of the test. Neither is ever green.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toolkit import settings as installed
from toolkit.errors import RackproofError, UsageError
from toolkit.infra import hooks
from toolkit.infra.questions import Answered, Asks, Plan, Question, fail
from toolkit.infra.targets import OWN, Target, matched, of_rack
from toolkit.judge.verdict import Answer
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack, Unit

if TYPE_CHECKING:
    from testinfra.host import Host

    from toolkit.infra.readings import Reach
    from toolkit.runners.shell import Shell
    from toolkit.settings import Settings

MARKERS = (
    "asks(questions): tests of toolkit.infra, one for each question that the plan makes",
    "smoke: what is known of a node within five seconds",
)
_MOST = 600  # characters of another tool's words
_NO_HOSTS = "pytest --pyargs toolkit.infra --rack RACK, or --hosts=ansible://all?ansible_inventory=FILE, or both"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--hosts`, `--ansible-inventory` and the like are pytest-testinfra's own."""
    group = parser.getgroup("rackproof", "rackproof: checks of a rack")
    group.addoption("--rack", metavar="RACK", help="Rack by name or file: its plan, its nodes, its profile.")
    group.addoption(
        "--certificate", metavar="FILE", type=Path, help="Certificate to check. Default: this installation's newest."
    )
    group.addoption("--trust", metavar="FILE", type=Path, help="Trust file: keys and revocations (rackproof verify).")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """The hook of other ways to a rack."""
    pluginmanager.add_hookspecs(hooks)


class Session:
    """What one process of pytest knows: the plan, and what was read so far."""

    def __init__(self, config: pytest.Config) -> None:
        from toolkit.infra import backends
        from toolkit.infra.readings import Readings

        self._config = config
        self._before = backends.install()
        try:
            settings = installed.load()
            name = config.getoption("rack")
            rack = load_rack(name, settings.inventory) if name else None
            self._hosts, targets = self._asked(rack, settings)
        except BaseException:
            backends.restore(self._before)
            raise
        self.plan = Plan(settings, rack, targets, config.getoption("certificate"), config.getoption("trust"))
        self.readings = Readings(self.plan, self._reach)
        backends.RackBackend.reached = self._reached

    def _asked(self, rack: Rack | None, settings: Settings) -> tuple[Sequence[Host], tuple[Target, ...]]:
        """testinfra's hosts (none: the rack's nodes are reached as rackproof does), and the targets."""
        import testinfra

        from toolkit.infra import backends

        option = self._config.option
        if option.hosts is None:
            if rack is None:
                raise UsageError("no rack and no hosts were given", _NO_HOSTS)
            targets = of_rack(rack)
            option.hosts = ",".join(target.spec for target in targets)  # for tests of the user's own beside these
            return (), targets
        try:
            hosts = testinfra.get_hosts(
                option.hosts.split(","), connection=option.connection, ssh_config=option.ssh_config,
                ssh_identity_file=option.ssh_identity_file, sudo=option.sudo, sudo_user=option.sudo_user,
                ansible_inventory=option.ansible_inventory, force_ansible=option.force_ansible,
            )  # fmt: skip
        except (RuntimeError, AssertionError, OSError, ValueError) as error:  # as testinfra says what it cannot do
            raise UsageError(f"--hosts: {str(error)[:_MOST]}", _NO_HOSTS) from error
        targets = matched(rack, [backends.named(host.backend) for host in hosts])
        for target, host in zip(targets, hosts, strict=True):
            inner = backends.innermost(host.backend)
            if isinstance(inner, backends.StrictSshBackend):
                inner.pin(target.unit, settings, rack.name if rack else "")
        own = all(target.spec.startswith(f"{OWN}://") for target in targets)
        return () if own else hosts, targets

    def _reach(self) -> Reach:
        """What the rack is reached with: another plugin's word, else SSH, Redfish and the site's pool."""
        from toolkit.infra import backends
        from toolkit.infra.readings import Reach
        from toolkit.runners.ssh import SshShell
        from toolkit.stages.hands import SiteHands

        plan, settings = self.plan, self.plan.settings
        hosts = backends.connections(plan.targets, [host.backend for host in self._hosts]) if self._hosts else None
        if plan.rack is None:
            return Reach(hosts or backends.Connections({}), None)
        other: Reach | None = self._config.hook.pytest_rackproof_reach(rack=plan.rack, settings=settings)
        if other is not None:
            return replace(other, shell=hosts) if hosts is not None else other
        if plan.rack.profile.virtual:
            from toolkit.virtual.lab import enter_namespace

            enter_namespace(settings, plan.rack.name)
        shell = hosts if hosts is not None else SshShell(settings, plan.rack.name)
        return Reach(shell, SiteHands(settings, plan.rack, shell))

    def _reached(self, name: str) -> tuple[Shell, Unit] | None:
        """For tests of the user's own, by testinfra's `host`."""
        target = next((t for t in self.plan.targets if t.name == name), None)
        return (self.readings.shell, target.asked_as) if target is not None else None

    def close(self) -> None:
        """Testinfra's own connections again, and ours closed."""
        from toolkit.infra import backends

        self.readings.close()
        backends.RackBackend.reached = None
        backends.restore(self._before)


_SESSION = pytest.StashKey[Session]()


def pytest_configure(config: pytest.Config) -> None:
    """Markers; projects with --strict-markers know them too."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """The plan is read once, before anything is collected; no node is asked yet."""
    try:
        session.config.stash[_SESSION] = Session(session.config)
    except RackproofError as error:
        raise pytest.UsageError(f"rackproof: {error}") from error


def pytest_unconfigure(config: pytest.Config) -> None:
    """Closes what was opened."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        session.close()
        del config.stash[_SESSION]


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Which plan is asked of whom, and which planned nodes nobody asks."""
    session = config.stash.get(_SESSION, None)
    if session is None:
        return []
    plan = session.plan
    lines = [f"rackproof: {_whose(plan.rack)}; {len(plan.targets)} hosts: {_named(t.name for t in plan.targets)}"]
    asked = {target.name for target in plan.targets if target.planned}
    absent = [node.name for node in plan.rack.nodes if node.name not in asked] if plan.rack else []
    return [*lines, *([f"rackproof: NOT ASKED of this rack: {_named(absent)}"] if absent else [])]


def _whose(rack: Rack | None) -> str:
    if rack is None:
        return "no rack: what needs a plan is skipped by name"
    return f"rack {rack.name} ({rack.digest[:12]}), profile {rack.profile.name}"


def _named(names: Iterable[str]) -> str:
    told = list(names)
    return ", ".join(told[:8]) + (f" and {len(told) - 8} more" if len(told) > 8 else "")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Tests of this package go by their package's name, wherever it is installed: in node ids and in JUnit files."""
    if module_path.parent != Path(__file__).parent:
        return None
    nodeid = f"{__package__.replace('.', '/')}/{module_path.name}"
    module: pytest.Module = pytest.Module.from_parent(parent, path=module_path, nodeid=nodeid)
    return module


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each question of the function's marker. Those of one node stay together: `-n 8 --dist loadgroup`."""
    marker = metafunc.definition.get_closest_marker("asks")
    if marker is None or "answer" not in metafunc.fixturenames:
        return
    plan = metafunc.config.stash[_SESSION].plan
    metafunc.parametrize("answer", [_case(q, plan) for q in _questions(marker, plan)], indirect=True)


def _questions(marker: pytest.Mark, plan: Plan) -> Iterator[Question]:
    (asked,) = marker.args
    assert isinstance(asked, Asks)  # noqa: S101 - the marker is ours
    yield from asked.questions(plan)


def _case(question: Question, plan: Plan) -> object:
    group = question.target.name if question.target else f"rack {plan.rack.name if plan.rack else ''}"
    marks = [pytest.mark.xdist_group(group)]
    marks += [pytest.mark.skip(reason=question.skip)] if question.skip else []
    return pytest.param(question, id=question.id(plan), marks=marks)


@pytest.fixture
def answer(request: pytest.FixtureRequest) -> Answered:
    """What was found. Undecided is an error here, before the test: the test itself fails on evidence alone."""
    question: Question = request.param
    session = request.config.stash[_SESSION]
    try:
        answered = question.ask(session.readings)
    except RackproofError as error:
        from toolkit.infra.words import of_error

        answered = of_error(error, question.target.name if question.target else "")
    told = [("node", question.target.name if question.target else ""), ("code", answered.code)]
    request.node.user_properties += [(f"rackproof.{name}", value) for name, value in told if value]
    if answered.answer is Answer.INCONCLUSIVE:
        fail(answered.lines)
    return answered
