"""The past of a fleet, written into a ledger: what benchmarks/report.py reads.

Every row is written by the ledger's own statements, in the order in which the days had them: only the border of a
transaction is another (one a day in place of one a call), and nothing waits for the disk. `same_as_called` writes a
small fleet both ways and compares the two databases row by row.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Change, EventKind, Ledger, NewEvent, Run
from toolkit.ledger.sqlite import Sqlite
from toolkit.ledger.store import Session, Store
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import MOVE_AFTER, Move, NodeState, Outcome, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Rack, Unit
from toolkit.report.html.series import CHARTED
from toolkit.settings import Settings

PLAN = "dgx-h100-su"
WHOLE, LAST_NODES = 66, 2  # 66 scalable units of 31 nodes and one of 2: 2,048 nodes, 16,384 GPUs
DAYS = 90
DIGEST = "ab" * 32
FAILS = 0.002  # of the burn-ins find something: a node is repaired every year and a half
# Minutes of each stage, middle and spread: made up, of the order that a DGX H100 takes.
MINUTES = {
    Stage.IMAGE: (14, 2), Stage.BASE: (9, 1), Stage.NVLINK: (1, 0.2), Stage.INFINIBAND: (2, 0.4),
    Stage.KUBERNETES: (3, 0.5), Stage.BURNIN: (22, 1.5), Stage.CERTIFY: (1, 0.1), Stage.ADMIT: (20, 3),
}  # fmt: skip


class OneTransaction(Store):
    """Writes as they are called, committed when `commit` says so. One thread."""

    def __init__(self, dialect: Sqlite) -> None:
        super().__init__(dialect)
        self._one = dialect.connect()
        self._one.execute("PRAGMA synchronous = OFF")
        self._one.execute("PRAGMA cache_size = -200000")
        self._session = Session(dialect, self._one)
        self._one.execute("BEGIN IMMEDIATE")

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Inside the transaction that is open."""
        yield self._session

    read = write

    def commit(self) -> None:
        """Keeps what was written and begins anew."""
        self._one.execute("COMMIT")
        self._one.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        """Keeps what was written; the file is then as after any other writer."""
        self._one.execute("COMMIT")
        self._one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._one.close()
        self.close()


@dataclass(slots=True)
class Fleet:
    """Racks whose days are told to a ledger."""

    ledger: Ledger
    racks: tuple[Rack, ...]
    chance: random.Random
    at: list[datetime]
    aside: set[tuple[str, str]] = field(default_factory=set)
    values: int = 0

    def bring_up(self) -> None:
        """Every node from PLANNED to ADMITTED, on the day that the clock shows."""
        begun = self.at[0]
        for rack in self.racks:
            for stage in Stage:
                self.at[0] += timedelta(minutes=1)
                self._stage(rack, stage)
            self._certify(rack)
            self.at[0] = begun

    def burn_in(self) -> None:
        """Every node that is in service, once more; some fail and leave it."""
        begun = self.at[0]
        for rack in self.racks:
            at = self.at[0]
            for unit in rack.nodes:
                self.at[0] = at
                if (rack.name, unit.name) not in self.aside:
                    self._again(rack, unit)
            self.at[0] = begun
        for rack in self.racks[:: max(1, len(self.racks) // 22)]:  # a certificate holds 30 days: a third each time
            self._certify(rack)

    def _stage(self, rack: Rack, stage: Stage) -> None:
        begun, latest = self.at[0], self.at[0]
        move = MOVE_AFTER[stage]
        states = self.ledger.node_states(rack.name)
        for unit in rack.nodes:
            self.at[0] = begun
            run = self.ledger.start_run(rack.name, unit.name, stage)
            if stage is Stage.BURNIN:
                self._measured(rack, unit, run)
            self._pass_time(stage)
            before = states[unit.name].state if unit.name in states else NodeState.PLANNED
            self.ledger.finish_run(run, Outcome.PASSED, change=Change(before, move) if move else None)
            latest = max(latest, self.at[0])
        self.at[0] = latest

    def _again(self, rack: Rack, unit: Unit) -> None:
        run = self.ledger.start_run(rack.name, unit.name, Stage.BURNIN)
        self._measured(rack, unit, run)
        self._pass_time(Stage.BURNIN)
        if self.chance.random() >= FAILS:
            self.ledger.finish_run(run, Outcome.PASSED)
            return
        self.aside.add((rack.name, unit.name))
        self.ledger.finish_run(
            run, Outcome.FAILED, code="HBM_ECC_CORRECTED", part="GPU 3",
            message=f"{unit.name}/gpu3: hbm_corrected_errors_delta 12 count, must be at most 0",
            next=f"service GPU 3, then: rackproof release {unit.name}",
            change=Change(NodeState.ADMITTED, Move.QUARANTINE),
        )  # fmt: skip

    def _pass_time(self, stage: Stage) -> None:
        middle, spread = MINUTES[stage]
        self.at[0] += timedelta(minutes=max(0.1, self.chance.gauss(middle, spread)))

    def _measured(self, rack: Rack, unit: Unit, run: Run) -> None:
        """What the burn-in stage files of a node."""
        self.ledger.intent(rack.name, unit.name, "burnin", {"id": run.id, "suite": "standard", "run": run.id})
        told = [
            Measurement(m.name, str(m.unit), round(self.chance.gauss(100, 1), 2), s, self.at[0], run.id, DIGEST)
            for m in (METRICS[chart.metric] for chart in CHARTED)
            for s in _subjects(unit, m.scope)
        ]
        node = Subject(Scope.NODE, unit.name)
        told.append(Measurement("nccl_path", "word", "proven", node, self.at[0], run.id, DIGEST))
        self.ledger.record_measurements(run, told)
        self.values += len(told)
        gpus = {str(g.index): [f"16500{unit.slot:04d}{g.index:02d}", f"00000000:{g.index:02X}:00.0"] for g in unit.gpus}
        self.ledger.observed(rack.name, unit.name, "burnin", {"id": run.id, "gpus": gpus, "artifacts": {}})
        body = {"answer": "PASS", "run": run.id, "findings": []}
        self.ledger.append(NewEvent(EventKind.JUDGED, rack.name, unit.name, body, "PASS"))

    def _certify(self, rack: Rack) -> None:
        """As on record: the certificate itself is not made, for making thousands is no part of what is measured."""
        nodes = [unit.name for unit in rack.nodes if (rack.name, unit.name) not in self.aside]
        expires = (self.at[0] + timedelta(days=30)).isoformat()
        body = {"nodes": nodes, "expires": expires, "artifact": DIGEST}
        self.ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, rack.name, "", body, DIGEST))


