"""A node as one host of a collective over many: what the launching node may start here, for how long, and its end.

    admit FOLDER FROM SECONDS DAEMONS KEY   let KEY, from address FROM, start the MPI daemon (DAEMONS: the folder it is
                                            in) and nothing else, for SECONDS
    dismiss FOLDER                          forget that key
    enter FOLDER DAEMONS                    what the key starts: the daemon, marked with the run's id
    stop FOLDER                             forget that key, and end every process that carries the mark; prints, as
                                            JSON, how many were found and what would not end
    logs FOLDER                             prints NCCL's logs of the run

FOLDER is the run's own on this node; its last part is the run's id.
mpirun reaches other nodes by SSH and starts a daemon there, which starts the ranks; the daemon leaves its session, and
so may a rank. They are found by the mark they inherit in their environment (proc(5): /proc/PID/environ), whoever
their parent is by then. A key that is not dismissed, because the controller is gone, ends by itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import burnin

MARK = "RACKPROOF_COLLECTIVE"
DAEMONS = ("orted", "prted")  # of Open MPI 4 and 5
CHECKED_LOGS = 16 << 20

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KEY = re.compile(r"(ssh-ed25519) ([A-Za-z0-9+/=]{40,200})(?: .*)?")
_ADDRESS = re.compile(r"[0-9a-fA-F.:]{2,45}")
_GRACE_S = 3.0  # between SIGTERM and SIGKILL
_PROOF_S = 5.0  # a process still there so long after SIGKILL is stuck in the kernel
_REFUSED = 126
_WORDS = 120


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked; 0, or 2 with a word on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    commands: dict[str, Callable[..., int]] = {
        "admit": _admit, "dismiss": _dismiss, "enter": _enter, "stop": _stop, "logs": _logs,
    }  # fmt: skip
    try:
        return commands[given[0]](Path(given[1]), *given[2:])
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        sys.stderr.write(f"guest {' '.join(given[:2])}: {error}\n")
        return 2


def _admit(folder: Path, address: str, seconds: str, daemons: str, public: str) -> int:
    identity, key = folder.name, _KEY.fullmatch(public.strip())
    if key is None or not _ID.fullmatch(identity) or not _ADDRESS.fullmatch(address):
        raise ValueError("an id, an address and an ed25519 key were expected")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "enter").write_text(_script(folder, daemons))
    (folder / "enter").chmod(0o700)
    # sshd(8), AUTHORIZED_KEYS FILE FORMAT: `restrict` takes away forwarding of every kind, terminals and ~/.ssh/rc
    expiry = time.strftime("%Y%m%d%H%M", time.localtime(time.time() + float(seconds) + 60))
    options = f'restrict,from="{address}",expiry-time="{expiry}",command="{folder / "enter"}"'
    line = f"{options} {key[1]} {key[2]} {_comment(identity)}"
    _rewrite(lambda lines: [*(old for old in lines if not _is_of(old, identity)), line])
    return 0


def _dismiss(folder: Path) -> int:
    _rewrite(lambda lines: [old for old in lines if not _is_of(old, folder.name)])
    (folder / "enter").unlink(missing_ok=True)
    return 0


def _enter(folder: Path, daemons: str) -> int:
    """Become the MPI daemon. No shell reads what was asked for, so nothing else can be asked for."""
    asked = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    program = shutil.which(asked[0], path=daemons) if asked and asked[0] in DAEMONS else None
    if program is None:
        sys.stderr.write(f"this key starts {' or '.join(DAEMONS)} of {daemons} and nothing else\n")
        return _REFUSED
    environment = {"PATH": f"{daemons}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/root"), MARK: folder.name}
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "LANG") if name in os.environ}
    os.execve(program, [program, *asked[1:]], kept | environment)  # noqa: S606 - it is what was looked up above
    raise AssertionError("execve does not return")


def _stop(folder: Path) -> int:
    """SIGTERM, SIGKILL, and the proof; a rank that starts another meanwhile is found in the next round. First the key:
    nothing new may come.
    """
    identity, ended = folder.name, 0
    _dismiss(folder)
    for number, limit_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _PROOF_S)):
        until = time.monotonic() + limit_s
        told: set[int] = set()
        while (alive := marked(identity)) and time.monotonic() < until:
            for pid in set(alive) - told:
                _signal(pid, number)
            ended += len(set(alive) - told)
            told |= set(alive)
            time.sleep(0.05)
        if not alive:
            break
    sys.stdout.write(json.dumps({"found": ended, "alive": [_words(pid) for pid in marked(identity)]}) + "\n")
    return 0


def _logs(folder: Path) -> int:
    left = CHECKED_LOGS
    for file in sorted(folder.glob("nccl.*")):
        text = file.read_bytes()[:left]
        left -= len(text)
        sys.stdout.buffer.write(text + b"\n")
    sys.stdout.flush()
    return 0


def marked(identity: str) -> list[int]:
    """Processes of the run that are neither dead nor zombies."""
    mark = f"{MARK}={identity}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if state not in "ZX" and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue  # it ended while we looked
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    """Its whole group if it leads one: what has thrown its environment away goes with it."""
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _words(pid: int) -> str:
    try:
        command = (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        command = ""
    return f"{pid} {command[:_WORDS]}".strip()


def _script(folder: Path, daemons: str) -> str:
    here = str(Path(burnin.__file__).parent.parent)
    return (
        f"#!{sys.executable} -S\nimport sys\n\nsys.path[0] = {here!r}\nfrom burnin.nccl import guest\n\n"
        f"sys.exit(guest.main(['enter', {str(folder)!r}, {daemons!r}]))\n"
    )


def _comment(identity: str) -> str:
    return f"rackproof:{identity}"


def _is_of(line: str, identity: str) -> bool:
    return line.rstrip().endswith(f" {_comment(identity)}")


def _rewrite(change: Callable[[list[str]], list[str]]) -> None:
    """Replaces the file of authorized keys whole; other lines stay as they are."""
    with _locked() as path:
        before = path.read_text().splitlines() if path.exists() else []
        after = change(before)
        if after == before:
            return
        aside = path.with_name(f"{path.name}.rackproof")
        aside.touch(mode=0o600)
        aside.write_text("".join(f"{line}\n" for line in after))
        with aside.open() as written:
            os.fsync(written.fileno())
        aside.replace(path)


@contextmanager
def _locked() -> Iterator[Path]:
    folder = Path.home() / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / ".rackproof.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / "authorized_keys"


if __name__ == "__main__":
    sys.exit(main())
