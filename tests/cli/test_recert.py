"""`rackproof recert plan`: after a change and within a budget, over what a ledger has on record."""

import json
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from admitting import certified
from rehearsal import folder

from toolkit.cli import main
from toolkit.errors import InputError, UsageError
from toolkit.judge.recert.hazard import Cause
from toolkit.ledger import Change, Ledger
from toolkit.pool.floor import Capacity
from toolkit.pool.recert_candidates import Budget, capacity_on_record, known
from toolkit.pool.recert_file import load_beliefs
from toolkit.rack.claims import load_skus
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Suite
from toolkit.settings import load

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
DGX = "dgx-h100-su"


class Past:
    """A ledger that is written at any time of the past."""

    def __init__(self, home):
        self.settings = load({"RACKPROOF_HOME": str(home)})
        self.rack = load_rack(DGX, self.settings.inventory)
        self.at = NOW - 100 * DAY

    @contextmanager
    def ledger(self):
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", lambda: self.at) as ledger:
            yield ledger

    def enter(self, state=NodeState.ADMITTED, others=None):
        """All nodes in this state, but the others."""
        with self.ledger() as ledger:
            ledger.enter(DGX, {n.name: (others or {}).get(n.name, state) for n in self.rack.nodes}, "a test")

    def burnt_in(self, nodes, days_ago, outcome=Outcome.PASSED, suite="standard", code="", part=""):
        """A burn-in of each of these nodes, as the stage records it."""
        self.at = NOW - days_ago * DAY
        with self.ledger() as ledger:
            for node in nodes:
                run = ledger.start_run(DGX, node, Stage.BURNIN)
                ledger.intent(DGX, node, "burnin", {"id": run.id, "suite": suite, "run": run.id})
                ledger.finish_run(run, outcome, code=code, part=part)

    def known(self, budget=None):
        """What there is to choose from."""
        skus = load_skus(self.settings.inventory)
        beliefs = load_beliefs(self.settings)
        with self.ledger() as ledger:
            asked = budget or Budget(30.0, None)
            return known(ledger, self.rack, [self.rack], beliefs, 0.9, skus, asked, NOW)


@pytest.fixture
def past(tmp_path):
    """An installation without a past yet."""
    with folder(tmp_path / "made") as made:
        yield Past(made / "home")


@pytest.fixture
def run(past, monkeypatch, capsys):
    """Runs the verb; answers status, stdout and stderr."""

    def start(*words, home=None):
        monkeypatch.setenv("RACKPROOF_HOME", str(home or past.settings.home))
        monkeypatch.setattr(sys, "argv", ["rackproof", "recert", "plan", *words])
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


def names(past):
    """Of all nodes."""
    return [node.name for node in past.rack.nodes]


def test_after_a_swap_it_prints_the_tests_and_the_share_of_a_full_run(past, run):
    """What, on whom, how long, why; what stays good and what stays unverified."""
    past.enter(NodeState.CERTIFIED, {"dgx07": NodeState.QUARANTINED, "dgx01": NodeState.QUARANTINED})
    status, out, err = run(DGX, "--after", "swap dgx07")
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["nodes", "in", "parallel", "1:", "dgx07", "10.0", "10.0", "1.7"] in rows
    assert ["rails", "in", "pairs", "4:", "dgx[02-04,07]", "0.9", "3.5", "0.6"] in rows
    assert "to be measured: 4.2% of its node-minutes" in out
    assert "for swap dgx07: every part of the node is another" in out
    assert "stays good: suites of 30 nodes, collectives of 30 nodes, rails of 240 HCAs" in out
    assert "not verified by this: leaf: 4 of 31 nodes take part" in out
    assert "no evidence of theirs holds, and they are no partners: dgx01" in out


def test_the_table_fits_80_columns(past, run):
    """The lines of a terminal: the rest folds."""
    past.enter()
    _, out, _ = run(DGX, "--after", "swap dgx07", "--after", "swap leaf2")
    table = out.splitlines()[1:8]
    assert max(len(line.rstrip()) for line in table) <= 80
    assert any("admitted, to be drained first: " in line for line in run(DGX, "--after", "swap dgx07")[1].splitlines())


def test_nodes_that_a_test_names_and_that_are_not_in_service_are_named(past, run):
    """A leaf wants all of its nodes; one of them is away."""
    past.enter(NodeState.CERTIFIED, {"dgx01": NodeState.QUARANTINED})
    _, out, _ = run(DGX, "--after", "swap leaf2")
    assert "not in service, and without them the tests that name them are smaller: dgx01" in out


