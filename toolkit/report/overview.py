"""A rack at one moment: where its nodes stand, who works on them, how long that usually takes, what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from toolkit.ledger import Ledger, Run
from toolkit.ledger.holder import is_gone
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.model import Rack
from toolkit.report.eta import Usual
from toolkit.report.standing import Standing, standings

INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, slots=True)
class AtWork:
    """Nodes on which a stage is going on. `usual`: of earlier runs; None: there is no history."""

    stage: Stage
    nodes: tuple[str, ...]
    since: datetime
    usual: Usual | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """One rack. `driver`: who drives it now, as the lease names them; empty: nobody. `next`: a command."""

    rack: str
    site: str
    profile: str
    nodes: tuple[Standing, ...]
    driver: str
    at_work: tuple[AtWork, ...]
    next: str

    @property
    def busy(self) -> frozenset[str]:
        """Nodes that a stage is going on."""
        return frozenset(node for one in self.at_work for node in one.nodes)


def overview(ledger: Ledger, rack: Rack, now: datetime) -> Overview:
    """The rack as it stands on record now. Of what is at work nothing is said yet of how long it takes: see `timed`."""
    driver = driver_of(ledger, rack.name, now)
    nodes = standings(ledger, rack)
    at_work: tuple[AtWork, ...] = ()
    if driver:
        running = {s.node: run for s in nodes if s.code == INTERRUPTED and (run := ledger.last_run(rack.name, s.node))}
        nodes = tuple(_at_work(s) if s.node in running else s for s in nodes)
        at_work = _stages(running.values())
    return Overview(
        rack.name, rack.site, rack.profile.name, nodes, driver, at_work, next_command(rack.name, nodes, driver)
    )


def timed(seen: Overview, usual: Mapping[Stage, Usual]) -> Overview:
    """The same with how long earlier runs of what is at work took."""
    return replace(seen, at_work=tuple(replace(one, usual=usual.get(one.stage)) for one in seen.at_work))


def driver_of(ledger: Ledger, rack: str, now: datetime) -> str:
    """`user@host pid N` that holds the rack's lease now; empty where it expired, was given back or its holder died."""
    for lease in ledger.leases():
        if lease.name == f"rack/{rack}" and lease.expires > now and not is_gone(lease.holder):
            return lease.holder.partition(" (")[0]
    return ""


def _at_work(s: Standing) -> Standing:
    return Standing(s.node, s.state, None, s.stage)


def _stages(runs: Iterable[Run]) -> tuple[AtWork, ...]:
    by_stage: dict[Stage, list[Run]] = {}
    for run in runs:
        by_stage.setdefault(run.stage, []).append(run)
    return tuple(
        AtWork(stage, tuple(run.node for run in of), min(run.started for run in of))
        for stage, of in sorted(by_stage.items(), key=lambda entry: tuple(Stage).index(entry[0]))
    )


def troubled(nodes: Iterable[Standing]) -> list[Standing]:
    """Those whose last word is not a pass: failures of hardware before doubts and interruptions, then by place."""
    return sorted(
        (n for n in nodes if n.trouble), key=lambda n: (n.outcome is not Outcome.FAILED, n.code == "OPERATOR")
    )


def next_command(rack: str, nodes: Iterable[Standing], driver: str = "") -> str:
    """The one command that an operator types next: what failed on evidence is looked at before anything runs again."""
    stood = tuple(nodes)
    failed = [n for n in stood if n.state is NodeState.QUARANTINED or n.outcome is Outcome.FAILED]
    away = [n for n in stood if n.state not in (NodeState.ADMITTED, NodeState.RETIRED)]
    if driver:
        return f"rackproof status {rack}"
    if failed:
        return f"rackproof why {failed[0].node if len(failed) == 1 else rack}"
    if any(n.trouble for n in stood):
        return f"rackproof why {rack}"
    if away:
        return f"rackproof plan {rack}"
    return f"rackproof recert plan {rack}"
