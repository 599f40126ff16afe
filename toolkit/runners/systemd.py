"""The burn-in as a transient systemd unit, over a shell on the node: how a node that we reach by SSH is burnt in.

The unit is named by the run and belongs to the node: a controller that was killed finds it by its name, and what it
wrote stays on the node's disk.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import UndecidedError
from toolkit.rack.model import Unit
from toolkit.runners.carrier import POLL_SECONDS, SHIPPING_SECONDS, Task
from toolkit.runners.shell import Shell

REMOTE = "/opt/rackproof/burnin.pyz"
FOLDER = "/var/lib/rackproof/burnin"
COMMAND_SECONDS = 60.0
_UNIT = "rackproof-burnin-"


class SystemdCarrier:
    """Implements `carrier.Carrier`."""

    name = "SSH"
    poll_s = POLL_SECONDS
    shipping_s = SHIPPING_SECONDS

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def ship(self, node: Unit, archive: Path, digest: str) -> None:
        """Copies the program, unless the node has these very bytes."""
        self._shell.run(node, ["mkdir", "-p", "/opt/rackproof", FOLDER], COMMAND_SECONDS)
        answer = self._shell.run(node, ["sha256sum", REMOTE], COMMAND_SECONDS)
        if answer.status != 0 or answer.stdout[:64].decode("ascii", "replace") != digest:
            self._shell.put(node, archive, REMOTE, 0o755)

    def start(self, node: Unit, task: Task) -> None:
        """Starts the unit. The node itself does nothing for an id that has ended."""
        unit = [f"--unit={_UNIT}{task.identity}", "--collect", "--quiet", "--property=KillMode=control-group"]
        run = ["run", "--run", task.identity, *task.arguments, "--out", f"{FOLDER}/{task.identity}"]
        answer = self._shell.run(node, ["systemd-run", *unit, "/usr/bin/python3", REMOTE, *run], COMMAND_SECONDS)
        if answer.status != 0:
            said = (answer.stderr or answer.stdout)[:300].decode("utf-8", "replace")
            raise UndecidedError(
                f"burn-in on {node.name} did not start: {said.strip()}",
                f"see that {node.name} is set up (rackproof bringup), then the same command again",
            )

    def is_active(self, node: Unit, identity: str) -> bool:
        """Whether the unit runs."""
        argv = ["systemctl", "is-active", "--quiet", f"{_UNIT}{identity}.service"]
        return self._shell.run(node, argv, COMMAND_SECONDS).status == 0

    def waits_for(self, node: Unit, identity: str) -> str:
        """Nothing: a unit begins at once."""
        return ""

    def others(self, node: Unit, identity: str) -> tuple[str, ...]:
        """Units of other burn-ins."""
        argv = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", f"{_UNIT}*.service"]
        lines = self._shell.run(node, argv, COMMAND_SECONDS).stdout.decode("utf-8", "replace").splitlines()
        units = [line.split()[0] for line in lines if line.startswith(_UNIT)]
        return tuple(unit for unit in units if unit != f"{_UNIT}{identity}.service")

    def read(self, node: Unit, identity: str, name: str, offset: int, max_bytes: int) -> bytes:
        """A slice of a file in the run's folder."""
        return self._shell.read(node, f"{FOLDER}/{identity}/{name}", offset, max_bytes)

    def stop(self, node: Unit, identity: str) -> None:
        """Ends the unit with all it started; what it wrote stays."""
        self._shell.run(node, ["systemctl", "stop", f"{_UNIT}{identity}.service"], COMMAND_SECONDS)

    def doubt(self, node: Unit, identity: str) -> str:
        """None: what is read is the file itself, over a connection to a host whose key is pinned."""
        return ""

    def forget(self, node: Unit, identity: str) -> None:
        """Nothing: the records stay on the node."""

    def where(self, node: Unit, identity: str) -> str:
        """The run's folder."""
        return f"{FOLDER}/{identity} on {node.name}"
