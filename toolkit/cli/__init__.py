"""The operator's verbs. Thin: parse, call, render. Commands load when they are called, so `--help` stays quick."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import TracebackType

import click

from toolkit import __version__
from toolkit.errors import RackproofError, UndecidedError, UsageError
from toolkit.report.text import printable

# verb -> (module in this package, attribute, the one line that --help shows without loading the module)
VERBS = {
    "plan": ("bring", "plan", "Show what would be done to a rack and why."),
    "bringup": ("bring", "bringup", "Do it: from bare metal to admitted. Run it again to resume."),
    "admit": ("admit", "admit", "Let certified nodes take jobs, wave by wave; --plan shows the waves."),
    "status": ("look", "status", "Show where every node stands."),
    "why": ("look", "why", "Say what keeps a node, or the nodes of a rack, from the pool."),
    "facts": ("look", "facts", "Read a node now, without judging."),
    "explain": ("look", "explain", "Say what a code means, where its limit comes from and what to do."),
    "report": ("report", "report", "Write all that is on record of a rack as one HTML file."),
    "fabric": ("fabric", "fabric", "Compare a rack's cables with its plan: the cable work order."),
    "drift": ("drift", "drift", "Compare what is installed on a rack with its version lock."),
    "burnin": ("burnin", "burnin", "Burn in nodes that are up: memory, compute, both together, host link."),
    "recert": ("recert", "recert", "Plan what to test again: after a change, or within a budget."),
    "drain": ("withdraw", "drain", "Take a node out of the pool and its jobs off it."),
    "revoke": ("withdraw", "revoke", "Revoke certificates: no new jobs at once, then running jobs are moved."),
    "door": ("door", "door", "The door of a Kubernetes pool: install it, keep it."),
    "quarantine": ("setaside", "quarantine", "Set a node aside and take it out of the pool."),
    "release": ("setaside", "release", "Let a repaired node start again from PLANNED."),
    "recover": ("recover", "recover", "Reset, reboot or power-cycle a node that failed, where a source says it helps."),
    "lemons": ("lemons", "lemons", "Show parts, by serial, that were taken out again and again."),
    "rma": ("rma", "rma", "Pack what is known of a failed node into one archive for its vendor."),
    "certify": ("certify", "certify", "Sign a new certificate from the evidence on record, under the key of today."),
    "verify": ("proof", "verify", "Check a certificate, offline."),
    "image": ("image", "image", "Build, sign, verify and publish what nodes are imaged with."),
    "contract": ("contract", "contract", "Judge a contract's acceptance criteria: a page to sign, a signed report."),
    "keys": ("keys", "keys", "Say who signs certificates; rotate the key; export what was revoked."),
    "gates": ("gates", "gates", "Check gates against physics and what healthy hardware measured."),
    "serve": ("serve", "serve", "Show the ledger as web pages, live while a bringup runs; serve metrics."),
    "metrics": ("metrics", "metrics", "Print what the ledger says as Prometheus metrics; alert rules, dashboard."),
    "export": ("export", "export", "Write results as OCP T&V, JUnit, CSV, CTRF or Kubernetes events."),
    "parse": ("proof", "parse", "Parse a tool's output as rackproof would."),
    "schema": ("schema", "schema", "Print the JSON Schema of what a verb prints with --json."),
    "inventory": ("inventory", "inventory", "Check rack files; serve as Ansible's dynamic inventory."),
    "intake": ("intake", "intake", "Take rented nodes in: a rack file from an Ansible inventory or a cluster."),
    "netboot": ("netboot", "netboot", "The network boot service: DHCP, boot scripts served once, reports."),
    "power": ("power", "power", "Switch a rack on or off in the order its parts need; show its power."),
    "firmware": ("firmware", "firmware", "Compare and update firmware through a rack's BMCs."),
    "bmc": ("bmc", "bmc", "Look at a unit's BMC: log, BIOS, factory logins, password, boot from an image."),
    "virtual": ("virtual", "virtual", "A virtual rack to rehearse on."),
}


class Verbs(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order an operator meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded; None for an unknown name."""
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, from the table alone."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rackproof")
def rackproof() -> None:
    """Provision a GPU rack, prove it with burn-in, sign the proof, admit it.

    Exit codes: 0 all at goal, 1 some failed on evidence, 2 usage or input, 3 undecided (again may help),
    4 a defect of ours.
    """


def main() -> None:
    """Entry point of the `rackproof` command."""
    sys.excepthook = _defect
    # Other packages' plugins have no business in what is read here, and looking for them costs 40 ms of every start.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # What is imported at the start stays: looking through it for garbage every 700 objects costs a tenth of a start.
    gc.set_threshold(50_000)
    try:
        rackproof(standalone_mode=False)
    except RackproofError as failure:
        # A message may quote a node: no line of it may move the cursor.
        for line in f"rackproof: {failure}".splitlines():
            click.echo(printable(line, 2000), err=True)
        sys.exit(failure.exit_code)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(UsageError.exit_code)
    except click.Abort:
        click.echo("rackproof: interrupted; the same command again is the resume", err=True)
        sys.exit(UndecidedError.exit_code)
    except BrokenPipeError:
        # The reader went away (`rackproof status | head`): not our failure, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _defect(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """Python ends with status 1 for any uncaught exception, and 1 means "failed on evidence" here."""
    import traceback

    traceback.print_exception(kind, value, trace)
    click.echo("rackproof: this is a defect of rackproof; please report what stands above", err=True)
    sys.stderr.flush()
    os._exit(RackproofError.exit_code)