def _subjects(unit: Unit, scope: Scope) -> list[Subject]:
    if scope is Scope.NODE:
        return [Subject(scope, unit.name)]
    if scope is Scope.HCA:
        return [Subject(scope, unit.name, hca=hca.name) for hca in unit.hcas]
    return [Subject(scope, unit.name, gpu=gpu.index) for gpu in unit.gpus]


def write_inventory(settings: Settings, whole: int, last_nodes: int) -> tuple[str, ...]:
    """Rack files of the fleet beside copies of the shipped profiles; the racks' names."""
    import shutil

    from toolkit.settings import load

    shipped = load({"RACKPROOF_HOME": str(settings.home)}).inventory
    if not settings.inventory.exists():
        shutil.copytree(shipped, settings.inventory)
    text = (shipped / "racks" / f"{PLAN}.yml").read_text()
    names = [PLAN, *(f"su-{number:03d}" for number in range(2, whole + 1))]
    for name in names[1:]:
        (settings.inventory / "racks" / f"{name}.yml").write_text(text.replace(f"rack: {PLAN}", f"rack: {name}", 1))
    if last_nodes:
        names.append("su-last")
        (settings.inventory / "racks" / "su-last.yml").write_text(_cut(text, last_nodes))
    return tuple(names)


def _cut(text: str, nodes: int) -> str:
    """The plan with its first nodes alone: a rack that is declared partial."""
    import yaml

    told = yaml.safe_load(text)
    told["rack"], told["partial"] = "su-last", True
    told["units"] = [u for u in told["units"] if u["kind"] == "node"][:nodes]
    told["links"] = []
    return str(yaml.safe_dump(told, sort_keys=False))


def fill(settings: Settings, names: tuple[str, ...], burnins: int, seed: int, *, called: bool = False) -> int:
    """Writes the past of these racks; answers how many values it has. `called`: by the ledger's methods as they are."""
    racks = tuple(load_rack(name, settings.inventory) for name in names)
    at = [datetime(2026, 11, 23, tzinfo=UTC) - timedelta(days=DAYS)]
    begun = at[0]
    with Ledger.open(settings.ledger_url, settings.artifacts, "benchmark", lambda: at[0]) as ledger:
        if called:
            return _days(Fleet(ledger, racks, random.Random(seed), at), burnins, begun, lambda: None)
    store = OneTransaction(Sqlite(settings.ledger_url))
    fleet = Fleet(Ledger(store, ledger.artifacts, "benchmark", lambda: at[0]), racks, random.Random(seed), at)
    values = _days(fleet, burnins, begun, store.commit)
    store.end()
    return values


def _days(fleet: Fleet, burnins: int, begun: datetime, evening: object) -> int:
    fleet.bring_up()
    for number in range(1, burnins):
        evening()  # type: ignore[operator]
        fleet.at[0] = begun + timedelta(days=DAYS) * number / burnins
        fleet.burn_in()
    return fleet.values


TABLES = ("event", "node", "run", "measurement", "lease")


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a ledger's tables."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}  # noqa: S608
