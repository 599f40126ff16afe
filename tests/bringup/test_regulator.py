"""The regulator over a rack of files: waves are watched, halted and taken out; whoever cuts it off, it goes on."""

import base64
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from admitting import SOAK, Admitting, certified

from toolkit import withdrawal
from toolkit.certificate.sign import load_or_create, sign
from toolkit.errors import BusyError
from toolkit.ledger import Change, EventKind, NewEvent
from toolkit.pool.model import Sign, Smoked, SmokeEnd
from toolkit.pool.wave_log import WaveLog
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.withdrawal import Order, Target

CERTIFIED, ADMITTED, JOINED = NodeState.CERTIFIED, NodeState.ADMITTED, NodeState.JOINED
NODES = [f"node{n}" for n in range(1, 7)]


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """Six certified nodes, made once."""
    return certified(tmp_path_factory.mktemp("proven"))


@pytest.fixture
def rack(proven, tmp_path):
    """A copy of them, admitted a minute a wave."""
    return Admitting(proven, tmp_path / "rack")


def cut():
    """The operator's Ctrl-C."""
    raise KeyboardInterrupt


def results(rack):
    """What the last runs of admitted nodes say."""
    with rack.ledger() as ledger:
        found = [ledger.last_run("demo", node, Stage.ADMIT) for node in NODES]
    return [run.message for run in found if run and run.outcome is Outcome.PASSED]


def states(rack):
    """By node."""
    return {node: standing.state for node, standing in rack.standing().items()}


def test_a_canary_then_growing_waves_each_watched_before_it_counts(rack):
    """One, two, three; a minute each; until its minute is up no node of a wave is ADMITTED."""
    seen = []
    rack.time.happens = [(t, lambda: seen.append((rack.inside(), sorted(n for n, s in states(rack).items() if s is
                          ADMITTED)))) for t in (30, 90, 150)]  # fmt: skip
    assert rack.run().exit_code == 0
    assert seen == [(NODES[:1], []), (NODES[:3], NODES[:1]), (NODES, NODES[:3])]
    assert states(rack) == dict.fromkeys(NODES, ADMITTED)
    assert rack.time.passed == pytest.approx(180, abs=1)
    assert sorted(rack.pool.acts) == [("admit", n) for n in NODES]
    assert [d["nodes"] for d in rack.events("wave")] == [NODES[:1], NODES[1:3], NODES[3:]]


def test_a_bad_sign_takes_its_wave_out_and_no_other_is_begun(rack):
    """The node that showed it is named with the sign's code; its sibling and those to come are told why."""
    xid = Sign("node3", "CONDITION_GPU_XID_ERROR", "Xid 79: GPU has fallen off the bus", "condition GpuXidError")
    rack.time.happens = [(100, lambda: rack.pool.said.append(xid))]
    assert rack.run().exit_code == 3
    found = rack.standing()
    assert {n: (s.state, s.code) for n, s in found.items()} == {
        "node1": (ADMITTED, ""),
        "node2": (CERTIFIED, "ADMISSION_HALTED"),
        "node3": (CERTIFIED, "CONDITION_GPU_XID_ERROR"),
        **dict.fromkeys(NODES[3:], (CERTIFIED, "ADMISSION_NOT_BEGUN")),
    }
    assert "Xid 79: GPU has fallen off the bus (condition GpuXidError)" in found["node3"].message
    assert "after 40 s of 60 s, node3 CONDITION_GPU_XID_ERROR" in found["node2"].message
    assert "rackproof admit demo" in found["node2"].next and "rackproof facts node3" in found["node3"].next
    assert "its wave was not begun" in found["node5"].message
    assert rack.inside() == ["node1"]
    assert "wave 2 was taken out" in rack.pool.nodes()["node2"].reason


def test_after_a_halt_the_next_admission_begins_with_a_canary_and_leaves_the_bad_node_out(rack):
    """What is bad already is no fault of a wave: it stays out by itself, and the others go on."""
    xid = Sign("node3", "CONDITION_GPU_XID_ERROR", "Xid 79", "condition GpuXidError")
    rack.time.happens = [(100, lambda: rack.pool.said.append(xid))]
    rack.run()
    assert rack.run().exit_code == 3
    assert [d["nodes"] for d in rack.events("wave")][2:] == [["node2"], ["node4"], ["node5", "node6"]]
    assert rack.inside() == [n for n in NODES if n != "node3"]
    found = rack.standing()["node3"]
    assert (found.state, found.code) == (CERTIFIED, "CONDITION_GPU_XID_ERROR")
    assert "not let in" in found.message


