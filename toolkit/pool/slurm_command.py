"""Slurm's programs, run on the operator's machine: argv only, bounded in time and in what they may say.

They talk to slurmctld by themselves, as whoever runs them: SlurmUser, root, or an account of AdminLevel Operator.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.pool import slurm_demand, slurm_text
from toolkit.pool.policy import SlurmSite
from toolkit.pool.slurm_demand import Pending
from toolkit.pool.slurm_text import SlurmJob, SlurmNode, shown

# slurmctld may be at a scheduling round of its own for MessageTimeout (10 s, slurm.conf(5)), and is asked again then
ANSWER_SECONDS = 30.0
MAX_OUTPUT = 32 * 1024 * 1024  # 10,000 nodes with their features and reasons are about 10 MiB
_MAX_ERRORS = 64 * 1024
# What tells Slurm's programs where slurmctld is and who asks; nothing else of our environment changes what they do
_PASSED_ON = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "HOME", "USER", "LOGNAME")
_SILENT = ("Unable to contact", "Connection refused", "Socket timed out", "timed out", "Zero Bytes were transmitted",
           "Unable to establish", "Could not establish", "Unable to process configuration")  # fmt: skip
_FORBIDDEN = ("Invalid user id", "Access/permission denied", "Permission denied")


@dataclass(frozen=True, slots=True)
class Said:
    """What a program came to. `ended` is False for one that was still at it at its deadline, and was killed."""

    status: int
    out: bytes
    errors: str
    ended: bool = True


class SlurmCommands:
    """Asks and tells slurmctld. Thread-safe: it holds nothing but where the programs are."""

    def __init__(self, site: SlurmSite, answer_s: float = ANSWER_SECONDS) -> None:
        self.site = site
        self._answer_s = answer_s
        self._environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._environment |= {"PATH": f"{site.programs}:/usr/bin:/bin" if site.programs else os.environ["PATH"],
                              "LC_ALL": "C", "TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}  # fmt: skip
        if site.config:
            self._environment["SLURM_CONF"] = site.config

    def nodes(self, names: Sequence[str] = ()) -> dict[str, SlurmNode]:
        """Nodes of the site's partition, or these of them, as far as slurmctld knows them."""
        mark = _mark()
        of = (f"--nodes={','.join(names)}",) if names else ()
        where = f"--partition={self.site.partition}" if self.site.partition else "--all"
        said = self.ask(
            "sinfo", "--local", "--Node", "--noheader", where, *of, f"--Format={slurm_text.node_format(mark)}"
        )
        found = slurm_text.nodes_of(said, mark)
        if not found and self.site.partition:
            self.ask("scontrol", "--oneliner", "show", "partition", self.site.partition)  # it says so of a stranger
        return found

    def jobs(self, *which: str) -> tuple[SlurmJob, ...]:
        """Jobs, by squeue's own options."""
        mark = _mark()
        argv = ("squeue", "--all", "--local", "--noheader", *which, f"--format={slurm_text.job_format(mark)}")
        return slurm_text.jobs_of(self.ask(*argv), mark)

    def pending(self) -> tuple[Pending, ...]:
        """Jobs of the site's partition that wait."""
        mark = _mark()
        where = (f"--partition={self.site.partition}",) if self.site.partition else ()
        argv = ("squeue", "--all", "--local", "--noheader", "--states=PENDING", *where)
        return slurm_demand.pending_of(self.ask(*argv, f"--format={slurm_demand.pending_format(mark)}"), mark)

    def update(self, node: str, **changes: str) -> None:
        """Changes a node, or several by their names with commas: all of it in one message, which slurmctld carries out
        while nobody else can touch it.
        """
        self.ask("scontrol", "update", f"NodeName={node}", *(f"{key}={value}" for key, value in changes.items()))

    def ask(self, program: str, *arguments: str, stdin: bytes = b"") -> str:
        """What a program prints. UnreachableError if slurmctld does not answer, UndecidedError if it refuses."""
        said = self.run((program, *arguments), self._answer_s, stdin)
        doing = f"{program} {shown(' '.join(arguments), 120)}"
        if not said.ended:
            raise UnreachableError(f"{doing}: no answer within {self._answer_s:.0f} s", _hint(self.site))
        if said.status != 0:
            raise refusal(doing, said.errors or said.out.decode("utf-8", "replace"), self.site)
        return said.out.decode("utf-8", "replace")

    def run(self, argv: Sequence[str], deadline_s: float, stdin: bytes = b"") -> Said:
        """Runs a program to its end or its deadline. UndecidedError if it is not there or will not stop talking."""
        if self.site.config and not Path(self.site.config).exists():
            raise UndecidedError(f"{self.site.config} is not there", "correct `config` under `slurm` in the pool file")
        with ExitStack() as stack:
            script = stack.enter_context(tempfile.TemporaryFile())
            script.write(stdin)
            script.seek(0)
            try:
                child = subprocess.Popen(
                    argv, env=self._environment, stdin=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    start_new_session=True, cwd="/",
                )  # fmt: skip
            except OSError as exc:
                raise UndecidedError(
                    f"{argv[0]} could not be started: {exc.strerror}",
                    "install Slurm's client programs, or give their folder: `programs` under `slurm` in the pool file",
                ) from exc
            stack.enter_context(child)
            stack.callback(_end, child)
            if child.stdout is None or child.stderr is None:
                raise AssertionError("both are pipes")
            return _heard(child, child.stdout, child.stderr, time.monotonic() + deadline_s)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends a program that is still at it, with what it started."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def refusal(doing: str, words: str, site: SlurmSite) -> UndecidedError:
    """The error for what Slurm answered instead."""
    said = shown(words) or "it ended without a word"
    if any(sign in words for sign in _SILENT):
        return UnreachableError(f"{doing}: {said}", _hint(site))
    if any(sign in words for sign in _FORBIDDEN):
        who = "run rackproof as root or SlurmUser, or give its account AdminLevel=Operator (sacctmgr)"
        return UndecidedError(f"{doing}: Slurm refused: {said}", who)
    return UndecidedError(f"{doing}: Slurm refused: {said}", "see slurmctld's log; then the same command again")


