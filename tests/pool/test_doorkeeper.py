"""The doorkeeper at a real API server with a real ledger: who stays, who is shut, and how soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.kubernetes.plane import api, control_plane
from tests.pool.cluster_nodes import OURS, THEIRS, Nodes, nodes, until
from toolkit.doorkeeper import Doorkeeper
from toolkit.errors import BusyError, RackproofError, UndecidedError, UsageError
from toolkit.kubernetes.client import ApiServer
from toolkit.ledger import Change, EventKind, Ledger, LedgerError, NewEvent, NodeRow
from toolkit.pool.door import CERTIFICATE, CERTIFIED, EXPIRES, TAINT
from toolkit.pool.drain import Drain
from toolkit.pool.election import Terms
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.model import DrainEnd
from toolkit.pool.policy import KubernetesSite, Regulation
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.withdrawal import Order, Target, drain, exit_code, revoke

__all__ = ["api", "control_plane", "nodes"]

SITE = KubernetesSite(namespace="default")
RACK = "demo"
WAY = (Move.IMAGE, Move.CONFIGURE, Move.CONNECT, Move.JOIN, Move.TEST, Move.CERTIFY, Move.ADMIT)


class House:
    """A ledger, a pool, and a doorkeeper that keeps its door."""

    def __init__(self, api: ApiServer, nodes: Nodes, ledger: Ledger) -> None:
        self.api, self.nodes, self.ledger = api, nodes, ledger
        self.pool = KubernetesPool(api, SITE)
        self.told: list[str] = []
        self.skew = timedelta()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def member(self, lifetime: timedelta = timedelta(days=30)) -> str:
        """A node admitted by the book: certificate, intent, pool, ledger."""
        name = self.nodes.add()
        self.certify(name, lifetime)
        return name

    def certify(self, name: str, lifetime: timedelta = timedelta(days=30)) -> str:
        """Issues a certificate for a node and admits it by it."""
        state = self.ledger.node_states(RACK).get(name)
        if state is None:
            self.ledger.enter(RACK, {name: NodeState.IMAGED}, "rented")
        while (row := self.ledger.node_states(RACK)[name]).state is not NodeState.CERTIFIED:
            move = WAY[[*NodeState].index(row.state)]
            self.ledger.move(RACK, name, Change(row.state, move), "test")
        expires = datetime.now(UTC) + lifetime
        digest = f"{len(self.ledger.events(RACK, kind=EventKind.CERTIFICATE_ISSUED)):064x}"
        body = {"nodes": [name], "expires": expires.isoformat()}
        self.ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, RACK, body=body, what=digest))
        self.ledger.intent(RACK, name, "admit", {"certificate": digest})
        self.pool.admit(name, digest, expires, {"rackproof.dev/rack": RACK})
        self.ledger.move(RACK, name, Change(NodeState.CERTIFIED, Move.ADMIT), "test")
        return digest

    def keep(self, clears: Regulation | None = None) -> None:
        """The doorkeeper begins."""
        racks = dict.fromkeys(self.nodes.names, RACK)
        keeper = Doorkeeper(lambda: self.pool, self.ledger, racks, self.told.append, self.now, clears)
        self._thread = threading.Thread(target=keeper.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def now(self) -> datetime:
        """This machine's clock, as wrong as the test makes it."""
        return datetime.now(UTC) + self.skew

    def close(self) -> None:
        """The doorkeeper ends."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=20)
            assert not self._thread.is_alive()

    def shut(self, name: str) -> bool:
        """Whether taint, cordon and label are there."""
        node = self.nodes.seen(name)
        return TAINT in node.taints and node.unschedulable and node.label(CERTIFIED) == "false"


@pytest.fixture
def house(api: ApiServer, nodes: Nodes, tmp_path: Path) -> Iterator[House]:
    with Ledger.open(
        f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", lambda: datetime.now(UTC)
    ) as it:
        made = House(api, nodes, it)
        yield made
        made.close()


def reason(house: House, name: str) -> str:
    return house.pool.nodes()[name].reason


def test_whoever_is_not_let_in_by_the_ledger_is_shut_within_two_seconds(house: House, api: ApiServer) -> None:
    """Taint lifted by hand, a forged certificate, an edited expiry, the label taken off; the others stay in."""
    good, lifted, forged, edited, unlabelled = (house.member() for _ in range(5))
    bare = house.nodes.add()
    house.keep()
    time.sleep(0.8)  # it has looked, and found nothing; other tests' nodes are none of ours
    assert [line for line in house.told if any(name in line for name in house.nodes.names)] == []
    began = time.monotonic()
    api.patch("v1", "Node", bare, {"spec": {"taints": []}}, how="merge")
    house.pool.evict(lifted, "quarantined")
    api.patch("v1", "Node", lifted, {"spec": {"taints": [], "unschedulable": False}}, how="merge")
    for name, key, value in ((forged, CERTIFICATE, "f" * 64), (edited, EXPIRES, "2099-01-01T00:00:00Z")):
        api.patch("v1", "Node", name, {"metadata": {"annotations": {key: value}}}, how="merge")
    api.patch("v1", "Node", unlabelled, {"metadata": {"labels": {CERTIFIED: None}}}, how="merge")
    until(lambda: all(house.shut(n) for n in (bare, lifted, forged, edited, unlabelled)), 10.0)
    assert time.monotonic() - began < 6.0  # 2 s on idle cores, five hand edits included
    assert "names no certificate" in reason(house, bare)
    assert "names no certificate" in reason(house, lifted)
    assert "is not on record: forged" in reason(house, forged)
    assert "was edited: 2099" in reason(house, edited)
    assert "certified is missing" in reason(house, unlabelled)
    assert house.pool.nodes()[good].admitted
    states = house.ledger.node_states(RACK)
    assert states[forged].state is NodeState.JOINED
    assert states[good].state is NodeState.ADMITTED
    house.certify(forged)  # back by a certificate of its own: the doorkeeper leaves it in
    time.sleep(0.8)
    assert house.pool.nodes()[forged].admitted


def test_a_certificate_of_another_node_and_one_that_ends_are_refused(house: House, api: ApiServer) -> None:
    """Copied marks open nothing; an expiry is noticed by the clock, with nobody asking."""
    owner, ends = house.member(), house.member(lifetime=timedelta(seconds=4))
    thief = house.nodes.add(taints=(OURS, THEIRS))
    copied = {k: v for k, v in house.nodes.raw(owner)["metadata"]["annotations"].items() if "rackproof" in k}
    house.keep()
    api.patch("v1", "Node", thief, {"metadata": {"annotations": copied, "labels": {CERTIFIED: "true"}}}, how="merge")
    api.patch("v1", "Node", thief, {"spec": {"taints": []}}, how="merge")
    until(lambda: house.shut(thief) and house.shut(ends), 15.0)
    assert f"does not name {thief}" in reason(house, thief) or "while its taint is on" in reason(house, thief)
    assert "expired at" in reason(house, ends)
    assert house.ledger.node_states(RACK)[ends].state is NodeState.JOINED
    assert house.pool.nodes()[owner].admitted


def test_a_clock_that_is_wrong_ends_certificates_and_never_lengthens_them(house: House) -> None:
    """A month ahead shuts everybody, with the date that it went by; the lease does not look at clocks at all."""
    name = house.member()
    house.nodes.pod(name, f"{name}-train")
    house.skew = timedelta(days=31)
    house.keep(Regulation(floor=0.0, drain_s=20.0))
    until(lambda: house.shut(name), 10.0)
    assert "expired at" in reason(house, name)
    until(lambda: not house.pool.running([name]), 20.0)  # and then its jobs are moved, as the floor allows
    house.api.delete("v1", "Node", name)
    until(lambda: any(f"{name} is gone from the cluster" in line for line in house.told), 10.0)


def test_a_ledger_without_certificates_takes_nobodys_away(house: House, tmp_path: Path) -> None:
    """Another RACKPROOF_HOME by mistake: told, and not acted on."""
    name = house.member()
    where = tmp_path / "other"
    where.mkdir()
    with Ledger.open(f"sqlite:///{where}/l.db", where, "test", lambda: datetime.now(UTC)) as empty:
        house.ledger = empty
        house.keep()
        until(lambda: any("this ledger has none at all" in line for line in house.told), 10.0)
        assert house.pool.nodes()[name].admitted
        house.close()


class Forgetful(Ledger):
    """Takes down no move for a while."""

    away = True

    def move(self, *args: str, **how: str) -> NodeRow:  # type: ignore[override]
        """As every ledger, once it is back."""
        if self.away:
            raise LedgerError("its disk is full", "free space")
        return super().move(*args, **how)  # type: ignore[arg-type]


def test_a_ledger_that_is_away_while_a_node_is_shut_is_told_when_it_is_back(
    house: House, api: ApiServer, tmp_path: Path
) -> None:
    """The node is out at once; on record it stays admitted until then, and no longer."""
    name = house.member()
    with Forgetful.open(
        f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", lambda: datetime.now(UTC)
    ) as forgetful:
        house.ledger = forgetful
        house.keep()
        api.patch("v1", "Node", name, {"metadata": {"annotations": {CERTIFICATE: "f" * 64}}}, how="merge")
        until(lambda: house.shut(name), 10.0)
        until(lambda: any("its disk is full" in line for line in house.told), 10.0)
        assert forgetful.node_states(RACK)[name].state is NodeState.ADMITTED
        forgetful.away = False
        until(lambda: forgetful.node_states(RACK)[name].state is NodeState.JOINED, 15.0)
        house.close()


class Blinking(ApiServer):
    """Its watch fails once, as when the token's file is being replaced, or for ever."""

    def __init__(self, api: ApiServer, failure: BaseException, *, once: bool = True) -> None:
        self.__dict__.update(api.__dict__)
        self._failure: BaseException | None = failure
        self._once = once

    def watch(self, *args: object, **how: object) -> Iterator[tuple[str, dict[str, object]]]:
        """As every API server, where it does not fail."""
        failure = self._failure
        self._failure = None if self._once else failure
        if failure is not None:
            raise failure
        return super().watch(*args, **how)  # type: ignore[arg-type]


