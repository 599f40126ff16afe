"""Racks of files in service: brought up, admitted, with a scheduler that says what it wants, and time that can pass."""

from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta

import yaml

from toolkit.bringup import bringup
from toolkit.cli.recert import after_change
from toolkit.ledger import Ledger
from toolkit.pool.file import FilePool
from toolkit.pool.file_jobs import beside
from toolkit.pool.policy import PoolPolicy, Regulation
from toolkit.rack.model import Suite
from toolkit.rack.plan import make_plan
from toolkit.recertify import recertify, recertify_after
from toolkit.report.standing import standings, status_of
from toolkit.stages.context import Context
from toolkit.stages.recert_turn import Bounds, Task
from toolkit.virtual.in_process import InProcessRack

REHEARSAL = Suite.REHEARSAL


@dataclass
class Clock:
    """Wall time and what was added to it; `sleeps` happen at once, and call what was set for them."""

    ahead: timedelta = timedelta()
    on_sleep: list = field(default_factory=list)

    def now(self):
        """The time."""
        return datetime.now(UTC) + self.ahead

    def sleep(self, seconds):
        """Passes at once."""
        self.ahead += timedelta(seconds=seconds)
        if self.on_sleep:
            self.on_sleep.pop(0)()


class Watch:
    """Stands for `datetime` where the rack of files reads its own clock."""

    def __init__(self, clock):
        self._clock = clock

    def now(self, zone):
        """The rack's time."""
        return self._clock.now().astimezone(zone)


class ServedRack(InProcessRack):
    """A rack of files whose pool lives in the same time as everybody."""

    clock = Clock()

    @property
    def pool(self):
        """In its file."""
        return FilePool(self.settings.pool(self.rack.site), self.clock.now)


class SlowRack(ServedRack):
    """A rack whose burn-ins take their time: two workloads end at once, the others when `finish` is called.

    A run that was stopped and is started again begins a second attempt, as the program on the node does.
    """

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.active = {}  # by unit: what is still to be written, and where
        self.asked = []  # arguments of every start
        self.stuck = False  # whether a burn-in does not end when it is told to

    def _burn_in(self, node, arguments):
        words = list(arguments)
        out = words[words.index("--out") + 1]
        records = self.folder / node.name / "files" / out.lstrip("/") / "records.jsonl"
        self.asked.append(words)
        earlier = records.read_bytes() if records.exists() else b""
        records.unlink(missing_ok=True)
        status = super()._burn_in(node, arguments)
        lines = records.read_bytes().splitlines(keepends=True)
        ends = [n for n, line in enumerate(lines) if b'"record":"workload"' in line]
        self.active[f"rackproof-burnin-{words[words.index('--run') + 1]}"] = (records, b"".join(lines[ends[2] + 1 :]))
        records.write_bytes(earlier + b"".join(lines[: ends[2] + 1]))
        return status

    def finish(self):
        """Every burn-in comes to its end."""
        for records, rest in self.active.values():
            records.write_bytes(records.read_bytes() + rest)
        self.active = {}

    def _answer(self, node, machine, argv):
        match argv:
            case ["systemctl", "is-active", "--quiet", unit]:
                return (0 if unit.removesuffix(".service") in self.active else 3), ""
            case ["systemctl", "stop", unit] if unit.removesuffix(".service") in self.active:
                if not self.stuck:
                    del self.active[unit.removesuffix(".service")]
                return 0, ""
        return super()._answer(node, machine, argv)


class Service:
    """One rack in service, its pool a file."""

    def __init__(self, lab, clock=None, floor=0.0, kind=None):
        self.clock = clock or Clock()
        told = {f.name: getattr(lab, f.name) for f in fields(lab)}
        kind = kind or (type(lab) if isinstance(lab, ServedRack) else ServedRack)
        self.lab = kind(**told | {"policy": PoolPolicy(regulation=Regulation(soak_s=0.0, smoke=False, floor=floor))})
        self.lab.clock = self.clock
        self.rack = self.lab.rack

    def ledger(self):
        """The installation's."""
        settings = self.lab.settings
        return Ledger.open(settings.ledger_url, settings.artifacts, "test", self.clock.now)

    def context(self, ledger):
        """Over this rack."""
        return Context(self.rack, self.lab.settings, ledger, self.lab, self.clock.now, self.clock.sleep, lambda p: None)

    def bring_up(self):
        """To the end; answers itself."""
        with self.ledger() as ledger:
            bringup(self.context(ledger), make_plan(self.rack, status_of(ledger, self.rack)))
        self.schedule()
        return self

    def later(self, **passed):
        """Time passes, and the scheduler goes on writing."""
        self.clock.ahead += timedelta(**passed)
        self.schedule()

    def schedule(self, running=None, wanted=None, at=None):
        """What the scheduler says beside the pool's file."""
        path = beside(self.lab.settings.pool(self.rack.site))
        told = {"at": (at or self.clock.now()).isoformat(), "running": running or {}, "wanted": wanted or {}}
        path.write_text(yaml.safe_dump(told))

    def bounds(self, **changed):
        """Everything at once is allowed, but for what is said."""
        near = {n.name: ("leaf1",) for n in self.rack.nodes}
        return replace(Bounds(near, 100, self.lab.policy.regulation.floor, (self.rack,), 4 * 3600.0), **changed)

    def run(self, tasks, **bounds):
        """`recert run`, to its end."""
        with self.ledger() as ledger:
            return recertify(self.context(ledger), tasks, self.bounds(**bounds))

    def plan(self, *words, whole=False):
        """What `recert plan --after` shows."""
        with self.ledger() as ledger:
            states = ledger.node_states(self.rack.name)
        return after_change(self.lab.settings, self.rack, states, words, whole)

    def run_after(self, *words, **bounds):
        """`recert run --after`, to its end."""
        made = self.plan(*words)
        with self.ledger() as ledger:
            return recertify_after(self.context(ledger), made, self.bounds(**bounds))

    def tasks(self, *nodes, suite=REHEARSAL, whole=False):
        """These nodes, or all."""
        return [Task(n, suite, "a test", whole) for n in nodes or [u.name for u in self.rack.nodes]]

    def standing(self):
        """Where every node stands."""
        with self.ledger() as ledger:
            return {s.node: s for s in standings(ledger, self.rack)}

    def pool(self):
        """Members by name."""
        return self.lab.pool.nodes()

    def events(self, **which):
        """Of the rack."""
        with self.ledger() as ledger:
            return ledger.events(self.rack.name, limit=100_000, **which)
