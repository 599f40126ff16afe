"""The burn-in's plan as an operator and a script see it, before anything runs."""

import json
import sys
from io import StringIO

import pytest
from rich.console import Console

import toolkit.cli.burnin as verb
from toolkit.cli import main
from toolkit.cli.burnin import planned_burnin
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Suite
from toolkit.report.burnin_plan import burnin_plan_view
from toolkit.settings import load


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command on an empty ledger; whoever reaches for a node fails. Answers status, stdout and stderr."""

    def reach(rack, progress=None):
        raise AssertionError(f"{rack.name} was touched")

    def start(*words):
        monkeypatch.setattr(verb, "context_of", reach)
        monkeypatch.setenv("RACKPROOF_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["rackproof", *words])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return start


def lines_of(rack, suite, explain):
    """The view in 80 columns."""
    settings = load({})
    found = load_rack(rack, settings.inventory)
    plan = planned_burnin(settings, found, [n.name for n in found.nodes], suite)
    console = Console(file=StringIO(), width=80, highlight=False)
    console.print(burnin_plan_view(plan, explain=explain))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("rack", ["dgx-h100-su", "gb200-nvl72", "demo", "demo-small"])
@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("explain", [False, True])
def test_it_fits_80_columns(rack, suite, explain):
    """No cell is cut, and no number is broken over two lines."""
    lines = lines_of(rack, suite, explain)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any(line.split()[:1] == ["total"] for line in lines)


def test_the_table_of_a_scalable_unit_reads_at_a_glance():
    """A line a level, in order; what runs, what is planned, totals of both."""
    lines = lines_of("dgx-h100-su", Suite.STANDARD, explain=False)
    rows = [line.split() for line in lines]
    assert "suite standard on 31 nodes, 248 GPUs" in lines[0]
    assert ["nodes", "in", "parallel", "runs", "suite", "standard", "10.3", "53", "52.4", "317"] in rows
    assert ["leaf", "runs", "all_reduce,", "alltoall", "3.5", "10", "18.2", "317"] in rows
    assert ["rails", "in", "pairs", "runs", "all_reduce", "7.1", "30", "37.2", "317"] in rows
    assert [row[0] for row in rows if row[:1] == ["total"]] == ["total"]
    text = " ".join(" ".join(lines).split())
    quick = [line.split() for line in lines_of("dgx-h100-su", Suite.QUICK, explain=False)]
    assert [row[:2] for row in quick if row[:1] == ["total"]] == [["total", "today"], ["total", "planned"]]
    assert "rack to rack: not run: it takes two racks" in text
    assert "not there: NVLink domain: NVLink ends at the node" in text
    assert "the GPUs take up 173.6 kW at 10 kW/s, in 17 s" in text


def test_the_unknown_is_a_word_with_its_reason():
    """A virtual rack: no zero where nothing is known."""
    lines = lines_of("demo", Suite.REHEARSAL, explain=True)
    (row,) = [line.split() for line in lines if line.startswith("total")]
    assert row == ["total", "unknown", "32", "unknown", "unknown"]
    assert any("states no gpu_power_watts" in line for line in lines)


def test_plan_shows_what_the_burn_in_will_take(run):
    """Below the stages, as text and as JSON."""
    status, out, _ = run("plan", "dgx-h100-su")
    assert status == 0
    assert "burn-in of dgx-h100-su: suite standard on 31 nodes, 248 GPUs" in out
    status, out, _ = run("plan", "dgx-h100-su", "--json")
    burnin = json.loads(out)["burnin"]
    assert burnin["today"]["minutes_at_most"]["value"] > burnin["today"]["minutes"]["value"] > 9
    assert [level["runs_today"] for level in burnin["levels"]] == [True, False, True, True, True, False]
    assert burnin["levels"][0]["tests"][0]["cost"]["kw"] == {
        "value": pytest.approx(316.2),
        "source": "31 nodes x 10,200 W",
        "lacking": [],
    }


def test_a_plan_without_a_burn_in_has_none(run):
    """The goal lies before it."""
    _, out, _ = run("plan", "dgx-h100-su", "--to", "JOINED")
    assert "burn-in of" not in out
    _, out, _ = run("plan", "dgx-h100-su", "--to", "JOINED", "--json")
    assert json.loads(out)["burnin"] is None


def test_burnin_plan_prints_and_runs_nothing(run):
    """On nodes in any state: nobody is touched, and every number says where it comes from."""
    status, out, err = run("burnin", "dgx-h100-su", "--plan", "--suite", "long")
    assert (status, err) == (0, "")
    assert "suite long on 31 nodes" in out
    assert "hbm 2700 s + gemm 900 s + together 2700 s" in out
    assert "16 pairs at once over 8 rails" in out
    assert "with suite long the nodes alone are measured; the other levels follow suite standard" in out
    status, out, _ = run("burnin", "dgx03", "--rack", "dgx-h100-su", "--plan", "--json")
    plan = json.loads(out)
    assert (plan["nodes"], plan["gpus"]) == (["dgx03"], 8)
    assert plan["levels"][3]["absent"].startswith("dgx03 is alone")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dgx-h100-su", "--with", "gb200-nvl72"], "--with goes with --plan"),
        (["dgx-h100-su", "--plan", "--with", "dgx-h100-su"], "a rack is named twice"),
        (["dgx-h100-su", "--plan", "--with", "nowhere"], "there is no rack"),
        (["dgx-h100-su", "--plan", "--suite", "rehearsal"], "is no virtual rack"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(run, words, said):
    """Exit 2, nothing on stdout."""
    status, out, err = run("burnin", *words)
    assert (status, out) == (2, "")
    assert said in err


def test_an_unlike_rack_is_named_as_the_reason(run):
    """A DGX unit against an NVL72 rack has no rate that both should reach."""
    _, out, _ = run("burnin", "dgx-h100-su", "--plan", "--with", "gb200-nvl72")
    assert "rack to rack: gb200-nvl72 is not of profile dgx-h100" in out
