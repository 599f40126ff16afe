"""`admit`: certified nodes into the pool, wave by wave."""

from __future__ import annotations

import sys

import click

from toolkit import settings as installed
from toolkit.cli.bring import tell_end
from toolkit.cli.output import emit, json_option, stderr, stdout
from toolkit.cli.wiring import context_of, ledger_of, now, rack_named


@click.command()
@click.argument("rack_name", metavar="RACK")
@click.option("--plan", "plan_only", is_flag=True, help="Show the waves and why; change nothing.")
@json_option
def admit(rack_name: str, plan_only: bool, as_json: bool) -> None:
    """Let RACK's certified nodes take jobs: a canary, then growing waves, each watched before the next.

    Run the same command again to go on after an interruption. How many and how long: pools/SITE.yml.
    """
    if plan_only:
        _show_plan(rack_name, as_json)
        return
    from dataclasses import asdict

    from toolkit.bringup import admit_certified, lapse_expired
    from toolkit.report.lines import count_states
    from toolkit.report.overview import next_command
    from toolkit.report.terminal import standings_view
    from toolkit.report.watch import Watch

    rack = rack_named(rack_name)
    with Watch(stderr()) as watch, context_of(rack, lambda p: watch.show(p.node, p.text, p.done)) as context:
        for node in lapse_expired(context):
            stderr().print(f"{node}: its certificate has expired; it is out of the pool until it passes again")
        summary = admit_certified(context, on_step=lambda s, nodes: watch.open_stage(s.stage, nodes))
        no_smoke = context.hands.policy.no_smoke
    told = asdict(summary) | {"no_smoke": no_smoke}
    if not as_json:
        tell_end(summary)
        if no_smoke:
            stdout().print(f"no smoke collective: {no_smoke}")
    emit(
        told,
        as_json,
        lambda: standings_view(f"{rack.name}: {count_states(summary.nodes)}", summary.nodes),
        next=lambda: next_command(rack.name, summary.nodes),
    )
    sys.exit(summary.exit_code)


def _show_plan(rack_name: str, as_json: bool) -> None:
    from dataclasses import asdict

    from toolkit.pool.admission_plan import plan_admission
    from toolkit.pool.policy_file import load_policy
    from toolkit.report.admission_plan import admission_plan_view

    settings = installed.load()
    rack = rack_named(rack_name, settings)
    policy = load_policy(settings, rack.site)
    with ledger_of(settings) as ledger:
        plan = plan_admission(ledger, rack, policy, now())
    told = asdict(plan) | {"seconds": plan.seconds}
    emit(told, as_json, lambda: admission_plan_view(plan), document="admission-plan")