def _hint(site: SlurmSite) -> str:
    return f"see whether slurmctld runs ({'SLURM_CONF=' + site.config + ' ' if site.config else ''}scontrol ping)"


def _mark() -> str:
    """Begins with a letter: sinfo takes digits after a field's name for its width."""
    return f"rp{secrets.token_hex(8)}"


def _heard(child: subprocess.Popen[bytes], out: IO[bytes], errors: IO[bytes], deadline: float) -> Said:
    """Reads both streams until they close or time is up. UndecidedError for a program that will not stop talking."""
    heard = {out.fileno(): bytearray(), errors.fileno(): bytearray()}
    with selectors.DefaultSelector() as streams:
        streams.register(out, selectors.EVENT_READ)
        streams.register(errors, selectors.EVENT_READ)
        while streams.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in streams.select(left):
                more = os.read(key.fd, 65536)
                heard[key.fd] += more
                if not more:
                    streams.unregister(key.fileobj)
            if len(heard[out.fileno()]) > MAX_OUTPUT:
                raise UndecidedError(f"{shown(str(child.args), 80)}: over {MAX_OUTPUT} bytes", "see what it says")
            del heard[errors.fileno()][_MAX_ERRORS:]
        left = max(0.0, deadline - time.monotonic()) if not streams.get_map() else 0.0
    words = heard[errors.fileno()].decode("utf-8", "replace")
    try:
        return Said(child.wait(left), bytes(heard[out.fileno()]), words)
    except subprocess.TimeoutExpired:
        return Said(-1, bytes(heard[out.fileno()]), words, ended=False)
