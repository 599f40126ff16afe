"""`rackproof admit`: exit codes, the waves it shows, and what it says."""

import json
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
from admitting import Admitting, certified

import toolkit.cli.admit as verb
from toolkit.cli import main
from toolkit.ledger import Change
from toolkit.pool.policy import PoolPolicy, Regulation
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.stages.context import Context


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """Six certified nodes, made once."""
    return certified(tmp_path_factory.mktemp("proven"))


@pytest.fixture
def rack(proven, tmp_path):
    """A copy of them."""
    return Admitting(proven, tmp_path / "rack", Regulation(soak_s=60.0, smoke=False))


@pytest.fixture
def run(rack, monkeypatch, capsys):
    """Runs the verb on them; answers status, stdout and stderr."""

    @contextmanager
    def files(found, progress):
        with rack.ledger() as ledger:
            yield Context(
                rack.lab.rack, rack.lab.settings, ledger, rack.lab, rack.time.clock, rack.time.sleep, progress
            )

    def start(*words):
        monkeypatch.setattr(verb, "context_of", files)
        monkeypatch.setenv("RACKPROOF_HOME", str(rack.lab.settings.home))
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["rackproof", *words])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return start


def policy_file(rack, text):
    """The site's."""
    file = rack.lab.settings.pool_policies("virtual")[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_plan_shows_waves_and_reasons_and_changes_nothing(rack, run):
    """In 80 columns, with the site's own figures; twice the same."""
    policy_file(rack, "kind: file\nregulation: {soak: 5m, growth: 3}\n")
    with rack.ledger() as ledger:
        ledger.move("demo", "node6", Change(NodeState.CERTIFIED, Move.QUARANTINE), "smells of smoke")
    status, out, _ = run("admit", "demo", "--plan")
    assert status == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "admission of demo to the file pool of virtual"
    assert [line.split()[:3] for line in lines[2:4]] == [["1", "1", "node1"], ["2", "3", "node[2-4]"]]
    assert "at most 3 x the 1 before" in lines[3]
    assert "each wave is watched for 5 min; together 15 min if nothing halts it" in out
    assert "no smoke collective: a pool in a file starts no jobs" in out
    assert "not among them, QUARANTINED: node6" in out
    assert run("admit", "demo", "--plan")[1] == out
    assert not rack.pool.acts


def test_the_plan_as_json(rack, run):
    """What a script reads."""
    status, out, _ = run("admit", "demo", "--plan", "--json")
    told = json.loads(out)
    assert (status, told["rack"], told["pool"], told["soak_s"]) == (0, "demo", "file", 2.0)
    assert [len(w["nodes"]) for w in told["waves"]] == [1, 2, 3]
    assert told["underway"] is None
    assert told["no_smoke"] == "the site's policy asks for none (regulation.smoke: false)"


def test_a_plan_after_an_interruption_says_what_it_goes_on_with(rack, run):
    """The wave that was cut off, and how long it was watched."""

    def cut():
        raise KeyboardInterrupt

    rack.time.happens = [(90, cut)]
    with pytest.raises(KeyboardInterrupt):
        rack.run()
    _, out, _ = run("admit", "demo", "--plan")
    assert "cut off after" in out and "it goes on" in out
    assert [line.split()[2] for line in out.splitlines()[2:4]] == ["node[2-3]", "node[4-6]"]


def test_all_admitted_is_exit_0_and_again_there_is_nothing_to_do(run):
    """The table of nodes, as bringup has it."""
    status, out, err = run("admit", "demo")
    assert status == 0
    assert "6 ADMITTED" in out and "6 passed" in err
    assert "no smoke collective: the site's policy asks for none" in out
    assert run("admit", "demo")[0] == 0
    assert "no certified node is waiting" in run("admit", "demo", "--plan")[1]


def test_a_halt_is_exit_3_and_names_the_next_command(rack, run):
    """Undecided: the pool said no, the hardware was not judged."""
    rack.time.happens = [(90, lambda: rack.pool.evict("node2", "smells of smoke"))]
    status, out, _ = run("admit", "demo")
    assert status == 3
    assert "1 ADMITTED, 5 CERTIFIED" in out
    for words in ("NODE_SHUT", "ADMISSION_HALTED", "ADMISSION_NOT_BEGUN", "rackproof admit demo"):
        assert words in " ".join(out.split()), out
    assert "ADMISSION_HALTED" in run("explain", "ADMISSION_HALTED")[1]


def test_a_pool_file_with_faults_is_exit_2_with_every_line(rack, run):
    """Before anything is touched."""
    file = policy_file(rack, "kind: file\nregulation: {soak: ten minutes}\n")
    status, out, err = run("admit", "demo", "--plan")
    assert (status, out) == (2, "")
    assert f"{file}:2:" in err and "10m" in err


def test_a_certificate_that_the_pool_does_not_accept_admits_nobody(rack, run):
    """The policy's word on what was not verified; the certificate stays good."""
    rack.lab.policy = replace(PoolPolicy(), accepts=frozenset(), regulation=rack.lab.policy.regulation)
    status, _, _ = run("admit", "demo")
    found = rack.standing()["node1"]
    assert (status, found.state, found.code) == (3, NodeState.CERTIFIED, "CERTIFICATE_NOT_ACCEPTED")
    assert "rehearsal" in found.message and "pools/virtual.yml" in found.next
    assert rack.inside() == []
