"""The command line on the node: `python3 burnin.pyz run|emit|facts|version`.

exit 0   the suite came to its end, now or before; whether the hardware is good is not said here
exit 2   the command line is wrong
exit 3   another process runs a suite in this folder
exit 4   the records cannot be kept: disk full, folder of another run
exit 5   facts: NVML cannot be used
exit 143 stopped by SIGTERM; everything it had started is stopped too
"""

from __future__ import annotations

import argparse
import math
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypedDict

from burnin import VERSION

if TYPE_CHECKING:
    from burnin.child import Reporter

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_FURTHEST_S = 3600.0
_DAY_S = 24 * 3600.0
# One workload by itself, named here as well: importing the suites costs every other command its start-up time.
_COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv")
_AGAIN = ("again_hbm", "again_gemm", "again_pcie", *(f"again_nccl_{name}" for name in _COLLECTIVES))


class _Common(TypedDict):
    seconds: float
    folder: Path
    prefix: str


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.do
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="burnin", description="Measures one node's GPUs. Records; never judges.")
    commands = parser.add_subparsers(required=True, metavar="run | emit | facts | version")

    run = commands.add_parser("run", help="execute a suite, appending records to DIR/records.jsonl")
    run.set_defaults(do=_run)
    run.add_argument("--run", required=True, type=_run_id, metavar="ID", help="the run's name; once ended, never again")
    run.add_argument("--suite", choices=("rehearsal", "quick", "standard", "long", *_AGAIN), required=True)
    run.add_argument("--out", required=True, type=Path, metavar="DIR")
    run.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs the node should have")
    run.add_argument("--deadline", type=float, metavar="S", help="seconds for the whole suite")
    run.add_argument("--kernel-log", type=Path, default=Path("/dev/kmsg"), metavar="FILE")
    run.add_argument(
        "--begin-at", type=_begin, default=0.0, metavar="EPOCH",
        help="start the load then (seconds since 1970, at most an hour ahead): nodes in steps, or all at once",
    )  # fmt: skip
    run.add_argument(
        "--gpu-stagger", type=_seconds, default=0.0, metavar="S", help="seconds between the starts of two GPUs"
    )
    run.add_argument(
        "--take-over", type=_seconds_of_a_day, default=0.0, metavar="S",
        help="of an attempt that was cut, keep workloads that ended at most so long ago, in this boot",
    )  # fmt: skip
    run.add_argument(
        "--only", type=lambda text: tuple(text.split(",")), default=(), metavar="NAME,...",
        help="of the suite's workloads, these alone",
    )  # fmt: skip
    run.add_argument("--unproven", action="store_true", help="also run kernels that no GPU has confirmed yet")
    run.add_argument(
        "--env", type=_variable, action="append", default=[], metavar="NAME=VALUE",
        help="put into the workloads' environment, which is otherwise clean; recorded",
    )  # fmt: skip

    emit = commands.add_parser("emit", help="a run whose records and artifacts go to standard output, for a pod's log")
    emit.set_defaults(do=_emit)
    emit.add_argument("--run", required=True, type=_run_id, metavar="ID")
    emit.add_argument("--out", required=True, type=Path, metavar="DIR")
    emit.add_argument("--program", required=True, metavar="SHA256", help="of this program, as it was ordered")
    emit.add_argument("arguments", nargs="*", help="after `--`: what `run` takes beside")

    commands.add_parser("facts", help="print identity and health of the GPUs as JSON").set_defaults(do=_facts)
    commands.add_parser("version", help="print the version").set_defaults(do=_version)

    workload = commands.add_parser("workload")  # what a suite starts: records on standard output
    workload.set_defaults(do=_workload)
    workload.add_argument("name", choices=("nvml", *_WORKLOADS))
    workload.add_argument("--run", required=True)
    workload.add_argument("--suite", required=True)
    workload.add_argument("--out", required=True, type=Path)
    workload.add_argument("--prefix", default="")
    workload.add_argument("--settle", type=float, default=0.0)
    workload.add_argument("--earlier")
    workload.add_argument("--gpu", type=int)
    workload.add_argument("--pci")
    workload.add_argument("--seconds", type=float, default=0.0)
    workload.add_argument("--rounds", type=int, default=1)
    workload.add_argument("--retention", type=float, default=0.0)
    workload.add_argument("--cycles", type=int, default=1)
    workload.add_argument("--rest", type=float, default=0.0)
    workload.add_argument("--thorough", action="store_true")
    workload.add_argument("--unproven", action="store_true")
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


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _FURTHEST_S:
        raise argparse.ArgumentTypeError(f"a number of seconds between 0 and {_FURTHEST_S:.0f} was expected")
    return value


