"""The site's boot service for a QEMU rack: the real dnsmasq and nginx in a namespace, and the service that decides."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.errors import RackproofError, UsageError
from toolkit.netboot import dnsmasq, nginx
from toolkit.netboot.hosts import write_hosts
from toolkit.netboot.service import DecisionServer, decisions_of
from toolkit.netboot.site import BootSite
from toolkit.rack.model import Rack
from toolkit.virtual import network
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.qemu.processes import start
from toolkit.virtual.requirements import SEARCH_PATH

_PACKAGES = {"nginx": "nginx-light", "dnsmasq": "dnsmasq-base"}
_READY_DEADLINE_S = 20.0
_POLL_S = 0.05
_QUOTED_CHARS = 500


class BootService:
    """Two processes in the controller's network, and a thread behind their socket; none outlives this process."""

    def __init__(
        self, rack: Rack, provision: Path, folder: Path, namespace: str, group: ControlGroup,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`folder` gets configurations and logs."""
        self.site = BootSite(
            provision, network.CONTROLLER_IN_BAND, network.IN_BAND, "inband0", socket=folder / "decide.sock"
        )
        self.folder = folder
        self._rack = rack
        self._namespace = network.NAMESPACES / namespace
        self._group = group
        self._say = say
        self._decider: DecisionServer | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts what does not run; returns when the web server answers."""
        self._require()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.site.provision.mkdir(parents=True, exist_ok=True)
        write_hosts(self.site.hosts_folder, self._rack)
        write_whole(self.folder / "nginx.conf", nginx.standalone(self.site, self.folder, user="root").encode())
        config = dnsmasq.configuration(self.site, self.folder / "dnsmasq.pid", user="root")
        write_whole(self.folder / "dnsmasq.conf", config.encode())
        if self._decider is None:
            self._decider = DecisionServer(self.site.socket, decisions_of(self.site.provision, self._say))
            threading.Thread(target=self._decider.serve_forever, name="boot service", daemon=True).start()
        self.start_web_server()
        self.start_dhcp()

    def start_web_server(self) -> None:
        """nginx, with the paths that it would otherwise share with the host's own."""
        self._start("nginx", "nginx", "-p", str(self.folder), "-e", "error.log", "-c", "nginx.conf")
        self._until((self.folder / "nginx.pid").exists, "nginx")

    def start_dhcp(self) -> None:
        """dnsmasq: DHCP and TFTP."""
        log = self.folder / "dnsmasq.log"
        self._start(
            "dnsmasq", "dnsmasq", "--keep-in-foreground", f"--conf-file={self.folder}/dnsmasq.conf",
            f"--log-facility={log}",
        )  # fmt: skip
        self._until((self.folder / "dnsmasq.pid").exists, "dnsmasq")

    def stop(self, *names: str) -> None:
        """Ends these processes (`nginx`, `dnsmasq`); without names, the whole service."""
        if not names and self._decider is not None:
            self._decider.shutdown()
            self._decider.server_close()
            self._decider = None
        for name in names or tuple(self._running):
            process = self._running.pop(name, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(5.0)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def _start(self, name: str, *argv: str) -> None:
        if name not in self._running:
            log = self.folder / f"{name}.out"
            self._running[name] = start(argv, self._namespace, self._group, log=log)

    def _until(self, ready: Callable[[], bool], name: str) -> None:
        end = time.monotonic() + _READY_DEADLINE_S
        while not ready():
            if self._running[name].poll() is not None or time.monotonic() > end:
                said = (self.folder / f"{name}.out").read_text(errors="replace").strip()[-_QUOTED_CHARS:]
                raise RackproofError(f"the boot service's {name} did not come up: {said}", f"its logs: {self.folder}")
            time.sleep(_POLL_S)

    def _require(self) -> None:
        missing = [package for name, package in _PACKAGES.items() if not shutil.which(name, path=SEARCH_PATH)]
        if not (self.site.firmware / "snponly.efi").exists():
            missing.append("ipxe")
        if missing:
            raise UsageError(
                f"the boot service needs what is not installed: {', '.join(missing)}",
                f"apt-get install {' '.join(missing)}",
            )
