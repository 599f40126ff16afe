"""One container of a pod, as processes of the node: its own mounts, process ids and host name, and a log.

    python3 -I -S pod_process.py FOLDER

FOLDER/spec.json says what to run (`Spec`). This process is the container's parent and outlives the kubelet, as
containerd's shim does; while the container has a process, it holds a lock on FOLDER/alive, which has its process id.
It leaves FOLDER/started.json, FOLDER/log (lines as the CRI writes them) and at the end FOLDER/ended.json.
SIGTERM is passed on to the container's first process; SIGQUIT kills all of it.

There is no image: the root is the node's own, written to a layer that goes with the container. Memory and processors
are not limited, and the network is the node's.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

SPEC, ALIVE, STARTED, ENDED, LOG = "spec.json", "alive", "started.json", "ended.json", "log"
TERMINATION_LOG = "termination-log"
LOG_MAX_BYTES = 10 << 20  # KubeletConfiguration, containerLogMaxSize
START_ERROR = 128  # exit code that containerd gives to what it could not start

_NEW_NAMESPACE, _NEW_NAMES, _NEW_PIDS = 0x00020000, 0x04000000, 0x20000000  # linux/sched.h
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18  # linux/mount.h
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # linux/prctl.h
_CHUNK = 16384  # the CRI cuts longer lines
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# What the node keeps for itself: with an image of its own a container would not see it either.
_SHARED = "/dev/shm"  # noqa: S108 - made anew in every container
_HIDDEN = ("/etc/kubernetes", "/root", "/run")


@dataclass(frozen=True)
class Mount:
    """`source` on the node appears as `target` in the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Spec:
    """What to run.

    hidden    folders of the node that the container must not see, besides ours
    hardware  the node's hardware folder, for a container that was given GPUs; empty: it sees none
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    folder: str = "/"
    hostname: str = ""
    host_pids: bool = False
    mounts: tuple[Mount, ...] = ()
    hidden: tuple[str, ...] = ()
    hardware: str = ""
    user: int | None = None
    group: int | None = None
    read_only_root: bool = False


def write_spec(folder: Path, spec: Spec) -> None:
    """Writes it for this program. It may hold secrets: nobody else reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(folder / SPEC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(spec), file)


def read_spec(folder: Path) -> Spec:
    """What `write_spec` wrote."""
    raw = json.loads((folder / SPEC).read_text())
    mounts = tuple(Mount(**mount) for mount in raw.pop("mounts"))
    return Spec(**raw | {"argv": tuple(raw["argv"]), "hidden": tuple(raw["hidden"]), "mounts": mounts})


def main() -> int:
    """See the module."""
    folder = Path(sys.argv[1])
    spec = read_spec(folder)
    alive = (folder / ALIVE).open("w")
    fcntl.flock(alive, fcntl.LOCK_EX)
    alive.write(str(os.getpid()))
    alive.flush()
    began = time.time()
    # Its own mounts first: what the container mounts is gone with the last of its processes.
    _call("unshare", _NEW_NAMESPACE | _NEW_NAMES | (0 if spec.host_pids else _NEW_PIDS))
    if spec.host_pids:
        _call("prctl", _SET_SUBREAPER, 1)  # what it leaves behind becomes ours, to be ended with it
    pipes = [os.pipe() for _ in range(3)]
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become(spec, folder, parent, pipes)
    for _, write in pipes:
        os.close(write)
    signal.signal(signal.SIGTERM, lambda *_: _kill(child, signal.SIGTERM))
    signal.signal(signal.SIGQUIT, lambda *_: _kill(child, signal.SIGKILL))
    failed = os.fdopen(pipes[2][0], "rb").read().decode(errors="replace")  # ends when the program has taken over
    if not failed:
        _write(folder / STARTED, {"at": began, "pid": child})
    status = _keep_log(folder / LOG, {pipes[0][0]: b"stdout", pipes[1][0]: b"stderr"}, child)
    code = START_ERROR if failed else (status if status >= 0 else 128 - status)
    end = {"began": began, "at": time.time(), "code": code, "signal": max(0, -status), "failed": failed[:2000]}
    _write(folder / ENDED, end)
    return 0


def _kill(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended; waitpid is next
        os.kill(child, number)


def _write(path: Path, document: dict[str, object]) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(document))
    aside.replace(path)


# --- inside ------------------------------------------------------------------------------------------------------


def _become(spec: Spec, folder: Path, parent: int, pipes: list[tuple[int, int]]) -> None:
    """The forked child: makes its root, and becomes the program. Never returns: what nobody foresaw ends it as any
    program, with its traceback.
    """
    told = pipes[2][1]
    try:
        _call("prctl", _SET_DEATH_SIGNAL, signal.SIGKILL)
        if not spec.host_pids or os.getppid() == parent:
            _enter_root(spec, folder)
            null = os.open("/dev/null", os.O_RDONLY)
            for source, target in ((null, 0), (pipes[0][1], 1), (pipes[1][1], 2)):
                os.dup2(source, target)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            _exec(spec)
    except (OSError, ValueError) as error:  # a ValueError: an argument with a zero byte, a name that is no text
        os.write(told, f"failed to create containerd task: {error}".encode(errors="replace"))
    os._exit(START_ERROR)


def _exec(spec: Spec) -> None:
    if spec.hostname:
        socket.sethostname(spec.hostname)
    os.chdir(spec.folder)
    if spec.group is not None or spec.user is not None:
        os.setgroups([])
        os.setgid(spec.group or 0)
        os.setuid(spec.user or 0)
    try:
        os.execvpe(spec.argv[0], list(spec.argv), spec.environment)  # noqa: S606 - what the pod asks for
    except FileNotFoundError:
        raise OSError(f'exec: "{spec.argv[0]}": executable file not found in $PATH') from None


