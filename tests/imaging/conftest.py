"""A node, its image order, and a small world in which a machine boots what its BMC and its boot script tell it to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import UnreachableError
from toolkit.rack.model import Bmc, Disk, Host, Unit, UnitKind
from toolkit.redfish import Power, Reset, SystemIdentity
from toolkit.stages.imaging import ImageOrder, ImageResult, Means, Patience, image_node
from toolkit.stages.provisioning import ImageSource, ProvisionSite, Report, Seed, SeedFile

NODE = Unit(
    "node1", UnitKind.NODE, "VR00000001", 1,
    bmc=Bmc("10.67.0.11", "bmc"),
    host=Host("10.66.0.11", "52:54:00:66:00:01", Disk("/dev/nvme0n1", "VD00000001")),
)  # fmt: skip
IMAGE = "debian-12-node.img.zst"
SHA256 = "ab" * 32
HOST_KEY = "ssh-ed25519 " + "A" * 68


class Killed(BaseException):
    """The process died here."""


@dataclass
class World:
    """One machine, its BMC, the provisioning folder and the record. Time passes when somebody sleeps.

    kill_at  acts left until the process dies; before the act if `kill_before`, else right after it
    """

    root: Path
    bmc_serial: str = NODE.serial
    node_serial: str = NODE.serial
    disk_serial: str = "VD00000001"
    damaged_downloads: int = 0
    dead_bmc: bool = False
    lost_answers: int = 0
    hangs: bool = False
    silent: bool = False
    power: Power = Power.OFF
    boots_from_network: bool = False
    writes: int = 0
    disk: str = ""
    running: str = ""
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    record: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    kill_at: int | None = None
    kill_before: bool = False
    script: list[Callable[[], None]] = field(default_factory=list)
    tokens: int = 0
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder, name in (("images", IMAGE), ("boot", "deploy.cpio.zst")):
            (self.root / folder).mkdir(parents=True)
            (self.root / folder / name).write_bytes(b"x")
            (self.root / folder / f"{name}.sha256").write_text(f"{SHA256}  {name}\n")
        (self.root / "reports").mkdir()

    def act(self, name: str, effect: Callable[[], Any] = lambda: None) -> Any:
        """Something that is seen outside the process; the process may die before or after it."""
        self.acts.append(name)
        dies = self.kill_at == 0
        if self.kill_at is not None:
            self.kill_at -= 1
        if dies and self.kill_before:
            raise Killed
        answer = effect()
        if dies:
            raise Killed
        return answer

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        if self.script:
            self.script.pop(0)()

    # the machine

    def press(self, kind: Reset) -> None:
        self.power = Power.ON if kind is not Reset.FORCE_OFF else Power.OFF
        self.running, self.script = "", []
        network, self.boots_from_network = self.boots_from_network, False
        boot = self.root / "boot" / "52-54-00-66-00-01.ipxe"
        if network and boot.exists():
            arguments = dict(re.findall(r"deploy\.(\w+)=(\S+)", boot.read_text()))
            self.script = [lambda: None, *self._ramdisk(arguments)]
        elif self.disk:
            self.script = [self._boot_disk]

    def _ramdisk(self, told: dict[str, str]) -> list[Callable[[], None]]:
        def report(event: str, **fields: str) -> Callable[[], None]:
            return lambda: self.post(told["token"], {"event": event, "serial": self.node_serial, **fields})

        def off() -> None:
            self.power = Power.OFF

        if self.silent:
            return [off]
        start = report("started")
        if self.node_serial != told["serial"]:
            wrong = {"expected": told["serial"], "found": self.node_serial}
            return [start, report("refused", code="NODE_SERIAL_MISMATCH", **wrong), off]
        if self.disk_serial != told["disk_serial"]:
            wrong = {"expected": told["disk_serial"], "found": self.disk_serial}
            return [start, report("refused", code="DISK_SERIAL_MISMATCH", **wrong), off]

        def write() -> None:
            self.writes += 1
            self.disk = "" if self.damaged_downloads else told["token"]
            event = "hash_mismatch" if self.damaged_downloads else "written"
            self.script = [report(event, found="cd" * 32), off if self.damaged_downloads else self._boot_disk]
            self.damaged_downloads = max(0, self.damaged_downloads - 1)

        return [start, write]

    def _boot_disk(self) -> None:
        def up() -> None:
            self.running = HOST_KEY
            told = {"event": "booted", "serial": self.node_serial, "image": SHA256, "host_key": HOST_KEY}
            if not any(r.event == "booted" for r in self.reports(self.disk)):
                self.post(self.disk, told)

        self.script = [] if self.hangs else [up]

    def post(self, token: str, body: dict[str, str]) -> None:
        with (self.root / "reports" / f"{token}.jsonl").open("a") as file:
            file.write(json.dumps(body) + "\n")

    # BmcClient

    def _reach(self) -> None:
        if self.dead_bmc:
            raise UnreachableError("BMC https://10.67.0.11: reading: it did not answer in time", "check it")

    def identity(self) -> SystemIdentity:
        self._reach()
        return SystemIdentity(self.bmc_serial, "DGXH100", "1", "2", ("52:54:00:66:00:01",))

    def boot_once_from_network(self) -> None:
        self._reach()
        self.act("boot once", lambda: setattr(self, "boots_from_network", True))

    def reset(self, kind: Reset) -> None:
        self._reach()
        self.act(f"reset {kind}", lambda: self.press(kind))
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnreachableError("BMC https://10.67.0.11: asking for On: it does not answer", "check it")

    # ImageSite

    @property
    def _site(self) -> ProvisionSite:
        return ProvisionSite(self.root, "http://10.66.255.1")

    def image(self, name: str) -> ImageSource:
        return self._site.image(name)

    def report_url(self, token: str) -> str:
        return self._site.report_url(token)

    def publish_seed(self, token: str, files: Mapping[str, SeedFile]) -> Seed:
        seed: Seed = self.act("publish seed", lambda: self._site.publish_seed(token, files))
        return seed

    def publish_boot(self, node: Unit, script: str) -> None:
        self.act("publish boot", lambda: self._site.publish_boot(node, script))

    def withdraw(self, node: Unit, token: str) -> None:
        self.act("withdraw", lambda: self._site.withdraw(node, token))

    def reports(self, token: str) -> tuple[Report, ...]:
        return self._site.reports(token)

    # Journal

    def intent(self, what: str, details: Mapping[str, Any]) -> None:
        self.act(f"intent {what}", lambda: self.record.append(("intent", what, dict(details))))

    def observed(self, what: str, details: Mapping[str, Any]) -> None:
        self.act(f"observed {what}", lambda: self.record.append(("observed", what, dict(details))))

    def find_intent(self, what: str) -> dict[str, Any] | None:
        return next((d for kind, name, d in reversed(self.record) if (kind, name) == ("intent", what)), None)

    def find_observed(self, what: str) -> dict[str, Any] | None:
        return next((d for kind, name, d in reversed(self.record) if (kind, name) == ("observed", what)), None)

    # the process

    def new_token(self) -> str:
        self.tokens += 1
        return f"{self.tokens:032x}"

    def run(self, attempt_s: float = 60.0) -> ImageResult:
        means = Means(
            bmc=_Bmc(self), site=self, journal=self, is_running=lambda key: self.running == key,
            new_token=self.new_token, clock=lambda: self.now, sleep=self.sleep, progress=self.said.append,
        )  # fmt: skip
        order = ImageOrder(NODE, IMAGE, ("ssh-ed25519 AAAA operator",), "rackproof bringup demo")
        return image_node(order, means, Patience(attempt_s, 0.5, 10.0, 3.0))

    @property
    def offers(self) -> list[str]:
        """Boot scripts and seeds that are still published."""
        return [p.name for p in self.root.glob("*/*") if p.suffix in (".ipxe", ".tar") or p.name.endswith(".new")]


@dataclass(frozen=True)
class _Bmc:
    """The BMC's face of the world: `power` is a method there."""

    world: World

    def power(self) -> Power:
        self.world._reach()
        return self.world.power

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world in which all is well and the machine is off."""
    return World(tmp_path / "provision")
