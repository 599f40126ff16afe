"""From where an operator stands to the page: findings, the answer of `why`, alerts."""

import re

import pytest
import yaml
from click.testing import CliRunner
from documented import parse_line
from transcripts import ROOT, Step, sandbox

from toolkit.cli import rackproof

RULES = ROOT / "toolkit/report/prometheus/rackproof.rules.yml"


def alerts():
    """Every alert that is shipped."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_report_and_why_name_the_runbook(tmp_path, monkeypatch):
    """The file has the page's own text, escaped and once a code; the terminal has the command."""
    with sandbox(tmp_path, monkeypatch) as installed:
        for line, shown in (
            ("rackproof virtual up demo-small", ()),
            ("rackproof bringup demo-small --to imaged --confirm demo-small", ("…",)),
            ("rackproof quarantine node1 --reason smoke", ()),
            ("rackproof quarantine node2 --reason smoke", ()),
            ("rackproof why node1", ("…", "node1: runbook: rackproof explain OPERATOR")),
            ("rackproof report demo-small -o rack.html", ()),
        ):
            installed.run(Step(line, shown, 0))
    text = (tmp_path / "rack.html").read_text()
    assert text.count("Runbooks of the findings") == 1
    assert text.count('id="runbook-OPERATOR"') == 1
    assert "nothing rackproof measures moves it back" in text
    assert "<code>rackproof release NODE --reason &quot;what was done&quot;</code>" in text


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_names_its_page_and_what_to_type(alert):
    """Whoever is woken by it has a page, and each command in it can be typed."""
    told = alert["annotations"]
    assert told["runbook_url"] == f"reference/metrics/#{alert['alert'].lower()}"
    said = re.sub(r"\{\{\s*\$labels\.(\w+)\s*\}\}", r"\1", told["description"])
    for command in re.findall(r"(?:Next: |; |run )(rackproof [^;:.]+)", said):
        parse_line(re.sub(r" by hand$", "", command))


def test_alerts_link_to_where_a_site_serves_the_pages():
    """By --docs, and only with the rules: an address that is none is refused."""
    done = CliRunner().invoke(rackproof, ["metrics", "--shipped", "rules", "--docs", "https://docs.example/rackproof/"])
    urls = [r["annotations"]["runbook_url"] for g in yaml.safe_load(done.output)["groups"] for r in g["rules"]]
    assert urls == [f"https://docs.example/rackproof/{a['annotations']['runbook_url']}" for a in alerts()]
    for words in (
        ["--docs", "https://x"],
        ["--shipped", "rules", "--docs", 'https://x"'],
        ["--shipped", "dashboard", "--docs", "https://x"],
    ):
        assert CliRunner().invoke(rackproof, ["metrics", *words]).exception is not None
