"""Stand-in of nccl-tests 2.17 (`all_reduce_perf` and its siblings) on one node: its options, output and exit codes.

Times come from the node's state; the load on every GPU, and what that does to a faulty one, is real to all other
stand-ins. One process and no MPI: `-t THREADS -g GPUS`.
"""

from __future__ import annotations

import getopt
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .nccl_model import COLLECTIVES, Collective, channel_lines, choose_path, seconds
from .nccl_model import Path as Route
from .state import Gpu, NoDriverError, State, packed_version, read

_NCCL_CODE = 22809
_FLOAT_BYTES = 4
# Exit codes of nccl-tests 2.17 (testResult_t): a usage error is 0, sizes that make no sense 255.
_CUDA_ERROR, _NOT_IMPLEMENTED, _WRONG_SIZES = 2, 5, 255
_OPTIONS = "t:g:b:e:i:f:n:m:w:N:p:c:o:d:r:z:y:T:hG:C:a:R:S:"
_LONG = {
    "nthreads": "t", "ngpus": "g", "minbytes": "b", "maxbytes": "e", "stepbytes": "i", "stepfactor": "f", "iters": "n",
    "agg_iters": "m", "warmup_iters": "w", "check": "c", "timeout": "T",
}  # fmt: skip
_SET_UP_SECONDS = 0.3
_LONGEST_ROW_SECONDS = 0.12  # a row takes its real time or this, whichever is shorter


class _Failed(Exception):  # noqa: N818 - a result of the test, not a defect of the stand-in
    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Options:
    """What was asked for; sizes in bytes, defaults as in nccl-tests 2.17."""

    threads: int = 1
    gpus: int = 1
    smallest: int = 32 << 20
    largest: int = 32 << 20
    step_bytes: int = 1 << 20
    step_factor: int = 1
    iterations: int = 20
    warmups: int = 1
    check: int = 1

    @property
    def ranks(self) -> int:
        """GPUs in the communicator."""
        return self.threads * self.gpus

    def sizes(self) -> list[int]:
        """Sizes to run, ascending."""
        found, size = [], self.smallest
        while size <= self.largest:
            found.append(size)
            size = size * self.step_factor if self.step_factor > 1 else size + max(self.step_bytes, 1)
        return found


def main() -> int:
    """Runs the test its own name says; returns its exit code."""
    program = Path(sys.argv[0]).name
    try:
        options = parse(sys.argv[1:], program)
        _run(COLLECTIVES[program], options, os.environ)
    except _Failed as failed:
        sys.stdout.write(str(failed))
        return failed.code
    return 0


def parse(arguments: Sequence[str], program: str) -> Options:
    """The command line, read as getopt_long does."""
    try:
        pairs, _ = getopt.gnu_getopt(list(arguments), _OPTIONS, [f"{name}=" for name in _LONG])
    except getopt.GetoptError as error:
        raise _Failed(
            0, f"invalid option '{error.opt}'\nUSAGE: {program} \n\t[-t,--nthreads <num threads>] \n\t...\n"
        ) from error
    given = {_LONG.get(name[2:], name.lstrip("-")): value for name, value in pairs}
    if "h" in given:
        raise _Failed(
            0, f"USAGE: {program} \n\t[-t,--nthreads <num threads>] \n\t[-g,--ngpus <gpus per thread>] \n\t...\n"
        )
    plain = Options()
    options = Options(
        threads=int(given.get("t", plain.threads)),
        gpus=int(given.get("g", plain.gpus)),
        smallest=_size(given.get("b", plain.smallest)),
        largest=_size(given.get("e", plain.largest)),
        step_bytes=_size(given.get("i", plain.step_bytes)),
        step_factor=int(given.get("f", plain.step_factor)),
        iterations=int(given.get("n", plain.iterations)),
        warmups=int(given.get("w", plain.warmups)),
        check=int(given.get("c", plain.check)),
    )
    if options.smallest > options.largest:
        text = f"invalid sizes for 'minbytes' and 'maxbytes': {options.smallest} > {options.largest}\n"
        raise _Failed(_WRONG_SIZES, text)
    return options


def _size(text: str | int) -> int:
    """`8`, `1M`, `16G` in bytes."""
    if isinstance(text, int):
        return text
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1:].upper(), 1)
    try:
        return int(float(text[:-1] if scale > 1 else text) * scale)
    except ValueError as error:
        raise _Failed(_WRONG_SIZES, f"invalid size specified: {text}\n") from error


def _run(collective: Collective, options: Options, environment: Mapping[str, str]) -> None:
    _say(f"# nccl-tests version {packed_version('nccl-tests')} nccl-headers={_NCCL_CODE} nccl-library={_NCCL_CODE}")
    _say(f"# Collective test starting: {collective.program}")
    by_factor = options.step_factor > 1
    step = f"{options.step_factor}(factor)" if by_factor else f"{options.step_bytes}(bytes)"
    _say(
        f"# nThread {options.threads} nGpus {options.gpus} minBytes {options.smallest} maxBytes {options.largest} "
        f"step: {step} warmup iters: {options.warmups} iters: {options.iterations} agg iters: 1 "
        f"validation: {options.check} graph: 0"
    )
    _say("#")
    _say("# Using devices")
    state = _state()
    gpus = _devices(state, options, environment)
    for rank, gpu in enumerate(gpus):
        pci = gpu.need("pci").lower()[4:11]
        host = socket.gethostname().split(".")[0]
        place = f"on {host:>10} device {rank:2d} [{pci}:00]"
        _say(f"#  Rank {rank:2d} Group  0 Pid {os.getpid():6d} {place} {gpu.need('name')}")
    route = choose_path(state, gpus, collective, environment)
    _log_channels(state, gpus, route, environment)
    time.sleep(_SET_UP_SECONDS)
    _header()
    if state.values["nccl.hang"] == "1":
        while True:  # the ranks wait for one another for ever
            signal.pause()
    bandwidths = [bw for size in options.sizes() for bw in _row(collective, options, gpus, route, size)]
    _say("# Out of bounds values : 0 OK")
    _say(f"# Avg bus bandwidth    : {sum(bandwidths) / len(bandwidths):g} ")
    _say("#")
    _say(f"# Collective test concluded: {collective.program}")


