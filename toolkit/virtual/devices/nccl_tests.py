"""Stand-in of nccl-tests 2.17 (`all_reduce_perf` and its siblings): its options, output and exit codes.

Times come from the nodes' states; the load on every GPU, the bytes on NVLinks and HCAs, and what that does to a faulty
one, are real to all other stand-ins. Started by itself it is one process, `-t THREADS -g GPUS`; started by mpirun it is
one of many ranks with a GPU each, which find one another as `nccl_ranks` says. Warm-ups move nothing.
"""

from __future__ import annotations

import getopt
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from . import nccl_ranks
from .nccl_model import COLLECTIVES, CROWD, Collective, between_nodes, channel_lines, choose_path, seconds, start_lines
from .nccl_model import Path as Route
from .nccl_ranks import Member, Ranks
from .state import Gpu, NoDriverError, State, packed_version, read

_NCCL_CODE = 22809
_FLOAT_BYTES = 4
# Exit codes of nccl-tests 2.17 (testResult_t): a usage error is 0, sizes that make no sense 255.
_CUDA_ERROR, _NCCL_ERROR, _NOT_IMPLEMENTED, _WRONG_SIZES = 2, 3, 5, 255
# alltoall.cu and sendrecv.cu: "We don't support in-place", so that half is timed and not checked
_UNCHECKED_IN_PLACE = ("alltoall_perf", "sendrecv_perf")
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
        _say_as_rank(str(failed))
        return failed.code
    except nccl_ranks.LostError as lost:
        _say_as_rank(_failure("NCCL", f"remote process exited or there was a network error: {lost}"))
        return _NCCL_ERROR
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


@dataclass(frozen=True)
class _Session:
    """One process of a run: its GPUs, all ranks of the communicator in order, and the way between them."""

    collective: Collective
    options: Options
    state: State
    gpus: tuple[Gpu, ...]
    members: tuple[Member, ...]
    route: Route
    ranks: Ranks | None
    hcas: tuple[str, ...]

    @property
    def nodes(self) -> int:
        """Hosts in the communicator."""
        return len({member.host for member in self.members})

    @property
    def mine(self) -> list[int]:
        """Ranks of this process."""
        return [self.ranks.rank] if self.ranks else list(range(len(self.gpus)))


def _run(collective: Collective, options: Options, environment: Mapping[str, str]) -> None:
    ranks = nccl_ranks.joined(environment)
    if ranks and ranks.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - to the end: rank 0 alone prints
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
    session = _join(collective, options, environment, ranks)
    for rank, member in enumerate(session.members):
        place = f"on {member.host:>10} device {member.device:2d} [{member.pci}:00]"
        _say(f"#  Rank {rank:2d} Group  0 Pid {member.pid:6d} {place} {member.name}")
    if any(member.absent for member in session.members):
        if not session.members[session.mine[0]].absent:
            _log(session, environment, start_lines([m.host for m in session.members], session.mine))
        while True:  # the bootstrap waits for all ranks
            signal.pause()
    _log_channels(session, environment)
    time.sleep(_SET_UP_SECONDS)
    _header()
    if any(member.hangs for member in session.members):
        while True:  # the ranks wait for one another for ever
            signal.pause()
    bandwidths = [bw for size in options.sizes() for bw in _row(session, size)]
    _say("# Out of bounds values : 0 OK")
    _say(f"# Avg bus bandwidth    : {sum(bandwidths) / len(bandwidths):g} ")
    _say("#")
    _say(f"# Collective test concluded: {collective.program}")


def _join(collective: Collective, options: Options, environment: Mapping[str, str], ranks: Ranks | None) -> _Session:
    """The communicator: the GPUs of this process alone, or those of all ranks. Blocks until every rank is there."""
    state = _state()
    gpus = _devices(state, options, environment, ranks.local_rank if ranks else 0)
    hcas = state.chosen_hcas(environment.get("NCCL_IB_HCA", ""))
    inside = choose_path(state, gpus, collective, environment, alone=ranks is not None and ranks.beside == 1)
    host = socket.gethostname().split(".")[0]
    mine = tuple(
        Member(
            host, os.getpid(), gpu.index, gpu.need("pci").lower()[4:11], gpu.need("name"), gpu.need("serial"),
            inside.kind, inside.gb_per_s, tuple(state.carried_gb_per_s(hca) for hca in hcas),
            tuple(state.carried_gb_per_s(hca, crowded=True) for hca in hcas), state.values["nccl.hang"] == "1",
            state.values.get("nccl.absent") == "1",
        )
        for gpu in gpus
    )  # fmt: skip
    if ranks is None:
        return _Session(collective, options, state, gpus, mine, inside, None, hcas)
    members = ranks.gather(mine[0])
    hosts = list(dict.fromkeys(member.host for member in members))
    inside = min((Route(m.path, m.gb_per_s) for m in members), key=lambda route: route.gb_per_s)
    if len(hosts) > 1:
        paths = [Route(m.path, m.gb_per_s) for m in members]
        first = [next(m for m in members if m.host == name) for name in hosts]
        nics = [m.crowded if len(hosts) > CROWD else m.nics for m in first]
        inside = between_nodes(paths, nics, collective, len(members))
    return _Session(collective, options, state, gpus, members, inside, ranks, hcas)


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


