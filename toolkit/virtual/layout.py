"""Names and places of one virtual rack: folders under the home, namespaces and control groups on the host.

Everything that a rack leaves on the host carries its tag, so that it can be found again after a crash. The tag
holds a digest of the home folder: two installations may both have a rack called `demo` on one machine.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}")  # becomes a file name and a host name


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name!r} cannot name a virtual machine's files",
            "use 1 to 48 letters, digits, '-', '_' and '.', the first a letter or digit",
        )
    return name


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """Where one virtual node keeps its things."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The system disk: a sparse file."""
        return self.folder / "nvme0n1.img"

    @property
    def console(self) -> Path:
        """What the firmware and the operating system wrote to the serial console."""
        return self.folder / "console.log"

    @property
    def hardware(self) -> Path:
        """State of the devices, bound into the machine as /run/hardware."""
        return self.folder / "hardware"

    @property
    def root(self) -> Path:
        """Where the system disk is mounted, in the daemon's own mount namespace."""
        return self.folder / "root"

    @property
    def ramdisk(self) -> Path:
        """Where the network-booted ramdisk lives, on a tmpfs in the daemon's own mount namespace."""
        return self.folder / "ramdisk"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one virtual rack keeps its things. `home` is absolute."""

    home: Path
    rack: str

    def __post_init__(self) -> None:
        _checked(self.rack, "rack")

    @property
    def mark(self) -> str:
        """Six hex digits that tell this installation's racks from another's."""
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:6]

    @property
    def tag(self) -> str:
        """Name of the rack on this host."""
        return f"{self.rack}-{self.mark}"

    @property
    def folder(self) -> Path:
        """All files of the rack; mode 0700."""
        return racks_folder(self.home) / self.rack

    @property
    def socket(self) -> Path:
        """UNIX socket of the daemon."""
        return self.folder / "control.sock"

    @property
    def log(self) -> Path:
        """What the daemon has to say."""
        return self.folder / "daemon.log"

    @property
    def description(self) -> Path:
        """The rack as the daemon was told it."""
        return self.folder / "rack.json"

    @property
    def certificates(self) -> Path:
        """One PEM file (key and certificate) per BMC."""
        return self.folder / "bmc"

    @property
    def cluster(self) -> Path:
        """The rack's Kubernetes control plane; mode 0700."""
        return self.folder / "cluster"

    @property
    def control_group(self) -> str:
        """Path of the rack's control groups below each hierarchy's root."""
        return f"rackproof/{self.tag}"

    @property
    def controller(self) -> str:
        """Network namespace of the controller: provisioning server and operator's processes."""
        return f"rp-{self.tag}-controller"

    @property
    def switch(self) -> str:
        """Network namespace of the bridges."""
        return f"rp-{self.tag}-switch"

    @property
    def bmcs(self) -> str:
        """Network namespace of the BMCs."""
        return f"rp-{self.tag}-bmcs"

    @property
    def stranger(self) -> str:
        """Network namespace of a DHCP server that does not belong there."""
        return f"rp-{self.tag}-stranger"

    def namespace(self, node: str) -> str:
        """Network namespace of a node."""
        return f"rp-{self.tag}-unit-{_checked(node, 'node')}"

    def owns_namespace(self, name: str) -> bool:
        """Whether a network namespace of the host is one of this rack's."""
        fixed = {self.controller, self.switch, self.bmcs, self.stranger}
        return name in fixed or name.startswith(f"rp-{self.tag}-unit-")

    def node(self, name: str) -> NodeLayout:
        """Places of one node."""
        return NodeLayout(self.folder / "nodes" / _checked(name, "node"))


def racks_folder(home: Path) -> Path:
    """Folder with one folder per virtual rack that is up."""
    return home / "virtual"


def layout_of(settings: Settings, rack: str) -> Layout:
    """The layout of a rack by name."""
    return Layout(settings.home.resolve(), rack)
