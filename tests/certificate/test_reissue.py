"""`certify`: another certificate from the evidence on record, for nodes that stay where they are."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from admitting import SOAK, Admitting, certified
from click.testing import CliRunner
from rehearsal import in_process, open_ledger, without_rails

from toolkit.bringup import bringup
from toolkit.certificate.refusal import CertificateRefusedError
from toolkit.certificate.rotation import installed_trust, rotate
from toolkit.certificate.verify import verify
from toolkit.cli import rackproof
from toolkit.errors import UndecidedError
from toolkit.pool.door_record import DoorRecord
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.plan import make_plan
from toolkit.reissue import TAKEN, certify_rack
from toolkit.stages.context import Context

NODES = [f"node{n}" for n in range(1, 7)]


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """Six certified nodes, made once."""
    return certified(tmp_path_factory.mktemp("proven"))


@pytest.fixture
def rack(proven, tmp_path):
    """A copy of them, all in the pool."""
    admitted = Admitting(proven, tmp_path / "rack", replace(SOAK, soak_s=0.0))
    assert admitted.run().exit_code == 0 and admitted.inside() == NODES
    return admitted


def again(rack):
    """`rackproof certify demo`."""
    with rack.ledger() as ledger:
        lab = rack.lab
        return certify_rack(
            Context(lab.rack, lab.settings, ledger, lab, rack.time.clock, rack.time.sleep, lambda p: None)
        )


def marks(rack):
    """Which certificate each member of the pool stands by."""
    return {name: member.certificate for name, member in rack.pool.nodes().items() if member.admitted}


def test_after_a_theft_of_the_key_the_pool_goes_on_by_a_certificate_of_the_new_one(rack):
    """Nothing is measured, nobody leaves the pool, and what the thief can sign is refused."""
    rack.time.sleep(60)
    (old,) = set(marks(rack).values())
    rotate(rack.lab.settings.keys, {}, rack.time.clock(), stolen=True)
    done = again(rack)
    assert (done.exit_code, list(done.nodes), done.kept, done.pool) == (0, NODES, {}, dict.fromkeys(NODES, TAKEN))
    assert marks(rack) == dict.fromkeys(NODES, done.digest) and done.digest != old
    assert ("evict", "node1") not in rack.pool.acts
    trust = installed_trust(rack.lab.settings.keys, rack.time.clock())
    with rack.ledger() as ledger:
        new = verify(ledger.artifacts.get(done.digest), trust, rack.time.clock())
        assert sorted(new.nodes) == NODES and new.supersedes == old
        with pytest.raises(CertificateRefusedError):
            verify(ledger.artifacts.get(old), trust, rack.time.clock())
        assert {ledger.last_run("demo", n, Stage.BURNIN).attempt for n in NODES} == {1}
        known = DoorRecord(ledger, dict.fromkeys(NODES, "demo")).refresh()
    assert all((done.digest, node) in known.begun and not known.issued[done.digest, node].revoked for node in NODES)
    assert {s.state for s in rack.standing().values()} == {NodeState.ADMITTED}


def test_a_node_that_is_not_what_it_was_keeps_its_old_certificate_and_is_told(rack):
    """Its GPU was changed without a word: the others get theirs."""
    rack.lab.serials["node4"] = "16500099999"
    before = marks(rack)
    done = again(rack)
    assert "node4" not in done.nodes and done.exit_code == 3
    assert list(done.kept) == ["node4"] and "GPU 16500099999 was never burnt in" in done.kept["node4"]
    assert marks(rack) == {n: before[n] if n == "node4" else done.digest for n in NODES}
    with rack.ledger() as ledger:
        run = ledger.last_run("demo", "node4", Stage.CERTIFY)
    assert run.outcome is Outcome.ERROR and "rackproof quarantine node4" in run.next


def test_a_pool_that_refuses_is_told_and_the_same_command_ends_it(rack):
    """A node stands by its old certificate until the pool takes the new one."""
    rack.pool.refuses = 1
    first = again(rack)
    assert first.exit_code == 3 and sorted(map(str, first.pool.values()))[0].startswith(
        "not written: the server refused"
    )
    assert again(rack).exit_code == 0


def test_nodes_that_are_burnt_in_get_their_first_certificate(tmp_path):
    """TESTED nodes become CERTIFIED, as in a bringup; the pool lets in nobody."""
    lab = without_rails(in_process(tmp_path, "demo-small"))
    with open_ledger(lab.settings) as ledger:
        from rehearsal import context_over

        context = context_over(lab, ledger)
        with pytest.raises(UndecidedError, match="none is TESTED, CERTIFIED or ADMITTED"):
            certify_rack(context)
        bringup(context, make_plan(lab.rack, {}, NodeState.TESTED))
        done = certify_rack(context)
        states = {row.state for row in ledger.node_states(lab.rack.name).values()}
    assert (done.exit_code, done.nodes, done.pool, done.away) == (0, ("node1", "node2"), {}, ())
    assert states == {NodeState.CERTIFIED}


def test_evidence_that_is_too_old_certifies_nothing(rack):
    """A gate's limit of age holds for a second certificate as for the first."""
    rack.time.now += timedelta(days=365)
    done = again(rack)
    assert done.digest == "" and sorted(done.kept) == NODES and done.exit_code == 3


def test_the_verb_says_what_it_did(rack, monkeypatch):
    """In JSON, and its exit code."""
    monkeypatch.setenv("RACKPROOF_HOME", str(rack.lab.settings.home))
    ended = CliRunner().invoke(rackproof, ["certify", "--help"])
    assert ended.exit_code == 0 and "key of today" in " ".join(ended.output.split())
    told = json.loads(json.dumps(certified_words(again(rack))))
    assert told["rack"] == "demo" and len(told["digest"]) == 64


def certified_words(done):
    """As `--json` prints it."""
    from dataclasses import asdict

    return asdict(done)