def test_a_login_that_cannot_be_read_for_a_moment_does_not_end_the_watch(house: House, api: ApiServer) -> None:
    """A token's file is replaced: told, and watched on."""
    name = house.member()
    house.pool = KubernetesPool(Blinking(api, UsageError("the token's file is gone")), SITE)
    house.keep()
    until(lambda: any("the token's file is gone" in line for line in house.told), 10.0)
    api.patch("v1", "Node", name, {"metadata": {"annotations": {CERTIFICATE: "f" * 64}}}, how="merge")
    until(lambda: house.shut(name), 20.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_ended_ends_the_doorkeeper(house: House, api: ApiServer) -> None:
    """By a defect of ours: nobody is judged for ever by what the nodes were."""
    pool = KubernetesPool(Blinking(api, ZeroDivisionError("a defect"), once=False), SITE)
    keeper = Doorkeeper(lambda: pool, house.ledger, {}, house.told.append, house.now)
    with pytest.raises(RackproofError, match="ended by itself"):
        keeper.run(threading.Event())


def test_a_revoked_rack_is_shut_at_once_and_then_drained(house: House, api: ApiServer) -> None:
    """On record first; all nodes side by side; running jobs within the floor; the certificate admits nobody again."""
    rack = [house.member() for _ in range(4)]
    for name in rack[:3]:
        house.nodes.pod(name, f"{name}-train")
    order = Order("cables recalled", Regulation(floor=0.0), 20.0, on_shut=lambda rows: took.append(time.monotonic()))
    took = [time.monotonic()]
    rows = revoke(house.ledger, house.pool, [Target(RACK, n) for n in rack], order)
    assert took[1] - took[0] < 4.0  # 2 s on idle cores
    assert all(house.shut(n) for n in rack)
    assert [(r.shut, r.drained.end if r.drained else None) for r in rows] == [(True, DrainEnd.EMPTY)] * 4
    assert exit_code(rows) == 0
    assert reason(house, rack[0]) == "certificate revoked: cables recalled"
    assert {house.ledger.node_states(RACK)[n].state for n in rack} == {NodeState.JOINED}
    (event, *_) = house.ledger.events(RACK, kind=EventKind.CERTIFICATE_REVOKED)
    assert event.body["reason"] == "cables recalled"
    with pytest.raises(UsageError, match="no certificate on record names nobody"):
        revoke(house.ledger, house.pool, [Target(RACK, "nobody")], order)


def test_the_floor_holds_running_jobs_and_never_a_shutting(house: House, api: ApiServer) -> None:
    """Half of the pool goes on: of four, revoked together, two are drained; an operator's drain of one is refused."""
    house.pool = Alone(api, house.nodes)
    rack = [house.member() for _ in range(4)]
    for name in rack:
        house.nodes.pod(name, f"{name}-train")
    order = Order("recall", Regulation(floor=0.9), 10.0)
    with pytest.raises(UsageError, match=r"1 nodes are to be drained, 0 may be: the pool keeps 4 of 4"):
        drain(house.ledger, house.pool, [Target(RACK, rack[0])], order)
    assert house.pool.nodes()[rack[0]].admitted
    half = Order("recall", Regulation(floor=0.5), 10.0)
    rows = revoke(house.ledger, house.pool, [Target(RACK, n) for n in rack], half)
    assert all(house.shut(n) for n in rack)
    assert [r.drained is not None for r in rows] == [True, True, False, False]
    assert "its jobs go on: the pool keeps 2 of 4 nodes running jobs (floor 50%)" in rows[2].trouble
    assert exit_code(rows) == 3
    forced = Order("recall", Regulation(floor=0.5), 10.0, below_floor=True)
    assert exit_code(revoke(house.ledger, house.pool, [Target(RACK, n) for n in rack], forced)) == 0


class Alone(KubernetesPool):
    """A pool in which only this test's nodes are members: the control plane is shared."""

    def __init__(self, api: ApiServer, nodes: Nodes) -> None:
        super().__init__(api, SITE)
        self._mine = nodes.names

    def capacity(self):  # type: ignore[no-untyped-def]
        """Of this test's nodes."""
        from toolkit.pool.floor import Capacity

        admitted = [n for n in self._mine if self.nodes()[n].admitted]
        shut = set(self._mine) - set(admitted)
        return Capacity(len(admitted), len(self.running(shut)), len(shut - self.running(shut)))


def test_two_regulators_and_one_that_died(api: ApiServer, control_plane: ControlPlane) -> None:
    """The second is told who leads; one that went silent is succeeded after its lease, whatever the clocks say."""
    first = KubernetesPool(api, SITE, terms=Terms(2.0, 0.4))
    second = KubernetesPool(control_plane.api(), SITE, terms=Terms(2.0, 0.4))
    busy = pytest.raises(BusyError, match="alice@ops pid 1 regulates this pool")
    with first.leading("alice@ops pid 1"), busy, second.leading("bob@ops pid 2"):
        pass
    began = time.monotonic()
    with second.leading("bob@ops pid 2"):
        assert time.monotonic() - began < 1.5  # given back, not waited for
    lease = api.get("coordination.k8s.io/v1", "Lease", "rackproof-regulator", "default")
    assert lease is not None
    lease["spec"].update(holderIdentity="carol@elsewhere pid 3", leaseDurationSeconds=1,
                         renewTime="2031-01-01T00:00:00.000000Z")  # fmt: skip
    api.replace(lease)
    with first.leading("alice@ops pid 1"):
        stolen = api.get("coordination.k8s.io/v1", "Lease", "rackproof-regulator", "default")
        assert stolen is not None
        assert stolen["spec"]["holderIdentity"] == "alice@ops pid 1"


def test_a_regulator_whose_lease_was_taken_admits_nobody_more(house: House, api: ApiServer) -> None:
    """It notices at its next renewal; its admissions are refused from then on, and its block ends undecided."""
    pool = KubernetesPool(api, SITE, terms=Terms(2.0, 0.3))
    name = house.nodes.add()

    def block() -> None:
        with pool.leading("alice@ops pid 1"):
            lease = api.get("coordination.k8s.io/v1", "Lease", "rackproof-regulator", "default")
            assert lease is not None
            lease["spec"]["holderIdentity"] = "mallory"
            api.replace(lease)
            until(lambda: _refuses(pool, name), 10.0)

    with pytest.raises(UndecidedError, match="the lease default/rackproof-regulator was lost"):
        block()
    # Before 1.26 the node lifecycle controller writes taints from its cache, ours not among them
    # (kubernetes/kubernetes#113136): what it took off the doorkeeper puts back.
    house.keep()
    until(lambda: TAINT in house.nodes.seen(name).taints, 5.0)
    api.delete("coordination.k8s.io/v1", "Lease", "rackproof-regulator", "default")


def _refuses(pool: KubernetesPool, name: str) -> bool:
    try:
        pool.admit(name, "ab" * 32, datetime.now(UTC) + timedelta(days=1), {})
    except UndecidedError as lost:
        return "was lost" in lost.message
    pool.evict(name, "test")
    return False


def test_an_outage_in_the_middle_admits_nobody_and_everything_goes_on_after_it(
    house: House, api: ApiServer, control_plane: ControlPlane
) -> None:
    """Admission and drain are undecided while it is away; the doorkeeper waits, and shuts when it is back."""
    member, waiting = house.member(), house.nodes.add()
    house.nodes.pod(member, f"{member}-train")
    short = KubernetesPool(control_plane.api(timeout_s=2.0), SITE)
    house.keep()
    time.sleep(0.6)
    control_plane.stop_api()
    try:
        with pytest.raises(UndecidedError):
            short.admit(waiting, "ab" * 32, datetime.now(UTC) + timedelta(days=1), {})
        away = Drain(short.api, member).run(0.5)
        assert (away.end, bool(away.why)) == (DrainEnd.UNDECIDED, True)
        rows = revoke(house.ledger, short, [Target(RACK, member)], Order("recall", Regulation(), 1.0))
        assert (rows[0].shut, exit_code(rows)) == (False, 3)
        assert house.ledger.node_states(RACK)[member].state is NodeState.ADMITTED  # nobody saw it shut
        until(lambda: any("does not tell about its nodes" in line for line in house.told), 15.0)
    finally:
        control_plane.start_api()
    assert TAINT in house.nodes.seen(waiting).taints
    until(lambda: house.shut(member), 20.0)  # by the doorkeeper: the revocation was on record
    assert house.ledger.node_states(RACK)[member].state is NodeState.JOINED
    assert Drain(api, member).run(20.0).end is DrainEnd.EMPTY
