"""The fault matrix: real opensm and infiniband-diags over two simulators, their output read and judged by rackproof.

Each fault must be named on the parts it is on, and nothing else; on the clean fabric nothing is named. Our own server
is what virtual racks have; ibsim is somebody else's, so that a misunderstanding of ours shows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fabric_bench import NVL72_ROW, SCALABLE_UNIT, Manager, Node, Simulator, ibsim, own_fabric, rack_of

from toolkit.errors import UndecidedError
from toolkit.judge.fabric.compare import compare
from toolkit.judge.fabric.design import designed
from toolkit.judge.fabric.line import Action, FabricReport, WorkLine
from toolkit.judge.fabric.seen import SeenPort
from toolkit.rack.model import Rack
from toolkit.virtual.fabric.faults import faulty
from toolkit.virtual.fabric.tools import PACKAGES, Tools, fetch
from toolkit.virtual.fabric.wiring import planned
from toolkit.virtual.faults import Fault
from toolkit.virtual.faults import FaultKind as Kind

pytestmark = pytest.mark.timeout(240)
_HDR_GB_PER_S = 25.0
_COUNTED = (Kind.SYMBOL_ERRORS, Kind.LINK_DOWNED)
_COUNTED_S = 1.0


@dataclass(frozen=True)
class Bench:
    """A fabric with its manager, and the node that tools run on."""

    rack: Rack
    on: Simulator
    manager: Manager
    node: Node

    def judged(self, *faults: Fault, seconds: float = 0.0) -> FabricReport:
        """The report of the fabric with these faults, which is mended afterwards."""
        self.on.become(faults)
        try:
            self.manager.settle()
            lids = self.node.lids() if any(f.kind is Kind.DUPLICATE_LID for f in faults) else {}

            def strike() -> None:
                self.on.strike(faults, lids)
                if seconds:
                    self.manager.settle()

            if not seconds:
                strike()
            return compare(designed(self.rack), self.node.look(seconds, strike if seconds else lambda: None))
        finally:
            self.on.become(())
            self.manager.settle()


@pytest.fixture(scope="module", params=["own", "ibsim"])
def bench(request, built: Path, tmp_path_factory) -> Iterator[Bench]:
    """A scalable unit, up, on each simulator."""
    folder = tmp_path_factory.mktemp("fabric")
    with ExitStack() as stack:
        yield _up(stack, request.param, built, folder)


def _up(stack: ExitStack, simulator: str, built: Path, folder: Path, *faults: Fault, partitions: str = "") -> Bench:
    """A scalable unit whose links have had these faults from the start."""
    rack, tools = rack_of(SCALABLE_UNIT), fetch(built, lambda _: None)
    name = f"{simulator}-{os.getpid()}-{folder.name}"
    if simulator == "own":
        on: Simulator = stack.enter_context(own_fabric(planned(rack), tools, name))
        on.become(faults)
    else:
        program, rack = _ibsim(built, rack)
        on = stack.enter_context(ibsim(faulty(planned(rack), faults), program, tools, folder, name))
    settings = folder / "partitions.conf"
    settings.write_text(partitions or "Default=0x7fff, ipoib: ALL=full, SELF=full ;\n")
    manager = Manager(on, folder / "sm", "spine1", partitions=settings)
    stack.callback(manager.stop)
    return Bench(rack, on, manager, Node(on, "dgx001 mlx5_0", folder))


def _ibsim(built: Path, rack: Rack) -> tuple[Tools, Rack]:
    """ibsim 0.12 of the next Debian, which knows NDR; where no mirror has it, 0.10 and a fabric of HDR."""
    packages = ("ibsim-utils", "libumad2sim0")
    try:
        return fetch(built, lambda _: None, packages, "trixie"), rack
    except UndecidedError:
        links = tuple(replace(link, rate_gb_per_s=_HDR_GB_PER_S) for link in rack.links)
        return fetch(built, lambda _: None, packages), replace(rack, links=links)


def _ports(line: WorkLine) -> set[str]:
    return {f"{end.unit}:{end.port}" for end in line.ends}


def test_nothing_is_named_on_the_clean_fabric(bench: Bench) -> None:
    """Every planned link is found, trained and Active; what is open is only what nobody looked at."""
    report = bench.judged(seconds=_COUNTED_S)
    assert report.lines == ()
    assert (report.links_as_designed, report.links_sound) == (512, 512)
    assert all("not looked at" in doubt for doubt in report.doubts), report.doubts


# What a subnet manager cannot do while something else is wrong with a port.
_FOLLOWS = frozenset(("FABRIC_PORT_NOT_ACTIVE", "FABRIC_PEER_SILENT"))


@dataclass(frozen=True)
class Case:
    """A fault, and the lines that must name it: code and action of each, and all ports they may be about."""

    fault: Fault
    named: tuple[tuple[str, Action], ...]
    ports: frozenset[str]


def _case(kind: Kind, where: str, ports: str, *named: tuple[str, Action], other: str | None = None) -> Case:
    node, _, hca = where.partition(":")
    return Case(
        Fault(kind, node, hca=hca or None, other=other, value=_VALUES.get(kind)), named, frozenset(ports.split())
    )


_VALUES = {Kind.LINK_DOWNED: 3600.0}  # not by itself: the bench drops it while nobody looks
_SWAP = ("FABRIC_CABLES_SWAPPED", Action.SWAP)
_TURN = ("FABRIC_CABLES_ROTATED", Action.SWAP)
_UPLINKS = " ".join(f"spine2:{n}" for n in range(1, 65))
_LEAF_ENDS = " ".join(
    [f"leaf{leaf}:{port}" for leaf in range(1, 9) for port in range(41, 49)]
)  # the eight uplinks of every leaf to the second spine

MATRIX = {
    "cable pulled": _case(
        Kind.CABLE_PULLED, "dgx005:mlx5_0", "dgx005:mlx5_0 leaf1:5", ("FABRIC_LINK_DOWN", Action.RESEAT)
    ),
    "two rails of a node swapped": _case(
        Kind.SWAPPED_CABLES, "dgx005:mlx5_0", "dgx005:mlx5_0 dgx005:mlx5_1 leaf1:5 leaf2:5", _SWAP, other="mlx5_1"
    ),
    "two nodes of a leaf swapped": _case(
        Kind.SWAPPED_CABLES, "dgx005:mlx5_0", "dgx005:mlx5_0 dgx009:mlx5_0 leaf1:5 leaf1:9", _SWAP,
        other="dgx009:mlx5_0",
    ),
    "three rotated": _case(
        Kind.ROTATED_CABLES, "dgx005:mlx5_0",
        "dgx005:mlx5_0 dgx005:mlx5_1 dgx007:mlx5_2 leaf1:5 leaf2:5 leaf3:7", _TURN, _TURN,
        other="mlx5_1,dgx007:mlx5_2",
    ),
    "symbol errors": _case(
        Kind.SYMBOL_ERRORS, "dgx010:mlx5_0", "dgx010:mlx5_0 leaf1:10", ("FABRIC_SYMBOL_ERRORS", Action.RESEAT)
    ),
    "link downed": _case(
        Kind.LINK_DOWNED, "dgx011:mlx5_0", "dgx011:mlx5_0 leaf1:11", ("FABRIC_LINK_DOWNED", Action.RESEAT)
    ),
    "spine down": _case(
        Kind.SWITCH_DOWN, "spine2", f"{_UPLINKS} {_LEAF_ENDS}", ("FABRIC_SWITCH_MISSING", Action.INSPECT)
    ),
    "wrong GUID": _case(
        Kind.WRONG_GUID, "dgx012:mlx5_0", "dgx012:mlx5_0 leaf1:12", ("FABRIC_HCA_REPLACED", Action.CONFIGURE)
    ),
    "duplicate GUID": _case(
        Kind.DUPLICATE_GUID, "dgx012:mlx5_0", "dgx012:mlx5_0 dgx011:mlx5_0 leaf1:11 leaf1:12",
        ("FABRIC_DUPLICATE_GUID", Action.INSPECT), other="dgx011:mlx5_0",
    ),
    "duplicate LID": _case(
        Kind.DUPLICATE_LID, "dgx013:mlx5_0", "dgx013:mlx5_0 dgx011:mlx5_0",
        ("FABRIC_DUPLICATE_LID", Action.CONFIGURE), other="dgx011:mlx5_0",
    ),
    "lost datagrams": _case(
        Kind.MAD_LOSS, "dgx020:mlx5_0", "dgx020:mlx5_0 leaf1:20", ("FABRIC_PEER_SILENT", Action.INSPECT)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MATRIX.values(), ids=MATRIX)
def test_a_fault_is_named_on_its_parts_and_nothing_else_is(bench: Bench, case: Case) -> None:
    """One line a fault, a rotation of three two; what follows from it is about the same ports."""
    _check(bench.judged(case.fault, seconds=_COUNTED_S if case.fault.kind in _COUNTED else 0.0), case)


def _check(report: FabricReport, *cases: Case) -> None:
    wanted = sorted(named for case in cases for named in case.named)
    found = [(line.code, line.action) for line in report.lines]
    assert sorted(item for item in found if item in wanted or item[0] not in _FOLLOWS) == wanted, report.lines
    about = {port for line in report.lines for port in _ports(line)}
    assert about <= {port for case in cases for port in case.ports}, report.lines


TRAINED = (
    _case(Kind.NARROW_LINK, "dgx006:mlx5_3", "dgx006:mlx5_3 leaf4:6", ("FABRIC_LINK_NARROW", Action.REPLACE)),
    _case(Kind.HALF_RATE_RAIL, "dgx014:mlx5_6", "dgx014:mlx5_6 leaf7:14", ("FABRIC_LINK_SLOW", Action.RESEAT)),
)


LIMITED = Case(
    Fault(Kind.PKEY_LIMITED, "dgx021", hca="mlx5_5"), (("FABRIC_PKEY_LIMITED", Action.CONFIGURE),),
    frozenset(("dgx021:mlx5_5",)),
)  # fmt: skip


@pytest.mark.parametrize("simulator", ["own", "ibsim"])
def test_links_that_trained_badly_and_a_limited_member(simulator: str, built: Path, tmp_path: Path) -> None:
    """1X of 4X, HDR of NDR, and a port that the manager's partitions make a limited member; all at once."""
    after = 0 if simulator == "own" else 1  # an ibsim port's GUID is its node's plus one
    members = [
        f"0x{int(hca.guid, 16) + after:x}={'limited' if (node.name, hca.name) == ('dgx021', 'mlx5_5') else 'full'}"
        for node in rack_of(SCALABLE_UNIT).nodes
        for hca in node.hcas
    ]
    # one member a line: opensm reads lines of 4096 characters at most
    partitions = "Default=0x7fff, ipoib: SELF=full,\n" + ",\n".join(members) + " ;\n"
    with ExitStack() as stack:
        bench = _up(stack, simulator, built, tmp_path, *(case.fault for case in TRAINED), partitions=partitions)
        lids = bench.node.lids()
        ports = [
            (lids[f"{node.name} {hca.name}"], SeenPort(hca.guid.removeprefix("0x"), 1))
            for node in bench.rack.nodes
            for hca in node.hcas
        ]
        seen = replace(bench.node.look(), memberships=bench.node.memberships(ports))
        _check(compare(designed(bench.rack), seen), *TRAINED, LIMITED)


