"""Output of nccl-tests (all_reduce_perf and its siblings), any version, any launcher. Text in, `NcclRun` out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from toolkit.facts import nccl_json
from toolkit.facts.nccl_rows import Table, finite, lines
from toolkit.facts.nccl_run import Failure, NcclRun, Rank, Sign

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_FAILURES = 4096
MAX_RANKS = 65_536

_RANK = re.compile(
    r"\bRank\s{1,16}(\d{1,9})\s{1,16}(?:Group\s{1,16}\d{1,9}\s{1,16})?(?:Pid\s{1,16}\d{1,12}\s{1,16})?"
    r"on\s{1,64}(\S{1,256})\s{1,64}device\s{1,16}(\d{1,6})\s{1,16}\[[0-9a-fA-Fx:.]{1,24}\]"
)
_COMMENTS = (
    re.compile(r"# nccl-tests version (?P<version>\S{1,32})(?:.{0,64}nccl-library=(?P<library>\d{1,9}))?"),
    re.compile(r"# Collective test starting: (?P<program>\S{1,128})"),
    re.compile(r"# Out of bounds values\s{0,16}: (?P<bounds>\d{1,18})\s{0,4}(?P<bounds_status>OK|FAILED)?"),
    re.compile(r"# Avg bus bandwidth\s{0,16}: (?P<average>\S{1,32})\s{0,4}(?P<average_status>OK|FAILED)?"),
    re.compile(r"Reducing maxBytes to (?P<reduced>\d{1,18})"),
)
_FAILURE = re.compile(
    r"(?:([A-Za-z0-9\-][\w.\-]{0,255}): )?(?:Test )?\b(NCCL|CUDA) failure (\S{1,256}:\d{1,7})(?: '(.{0,2000}))?"
)
_SIGNS = {
    Sign.STARTED: re.compile(r"\bnThread \d|# Using devices|NCCL (?:INFO|WARN) |NCCL version \d"),
    Sign.USAGE: re.compile(r"\bUSAGE: "),
    Sign.REFUSED: re.compile(
        r"invalid option '|invalid option --|unrecognized option|invalid sizes? (?:specified )?for '"
        r"|requires an argument --|device implementation \(-D"
    ),
    Sign.NEVER_STARTED: re.compile(
        r"not enough slots|unable to (?:reliably )?(?:start|launch|find)|could not be (?:found|executed)|execvp|"
        r"command not found|No such file or directory|error while loading shared libraries|Permission denied|"
        r"Host key verification failed|Could not resolve hostname|ssh: connect to host|"
        r"Connection (?:refused|timed out)|"
        r"MPI_INIT|MPI_Init|srun: error:|slurmstepd: error:|sbatch: error:|salloc: error:|Unable to allocate|"
        r"HYDU?_|mpiexec@|(?:PRTE|ORTE) (?:has lost|was unable|does not know)|no (?:active|available) hosts",
        re.IGNORECASE,
    ),
    Sign.DIED: re.compile(
        r"exited on signal \d|Caught signal \d|Segmentation fault|core dumped|terminate called|MPI_ABORT was invoked|"
        r"non-zero (?:exit code|status)|BAD TERMINATION|Bus error|oom[-_ ]kill|"
        r"tasks? [\d,\-]{1,64}: (?:Exited with exit code [1-9]|Killed|Terminated|Aborted|Segm)",
        re.IGNORECASE,
    ),
    Sign.CANCELLED: re.compile(r"DUE TO TIME LIMIT|time limit for job execution has been reached"),
    Sign.RELAYED: re.compile(r"\bpid(?: \d{1,12})?: Test failure \S{1,256}:\d{1,7}"),
    Sign.WRONG_VALUES: re.compile(r"\brank=\d{1,9} #wrong=[1-9]"),
}


@dataclass(slots=True)
class _Reading:
    table: Table = field(default_factory=Table)
    listed: list[Rank] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    signs: set[Sign] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    device_lists: int = 0
    timeouts: int = 0
    warn: int = 0
    info: int = 0


def parse(text: str) -> NcclRun:
    """Reads the output of one run, or the report written by option -J. Never raises; reads at most 4 MiB."""
    if len(text) <= MAX_CHARACTERS and (report := nccl_json.load(text)):
        return report
    reading = _Reading()
    for line in lines(text[:MAX_CHARACTERS]):
        reading.table.feed(line)
        _read_line(line.text, reading)
        _read_ranks(line.text, reading)
        _read_failures(line.text, reading)
    if _several_runs(reading):
        reading.signs.add(Sign.SEVERAL_RUNS)
    return _run(reading, truncated=len(text) > MAX_CHARACTERS)


def _read_line(text: str, reading: _Reading) -> None:
    reading.warn += "NCCL WARN" in text
    reading.info += "NCCL INFO" in text
    reading.device_lists += "# Using devices" in text
    reading.timeouts += "Test timeout (" in text
    for sign, pattern in _SIGNS.items():
        if sign not in reading.signs and pattern.search(text):
            reading.signs.add(sign)
    for pattern in _COMMENTS:
        if match := pattern.search(text):
            reading.said |= {name: value for name, value in match.groupdict().items() if value}


def _read_ranks(text: str, reading: _Reading) -> None:
    if "Rank" not in text:
        return
    for match in _RANK.finditer(text):
        if len(reading.listed) < MAX_RANKS:
            reading.listed.append(Rank(int(match[1]), match[2], int(match[3])))


def _read_failures(text: str, reading: _Reading) -> None:
    if " failure " not in text:
        return
    for match in _FAILURE.finditer(text):
        if len(reading.failures) < MAX_FAILURES:
            # a row's root column may be glued to the front of the host's name
            host = match[1].removeprefix("-1") if match[1] else None
            words = (match[4] or "").strip().removesuffix("'").strip()
            reading.failures.append(Failure(host, match[2], match[3], words))


def _several_runs(reading: _Reading) -> bool:
    numbers = [r.rank for r in reading.listed]
    return len(set(numbers)) < len(numbers) or reading.device_lists > 1 or reading.table.headers > 1


def _run(reading: _Reading, truncated: bool) -> NcclRun:
    said, rows = reading.said, tuple(reading.table.rows)
    columns = reading.table.columns
    return NcclRun(
        rows=rows,
        listed=tuple(reading.listed),
        signs=frozenset(reading.signs | ({Sign.STARTED} if columns else set())),
        program=said.get("program"),
        nccl_tests_version=said.get("version"),
        nccl_library=int(said["library"]) if "library" in said else None,
        check_column=columns.check_name if columns else "#wrong" if rows else None,
        out_of_bounds=int(said["bounds"]) if "bounds" in said else None,
        out_of_bounds_status=said.get("bounds_status"),
        avg_busbw=finite(said["average"]) if "average" in said else None,
        avg_status=said.get("average_status"),
        footer_complete="bounds_status" in said and "average" in said,
        failures=tuple(reading.failures),
        timeouts=reading.timeouts,
        nccl_warn_lines=reading.warn,
        nccl_info_lines=reading.info,
        maxbytes_reduced=int(said["reduced"]) if "reduced" in said else None,
        torn_rows=reading.table.torn,
        truncated=truncated,
    )