def test_as_json_every_piece_of_evidence_has_its_reason(past, run):
    """What a script reads."""
    past.enter()
    status, out, _ = run(DGX, "--after", "swap cable dgx07:mlx5_3", "--json")
    told = json.loads(out)
    assert status == 0 and 0 < told["share"] < 0.2
    assert [step["level"] for step in told["steps"]] == ["rails in pairs", "leaf", "scalable unit"]
    assert all(t["why"] and t["through"] == ["dgx07"] for t in told["touched"])
    assert told["holds"] > 5000


def test_without_evidence_on_record_nothing_is_said_to_hold(run):
    """An empty ledger: a whole burn-in comes first."""
    assert "nothing holds yet, a whole one comes first" in run(DGX, "--after", "swap dgx07")[1]


def test_all_nodes_in_the_wide_levels_on_demand(past, run):
    """At its price."""
    past.enter(NodeState.CERTIFIED)
    _, out, _ = run(DGX, "--after", "swap dgx07", "--whole-levels")
    assert "to be measured: 24.0% of its node-minutes" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a change or a budget"),
        (["--after", "swap dgx07", "--minutes", "30"], "give a change or a budget"),
        (["--after", "swap dgx07", "--job-nodes", "3"], "give a change or a budget"),
        (["--minutes", "30", "--whole-levels"], "give a change or a budget"),
        (["--minutes", "0"], "Invalid value for '--minutes'"),
        (["--after", "swap dgx7"], "did you mean dgx07?"),
        (["--minutes", "30"], "no node of dgx-h100-su has passed a burn-in"),
    ],
)
def test_what_makes_no_sense_is_exit_2(run, words, said):
    """Nothing on stdout."""
    status, out, err = run(DGX, *words)
    assert (status, out) == (2, "")
    assert said in err


def test_old_evidence_is_renewed_first_and_never_under_the_floor(past, run):
    """Three of 31 at a floor of 90 %; whoever waits is named with why."""
    past.enter()
    past.burnt_in(names(past), 40)
    past.burnt_in(["dgx05"], 35)
    status, out, _ = run(DGX, "--minutes", "200", "--json")
    told = json.loads(out)
    assert status == 0
    assert {pick["overdue"] for pick in told["picks"]} == {True}
    assert len({pick["node"] for pick in told["picks"]}) == 3
    assert "dgx05" not in {pick["node"] for pick in told["picks"]}  # the youngest waits
    assert told["terms"]["nodes"] == 3
    assert any("capacity floor" in words for words in told["stays_uncovered"])
    _, out, _ = run(DGX, "--minutes", "200")
    assert "evidence is 960 h old" in out and "stays uncovered by standard" in out
    assert "no suite of one node finds: network" in out
    assert "assumed, published by nobody: gray 0.6" in out
    assert "arXiv:2407.21783" in out


def test_the_budget_of_minutes_and_energy_is_kept(past, run):
    """Of all nodes together."""
    past.enter()
    past.burnt_in(names(past), 40)
    told = json.loads(run(DGX, "--minutes", "12", "--kwh", "1.8", "--json")[1])
    assert 0 < told["node_minutes"] <= 12
    assert 0 < told["kwh"] <= 1.8
    assert any("is spent" in left["why"] for left in told["uncovered"])


def test_fresh_evidence_of_a_small_pool_pays_for_no_test(past, run):
    """A fault costs little there, and says so; in a large job the same nodes are worth it."""
    past.enter()
    past.burnt_in(names(past), 3)
    _, out, _ = run(DGX, "--minutes", "60")
    assert "no test is chosen" in out
    assert "no test is expected to save more node-minutes than it takes" in out
    told = json.loads(run(DGX, "--minutes", "60", "--job-nodes", "20000", "--json")[1])
    assert told["picks"] and not any(pick["overdue"] for pick in told["picks"])
    assert "20000 nodes (as asked)" in told["remarks"][0]


def test_a_node_with_a_history_comes_first(past, run):
    """Failures on evidence count by their cause; what is of no cause raises no rate and is said."""
    past.enter()
    past.burnt_in(["dgx09"] * 3, 60, Outcome.FAILED, code="HBM_MISCOMPARE", part="GPU 3 (S1)")
    past.burnt_in(["dgx02"], 60, Outcome.FAILED, code="NODE_ODD", part="tray")
    past.burnt_in(["dgx03"] * 5, 60, Outcome.ERROR, code="NODE_UNREACHABLE")
    past.burnt_in(names(past), 10)
    told = json.loads(run(DGX, "--minutes", "11", "--job-nodes", "20000", "--json")[1])
    assert told["picks"][0]["node"] == "dgx09"
    assert "hbm" in told["picks"][0]["why"]
    assert any("NODE_ODD 1 x" in words for words in told["remarks"])
    by_node = {c.node: c for c in past.known().candidates}
    assert by_node["dgx09"].history.faults == {Cause.HBM: 3}
    assert by_node["dgx03"].history.faults == {}


