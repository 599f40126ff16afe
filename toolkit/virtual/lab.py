"""Virtual racks as an operator sees them: up, down, status, faults, and a way to be inside."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import BusyError, RackproofError, UsageError
from toolkit.rack.model import Rack
from toolkit.settings import Settings
from toolkit.virtual import (
    control,
    credentials,
    description,
    network,
    rack_cluster,
    requirements,
    switches,
    teardown,
)
from toolkit.virtual.chassis import Lag
from toolkit.virtual.control import Answer, Operation, RackStatus, Request
from toolkit.virtual.control_plane.binaries import Binaries
from toolkit.virtual.description import Description
from toolkit.virtual.fabric import tools as infiniband_tools
from toolkit.virtual.fabric.wiring import has_fabric
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.layout import Layout, layout_of, racks_folder
from toolkit.virtual.programs import environment

_READY_DEADLINE_S = 30.0
_POLL_S = 0.05
_QUOTED_LINES = 15
_DEFAULT_LAG = Lag()


def up(
    rack: Rack,
    settings: Settings,
    say: Callable[[str], None],
    lag: Lag = _DEFAULT_LAG,
    kubernetes: Binaries | None = None,
) -> None:
    """Brings the rack's hardware up, every node powered off; nothing happens if it is up already.

    After a crash the disks are found as they were, like after a power cut. With `kubernetes` (programs of a control
    plane: `rack_cluster.programs`) it has a cluster, and the site's pool is that.
    """
    requirements.require()
    network.check_addresses(rack)
    layout = layout_of(settings, rack.name)
    with _only_one(settings):
        running = _ask(layout, Request(Operation.STATUS))
        if running is not None:
            _require_same(running, rack)
            if kubernetes is not None:
                rack_cluster.start(layout, rack, settings, kubernetes, say)
            say(f"rack {rack.name} is up already")
            return
        teardown.sweep(layout, keep_files=True)
        layout.folder.mkdir(parents=True, exist_ok=True)
        layout.folder.chmod(0o700)
        secrets = settings.secrets(rack.site)
        credentials.prepare(layout, rack, secrets)
        switches.prepare(layout, rack, secrets)
        tools = infiniband_tools.fetch(settings.cache.resolve(), say).folder if has_fabric(rack) else None
        told = Description(rack, layout.home, settings.provision, secrets, lag, tools)
        description.write(layout.description, told)
        say(f"rack {rack.name}: wiring {len(rack.nodes)} nodes")
        try:
            network.build(layout, rack)
            if kubernetes is not None:
                rack_cluster.start(layout, rack, settings, kubernetes, say)
            else:
                home = layout.home
                rack_cluster.leave(layout, home, (Layout(home, name) for name in teardown.racks(home)))
            _start_daemon(layout)
        except BaseException:
            teardown.sweep(layout, keep_files=True)
            raise
    say(f"rack {rack.name}: ready, all nodes are off")


def down(settings: Settings, rack_name: str | None = None) -> tuple[str, ...]:
    """Removes one rack, or all of this installation, with their disks; returns the names of those removed.

    Works whatever is left of them. The site's secrets stay.
    """
    requirements.require_root()
    home = settings.home.resolve()
    if not home.exists():
        return ()
    with _only_one(settings):
        names = (rack_name,) if rack_name is not None else teardown.racks(home)
        found = tuple(name for name in names if _exists(Layout(home, name)))
        for name in found:
            teardown.sweep(Layout(home, name))
        rack_cluster.forget_pools(home, (Layout(home, name) for name in teardown.racks(home)))
    return found


def status(settings: Settings, rack_name: str) -> RackStatus:
    """Power, boot phase, faults and memory of each node."""
    answer = _ask(layout_of(settings, rack_name), Request(Operation.STATUS))
    return RackStatus(rack_name, running=answer is not None, nodes=answer.nodes if answer else ())


def set_fault(settings: Settings, rack_name: str, fault: Fault) -> None:
    """Breaks something, now. UsageError when the rack is not up or cannot have this fault."""
    _require_answer(settings, rack_name, Request(Operation.SET_FAULT, fault=fault))


def clear_fault(settings: Settings, rack_name: str, node: str, kind: FaultKind | None = None) -> tuple[Fault, ...]:
    """Repairs a node, or one kind of fault on it; returns what was broken. UsageError when nothing was."""
    return _require_answer(settings, rack_name, Request(Operation.CLEAR_FAULT, node=node, kind=kind)).faults


def enter_namespace(settings: Settings, rack_name: str) -> None:
    """Moves the calling thread, and all it starts later, into the rack's controller network.

    A process calls it once in its main thread, before it has started any other. Calling it again changes nothing.
    """
    requirements.require_root()
    network.enter(_controller(settings, rack_name))


def run_inside(settings: Settings, rack_name: str, argv: Sequence[str]) -> int:
    """Runs a program in the rack's controller network, on this terminal; its exit status.

    kubectl knows the rack's cluster there, and is found where this installation has it.
    """
    requirements.require_root()
    namespace = network.NAMESPACES / _controller(settings, rack_name)
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    told = {**os.environ, **rack_cluster.environment(layout_of(settings, rack_name)), "PATH": path}
    return subprocess.run(["nsenter", f"--net={namespace}", "--", *argv], check=False, env=told).returncode


def _controller(settings: Settings, rack_name: str) -> str:
    name = layout_of(settings, rack_name).controller
    if name not in network.existing():
        raise _not_up(rack_name)
    return name


def _exists(layout: Layout) -> bool:
    return layout.folder.exists() or bool(teardown.find(layout))


def _start_daemon(layout: Layout) -> None:
    """Starts it detached. PID 1 of its own PID namespace: the kernel ends all its machines when it dies."""
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    with layout.log.open("wb") as log:
        process = subprocess.Popen(
            [*argv, sys.executable, "-m", "toolkit.virtual.daemon", "--rack", str(layout.description)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.folder,
            env=environment(PYTHONPATH=_import_path(), PYTHONSAFEPATH="1"),
            start_new_session=True,
        )
    end = time.monotonic() + _READY_DEADLINE_S
    while _ask(layout, Request(Operation.STATUS)) is None:
        if process.poll() is not None or time.monotonic() > end:
            said = layout.log.read_text(errors="replace").splitlines()[-_QUOTED_LINES:]
            raise RackproofError(
                f"the daemon of virtual rack {layout.rack} did not come up:\n  " + "\n  ".join(said),
                f"the whole log is {layout.log}",
            )
        time.sleep(_POLL_S)


def _import_path() -> str:
    """Where this `toolkit` was imported from: the daemon must run the same one."""
    import toolkit

    return str(toolkit.__path__[0]).rpartition("/")[0]


def _ask(layout: Layout, request: Request) -> Answer | None:
    """None when no daemon listens."""
    try:
        return control.ask(layout.socket, request)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise UsageError(f"{layout.socket} belongs to another user", "run the same command with sudo") from error


def _require_answer(settings: Settings, rack_name: str, request: Request) -> Answer:
    answer = _ask(layout_of(settings, rack_name), request)
    if answer is None:
        raise _not_up(rack_name)
    return answer


def _require_same(running: Answer, rack: Rack) -> None:
    if running.digest != rack.digest:
        raise UsageError(
            f"rack {rack.name} is up as another version of its rack file",
            f"`rackproof virtual down {rack.name}`, then up again: its nodes lose their disks",
        )


def _not_up(rack_name: str) -> UsageError:
    return UsageError(f"virtual rack {rack_name} is not up", f"`rackproof virtual up {rack_name}`")


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """One `up` or `down` at a time for an installation; the kernel lets go of the lock when the process dies."""
    folder = racks_folder(settings.home.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                "another `rackproof virtual up` or `down` is at work", "wait until it has ended, then again"
            ) from error
        yield
