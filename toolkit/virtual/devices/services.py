"""The daemons of a node: each checks what the real one checks, says so in its log, tells systemd, and stays."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .state import NoDriverError, packed_version, read, set_fabric_manager

_PROGRAMMING_SECONDS = 0.5  # routes of four NVSwitches
_FABRIC_LOG = "/var/log/fabricmanager.log"


def fabric_manager(arguments: Sequence[str] | None = None) -> int:
    """`nv-fabricmanager -c FILE`: programs the NVSwitches, if its version is the driver's."""
    options = _options("nv-fabricmanager", arguments, config="/usr/share/nvidia/nvswitch/fabricmanager.cfg")
    own = packed_version("nvidia-fabricmanager")
    try:
        state = read()
    except NoDriverError:
        return _fail("request to query NVIDIA driver version failed: driver is not loaded")
    skewed = state.values["fabric_manager"]
    own = own if skewed == "installed" else skewed
    if options.version:
        sys.stdout.write(f"Fabric Manager version is : {own}\n")
        return 0
    log = Log(_settings(Path(options.config)).get("LOG_FILE_NAME", _FABRIC_LOG))
    log(f"Fabric Manager version {own} is running with the following configuration options: {options.config}")
    driver = state.values["driver"]
    if own != driver:
        set_fabric_manager("failed")
        log(
            f"fabric manager NVIDIA GPU driver interface version {own} don't match with driver version {driver}. "
            "Please update with matching NVIDIA driver package."
        )
        return 1
    time.sleep(_PROGRAMMING_SECONDS)
    set_fabric_manager(f"running {own}")
    log("Successfully configured all the available NVSwitches to route GPU NVLink traffic.")
    _stay()
    set_fabric_manager("stopped")
    return 0


def persistenced(arguments: Sequence[str] | None = None) -> int:
    """`nvidia-persistenced`: holds every GPU open."""
    options = _options("nvidia-persistenced", arguments)
    if options.version:
        sys.stdout.write(f"nvidia-persistenced:  version {packed_version('nvidia-driver-580-open')}\n")
        return 0
    log = Log()
    try:
        gpus = read().gpus
    except NoDriverError:
        return _fail("Failed to query NVIDIA devices. Please ensure that the NVIDIA device files exist")
    for gpu in gpus:
        log(f"device {gpu.need('pci')[4:]} - {'failed to open.' if gpu.lost else 'persistence mode enabled.'}")
    _stay()
    return 0


def host_engine(arguments: Sequence[str] | None = None) -> int:
    """`nv-hostengine`: DCGM's daemon. No field is served; the service is what a bring-up needs to see."""
    options = _options("nv-hostengine", arguments)
    if options.version:
        sys.stdout.write(f"Version : {packed_version('datacenter-gpu-manager-4-cuda13')}\n")
        return 0
    Log()(f"Started host engine version {packed_version('datacenter-gpu-manager-4-cuda13')} using port number: 5555")
    _stay()
    return 0


def containerd(arguments: Sequence[str] | None = None) -> int:
    """`containerd`: reads its configuration and stays; there are no containers to run."""
    options = _options("containerd", arguments, config="/etc/containerd/config.toml")
    version = packed_version("containerd.io")
    if options.version:
        sys.stdout.write(f"containerd containerd.io {version}\n")
        return 0
    log = Log()
    path = Path(options.config)
    log(f'level=info msg="starting containerd" version={version}')
    if path.exists():
        import tomllib

        try:
            tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            return _fail(f"containerd: failed to load TOML: {path}: {error}")
    log('level=info msg="containerd successfully booted"')
    _stay()
    return 0


class Log:
    """Lines to standard output (the journal), and to the daemon's own file where it has one."""

    def __init__(self, path: str = "") -> None:
        self._path = Path(path) if path else None

    def __call__(self, text: str) -> None:
        """Writes a line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(f"[{time.strftime('%b %d %Y %H:%M:%S')}] [INFO] [tid {os.getpid()}] {text}\n")


def settings(text: str) -> dict[str, str]:
    """`KEY=value` lines of NVIDIA's .cfg files; `#` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {key.strip(): value.strip() for key, found, value in (line.partition("=") for line in lines) if found}


def _settings(path: Path) -> dict[str, str]:
    return settings(path.read_text()) if path.exists() else {}


def _options(program: str, arguments: Sequence[str] | None, config: str = "") -> argparse.Namespace:
    """-c/--config, -v/--version; other options of the real daemon are taken and have no effect here."""
    parser = argparse.ArgumentParser(prog=program, allow_abbrev=False)
    parser.add_argument("-c", "--config", default=config)
    parser.add_argument("-v", "--version", action="store_true")
    return parser.parse_known_args(arguments)[0]


def _fail(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


def _stay() -> None:
    """Tells systemd that the service is up, and returns when it is asked to stop."""
    stopped = threading.Event()
    end: Callable[[int, object], None] = lambda *_: stopped.set()  # noqa: E731 - signal wants a callable of two
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    notify("READY=1")
    stopped.wait()


def notify(text: str) -> None:
    """sd_notify(3), without the library."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(text.encode())