def test_evidence_of_a_longer_suite_counts_for_a_shorter_one_and_none_from_before_a_repair(past):
    """A quick one does not renew a standard one."""
    past.enter()
    past.burnt_in(["dgx01", "dgx02", "dgx03"], 20)
    past.burnt_in(["dgx01"], 5, suite="quick")
    past.at = NOW - 10 * DAY
    with past.ledger() as ledger:
        ledger.move(DGX, "dgx02", Change(NodeState.ADMITTED, Move.QUARANTINE), "a test")
        ledger.move(DGX, "dgx02", Change(NodeState.QUARANTINED, Move.REPAIR), "a test")
    found = past.known()
    by_node = {c.node: c for c in found.candidates}
    assert by_node["dgx01"].hours_since["standard"] == pytest.approx(480)
    assert by_node["dgx01"].hours_since["quick"] == pytest.approx(120)
    assert by_node["dgx03"].hours_since["quick"] == pytest.approx(480)
    assert "long" not in by_node["dgx01"].hours_since
    assert dict(found.aside) == {"dgx02": "PLANNED"}
    assert set(by_node["dgx01"].near) == {f"leaf{n}" for n in range(1, 9)}


def test_the_capacity_on_record_counts_those_that_were_let_in_once(past):
    """Who was never in is no part of the pool."""
    past.enter(NodeState.CERTIFIED, {"dgx31": NodeState.QUARANTINED})
    with past.ledger() as ledger:
        for node in ("dgx01", "dgx02"):
            ledger.move(DGX, node, Change(NodeState.CERTIFIED, Move.ADMIT), "a test")
        ledger.move(DGX, "dgx02", Change(NodeState.ADMITTED, Move.QUARANTINE), "a test")
        assert capacity_on_record(ledger, [past.rack]) == Capacity(1, 0, 1)


def test_suites_are_trials_at_what_the_forecast_says_they_take(past):
    """Each with where its powers come from."""
    past.enter()
    past.burnt_in(names(past), 3)
    found = past.known(Budget(None, 5.0))
    assert [trial.name for trial in found.trials] == ["quick", "standard"]
    assert found.trials[1].minutes == pytest.approx(10.04, abs=0.01)
    assert all(trial.kwh > 0 and trial.source.startswith("assumed") for trial in found.trials)


def test_beliefs_are_read_with_their_sources_and_a_site_may_keep_its_own(past):
    """Each power once, each number with source and date; every fault of the file is named by its line."""
    shipped = load_beliefs(past.settings)
    assert set(shipped.powers) == {Suite.QUICK, Suite.STANDARD}
    assert all(p.source and p.date for of_suite in shipped.powers.values() for p in of_suite.values())
    assert Cause.NETWORK not in shipped.powers[Suite.STANDARD]
    own = past.settings.home / "recert.yml"
    own.parent.mkdir(parents=True, exist_ok=True)
    text = (past.settings.inventory / "recert.yml").read_text()
    own.write_text(text.replace("gray: {value: 0.6", "gray: {value: 0.3"))
    assert load_beliefs(past.settings).gray.value == 0.3
    own.write_text(text.replace("value: 72", "value: many").replace("cause: sram", "cause: hbm"))
    with pytest.raises(InputError) as wrong:
        load_beliefs(past.settings)
    assert "many" in str(wrong.value) and "recert.yml:" in str(wrong.value)
    own.write_text(text.replace("cause: sram", "cause: hbm"))
    with pytest.raises(InputError, match="have a power already"):
        load_beliefs(past.settings)


def test_over_a_rack_that_was_really_brought_up(past, run):
    """The pipeline's own record is read: its suite, its passes; a virtual rack's unknown energy is no number."""
    lab = certified(past.settings.home / "proven")
    status, out, _ = run("demo", "--minutes", "30", "--json", home=lab.settings.home)
    told = json.loads(out)
    assert status == 0
    assert told["picks"] == [] or all(pick["kwh"] is None for pick in told["picks"])
    with Ledger.open(lab.settings.ledger_url, lab.settings.artifacts, "test", lambda: NOW) as ledger:
        beliefs = load_beliefs(lab.settings)
        skus = load_skus(lab.settings.inventory)
        later = datetime.now(UTC) + DAY
        found = known(ledger, lab.rack, [lab.rack], beliefs, 0.9, skus, Budget(30.0, None), later)
        with pytest.raises(UsageError, match="under a bound of kWh"):
            known(ledger, lab.rack, [lab.rack], beliefs, 0.9, skus, Budget(30.0, 5.0), later)
    assert len(found.candidates) == 6
    assert all(c.hours_since["rehearsal"] == pytest.approx(24, abs=1) for c in found.candidates)
    assert all("standard" not in c.hours_since for c in found.candidates)
    status, out, _ = run("demo", "--after", "swap node1", home=lab.settings.home)
    assert status == 0 and "of unknown share" in out and "nothing holds" not in out