def _header() -> None:
    """The table's three lines of titles (writeResultHeader in nccl-tests' util.cu)."""
    _say("#")
    _say(f"# {'':61}out-of-place{'':23}in-place          ")
    half = "  {:>7}  {:>6}  {:>6}  {:>6}"
    for titles in (("size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong"),
                   ("(B)", "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "")):  # fmt: skip
        size, count, kind, redop, root, *columns = titles
        pair = half.format(*columns)
        _say(f"# {size:>10}  {count:>12}  {kind:>8}  {redop:>6}  {root:>6}{pair}{pair} ")


def _state() -> State:
    try:
        state = read()
    except NoDriverError as error:
        raise _cuda_failure("no CUDA-capable device is detected") from error
    if not state.fabric_ready:
        raise _cuda_failure("system not yet initialized")
    return state


def _devices(state: State, options: Options, environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """GPUs in rank order: those CUDA_VISIBLE_DEVICES lists, else all."""
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    visible = list(state.gpus)
    if wanted is not None:
        names = {name: gpu for gpu in state.gpus for name in (str(gpu.index), gpu.need("uuid"))}
        visible = [names[name.strip()] for name in wanted.split(",") if name.strip() in names]
    if options.ranks > len(visible):
        text = f"Invalid number of GPUs: {options.ranks} requested but only {len(visible)} were found.\n"
        raise _Failed(_NOT_IMPLEMENTED, f"{text}Please check the number of processes and GPUs per process.\n")
    chosen = tuple(visible[: options.ranks])
    if any(gpu.lost for gpu in chosen):
        raise _cuda_failure("CUDA-capable device(s) is/are busy or unavailable")
    return chosen


def _log_channels(state: State, gpus: Sequence[Gpu], route: Route, environment: Mapping[str, str]) -> None:
    """NCCL's own lines, to standard output or to NCCL_DEBUG_FILE (%h host, %p process)."""
    if environment.get("NCCL_DEBUG", "").upper() not in ("INFO", "TRACE"):
        return
    text = "".join(f"{line}\n" for line in channel_lines(state, gpus, route, environment))
    where = environment.get("NCCL_DEBUG_FILE")
    if where:
        host = socket.gethostname().split(".")[0]
        Path(where.replace("%h", host).replace("%p", str(os.getpid()))).write_text(text)
    else:
        sys.stdout.write(text)


def _row(collective: Collective, options: Options, gpus: Sequence[Gpu], route: Route, size: int) -> tuple[float, float]:
    """One line of the table: out of place, then in place. Returns both busbw, in GB/s."""
    ranks = len(gpus)
    elements = size // _FLOAT_BYTES
    size = elements * _FLOAT_BYTES
    root = -1
    sys.stdout.write(f"{size:12d}  {elements:12d}  {'float':>8}  {collective.redop:>6}  {root:6d}")
    busbw = []
    for place in range(2):
        # In place saves a little at small sizes and changes nothing at large ones, as measured.
        took = (seconds(route, collective, size, ranks) - place * 0.4e-6) * _scatter(gpus[0], size, place)
        _load(collective, options, gpus, route, size)
        time.sleep(min(took * (options.iterations + options.warmups), _LONGEST_ROW_SECONDS / 2))
        algbw = size / took / 1e9
        busbw.append(algbw * collective.bus_share(ranks))
        wrong = f"{0:6d}" if options.check else "   N/A"
        sys.stdout.write(f"  {_number(took * 1e6, 7)}  {_number(algbw, 6)}  {_number(busbw[-1], 6)}  {wrong}")
    _say("")
    return busbw[0], busbw[1]


def _scatter(gpu: Gpu, size: int, place: int) -> float:
    """What differs between two nodes and between two runs: up to 0.4 %, by the GPU, the row and the process."""
    drawn = hashlib.sha256(f"{gpu.need('serial')} {size} {place} {os.getpid()}".encode()).digest()
    return 1 + 0.008 * (drawn[0] / 255 - 0.5)


def _load(collective: Collective, options: Options, gpus: Sequence[Gpu], route: Route, size: int) -> None:
    """The bytes every GPU moves for one half of a row; a GPU that falls off the bus ends the test."""
    times = options.iterations + options.warmups
    crossing = int(size * collective.bus_share(len(gpus))) * times
    for gpu in gpus:
        gpu.add_moved(2 * size * times)  # memory is read and written
        if route.crosses_nvlink:
            gpu.add_nvlink(crossing)
    if any(gpu.lost for gpu in gpus):
        raise _cuda_failure("unspecified launch failure")


def _cuda_failure(text: str) -> _Failed:
    host, pid = socket.gethostname().split(".")[0], os.getpid()
    lines = (
        f"{host}: Test CUDA failure common.cu:1051 '{text}'",
        f" .. {host} pid {pid}: Test failure common.cu:1011",
    )
    return _Failed(_CUDA_ERROR, "\n" + "\n".join(lines) + "\n")


def _number(value: float, width: int) -> str:
    """A number in a column as nccl-tests' getFloatStr fits it: fewer decimals as it grows."""
    digits = len(str(int(value))) if value >= 1 else 0
    decimals = 2 if digits < width - 2 else 1 if digits < width - 1 else 0
    return f"{value:{width}.{decimals}f}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
