"""Alert rules and dashboard as shipped: Prometheus' own tool checks them, and they use only what is exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import warnings
from importlib import resources
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from toolkit.cli import VERBS, rackproof
from toolkit.report.metrics import HELP

SHIPPED = Path(str(resources.files("toolkit.report"))) / "prometheus"
RULES, DASHBOARD = SHIPPED / "rackproof.rules.yml", SHIPPED / "rackproof.dashboard.json"
ALERTS = Path(__file__).parent / "alerts" / "alerts.yml"
NAMES = re.compile(r"\brackproof_[a-z_]+\b")
# What Grafana puts in before it asks.
VARIABLES = {"$rack": ".*", "$gate": "HBM_MISCOMPARE"}


@pytest.fixture(scope="module")
def promtool():
    """promtool with these arguments; the tests are skipped, and say so loudly, without it."""
    tool = shutil.which("promtool")
    if tool is None:
        warnings.warn("NOT TESTED: alert rules and dashboard (Debian package prometheus)", stacklevel=2)
        pytest.skip("needs promtool of the Debian package prometheus")

    def run(*words):
        done = subprocess.run([tool, *map(str, words)], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions():
    """Every query of the dashboard: its panels' and its variables'."""
    told = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in told["panels"] for target in panel["targets"]]


def test_promtool_accepts_the_rules(promtool):
    """Syntax, and one name for each rule."""
    code, said = promtool("check", "rules", "--lint-fatal", RULES)
    assert code == 0, said
    assert "SUCCESS" in said


def test_every_alert_fires_on_its_trouble_and_none_on_a_rack_in_order(promtool):
    """promtool's own unit tests; each alert has a case in which it fires."""
    code, said = promtool("test", "rules", ALERTS)
    assert code == 0, said
    cases = ALERTS.read_text()
    named = set(re.findall(r"\bRackproof[A-Z][A-Za-z]+\b(?![.])", spelled(cases)))
    assert {rule["alert"] for rule in rules()} == named


def spelled(text):
    """A pattern of two alerts as the two names."""
    return re.sub(r"Rackproof\((\w+)\|(\w+)\)", r"Rackproof\1 Rackproof\2", text)


def test_a_rule_that_never_fires_is_noticed(promtool, tmp_path):
    """The unit tests can fail: without one alert they do."""
    kept = yaml.safe_load(RULES.read_text())
    for group in kept["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule["alert"] != "RackproofNodeQuarantined"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(kept))
    (tmp_path / "alerts.yml").write_text(re.sub(r"rule_files: .*", "rule_files: [rules.yml]", ALERTS.read_text()))
    code, said = promtool("test", "rules", tmp_path / "alerts.yml")
    assert code == 1
    assert "RackproofNodeQuarantined" in said


def test_rules_and_dashboard_use_only_what_is_exported():
    """And of what is exported, the dashboard shows all that is not a word about the build."""
    told = " ".join(rule["expr"] for rule in rules())
    shown = DASHBOARD.read_text()
    assert set(NAMES.findall(told)) <= set(HELP)
    assert set(NAMES.findall(shown)) <= set(HELP)
    assert len(set(NAMES.findall(shown))) > 15


def test_promtool_parses_every_query_of_the_dashboard(promtool, tmp_path):
    """Each as a recording rule, with Grafana's variables filled in."""
    asked = expressions()
    for variable, value in VARIABLES.items():
        asked = [expression.replace(variable, value) for expression in asked]
    assert len(asked) > 15
    assert not [expression for expression in asked if "$" in expression]
    recorded = [{"record": f"panel:{number}:query", "expr": expression} for number, expression in enumerate(asked)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    code, said = promtool("check", "rules", tmp_path / "panels.yml")
    assert code == 0, said


def test_panels_have_titles_ids_of_their_own_and_do_not_overlap():
    """A dashboard that Grafana lays out as it was drawn."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["targets"] for panel in panels)
    taken = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_command_that_an_alert_names_exists():
    """Who is woken by it types what it says."""
    said = " ".join(" ".join(rule["annotations"].values()) for rule in rules())
    verbs = set(re.findall(r"(?:Next: |; |run )rackproof ([a-z]+)", said))
    assert {"why", "status", "recert", "inventory", "metrics", "door"} <= verbs <= set(VERBS)


@pytest.mark.parametrize(("what", "file"), [("rules", RULES), ("dashboard", DASHBOARD)])
def test_what_is_shipped_is_printed(what, file):
    """Byte for byte, without a ledger."""
    done = CliRunner().invoke(rackproof, ["metrics", "--shipped", what])
    assert done.exit_code == 0
    assert done.output == file.read_text()
