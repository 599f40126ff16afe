"""A measurement in a process of its own: what the GPU does to it ends there, and its records and answer come back.

The process is a fork: cheap enough for thousands, and nothing of CUDA may have been touched before it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from burnin import record
from burnin.record import Measured

_STDOUT = 1


@dataclass(frozen=True, slots=True)
class Ran:
    """What came back: records written to standard output, the answer (None: it had none), why it failed or ''."""

    records: tuple[record.Record, ...]
    answer: Any
    failure: str

    def value(self, metric: str) -> float | int | str | None:
        """The last value that was measured under a name; None where it was not measured."""
        values = [r.value for r in self.records if isinstance(r, Measured) and r.metric == metric]
        return values[-1] if values else None

    def number(self, metric: str) -> float | None:
        """The same, where it is a number."""
        value = self.value(metric)
        return None if isinstance(value, str) else value


def run(work: Callable[[], object], limit_s: float) -> Ran:
    """Call `work` in a fork, which is killed after `limit_s`. Its answer must be JSON."""
    said_in, said_out = os.pipe()
    answer_in, answer_out = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _live(work, said_out, answer_out)
    os.close(said_out)
    os.close(answer_out)
    said, answer, late = _collect(child, said_in, answer_in, limit_s)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    failure = f"not done after {limit_s:.0f} s" if late else f"ended with status {code}" if code else ""
    return Ran(_records(said), json.loads(answer) if answer else None, failure)


def _live(work: Callable[[], object], said_out: int, answer_out: int) -> None:
    """The fork's life; never returns."""
    status = 1
    try:
        os.dup2(said_out, _STDOUT)
        answer = json.dumps(work()).encode()
        while answer:
            answer = answer[os.write(answer_out, answer) :]
        status = 0
    finally:  # whatever it was: the fork must not go on as if it were its parent
        if status:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)


def _collect(child: int, said: int, answer: int, limit_s: float) -> tuple[bytes, bytes, bool]:
    """All that is written to the two pipes, and whether the fork had to be killed."""
    parts: dict[int, list[bytes]] = {said: [], answer: []}
    end, late = time.monotonic() + limit_s, False
    with selectors.DefaultSelector() as ready:
        for pipe in parts:
            ready.register(pipe, selectors.EVENT_READ)
        while ready.get_map():
            for key, _ in ready.select(max(0.0, end - time.monotonic())):
                if data := os.read(key.fd, 1 << 16):
                    parts[key.fd].append(data)
                else:
                    ready.unregister(key.fd)
                    os.close(key.fd)
            if time.monotonic() >= end and not late:
                late, end = True, float("inf")
                os.kill(child, signal.SIGKILL)
    return b"".join(parts[said]), b"".join(parts[answer]), late


def _records(said: bytes) -> tuple[record.Record, ...]:
    """The records that are whole; a fork that was killed may have torn its last line."""
    whole = said[: said.rfind(b"\n") + 1].decode("ascii", "replace").splitlines()
    return tuple(record.load(line for line in whole if line.startswith("{")))
