"""A container of a pod: started, asked, stopped and proven gone, over restarts of it, of the kubelet and of the node.

Its attempts lie in FOLDER/0, FOLDER/1, ...: what pod_process.py keeps of each.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .pod_process import ALIVE, ENDED, LOG, SPEC, START_ERROR, STARTED, TERMINATION_LOG, Spec, write_spec

Object = dict[str, Any]
_PROGRAM = Path(__file__).with_name("pod_process.py")
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 10.0, 300.0  # kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle
_LOST = 255  # what containerd says of a container that the machine went down under
_MESSAGE_MAX_BYTES = 4096
_BIRTH_S = 15.0


class Container:
    """One container of one pod on this node."""

    def __init__(self, folder: Path, name: str, image: str) -> None:
        self.name = name
        self._folder = folder
        self._image = image
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: Object = {"reason": "ContainerCreating"}
        self._began = 0.0

    @property
    def attempts(self) -> int:
        """How often it was started."""
        return len(list(self._folder.iterdir())) if self._folder.is_dir() else 0

    @property
    def current(self) -> Path:
        """Folder of the last attempt."""
        return self._folder / str(max(0, self.attempts - 1))

    def start(self, spec: Spec) -> None:
        """A new attempt."""
        folder = self._folder / str(self.attempts)
        write_spec(folder, spec)
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def refuse(self, spec: Spec, message: str) -> None:
        """An attempt that the container runtime failed at."""
        folder = self._folder / str(self.attempts)
        write_spec(folder, spec)
        now = time.time()
        end = {"began": now, "at": now, "code": START_ERROR, "signal": 0, "failed": message}
        (folder / ENDED).write_text(json.dumps(end))

    def wait_for(self, reason: str, message: str) -> None:
        """Says why it has not been started."""
        self._waiting = {"reason": reason, "message": message}

    @property
    def alive(self) -> bool:
        """Whether a process of it may be there. What says no is a lock that the kernel lets go of."""
        if self._process is not None:
            self._process.poll()  # nobody else reaps it
            if not (self.current / ALIVE).exists():
                return self._process.returncode is None and time.monotonic() - self._began < _BIRTH_S
        try:
            with (self.current / ALIVE).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return self._process is not None and self._process.poll() is None

    def signal(self, *, kill: bool) -> None:
        """Asks it to end, or ends it."""
        if not self.alive:
            return
        try:
            pid = int((self.current / ALIVE).read_text())
            os.kill(pid, signal.SIGQUIT if kill else signal.SIGTERM)
        except (OSError, ValueError):
            return  # it has just ended, or has not come to life yet: its owner asks again

    @property
    def end(self) -> Object | None:
        """How the last attempt ended; None while it goes on, and before the first."""
        if self.attempts == 0 or self.alive:
            return None
        told = _read(self.current / ENDED)
        if told is not None:
            return told
        began = _read(self.current / STARTED)
        at = (self.current / SPEC).stat().st_mtime
        return {"began": began["at"] if began else at, "at": time.time(), "code": _LOST, "signal": 0, "failed": ""}

    @property
    def back_off_s(self) -> float:
        """Seconds from an attempt's end to the next one."""
        again = self.attempts - 1
        return 0.0 if again < 1 else min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2 ** (again - 1))

    def log(self, *, previous: bool = False) -> tuple[Path, ...]:
        """Files of its log, oldest first."""
        folder = self._folder / str(max(0, self.attempts - (2 if previous else 1)))
        return tuple(path for path in (folder / f"{LOG}.1", folder / LOG) if path.exists())

    def status(self) -> Object:
        """The ContainerStatus."""
        started = self.attempts > 0 and (_read(self.current / STARTED) or self.end is not None)
        state = self._state() if started else {"waiting": self._waiting}
        own = hashlib.sha256(str(self.current).encode()).hexdigest()
        return {
            "name": self.name,
            "image": self._image,
            "imageID": "",
            "containerID": f"containerd://{own}" if started else "",
            "ready": "running" in state,
            "started": "running" in state,
            "restartCount": max(0, self.attempts - 1),
            "state": state,
            "lastState": self._last(),
        }

    def _state(self) -> Object:
        end = self.end
        if end is not None:
            return {"terminated": self._terminated(self.current, end)}
        began = _read(self.current / STARTED) or {"at": time.time()}
        return {"running": {"startedAt": stamp(began["at"])}}

    def _last(self) -> Object:
        before = self._folder / str(self.attempts - 2)
        end = _read(before / ENDED) if self.attempts > 1 else None
        return {"terminated": self._terminated(before, end)} if end else {}

    def _terminated(self, folder: Path, end: Object) -> Object:
        code = end["code"]
        reason = "Completed" if code == 0 else "Unknown" if code == _LOST and not end["signal"] else "Error"
        if end["failed"]:
            reason = "StartError"
        message = end["failed"] or _tail(folder / TERMINATION_LOG)
        return {
            "exitCode": code,
            "reason": reason,
            "startedAt": stamp(end["began"]),
            "finishedAt": stamp(end["at"]),
            **({"signal": end["signal"]} if end["signal"] else {}),
            **({"message": message} if message else {}),
        }


def stamp(seconds: float) -> str:
    """A time as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _read(path: Path) -> Object | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_MESSAGE_MAX_BYTES:].decode(errors="replace")
    except OSError:
        return ""
