"""What is due, in which order, what comes next; and the verb that does it, for a timer."""

import io
import json
from datetime import timedelta

import pytest

from tests.recertify.test_recertify import certificate
from toolkit.cli.recert import site_of, what_is_known
from toolkit.errors import UsageError
from toolkit.pool.recert_candidates import Budget
from toolkit.pool.recert_due import certificate_ends, due, next_due
from toolkit.pool.recert_file import load_beliefs


def looked(service):
    """What is known, what ends when, and what is believed, as of the service's time."""
    from toolkit.cli import recert

    beliefs = load_beliefs(service.lab.settings)
    with service.ledger() as ledger:
        recert.now, kept = service.clock.now, recert.now
        try:
            found, _ = what_is_known(service.lab.settings, ledger, service.rack, Budget(None, None))
        finally:
            recert.now = kept
        return found, certificate_ends(ledger, service.rack), beliefs


def turns(service):
    """What is due."""
    found, ends, beliefs = looked(service)
    return [(one.node, one.suite, one.whole) for one in due(service.rack, found, ends, beliefs, service.clock.now())]


def test_nothing_is_due_of_a_rack_that_was_just_measured(service):
    """And it is said when something will be: before the certificate ends, not after."""
    assert turns(service) == []
    found, ends, beliefs = looked(service)
    words = next_due(found, ends, beliefs, service.clock.now())
    first = min(ends.values()) - timedelta(hours=beliefs.margin_hours.value)
    assert words == f"next due: node1, {first:%Y-%m-%d %H:%M}Z: its certificate is about to end"


def test_a_certificate_that_is_about_to_end_is_due_with_all_that_it_rests_on(service):
    """Three days before: rails and levels too, so that the next one lives its whole life."""
    service.later(days=25)
    assert turns(service) == [("node1", "rehearsal", True), ("node2", "rehearsal", True)]


def test_evidence_that_is_too_old_is_due_whatever_it_pays(service):
    """A site that renews more often than its certificates end: each suite that is older, the oldest first."""
    text = (service.lab.settings.inventory / "recert.yml").read_text()
    own = service.lab.settings.home / "recert.yml"
    own.write_text(text.replace("oldest_hours: {value: 720", "oldest_hours: {value: 100"))
    assert turns(service) == []
    service.later(hours=50)
    service.run(service.tasks("node2"))
    assert turns(service) == [("node1", "rehearsal", False)]
    service.run(service.tasks("node1"))
    assert turns(service) == []


def test_a_missed_week_is_caught_up_once(service):
    """However often a timer did not fire, each node is due once, and then it is not."""
    service.later(days=26)
    service.run(service.tasks(whole=True))
    assert turns(service) == []
    assert certificate(service).expires_at - service.clock.now() > timedelta(days=29)


def test_the_site_of_a_rack_is_that_of_its_pool(service):
    """Capacity is counted over all of it."""
    assert {"demo-small", "demo"} == {rack.name for rack in site_of(service.lab.settings, service.rack)}


@pytest.mark.parametrize(
    "arguments",
    [[], ["--due", "--minutes", "30"], ["--after", "swap node1", "--kwh", "1"], ["--due", "--yes"],
     ["--due", "--job-nodes", "3"]],
)  # fmt: skip
def test_a_run_is_told_one_thing_to_do(arguments):
    """What is due, a change, or a budget: anything else is a usage error before anything is touched."""
    from click.testing import CliRunner

    from toolkit.cli.recert import recert

    done = CliRunner().invoke(recert, ["run", "demo-small", *arguments])
    assert isinstance(done.exception, UsageError)
    assert "say what" in done.exception.message


def test_the_help_says_what_a_timer_reads():
    """Exit codes are part of the verb."""
    from click.testing import CliRunner

    from toolkit.cli.recert import recert

    said = CliRunner().invoke(recert, ["run", "--help"]).output
    assert "--due" in said and "1 a node failed on evidence" in said.replace("\n  ", " ")


def test_turns_are_shown_with_part_and_next_command(service):
    """As an operator reads them at two in the morning, and as JSON."""
    from rich.console import Console

    from toolkit.cli.output import plain
    from toolkit.report.recert_run import turns_view

    service.schedule(running={"node1": "job 17 of alice"})
    done = service.run(service.tasks())
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(turns_view(done.rack, done.turns, ["next due: node2"]))
    shown = console.export_text()
    assert "re-certification of demo-small: 1 IN_USE, 1 RENEWED" in shown
    assert "node1: job 17 of alice runs there" in shown
    assert f"next: rackproof recert run {service.rack.name} --due" in shown
    told = json.loads(json.dumps(done, default=plain))
    assert [turn["end"] for turn in told["turns"]] == ["IN_USE", "RENEWED"]