def test_what_was_bad_on_an_earlier_node_before_the_wave_is_not_the_waves(rack):
    """And what goes bad there while the wave is watched is."""
    old = Sign("node1", "PODS_FAIL", "exit 1", "pod train-1")
    rack.time.happens = [(59, lambda: None), (60, lambda: rack.pool.said.append(old))]
    rack.lab.policy = replace(rack.lab.policy, regulation=replace(SOAK, soak_s=55.0))
    summary = rack.run()
    assert summary.exit_code == 3
    assert {s.code for s in summary.nodes if s.node in NODES[1:3]} == {"ADMISSION_HALTED"}
    assert states(rack)["node1"] is ADMITTED
    assert rack.run().exit_code == 0
    assert rack.pool.acts.count(("evict", "node2")) == 1


def test_somebody_who_takes_a_node_out_by_hand_halts_its_wave(rack):
    """A revoked certificate looks the same from here: the file shows it, with the reason."""
    rack.time.happens = [(20, lambda: rack.pool.evict("node1", "smells of smoke"))]
    assert rack.run().exit_code == 3
    found = rack.standing()
    assert (found["node1"].code, found["node2"].code) == ("NODE_SHUT", "ADMISSION_NOT_BEGUN")
    assert "smells of smoke" in found["node1"].message
    assert rack.inside() == []


def test_a_member_that_vanishes_from_the_pool_halts_its_wave(rack):
    """It came back under another name, or somebody deleted it."""
    file = rack.lab.settings.pool(rack.lab.rack.site)
    rack.time.happens = [(20, lambda: file.write_text(file.read_text().replace("node1:", "node1-renamed:")))]
    assert rack.run().exit_code == 3
    assert rack.standing()["node1"].code == "NODE_GONE"
    assert rack.standing()["node2"].code == "ADMISSION_NOT_BEGUN"


def test_a_certificate_revoked_while_the_wave_is_watched_halts_it(rack):
    """The ledger is asked at every look: the node goes back to JOINED, its wave out."""

    def revoke():
        with rack.ledger() as ledger:
            digest = rack.pool.nodes()["node1"].certificate
            body = {"certificate": digest, "nodes": ["node1"], "reason": "GPU recalled"}
            ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, rack.lab.rack.name, "", body, digest))

    rack.time.happens = [(20, revoke)]
    assert rack.run().exit_code == 3
    found = rack.standing()["node1"]
    assert (found.state, found.code) == (JOINED, "CERTIFICATE_REFUSED")
    assert "GPU recalled" in found.message
    assert rack.inside() == []


def test_rackproof_revoke_in_the_middle_of_a_soak_halts_the_wave_and_leaves_no_node_without_a_result(rack):
    """The verb moves the node itself; the run of its wave still has its end."""

    def revoke():
        with rack.ledger() as ledger:
            order = Order("GPU recalled", SOAK, 1.0, below_floor=True)
            withdrawal.revoke(ledger, rack.pool, [Target("demo", "node2")], order)

    rack.time.happens = [(90, revoke)]
    assert rack.run().exit_code == 3
    found = rack.standing()
    assert (found["node2"].state, found["node3"].code) == (JOINED, "ADMISSION_HALTED")
    assert found["node2"].code == "CERTIFICATE_REFUSED"
    assert "GPU recalled" in found["node2"].message
    assert rack.inside() == ["node1"]
    with rack.ledger() as ledger:
        assert all(run.outcome for run in ledger.runs("demo"))


def test_a_pool_that_is_away_for_less_than_the_policys_patience_costs_time_and_nothing_else(rack):
    """The silence does not count as watched."""
    rack.time.happens = [
        (20, lambda: setattr(rack.pool, "away", True)),
        (45, lambda: setattr(rack.pool, "away", False)),
    ]
    assert rack.run().exit_code == 0
    assert rack.time.passed > 180 + 10
    assert rack.inside() == NODES


def test_a_pool_that_is_away_for_longer_halts_and_what_could_not_be_taken_out_is_taken_out_first_the_next_time(rack):
    """Nobody says that the node is out before it is."""
    rack.time.happens = [(20, lambda: setattr(rack.pool, "away", True))]
    assert rack.run().exit_code == 3
    found = rack.standing()
    assert (found["node1"].code, found["node2"].code) == ("POOL_SILENT", "ADMISSION_NOT_BEGUN")
    assert "NOT taken out of the pool" in found["node1"].message
    assert "takes the wave out first" in found["node1"].next
    rack.pool.away = False
    assert rack.inside() == ["node1"]
    assert rack.run().exit_code == 3
    assert rack.inside() == []
    assert rack.standing()["node1"].code == "POOL_SILENT"
    assert rack.run().exit_code == 0
    assert rack.inside() == NODES


