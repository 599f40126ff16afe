"""A certified rack of files whose time passes only while somebody sleeps, and a pool to which things happen in time."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta

from rehearsal import in_process, open_ledger, without_rails

from toolkit.bringup import admit_certified, bringup
from toolkit.errors import UndecidedError, UnreachableError
from toolkit.ledger import Ledger
from toolkit.pool.file import FilePool
from toolkit.pool.model import Sign, Smoked, SmokeEnd
from toolkit.pool.policy import PoolPolicy, Regulation
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings
from toolkit.stages.context import Context
from toolkit.virtual.in_process import InProcessRack

SOAK = Regulation(soak_s=60.0, poll_s=5.0, patience_s=30.0, smoke=False)


@dataclass
class Time:
    """A clock that stands still but for sleep, and what happens at which second of it."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    happens: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    passed: float = 0.0

    def clock(self) -> datetime:
        """Now."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes, and what is due happens."""
        self.passed += seconds
        self.now += timedelta(seconds=seconds)
        due = [deed for at, deed in self.happens if at <= self.passed]
        self.happens = [(at, deed) for at, deed in self.happens if at > self.passed]
        for deed in due:
            deed()


class WatchedPool(FilePool):
    """A pool in a real file, beside which somebody says how its members are, and which may not answer for a while."""

    def __init__(self, path):
        super().__init__(path)
        self.said: list[Sign] = []
        self.away = False
        self.refuses = 0  # how many admissions to come it says no to
        self.smoked = Smoked(SmokeEnd.NOT_ASKED, "a pool of this test has none")
        self._acts = path.with_suffix(".acts")
        self.turn = threading.Lock()  # whoever kills the caller under it leaves nothing done that is not noted

    @property
    def acts(self) -> list[tuple[str, ...]]:
        """All that was done to it, also by a process that is dead."""
        return [tuple(line.split()) for line in self._acts.read_text().splitlines()] if self._acts.exists() else []

    def act(self, *words: str) -> None:
        """Notes it."""
        with self._acts.open("a") as file:
            file.write(" ".join(words) + "\n")

    def _answer(self):
        if self.away:
            raise UnreachableError("the pool does not answer", "wait")

    def nodes(self):
        """As the file has them."""
        self._answer()
        return super().nodes()

    def admit(self, node, certificate, expires, labels):
        """As the file, noted."""
        self._answer()
        if self.refuses:
            self.refuses -= 1
            raise UndecidedError(f"the server refused to admit {node}: 403", "see its rights")
        with self.turn:
            super().admit(node, certificate, expires, labels)
            self.act("admit", node)

    def evict(self, node, reason):
        """As the file, noted."""
        self._answer()
        with self.turn:
            super().evict(node, reason)
            self.act("evict", node)

    def evict_all(self, reasons):
        """As the file, noted; nobody of a pool that is away."""
        if self.away:
            return dict.fromkeys(reasons, UnreachableError("the pool does not answer", "wait"))
        with self.turn:
            failed = super().evict_all(reasons)
            for node in reasons.keys() - failed.keys():
                self.act("evict", node)
        return failed

    def signs(self, nodes, since):
        """What the file shows, and what was said of members."""
        self._answer()
        told = [s for s in self.said if s.node in nodes and (s.at is None or s.at >= since)]
        return (*super().signs(nodes, since), *told)

    def smoke(self, nodes, deadline_s):
        """As it was set."""
        self._answer()
        self.act("smoke", *nodes)
        return self.smoked


class WatchedRack(InProcessRack):
    """A rack of files with such a pool."""

    watched: WatchedPool

    @property
    def pool(self):
        """The same one each time."""
        return self.watched


def certified(folder, rack_name="demo"):
    """A rack of files, each of its nodes certified and none in the pool."""
    lab = without_rails(in_process(folder, rack_name))
    with open_ledger(lab.settings) as ledger:
        context = Context(
            lab.rack, lab.settings, ledger, lab, lambda: datetime.now(UTC), lambda s: None, lambda p: None
        )
        bringup(context, make_plan(lab.rack, {}, NodeState.CERTIFIED))
    return lab


class Admitting:
    """One installation with certified nodes; runs the admission and tells what came of it."""

    def __init__(self, lab, folder, regulation=SOAK):
        shutil.copytree(lab.settings.home.parent, folder)
        settings = replace(
            lab.settings,
            home=folder / "home",
            ledger_url=f"sqlite:///{folder / 'home' / 'ledger.db'}",
        )
        told = {f.name: getattr(lab, f.name) for f in fields(lab)}
        told |= {"settings": settings, "folder": folder / lab.folder.name, "faults": [], "serials": {}}
        self.lab = WatchedRack(**(told | {"policy": PoolPolicy(regulation=regulation)}))
        self.lab.watched = WatchedPool(settings.pool(lab.rack.site))
        self.pool = self.lab.watched
        self.time = Time()

    def ledger(self):
        """The installation's."""
        settings = self.lab.settings
        return Ledger.open(settings.ledger_url, settings.artifacts, "test", self.time.clock)

    def run(self):
        """`rackproof admit`, to its end."""
        with self.ledger() as ledger:
            context = Context(
                self.lab.rack, self.lab.settings, ledger, self.lab, self.time.clock, self.time.sleep, lambda p: None
            )
            return admit_certified(context)

    def standing(self):
        """Where every node stands."""
        with self.ledger() as ledger:
            return {s.node: s for s in standings(ledger, self.lab.rack)}

    def inside(self):
        """Who takes jobs."""
        return sorted(name for name, member in self.pool.nodes().items() if member.admitted)

    def events(self, what):
        """Details of the rack's events of that name."""
        with self.ledger() as ledger:
            return [e.body["details"] for e in ledger.events(self.lab.rack.name, what=what, limit=10_000)]