def _seconds_of_a_day(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _DAY_S:
        raise argparse.ArgumentTypeError(f"a number of seconds between 0 and {_DAY_S:.0f} was expected")
    return value


def _begin(text: str) -> float:
    """A time since the epoch that is near: a clock that is wrong must not make the node wait for ever."""
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not value <= time.time() + _FURTHEST_S:
        raise argparse.ArgumentTypeError("seconds since 1970 were expected, at most an hour ahead of this node's clock")
    return value


def _run(options: argparse.Namespace) -> int:
    from burnin import suite, suites
    from burnin.journal import BusyError, Journal, JournalError

    signal.signal(signal.SIGTERM, _stop)
    chosen = suites.BY_NAME[options.suite]
    if options.deadline is not None:
        chosen = replace(chosen, deadline_s=options.deadline)
    if options.only:
        known = {workload.name for workload in chosen.workloads}
        strange = sorted(set(options.only) - known)
        if strange:
            return _fail(2, ValueError(f"suite {chosen.name} has no workload {', '.join(strange)}"))
        chosen = replace(chosen, workloads=tuple(w for w in chosen.workloads if w.name in options.only))
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
                timing=suite.Timing(options.begin_at, options.gpu_stagger),
                unproven=options.unproven,
                take_over_s=options.take_over,
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


def _emit(options: argparse.Namespace) -> int:
    import os

    from burnin import emit

    carrier, node = (os.environ.get(name, "") for name in ("RACKPROOF_CARRIER", "RACKPROOF_NODE"))
    return emit.run(emit.Carried(options.run, carrier, node, options.program), options.out, options.arguments)


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
    if options.name == "nvml":
        from burnin import telemetry

        return telemetry.watch(options.run, options.suite, options.out, options.prefix, options.settle, options.earlier)
    return _WORKLOADS[options.name](options)


def _hbm(options: argparse.Namespace) -> int:
    from burnin.hbm import sweeps

    return sweeps.run(
        *_subject(options),
        seed=f"{options.run}/{options.gpu}",
        rounds=options.rounds,
        retention_s=options.retention,
        thorough=options.thorough,
        **_common(options),
    )


def _gemm(options: argparse.Namespace) -> int:
    from burnin.gemm import run

    # one seed for all GPUs: their digests are compared
    return run.run(*_subject(options), seed=options.run, unproven=options.unproven, **_common(options))


def _together(options: argparse.Namespace) -> int:
    from burnin import together

    return together.run(
        *_subject(options),
        seed=f"{options.run}/{options.gpu}/together",
        retention_s=options.retention,
        cycles=options.cycles,
        rest_s=options.rest,
        **_common(options),
    )


def _pcie(options: argparse.Namespace) -> int:
    from burnin.pcie import copies

    return copies.run(*_subject(options), seed=f"{options.run}/{options.gpu}/pcie", **_common(options))


_WORKLOADS: dict[str, Callable[[argparse.Namespace], int]] = {
    "hbm": _hbm,
    "gemm": _gemm,
    "together": _together,
    "pcie": _pcie,
}


def _subject(options: argparse.Namespace) -> tuple[Reporter, str]:
    """What every workload on a GPU begins with."""
    from burnin.child import Reporter

    return Reporter(options.name, options.gpu), options.pci


def _common(options: argparse.Namespace) -> _Common:
    """What every workload on a GPU takes beside."""
    return {"seconds": options.seconds, "folder": options.out, "prefix": options.prefix}


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(status: int, error: Exception) -> int:
    sys.stderr.write(f"burnin: {error}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
