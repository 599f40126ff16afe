"""What stops somebody who resumes a node by hand: what jobs ask for, the doorkeeper, and the health check."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from slurm_cluster import PARTITION, Cluster, on_loopback, slurm

from toolkit.errors import UndecidedError
from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.pool import slurm_door
from toolkit.pool.policy import PoolPolicy, SlurmSite
from toolkit.pool.slurm import SlurmPool
from toolkit.pool.slurm_command import SlurmCommands
from toolkit.pool.slurm_door import Deed, SlurmDoorkeeper, judged
from toolkit.pool.slurm_record import Record, marks
from toolkit.pool.slurm_text import SlurmNode
from toolkit.pool.vouched import Known, Vouched

SITE = Path(slurm_door.__file__).parent / "slurm_site"
NODE = "node1"
DIGEST = "ab" * 32
LABELS = {"rackproof.dev/rack": "demo"}
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
UNTIL = NOW + timedelta(days=30)
RECORD = Record({"rack": "demo"}, DIGEST, UNTIL)
KNOWN = Known({NODE: "demo"}, {(DIGEST, NODE): Vouched("demo", UNTIL)}, {(DIGEST, NODE): NOW})


def standing(record: Record, state: str = "idle", **change: object) -> SlurmNode:
    """A node that bears a record and its features."""
    bare = SlurmNode(NODE, frozenset(state.split("+")))
    written = marks(bare, record)
    features = tuple(word for word in written["ActiveFeatures"].split(",") if word)
    return replace(bare, active=features, available=features, comment=written["Comment"], **change)  # type: ignore[arg-type]


BARE = SlurmNode(NODE, frozenset({"idle"}))
CASES: dict[str, tuple[SlurmNode, Known, Deed, str]] = {
    "as it should be": (standing(RECORD), KNOWN, Deed.NOTHING, ""),
    "drained by us": (standing(RECORD.without_certificate(), "idle+drain", reason="rackproof: x"), KNOWN,
                      Deed.NOTHING, ""),
    "resumed by hand": (standing(RECORD.without_certificate()), KNOWN, Deed.SHUT, "resumed it by hand"),
    "of our rack, unmarked": (BARE, KNOWN, Deed.SHUT, "without a certificate"),
    "none of our business": (replace(BARE, name="login1"), KNOWN, Deed.NOTHING, ""),
    "forged": (standing(replace(RECORD, certificate="cd" * 32)), KNOWN, Deed.SHUT, "cdcdcdcdcdcd is not on record"),
    "forged, while drained by others": (
        standing(replace(RECORD, certificate="cd" * 32), "idle+drain", reason="NHC: fan"), KNOWN, Deed.SHUT,
        "not on record"),
    "revoked": (standing(RECORD), replace(KNOWN, issued={(DIGEST, NODE): Vouched("demo", UNTIL, "optic")}), Deed.SHUT,
                "is revoked: optic"),
    "expired": (standing(replace(RECORD, expires=NOW)), replace(KNOWN, issued={(DIGEST, NODE): Vouched("demo", NOW)}),
                Deed.SHUT, "expired at 2026-11-23T08:00:00"),
    "longer than its certificate": (standing(replace(RECORD, expires=UNTIL + timedelta(days=9))), KNOWN, Deed.SHUT,
                                    "was edited by hand"),
    "of another rack": (standing(replace(RECORD, labels={"rack": "gold"})), KNOWN, Deed.SHUT, "its comment says gold"),
    "never admitted": (standing(RECORD), replace(KNOWN, begun={}), Deed.SHUT, "no admission by it is on record"),
    "quarantined": (standing(RECORD), replace(KNOWN, barred={NODE: "it is QUARANTINED on record"}), Deed.SHUT,
                    "it is QUARANTINED"),
    "features forgotten": (replace(standing(RECORD), active=(), available=()), KNOWN, Deed.MEND, "has forgotten"),
    "a feature taken off": (replace(standing(RECORD), active=("rackproof_certified",)), KNOWN, Deed.MEND,
                            "are not those"),
    "features by hand": (replace(BARE, active=("rackproof_certified",)), KNOWN, Deed.SHUT, "edited by hand"),
    "two records": (replace(standing(RECORD), comment=f"{RECORD.text} {RECORD.text}"), KNOWN, Deed.SHUT, "by hand"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_node_is_held_against_the_ledger(case: str) -> None:
    """Only a certificate on record for this very node, in force, with an admission by it, keeps it open."""
    node, known, deed, why = CASES[case]
    found, words = judged(node, known, NOW)
    assert found is deed, words
    assert why in words


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    more = "JobSubmitPlugins=lua"
    with slurm(on_loopback([NODE, "node2"]), more=more, beside=tuple(SITE.iterdir())) as made:
        yield made


@pytest.fixture
def pool(cluster: Cluster, tmp_path: Path) -> SlurmPool:
    return SlurmPool(PoolPolicy(slurm=SlurmSite(config=cluster.config, partition=PARTITION)), tmp_path / "lock")


def resumed_by_hand(cluster: Cluster, name: str) -> None:
    cluster.ask("scontrol", "update", f"NodeName={name}", "State=RESUME")
    cluster.await_idle(2)


def state(cluster: Cluster, name: str) -> str:
    return cluster.ask("sinfo", "--noheader", "--Node", f"--nodes={name}", "--format=%T %E").strip().replace("*", "")


ASKED = {
    "": "rackproof_certified",
    "h100": "h100&rackproof_certified",
    "h100|h200": "(h100|h200)&rackproof_certified",
    "h100&ib": "h100&ib&rackproof_certified",
    "rackproof_certified": "rackproof_certified",
    "h100&rackproof_certified": "h100&rackproof_certified",
    "h100|h200&rackproof_certified": "(h100|h200&rackproof_certified)&rackproof_certified",
}


@pytest.mark.root
@pytest.mark.parametrize("constraint", ASKED)
def test_every_job_asks_for_certified_nodes(cluster: Cluster, pool: SlurmPool, constraint: str) -> None:
    """With what it asks for itself; on a node resumed by hand it does not start."""
    pool.register(NODE, "joined", LABELS)
    resumed_by_hand(cluster, NODE)
    given = ("--constraint=" + constraint,) if constraint else ()
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.ask("sbatch", "--parsable", *given, "--output=/dev/null", "--wrap=true")
    said = ("Invalid feature specification", "Requested node configuration is not available")
    assert any(words in refused.value.stderr for words in said)
    pool.register(NODE, "joined again", LABELS)
    pool.admit(NODE, DIGEST, datetime.now(UTC) + timedelta(days=1), LABELS)
    cluster.ask("scontrol", "update", f"NodeName={NODE}", f"AvailableFeatures={featured(pool)},h100,h200,ib",
                f"ActiveFeatures={featured(pool)},h100,h200,ib")  # fmt: skip
    job = cluster.ask("sbatch", "--hold", "--parsable", *given, "--output=/dev/null", "--wrap=true").strip()
    assert f"Features={ASKED[constraint]} " in cluster.ask("scontrol", "--oneliner", "show", "job", job) + " "
    cluster.ask("scancel", job)


def featured(pool: SlurmPool) -> str:
    return ",".join(pool.commands.nodes((NODE,))[NODE].active)


@pytest.mark.root
def test_what_cannot_be_held_to_certified_nodes_is_refused(cluster: Cluster, pool: SlurmPool) -> None:
    """Counts and choices; a burn-in in our reservation needs no certificate."""
    for constraint in ("h100*1&ib*1", "[h100|h200]"):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            cluster.ask("sbatch", f"--constraint={constraint}", "--wrap=true")
        assert "cannot be held to certified nodes" in refused.value.stderr
    pool.register(NODE, "joined", LABELS)
    reservation = pool.lend("demo", NODE)
    ran = cluster.ask("srun", f"--reservation={reservation}", f"--nodelist={NODE}", "echo", "burnt in")
    assert ran == "burnt in\n"
    pool.give_back("demo", NODE)
    assert state(cluster, NODE).split()[0] in ("drained", "draining")


@pytest.mark.root
def test_the_doorkeeper_shuts_a_node_resumed_by_hand_and_mends_forgotten_features(
    cluster: Cluster, pool: SlurmPool, tmp_path: Path
) -> None:
    """By the ledger: what it does not vouch for is drained; what it does has its features again, without a drain."""
    told: list[str] = []

    def now() -> datetime:
        return datetime.now(UTC)

    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", now) as ledger:
        until = (now() + timedelta(days=1)).replace(microsecond=0)
        body = {"nodes": ["node2"], "expires": until.isoformat()}
        ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, "demo", body=body, what=DIGEST))
        ledger.intent("demo", "node2", "admit", {"certificate": DIGEST, "expires": until.isoformat()})
        pool.register(NODE, "joined", LABELS)
        pool.register("node2", "joined", LABELS)
        pool.admit("node2", DIGEST, until, LABELS)
        cluster.ask("scontrol", "reconfigure")
        resumed_by_hand(cluster, NODE)
        keeper = SlurmDoorkeeper(pool, ledger, {NODE: "demo"}, told.append, now)
        keeper.look()
        assert state(cluster, NODE).startswith("drained rackproof: not certified: it takes jobs without")
        assert pool.nodes()["node2"].admitted
        assert [line.split(":")[0] for line in told] == [f"{NODE} is shut", "node2 has its features again"]
        revoked = {"certificate": DIGEST, "nodes": ["node2"], "reason": "optic"}
        ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, "demo", body=revoked, what=DIGEST))
        SlurmDoorkeeper(pool, ledger, {}, told.append, now).look()
        assert "is revoked: optic" in state(cluster, "node2")


class Stubborn(SlurmPool):
    """Does not get node1 shut."""

    def register(self, node: str, reason: str, labels: Mapping[str, str] | None = None) -> None:
        """But for node1, as every pool."""
        if node == NODE:
            raise UndecidedError(f"{node} was drained, and is idle", "somebody else changes it")
        super().register(node, reason, labels)


@pytest.mark.root
def test_a_node_that_cannot_be_shut_holds_up_nobody_else(cluster: Cluster, pool: SlurmPool, tmp_path: Path) -> None:
    """Somebody undrains it all the time: told, and the next one is shut in the same look."""
    told: list[str] = []
    for name in (NODE, "node2"):
        pool.register(name, "joined", LABELS)
        cluster.ask("scontrol", "update", f"NodeName={name}", "State=RESUME")
    cluster.await_idle(2)
    stubborn = Stubborn(PoolPolicy(slurm=pool.site), tmp_path / "lock")
    with Ledger.open(f"sqlite:///{tmp_path}/l.db", tmp_path / "a", "test", lambda: datetime.now(UTC)) as ledger:
        body = {"nodes": ["node3"], "expires": "2036-01-01T00:00:00+00:00"}
        ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, "demo", body=body, what=DIGEST))
        SlurmDoorkeeper(stubborn, ledger, {}, told.append, lambda: datetime.now(UTC)).look()
    assert [line.split(" (")[0].split(":")[0] for line in told] == [f"{NODE} could not be shut", "node2 is shut"]
    assert "was drained, and is idle; somebody else changes it" in told[0]
    assert state(cluster, "node2").startswith("drained rackproof:")


@pytest.mark.root
def test_many_are_drained_in_one_message_and_anothers_drain_stays_his(
    cluster: Cluster, pool: SlurmPool, tmp_path: Path
) -> None:
    """Their certificates follow, node by node; a stranger is left alone, and a slurmctld that is away shuts nobody."""
    sent: list[str] = []

    class Told(SlurmCommands):
        """Notes what is changed."""

        def update(self, node: str, **changes: str) -> None:
            """As it is, noted."""
            sent.append(f"{node} {changes.get('State', '')}".strip())
            super().update(node, **changes)

    until = datetime.now(UTC) + timedelta(days=1)
    for name in (NODE, "node2"):
        pool.register(name, "joined", LABELS)
        pool.admit(name, DIGEST, until, LABELS)
    both = SlurmPool(PoolPolicy(slurm=pool.site), tmp_path / "lock", commands=Told(pool.site))
    assert both.evict_all({NODE: "recall", "node2": "recall", "node9": "recall"}) == {}
    assert sent[0] == f"{NODE},node2 DRAIN"
    assert {name: (m.admitted, m.reason) for name, m in pool.nodes().items()} == dict.fromkeys(
        (NODE, "node2"), (False, "recall")
    )
    pool.admit(NODE, DIGEST, until, LABELS)
    pool.admit("node2", DIGEST, until, LABELS)
    cluster.ask("scontrol", "update", "NodeName=node2", "State=DRAIN", "Reason=NHC: fan")
    assert pool.evict_all({NODE: "again", "node2": "again"}) == {}
    assert (state(cluster, NODE), state(cluster, "node2")) == ("drained rackproof: again", "drained NHC: fan")
    assert not [name for name, member in pool.nodes().items() if member.certificate]
    cluster.ask("scontrol", "update", "NodeName=node2", "State=RESUME")
    gone = replace(pool.site, config=str(tmp_path / "nowhere.conf"))
    failed = SlurmPool(PoolPolicy(slurm=gone), tmp_path / "lock").evict_all({NODE: "x", "node2": "x"})
    assert {name: "is not there" in why.message for name, why in failed.items()} == {NODE: True, "node2": True}


@pytest.mark.root
def test_the_health_check_drains_by_itself_what_no_certificate_lets_take_jobs(
    cluster: Cluster, pool: SlurmPool
) -> None:
    """Resumed by hand, or expired while nobody watches; certified nodes and others' drains stay as they are."""
    check = str(Path(cluster.config).parent / "rackproof_health_check.sh")
    pool.register(NODE, "joined", LABELS)
    resumed = "drained rackproof: not certified: it took jobs, and no certificate lets it"
    cluster.ask("scontrol", "update", "NodeName=node2", "State=DRAIN", "Reason=NHC: fan")
    cluster.ask("scontrol", "update", f"NodeName={NODE}", "State=RESUME")
    cluster.ask(check, "node2")
    cluster.until(lambda: (cluster.ask(check, NODE), state(cluster, NODE) == resumed)[1], "a drained node", 10)
    assert state(cluster, "node2") == "drained NHC: fan"
    pool.admit(NODE, DIGEST, datetime.now(UTC) + timedelta(days=1), LABELS)
    cluster.ask("scontrol", "reconfigure")
    cluster.ask(check, NODE)
    assert state(cluster, NODE) == "idle none"
    record = f"Comment=[rackproof certificate={DIGEST} rack=demo until=20200101T000000Z]"
    cluster.ask("scontrol", "update", f"NodeName={NODE}", record)
    cluster.ask(check, NODE)
    assert state(cluster, NODE) == "drained rackproof: not certified: its certificate expired at 20200101T000000Z"
    cluster.ask("scontrol", "update", "NodeName=node2", "State=RESUME")