def _enter_root(spec: Spec, folder: Path) -> None:
    """The node's root under a layer of the container's own, with what a container finds in it."""
    (folder / TERMINATION_LOG).touch()
    (folder / TERMINATION_LOG).chmod(0o666)
    own = Mount(str(folder / TERMINATION_LOG), f"/dev/{TERMINATION_LOG}")
    wanted = (*_devices(spec), own, *sorted(spec.mounts, key=lambda mount: mount.target.count("/")))
    _mount("none", "/", "", _RECURSIVE | _PRIVATE)
    # Opened before the root changes, bound after it: a symbolic link on the way to a target ends in the new root.
    sources = [(os.open(mount.source, os.O_PATH | os.O_CLOEXEC), mount) for mount in wanted]
    root = _layered(folder / "layers")
    if spec.host_pids:
        _mount("/proc", root / "proc", "", _BIND | _RECURSIVE)
    else:
        _mount("proc", root / "proc", "proc")
    _mount("/sys", root / "sys", "", _BIND | _RECURSIVE)
    _mount("tmpfs", root / "dev", "tmpfs", 0, "mode=0755")
    os.chroot(root)
    os.chdir("/")
    for hidden in (*_HIDDEN, *spec.hidden):
        if Path(hidden).is_dir():
            _mount("tmpfs", hidden, "tmpfs", 0, "mode=0755")
    Path(_SHARED).mkdir()
    _mount("tmpfs", _SHARED, "tmpfs", 0, "mode=1777,size=64m")  # the size that container runtimes give it
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        Path("/dev", name).symlink_to(f"/proc/self/fd{target}")
    for handle, mount in sources:
        _bind(handle, mount)
    if spec.read_only_root:
        _mount("none", "/", "", _REMOUNT | _READ_ONLY)


def _layered(layers: Path) -> Path:
    """The node's root with a layer over it that takes what is written; gone with the container's mounts."""
    layers.mkdir(exist_ok=True)
    _mount("tmpfs", layers, "tmpfs", 0, "mode=0755")
    upper, work, root = (layers / name for name in ("upper", "work", "root"))
    for place in (upper, work, root):
        place.mkdir()
    _mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    return root


def _devices(spec: Spec) -> list[Mount]:
    """The devices that every container has, and the hardware of one that was given GPUs."""
    names = [*_DEVICES, *(("kmsg",) if spec.hardware else ())]
    found = [Mount(f"/dev/{name}", f"/dev/{name}") for name in names if Path("/dev", name).exists()]
    return [*found, Mount(spec.hardware, spec.hardware)] if spec.hardware else found


def _bind(source: int, mount: Mount) -> None:
    """`source`: what is to appear, opened."""
    target = Path(mount.target)
    if stat.S_ISDIR(os.fstat(source).st_mode):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(f"/proc/self/fd/{source}", target, "", _BIND | _RECURSIVE)
    if mount.read_only:
        _mount("none", target, "", _BIND | _REMOUNT | _READ_ONLY)


def _mount(source: str | Path, target: str | Path, kind: str, flags: int = 0, options: str = "") -> None:
    texts = (os.fsencode(source), os.fsencode(target), os.fsencode(kind) or None)
    try:
        _call("mount", *texts, flags, options.encode() or None)
    except OSError as error:
        raise OSError(error.errno, f"mount {source} at {target}: {error.strerror}") from None


def _call(name: str, *arguments: object) -> None:
    """A system call through the C library; Python 3.10 has none of these."""
    libc = ctypes.CDLL(None, use_errno=True)
    typed = (ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments)
    if getattr(libc, name)(*typed) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


# --- log ---------------------------------------------------------------------------------------------------------


def _keep_log(path: Path, streams: dict[int, bytes], child: int) -> int:
    """Copies what the container prints until its first process has ended and nobody has its streams open; how it
    ended. `TIME STREAM F|P TEXT` a line; P: the line goes on in the next of its stream.
    """
    rest = dict.fromkeys(streams, b"")
    end = os.pidfd_open(child)
    status: int | None = None
    with path.open("ab") as log:
        while streams or status is None:
            ready = select.select([*streams, *(() if status is not None else (end,))], [], [])[0]
            if end in ready:
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                _end_orphans()
            for stream in (stream for stream in ready if stream in streams):
                read = os.read(stream, _CHUNK)
                name = streams[stream] if read else streams.pop(stream)
                *lines, rest[stream] = (rest[stream] + read).split(b"\n")
                for line in lines:
                    _log_line(log, name, b"F", line)
                if len(rest[stream]) >= _CHUNK or (not read and rest[stream]):
                    _log_line(log, name, b"P", rest[stream])
                    rest[stream] = b""
            log.flush()
            if log.tell() > LOG_MAX_BYTES:
                path.replace(path.with_suffix(".1"))
                log.close()
                log = path.open("ab")  # noqa: PLW2901 - the next file of the same log
    return status


def _end_orphans() -> None:
    """Ends what a container without process ids of its own has left behind; the kernel has ended the others'."""
    while True:
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            _kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _log_line(log: BinaryIO, stream: bytes, tag: bytes, text: bytes) -> None:
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)).encode()
    log.write(b"%s.%09dZ %s %s %s\n" % (stamp, now % 10**9, stream, tag, text))


if __name__ == "__main__":
    sys.exit(main())