def _devices(state: State, options: Options, environment: Mapping[str, str], first: int) -> tuple[Gpu, ...]:
    """GPUs in rank order: those CUDA_VISIBLE_DEVICES lists, else all; from the `first` on where ranks share a node."""
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    visible = list(state.gpus)
    if wanted is not None:
        names = {name: gpu for gpu in state.gpus for name in (str(gpu.index), gpu.need("uuid"))}
        visible = [names[name.strip()] for name in wanted.split(",") if name.strip() in names]
    first *= options.ranks
    if first + options.ranks > len(visible):
        text = f"Invalid number of GPUs: {first + options.ranks} requested but only {len(visible)} were found.\n"
        raise _Failed(_NOT_IMPLEMENTED, f"{text}Please check the number of processes and GPUs per process.\n")
    chosen = tuple(visible[first : first + options.ranks])
    if any(gpu.lost for gpu in chosen):
        raise _cuda_failure("CUDA-capable device(s) is/are busy or unavailable")
    return chosen


def _log_channels(session: _Session, environment: Mapping[str, str]) -> None:
    hosts = [member.host for member in session.members]
    channels = channel_lines(session.hcas, hosts, session.mine, session.route, environment)
    _log(session, environment, chain(start_lines(hosts, session.mine), channels))


def _log(session: _Session, environment: Mapping[str, str], lines: Iterable[str]) -> None:
    """NCCL's own lines, to standard output or to NCCL_DEBUG_FILE (%h host, %p process)."""
    if environment.get("NCCL_DEBUG", "").upper() not in ("INFO", "TRACE"):
        return
    text = "".join(f"{line}\n" for line in lines)
    where = environment.get("NCCL_DEBUG_FILE")
    if where:
        host = socket.gethostname().split(".")[0]
        Path(where.replace("%h", host).replace("%p", str(os.getpid()))).write_text(text)
    else:
        sys.stdout.write(text)


def _row(session: _Session, size: int) -> tuple[float, float]:
    """One line of the table: out of place, then in place. Returns both busbw, in GB/s."""
    collective, options, ranks = session.collective, session.options, len(session.members)
    elements = size // _FLOAT_BYTES
    size = elements * _FLOAT_BYTES
    root = -1
    sys.stdout.write(f"{size:12d}  {elements:12d}  {'float':>8}  {collective.redop:>6}  {root:6d}")
    busbw = []
    for place in range(2):
        # In place saves a little at small sizes and changes nothing at large ones, as measured.
        took = seconds(session.route, collective, size, ranks) - place * 0.4e-6
        took *= _scatter(session.members[0], size, place)
        _load(session, size)
        time.sleep(min(took * (options.iterations + options.warmups), _LONGEST_ROW_SECONDS / 2))
        algbw = size / took / 1e9
        busbw.append(algbw * collective.bus_share(ranks))
        checked = options.check and not (place and collective.program in _UNCHECKED_IN_PLACE)
        wrong = f"{0:6d}" if checked else "   N/A"
        sys.stdout.write(f"  {_number(took * 1e6, 7)}  {_number(algbw, 6)}  {_number(busbw[-1], 6)}  {wrong}")
    _say("")
    return busbw[0], busbw[1]


def _scatter(first: Member, size: int, place: int) -> float:
    """What differs between two nodes and between two runs: up to 0.4 %, by the GPU, the row and the process."""
    drawn = hashlib.sha256(f"{first.serial} {size} {place} {first.pid}".encode()).digest()
    return 1 + 0.008 * (drawn[0] / 255 - 0.5)


def _load(session: _Session, size: int) -> None:
    """The bytes every GPU moves for one half of a row: the timed operations, and the one that is checked.

    A GPU that falls off the bus ends the test; the ranks it leaves behind learn it from NCCL.
    """
    collective, ranks = session.collective, len(session.members)
    times = session.options.iterations + bool(session.options.check)
    for gpu in session.gpus:
        gpu.add_moved(2 * size * times)  # memory is read and written
        crossing = session.route.nvlink_bytes(collective, size, ranks) * times
        if crossing:
            gpu.add_nvlink(crossing)
    outward = session.route.nic_bytes(collective, size, session.nodes, ranks) * times
    if outward and session.ranks and not session.ranks.local_rank:
        nccl_ranks.count_on_rails(session.state, session.hcas, outward)
    lost = any(gpu.lost for gpu in session.gpus)
    if session.ranks and session.ranks.any_lost(lost) and not lost:
        raise _Failed(_NCCL_ERROR, _failure("NCCL", "remote process exited or there was a network error"))
    if lost:
        raise _cuda_failure("unspecified launch failure")


def _cuda_failure(text: str) -> _Failed:
    return _Failed(_CUDA_ERROR, _failure("CUDA", text))


def _failure(kind: str, text: str) -> str:
    host, pid = socket.gethostname().split(".")[0], os.getpid()
    lines = (
        f"{host}: Test {kind} failure common.cu:1051 '{text}'",
        f" .. {host} pid {pid}: Test failure common.cu:1011",
    )
    return "\n" + "\n".join(lines) + "\n"


def _number(value: float, width: int) -> str:
    """A number in a column as nccl-tests' getFloatStr fits it: fewer decimals as it grows."""
    digits = len(str(int(value))) if value >= 1 else 0
    decimals = 2 if digits < width - 2 else 1 if digits < width - 1 else 0
    return f"{value:{width}.{decimals}f}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _say_as_rank(text: str) -> None:
    """To the process's own output: a rank that does not print the table prints its failure."""
    sys.stdout.flush()
    os.write(1, text.encode())
