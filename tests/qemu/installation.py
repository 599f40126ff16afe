"""An installation with one planned node whose hardware is a QEMU machine: driven by its commands alone, as on metal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.qemu.conftest import until
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack
from toolkit.settings import Settings, load
from toolkit.stages.hands import make_keys
from toolkit.virtual import network, supplies
from toolkit.virtual.qemu import console
from toolkit.virtual.qemu.console import Line
from toolkit.virtual.qemu.rack import QemuRack

REPOSITORY = Path(__file__).parents[2]
RECIPE = REPOSITORY / "inventory/images/debian-12-node.yml"
CACHE = os.environ.get("RACKPROOF_CACHE") or str(REPOSITORY / ".rackproof/cache")  # the image is built once a machine
PROGRAM = Path(sys.executable).parent / "rackproof"
RACK, NODE = "metal", "node1"
_HEAD = f"""# One node of demo-small, on a machine with firmware.
---
rack: {RACK}
site: virtual
profile: virtual-dgx-h100
provision: http://10.66.255.1
partial: true

units:
"""


@dataclass
class Installation:
    """A home of its own, and the shipped inventory with one rack more."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inventory = self.home / "inventory"
        shutil.copytree(REPOSITORY / "inventory", inventory)
        (inventory / "racks" / f"{RACK}.yml").write_text(_HEAD + _node1())
        self.environment = os.environ | {
            "RACKPROOF_HOME": str(self.home), "RACKPROOF_INVENTORY": str(inventory), "RACKPROOF_CACHE": CACHE,
        }  # fmt: skip
        self.environment.pop("RACKPROOF_LEDGER", None)
        make_keys(self.settings)

    @property
    def settings(self) -> Settings:
        """Where things are."""
        return load(self.environment)

    @property
    def rack(self) -> Rack:
        """The rack as its file has it."""
        return load_rack(RACK, self.settings.inventory)

    @property
    def console(self) -> tuple[Line, ...]:
        """The machine's serial line so far."""
        return console.read(self.settings.home / "virtual" / RACK / "nodes" / NODE / "console.log")

    def be_impatient(self, silence: str) -> None:
        """The profile waits so long for a word of a node."""
        file = self.settings.inventory / f"profiles/{self.rack.profile.name}.yml"
        kept = [line for line in file.read_text().splitlines() if not line.startswith("imaging:")]
        file.write_text("\n".join([*kept, f"imaging: {{silence: {silence}}}", ""]))

    def stock(self) -> None:
        """Builds, signs and publishes the image and the packages."""
        supplies.stock(self.rack, self.settings, lambda _: None, RECIPE)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts a verb."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [PROGRAM, *words], env=self.environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    def verb(self, *words: str, expect: int = 0, seconds: float = 590.0) -> str:
        """Runs a verb to its end; what it printed."""
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == expect, output
        return output

    def image(self, expect: int = 0, seconds: float = 590.0) -> str:
        """Brings the node to IMAGED."""
        return self.verb("bringup", RACK, "--to", "IMAGED", "--confirm", RACK, expect=expect, seconds=seconds)

    def code(self) -> str:
        """What stands against the node now; "" for nothing."""
        (standing,) = json.loads(self.verb("status", RACK, "--json"))["racks"][RACK]["nodes"]
        return str(standing["code"])

    def on_node(self, script: str, text: bytes = b"") -> str:
        """Runs a script on the node over SSH, by the host key that the site's CA signed and no other."""
        namespace = network.NAMESPACES / f"{self._controller}"
        argv = [
            "nsenter", f"--net={namespace}", "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30",
            "-o", f"UserKnownHostsFile={self.settings.known_hosts(RACK)}", "-o", "StrictHostKeyChecking=yes",
            "-i", str(self.settings.keys / "login"), f"root@{self.rack.nodes[0].host.address}", script,
        ]  # fmt: skip
        done = subprocess.run(argv, input=text, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def plug_devices_in(self, rack: QemuRack) -> None:
        """Puts the stand-ins' hardware state onto the node: no emulated machine has a GPU or an HCA."""
        from toolkit.virtual import hardware_files

        folder = rack.layout.node(NODE).hardware
        node = self.rack.nodes[0]
        hardware_files.lay_out(folder, node, self.rack.profile)
        hardware_files.write_state(folder, node, self.rack.profile, ())
        hardware_files.power_on(folder)
        packed = subprocess.run(["tar", "-C", str(folder), "-c", "."], capture_output=True, check=True).stdout
        self.on_node("mkdir -p /run/hardware && tar -x -C /run/hardware", packed)

    def seconds_to(self, text: str) -> float:
        """When, after power-on, the console showed this first."""
        return next(line.at_s for line in self.console if text in line.text)

    def wait_for(self, text: str, seconds: float) -> None:
        """Until the console shows this."""
        until(lambda: self._shows(text), seconds)

    @property
    def _controller(self) -> str:
        from toolkit.virtual.layout import layout_of

        return layout_of(self.settings, RACK).controller

    def _shows(self, text: str) -> bool:
        try:
            return any(text in line.text for line in self.console)
        except FileNotFoundError:
            time.sleep(0.2)
            return False


def _node1() -> str:
    text = (REPOSITORY / "inventory/racks/demo-small.yml").read_text()
    return text[text.index("  - {name: node1") : text.index("  - {name: node2")]