def test_a_pool_that_is_away_from_the_start_admits_nobody(rack):
    """And nothing is left to be taken out."""
    rack.pool.away = True
    assert rack.run().exit_code == 3
    rack.pool.away = False
    assert {s.code for s in rack.standing().values()} == {"ADMISSION_NOT_BEGUN"}
    assert "the pool does not answer" in rack.standing()["node1"].message
    assert not rack.events("wave") and not rack.inside()


def test_a_canary_that_its_own_certificate_keeps_out_halts_nobody_and_the_next_is_the_canary(rack):
    """Another board in its slot since it was certified."""
    rack.lab.serials["node1"] = "16500009999"
    assert rack.run().exit_code == 3
    found = rack.standing()["node1"]
    assert (found.state, found.code) == (JOINED, "CERTIFICATE_REFUSED")
    assert rack.inside() == NODES[1:]
    waves = [d["nodes"] for d in rack.events("wave")]
    assert waves == [["node1"], ["node2"], ["node3", "node4"], ["node5", "node6"]]


@pytest.mark.parametrize(("ours", "says"), [(False, "none of the 1 trusted keys"), (True, "is of demo-small, not of")])
def test_a_certificate_of_a_stranger_or_of_another_rack_lets_nobody_in(rack, tmp_path, ours, says):
    """Both are on record for these nodes; one is signed by a key that nobody trusts, the other names another rack."""
    other = certified(tmp_path / "other", "demo-small")
    envelope = other.settings.certificate("demo-small").read_bytes()
    if ours:
        statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
        envelope = sign(statement, load_or_create(rack.lab.settings.keys))
    with rack.ledger() as ledger:
        digest = ledger.artifacts.put(envelope)
        body = {"nodes": ["node1"], "expires": "2036-01-01T00:00:00+00:00"}
        ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, "demo", body=body, what=digest))
    assert rack.run().exit_code == 3
    found = rack.standing()["node1"]
    assert (found.state, found.code) == (JOINED, "CERTIFICATE_REFUSED")
    assert says in found.message
    assert rack.inside() == NODES[1:]


def test_a_node_that_never_joined_is_told_apart_and_halts_nobody(rack):
    """It is no member: there is no door to open for it."""
    file = rack.lab.settings.pool(rack.lab.rack.site)
    file.write_text(file.read_text().replace("node4:", "gpu-node-4:"))
    assert rack.run().exit_code == 3
    assert rack.standing()["node4"].code == "NODE_NOT_JOINED"
    assert rack.inside() == [n for n in NODES if n != "node4"]


@pytest.mark.parametrize(("end", "code"), [(SmokeEnd.FAILED, "SMOKE_FAILED"), (SmokeEnd.UNDECIDED, "SMOKE_UNDECIDED")])
def test_a_smoke_collective_that_is_not_well_takes_the_wave_out(rack, end, code):
    """Wrong data, and an end that nobody saw: neither lets anybody stay."""
    rack.lab.policy = replace(rack.lab.policy, regulation=replace(SOAK, smoke=True))
    rack.pool.smoked = Smoked(end, "rank 3 died")
    assert rack.run().exit_code == 3
    found = rack.standing()["node1"]
    assert (found.state, found.code) == (CERTIFIED, code)
    assert "rank 3 died" in found.message
    assert rack.inside() == []


def test_each_wave_runs_one_smoke_collective_over_its_nodes(rack):
    """A pool that has none is no reason to halt, and each wave and each node's result say that there was none."""
    rack.lab.policy = replace(rack.lab.policy, regulation=replace(SOAK, smoke=True))
    assert rack.run().exit_code == 0
    assert [act[1:] for act in rack.pool.acts if act[0] == "smoke"] == [
        ("node1",),
        ("node2", "node3"),
        tuple(NODES[3:]),
    ]
    assert {d["end"] for d in rack.events("wave smoke")} == {"NOT_ASKED"}
    assert [d["smoke"] for d in rack.events("wave end")] == ["no smoke collective: a pool of this test has none"] * 3
    assert {said.split("; ")[1] for said in results(rack)} == {"no smoke collective: a pool of this test has none"}