@pytest.mark.parametrize("simulator", ["own", "ibsim"])
def test_a_second_master_and_none(simulator: str, built: Path, tmp_path: Path) -> None:
    """Managers of different keys are both masters; when all have ended the fabric has none."""
    with ExitStack() as stack:
        bench = _up(stack, simulator, built, tmp_path)
        second = Manager(bench.on, tmp_path / "second", "spine4", key=2)
        stack.callback(second.stop)
        lines = compare(designed(bench.rack), bench.node.look()).lines
        assert [line.code for line in lines] == ["FABRIC_SM_TWO_MASTERS"]
        bench.manager.stop()
        second.stop()
        lines = compare(designed(bench.rack), bench.node.look()).lines
        assert [line.code for line in lines] == ["FABRIC_SM_NONE"]


def test_a_row_of_1152_hcas_is_swept_and_a_swap_in_it_found(built: Path, tmp_path: Path) -> None:
    """16 racks of 18 trays with 4 HCAs, 24 switches of 144 ports: one exchange among 2,304 links is one line."""
    rack, tools = rack_of(NVL72_ROW), fetch(built, lambda _: None, PACKAGES)
    with own_fabric(planned(rack), tools, f"row-{os.getpid()}") as on:
        manager = Manager(on, tmp_path / "sm", "spine1")
        try:
            bench = Bench(rack, on, manager, Node(on, "dgx001 mlx5_0", tmp_path))
            assert compare(designed(rack), bench.node.look()).lines == ()
            fault = Fault(Kind.SWAPPED_CABLES, "dgx200", hca="mlx5_2", other="dgx017:mlx5_1")
            (line,) = bench.judged(fault).lines
        finally:
            manager.stop()
    assert line.action is Action.SWAP
    assert _ports(line) == {"dgx200:mlx5_2", "dgx017:mlx5_1", "leaf11:56", "leaf2:17"}
