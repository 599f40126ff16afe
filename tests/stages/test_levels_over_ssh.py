"""Leaf and unit over three hosts by the real mpirun over the real ssh: side by side, proven, and how a hang ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toolkit.facts.nccl_path import Fabric
from toolkit.ledger import Ledger
from toolkit.rack.loading import load_rack
from toolkit.rack.model import UnitKind, WideLevel
from toolkit.runners.ssh import SshShell
from toolkit.settings import load
from toolkit.stages import collectives
from toolkit.stages.collective_result import Collected
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context
from toolkit.stages.levels import Campaign, Found
from toolkit.stages.mpi_command import Order
from toolkit.virtual.faults import Fault, FaultKind

if TYPE_CHECKING:
    from conftest import Hosts

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class OverSsh:
    """Hands that reach nodes by SSH and nothing else."""

    shell: SshShell


@dataclass
class Bench:
    """The levels over the hosts."""

    hosts: Hosts
    context: Context
    deadline_s: float = 60.0

    def measure(self, context: Context, order: Order, fabric: Fabric, site: Site) -> Collected:
        """The real one, with the places that these hosts have."""
        folder = self.hosts.folder
        here = Site(str(ROOT), str(folder / "runs"), sys.executable, str(folder / "infiniband"))
        order = replace(order, programs=str(folder / "bin"), deadline_s=self.deadline_s)
        order = replace(order, smallest=256 << 20, largest=1 << 30)
        return collectives.measure(context, order, fabric, here)

    def run(self, *wanted: WideLevel) -> Found:
        """The campaign."""
        rack = self.context.rack
        context = replace(self.context, rack=replace(rack, profile=replace(rack.profile, levels=wanted)))
        return Campaign(context, tuple(n.name for n in rack.nodes), self.measure).run()


@pytest.fixture
def bench(hosts: Hosts) -> Iterator[Bench]:
    """Three nodes of the demo rack, each rail on its leaf."""
    settings = load({"RACKPROOF_HOME": str(hosts.folder / "home"), "RACKPROOF_CACHE": str(hosts.folder / "cache")})
    settings.keys.mkdir(parents=True, mode=0o700)
    (settings.keys / "login").write_bytes((hosts.folder / "login").read_bytes())
    (settings.keys / "login").chmod(0o600)
    pinned = settings.known_hosts(hosts.rack.name)
    pinned.parent.mkdir(parents=True)
    keys = {n: (hosts.home(n.name) / "host.pub").read_text().strip() for n in hosts.rack.nodes}
    pinned.write_text("".join(f"{n.host.address} {key}\n" for n, key in keys.items() if n.host))
    whole = load_rack("demo", ROOT / "inventory")
    rack = replace(hosts.rack, units=(*hosts.rack.units, *(u for u in whole.units if u.kind is UnitKind.LEAF)))
    ledger = Ledger.open(settings.ledger_url, settings.artifacts, "test", lambda: datetime.now(UTC))
    with SshShell(settings, rack.name) as shell:
        context = Context(
            rack, settings, ledger, OverSsh(shell), lambda: datetime.now(UTC), time.sleep, lambda p: None,  # type: ignore[arg-type]
        )  # fmt: skip
        yield Bench(hosts, context)


def test_eight_leaves_side_by_side_and_then_the_unit(bench: Bench, hosts: Hosts) -> None:
    """Each communicator's number is of its own HCAs, though all of them run on the same hosts at once."""
    hosts.break_by(Fault(FaultKind.HALF_RATE_RAIL, hosts.rack.nodes[1].name, hca="mlx5_3", value=0.8))
    found = bench.run(WideLevel.LEAF, WideLevel.UNIT)
    assert [(r.words, r.code) for r in found.ran if r.code] == []
    leaves = {
        r.among.of: r.gb_per_s for r in found.ran if r.test.level is WideLevel.LEAF and r.test.kind == "all_reduce"
    }
    slow = leaves.pop("leaf4")
    assert slow is not None and 37 < slow < 39 and len(leaves) == 7
    assert all(rate is not None and 46 < rate < 48 for rate in leaves.values()), leaves
    (unit,) = [r for r in found.ran if r.test.level is WideLevel.UNIT]
    assert unit.gb_per_s is not None and 420 < unit.gb_per_s < 450 and unit.among.ranks == 24
    assert found.results == {} and hosts.processes(str(hosts.folder / "bin")) == []


def test_a_hang_of_the_unit_ends_at_its_deadline_twice_and_all_are_left_in_doubt(bench: Bench, hosts: Hosts) -> None:
    """Three nodes are too few to be told apart: nobody is blamed, and nothing is left on any host."""
    hosts.break_by(Fault(FaultKind.NCCL_HANG, hosts.rack.nodes[2].name))
    bench.deadline_s = 20.0
    found = bench.run(WideLevel.UNIT)
    assert {name: r.code for name, r in found.results.items() if r} == dict.fromkeys(
        ("node1", "node2", "node3"), "UNIT_HANGS"
    )
    assert "too few to be told apart" in str(found.results["node1"])
    assert len(found.ran) == 2 and hosts.processes(str(hosts.folder / "bin")) == []


def test_a_host_whose_ranks_never_come_is_named_and_the_others_are_measured_without_it(
    bench: Bench, hosts: Hosts
) -> None:
    """NCCL's log of it has no line of any rank; two hosts remain, and they are well."""
    hosts.break_by(Fault(FaultKind.NCCL_ABSENT, hosts.rack.nodes[1].name))
    bench.deadline_s = 20.0
    found = bench.run(WideLevel.UNIT)
    assert {name: r.code for name, r in found.results.items() if r} == {"node2": "UNIT_UNDECIDED"}
    assert "Ranks that never came: node2: 8 ranks from 8 on" in str(found.results["node2"])
    assert [len(r.among.nodes) for r in found.ran] == [3, 2] and found.ran[-1].code == ""
    assert hosts.processes(str(hosts.folder / "bin")) == []