@pytest.mark.parametrize(
    ("asked", "smoked", "says"),
    [
        (False, Smoked(SmokeEnd.PASSED, "never asked"), "no smoke collective: the site's policy asks for none"),
        (True, Smoked(SmokeEnd.PASSED, "6 ranks ended well"), "smoke collective passed: 6 ranks ended well"),
    ],
)
def test_what_a_wave_was_smoked_by_stands_on_its_record_and_in_its_results(rack, asked, smoked, says):
    """A policy that wants none is said as well as a collective that ran."""
    rack.lab.policy = replace(rack.lab.policy, regulation=replace(SOAK, smoke=asked))
    rack.pool.smoked = smoked
    assert rack.run().exit_code == 0
    assert [d["smoke"].startswith(says) for d in rack.events("wave end")] == [True] * 3
    assert len(results(rack)) == 6 and all(says in said for said in results(rack))


@pytest.mark.parametrize("end", [SmokeEnd.FAILED, SmokeEnd.UNDECIDED])
def test_a_wave_cut_off_between_its_smoke_collectives_end_and_its_halt_is_taken_out(rack, end):
    """The end is on record, and nothing else: who goes on with the wave does not take it for well."""
    rack.time.happens = [(20, cut)]
    with pytest.raises(KeyboardInterrupt):
        rack.run()
    with rack.ledger() as ledger:
        log = WaveLog(ledger, "demo")
        wave = log.rollout(rack.time.clock()).open
        assert wave is not None and rack.inside() == ["node1"]
        log.smoked(wave, Smoked(end, "rank 3 died"))
    rack.lab.policy = replace(rack.lab.policy, regulation=replace(SOAK, smoke=True))
    assert rack.run().exit_code == 3
    assert rack.inside() == []
    assert rack.standing()["node1"].code == f"SMOKE_{end}"
    assert "rank 3 died" in rack.standing()["node1"].message
    assert not [act for act in rack.pool.acts if act[0] == "smoke"]


def test_of_two_regulators_the_second_is_told_who_leads_and_touches_nothing(rack):
    """Each node of it ends undecided, with the next command."""
    with rack.pool.leading("ada@deploy1 pid 7"):
        assert rack.run().exit_code == 3
        with pytest.raises(BusyError, match="ada@deploy1 pid 7 admits nodes to"), rack.pool.leading("somebody else"):
            raise AssertionError("two lead")
    found = rack.standing()["node1"]
    assert (found.state, found.code) == (CERTIFIED, "REGULATOR_BUSY")
    assert "ada@deploy1 pid 7" in found.message
    assert not rack.pool.acts
    assert rack.run().exit_code == 0


def test_time_in_which_nobody_looked_does_not_count_as_watched(rack):
    """This machine slept, or its clock was set, for an hour: the wave is watched for its minute all the same."""

    def jump():
        rack.time.now += timedelta(hours=1)

    rack.time.happens = [(20, jump)]
    assert rack.run().exit_code == 0
    assert rack.time.passed == pytest.approx(180, abs=16)
    assert rack.time.passed > 160


def test_a_node_set_aside_while_its_wave_was_cut_off_is_not_forgotten_inside(rack):
    """The operator's quarantine moved it; the next admission sees to it that it is out."""
    rack.time.happens = [(90, cut)]
    with pytest.raises(KeyboardInterrupt):
        rack.run()
    assert rack.inside() == NODES[:3]
    with rack.ledger() as ledger:
        ledger.move(rack.lab.rack.name, "node2", Change(CERTIFIED, Move.QUARANTINE), "no time to evict it")
    assert rack.run().exit_code == 1
    assert rack.inside() == [n for n in NODES if n != "node2"]
    assert rack.pool.acts.count(("admit", "node3")) == 1


def test_cut_off_in_a_soak_it_goes_on_with_what_is_left_of_it(rack):
    """What was watched is on record; nobody is let in twice."""
    rack.time.happens = [(100, cut)]
    with pytest.raises(KeyboardInterrupt):
        rack.run()
    assert states(rack)["node2"] is CERTIFIED
    before = rack.time.passed
    assert rack.run().exit_code == 0
    assert 80 <= rack.time.passed - before <= 90
    assert sorted(rack.pool.acts) == [("admit", n) for n in NODES]


def test_a_pool_that_refuses_once_is_asked_once_more(rack):
    """It may have been for a lead that was lost unseen."""
    rack.pool.refuses = 1
    assert rack.run().exit_code == 0
    assert rack.pool.refuses == 0


def test_a_pool_that_refuses_everybody_of_a_wave_halts(rack):
    """The canary is refused twice, by the same words; nobody else is asked for."""
    rack.pool.refuses = 99
    assert rack.run().exit_code == 3
    found = rack.standing()
    assert (found["node1"].code, found["node2"].code) == ("POOL_REFUSED", "ADMISSION_NOT_BEGUN")
    assert "403" in found["node1"].message
    assert rack.pool.refuses == 97
    assert rack.inside() == []
