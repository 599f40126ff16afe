"""The operator's verbs. Thin: parse, call, render. Commands load when they are called, so `--help` stays quick."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import TracebackType

import click

from toolkit import __version__
from toolkit.errors import RackproofError, UndecidedError, UsageError
from toolkit.report.text import printable

# verb -> (module in this package, attribute, the one line that --help shows without loading the module)
VERBS = {
    "plan": ("bring", "plan", "Show what would be done to a rack and why."),
    "bringup": ("bring", "bringup", "Do it: from bare metal to admitted. Run it again to resume."),
    "status": ("look", "status", "Show where every node stands."),
    "why": ("look", "why", "Say what keeps a node, or the nodes of a rack, from the pool."),
    "facts": ("look", "facts", "Read a node now, without judging."),
    "explain": ("look", "explain", "Say what a code means, where its limit comes from and what to do."),
    "burnin": ("burnin", "burnin", "Burn in nodes that are up: memory, compute, both together, host link."),
    "quarantine": ("setaside", "quarantine", "Set a node aside and take it out of the pool."),
    "release": ("setaside", "release", "Let a repaired node start again from PLANNED."),
    "verify": ("proof", "verify", "Check a certificate, offline."),
    "gates": ("gates", "gates", "Check gates against physics and what healthy hardware measured."),
    "parse": ("proof", "parse", "Parse a tool's output as rackproof would."),
    "inventory": ("inventory", "inventory", "Check rack files; serve as Ansible's dynamic inventory."),
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
    traceback.print_exception(kind, value, trace)
    click.echo("rackproof: this is a defect of rackproof; please report what stands above", err=True)
    sys.stderr.flush()
    os._exit(RackproofError.exit_code)
