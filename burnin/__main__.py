"""The command line on the node: `python3 burnin.pyz run|facts|version`.

exit 0   the suite came to its end, now or before; whether the hardware is good is not said here
exit 2   the command line is wrong
exit 3   another process runs a suite in this folder
exit 4   the records cannot be kept: disk full, folder of another run
exit 5   facts: NVML cannot be used
exit 143 stopped by SIGTERM; everything it had started is stopped too
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

from burnin import VERSION

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.do
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="burnin", description="Measures one node's GPUs. Records; never judges.")
    commands = parser.add_subparsers(required=True, metavar="run | facts | version")

    run = commands.add_parser("run", help="execute a suite, appending records to DIR/records.jsonl")
    run.set_defaults(do=_run)
    run.add_argument("--run", required=True, type=_run_id, metavar="ID", help="the run's name; once ended, never again")
    run.add_argument("--suite", choices=("quick", "standard"), required=True)
    run.add_argument("--out", required=True, type=Path, metavar="DIR")
    run.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs the node should have")
    run.add_argument("--deadline", type=float, metavar="S", help="seconds for the whole suite")
    run.add_argument("--kernel-log", type=Path, default=Path("/dev/kmsg"), metavar="FILE")
    run.add_argument(
        "--env", type=_variable, action="append", default=[], metavar="NAME=VALUE",
        help="put into the workloads' environment, which is otherwise clean; recorded",
    )  # fmt: skip

    commands.add_parser("facts", help="print identity and health of the GPUs as JSON").set_defaults(do=_facts)
    commands.add_parser("version", help="print the version").set_defaults(do=_version)

    workload = commands.add_parser("workload")  # what a suite starts: records on standard output
    workload.set_defaults(do=_workload)
    workload.add_argument("name", choices=("nvml", "hbm"))
    workload.add_argument("--run", required=True)
    workload.add_argument("--suite", required=True)
    workload.add_argument("--out", required=True, type=Path)
    workload.add_argument("--prefix", default="")
    workload.add_argument("--settle", type=float, default=0.0)
    workload.add_argument("--gpu", type=int)
    workload.add_argument("--pci")
    workload.add_argument("--seconds", type=float, default=60.0)
    workload.add_argument("--rounds", type=int, default=1)
    return parser


def _run_id(text: str) -> str:
    if not _RUN_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("letters, digits, '.', '_', ':' and '-' only, at most 128")
    return text


def _variable(text: str) -> tuple[str, str]:
    found = _VARIABLE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("NAME=VALUE was expected")
    return found[1], found[2]


def _run(options: argparse.Namespace) -> int:
    from burnin import suite
    from burnin.journal import BusyError, Journal, JournalError

    signal.signal(signal.SIGTERM, _stop)
    chosen = next(s for s in suite.SUITES if s.name == options.suite)
    if options.deadline is not None:
        chosen = replace(chosen, deadline_s=options.deadline)
    try:
        journal = Journal(options.out, options.run)
        if not journal.ended:
            suite.run(
                chosen,
                journal,
                options.run,
                expected_gpus=options.gpus,
                log=options.kernel_log,
                environment=dict(options.env),
            )
        journal.close()
    except BusyError as error:
        return _fail(3, error)
    except JournalError as error:
        return _fail(4, error)
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """Turn the signal into an exception, so that everything started is stopped on the way out."""
    raise SystemExit(128 + number)


def _facts(options: argparse.Namespace) -> int:
    import json

    from burnin import snapshot
    from burnin.device.nvml import Nvml, NvmlUnavailableError

    try:
        nvml = Nvml()
    except NvmlUnavailableError as error:
        _print(json.dumps({"error": error.word, "detail": str(error)}))
        return 5
    _print(json.dumps(snapshot.document(nvml, snapshot.snapshots(nvml))))
    return 0


def _version(options: argparse.Namespace) -> int:
    _print(VERSION)
    return 0


def _workload(options: argparse.Namespace) -> int:
    from burnin.child import Reporter

    if options.name == "nvml":
        from burnin import telemetry

        return telemetry.watch(options.run, options.suite, options.out, options.prefix, options.settle)
    from burnin.hbm import fill_verify

    return fill_verify.run(
        Reporter(fill_verify.NAME, options.gpu),
        options.pci,
        seed=f"{options.run}/{options.gpu}",
        seconds=options.seconds,
        rounds=options.rounds,
        evidence=options.out / f"{options.prefix}hbm_miscompares_gpu{options.gpu}.json",
    )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(status: int, error: Exception) -> int:
    sys.stderr.write(f"burnin: {error}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
