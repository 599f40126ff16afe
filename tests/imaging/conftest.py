"""A node, its image order, and a small world in which a machine boots what its BMC and its boot script tell it to."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.imaging.machines import Site, site_at
from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.image.site import image_trust
from toolkit.netboot.offers import BootOffers, Offer
from toolkit.netboot.probe import DhcpServer
from toolkit.rack.model import Bmc, Disk, Host, Unit, UnitKind
from toolkit.redfish import (
    BmcRefusedError,
    BootEnabled,
    BootOverride,
    BootTarget,
    Power,
    Reset,
    SystemIdentity,
)
from toolkit.stages.boot_script import ImageSource, Places, Seed
from toolkit.stages.deploy_reports import Report
from toolkit.stages.imaging import ImageOrder, Means, Patience, image_node
from toolkit.stages.imaging_end import ImageResult
from toolkit.stages.provisioning import ProvisionSite
from toolkit.stages.seeds import SeedFile
from toolkit.virtual.blank_image import publish_blank

NODE = Unit(
    "node1", UnitKind.NODE, "VR00000001", 1,
    bmc=Bmc("10.67.0.11", "bmc"),
    host=Host("10.66.0.11", "52:54:00:66:00:01", Disk("/dev/nvme0n1", "VD00000001")),
)  # fmt: skip
IMAGE = "debian-12-node.img.zst"
SHA256 = sha256(b"blank").hexdigest()  # of the disk of `publish_blank`
HOST_KEY = "ssh-ed25519 " + "A" * 68
OTHER_KEY = "ssh-ed25519 " + "B" * 68


@cache
def _keys() -> Path:
    """One image key for all worlds: making one takes longer than a world lives."""
    folder = Path(tempfile.mkdtemp(prefix="rackproof-keys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _published() -> Path:
    """A provisioning folder with the signed image."""
    folder = _keys().parent / f"{_keys().name}-provision"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    publish_blank(folder, _keys(), IMAGE)
    return folder


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
    power_cuts: int = 0  # the power goes while the image is written, so often
    ignores_override: bool = False
    keeps_override: bool = False  # every boot is from the network, whatever it shows
    override_stays: bool = False  # it makes Continuous of Once, and shows it
    override_sticks: bool = False  # and does not clear it
    drops_override: bool = False  # it takes the override and shows nothing of it
    strangers: tuple[DhcpServer, ...] = ()  # DHCP servers whom the node hears first
    nobody_looks: bool = False  # the controller is not in the nodes' network
    never_starts: bool = False  # kernel or ramdisk do not come up
    power_word: Power | None = None  # what the BMC says whatever the power is
    refuses_after: int | None = None  # so many answers of the BMC, and then it takes the password no more
    makes_host_key: bool = False
    progress_steps: int = 0
    idle_steps: int = 0  # half seconds in which it works and says nothing
    booted_key: str = HOST_KEY
    erases: bool = False
    gives_up: str = ""  # the ramdisk's code
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
    logs: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        shutil.copytree(_published(), self.root)
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
        if self.power is Power.ON:
            self._boot()

    def _boot(self) -> None:
        network = (self.boots_from_network or self.keeps_override) and not self.ignores_override
        network = network and not self.drops_override and not self.strangers
        self.boots_from_network = False
        assert NODE.host is not None
        offer, is_given = BootOffers(self.root).take(NODE.host.mac, NODE.host.address) if network else (None, False)
        if offer is not None and is_given:
            arguments = dict(re.findall(r"deploy\.(\w+)=(\S+)", offer.script))
            self.script = [] if self.never_starts else [lambda: None, *self._ramdisk(arguments)]
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

        steps = [report("progress", step="write", percent=10 * n) for n in range(self.progress_steps)]
        key = [report("host_key", host_key=HOST_KEY)] if self.makes_host_key else []

        def write() -> None:
            self.writes += 1
            if self.power_cuts:
                self.power_cuts -= 1
                self.disk, self.script = "", [off]
                return
            (self.root / "logs").mkdir(exist_ok=True)
            (self.root / "logs" / f"{told['token']}.log").write_text("what the ramdisk did\n")
            self.disk = "" if self.damaged_downloads else told["token"]
            event = "hash_mismatch" if self.damaged_downloads else "written"
            certified = "certified" if (self.root / "seeds" / f"{told['token']}.cert").exists() else ""
            ending = report(event, found="cd" * 32, code=certified)
            self.script = [ending, off if self.damaged_downloads else self._boot]
            self.damaged_downloads = max(0, self.damaged_downloads - 1)

        if self.gives_up:
            event = "refused" if self.gives_up == "DISK_SIZE_MISMATCH" else "failed"
            return [start, report(event, code=self.gives_up, message="why", expected="1", found="2"), off]
        if self.erases:
            key.append(report("erased", code="format", found=self.disk_serial, message="Success"))
        return [start, *key, *steps, *[lambda: None] * self.idle_steps, write]

    def _boot_disk(self) -> None:
        def up() -> None:
            self.running = self.booted_key
            told = {"event": "booted", "serial": self.node_serial, "image": SHA256, "host_key": self.booted_key}
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
        if self.refuses_after is not None:
            self.refuses_after -= 1
            if self.refuses_after < 0:
                raise BmcRefusedError("BMC https://10.67.0.11: reading: 401", "correct bmc.yml")

    def identity(self) -> SystemIdentity:
        self._reach()
        return SystemIdentity(self.bmc_serial, "DGXH100", "1", "2", ("52:54:00:66:00:01",))

    def boot_from_network(self) -> BootOverride:
        def asked() -> None:
            self.boots_from_network = True
            self.keeps_override = self.keeps_override or self.override_stays

        self._reach()
        self.act("boot once", asked)
        return self._override()

    def boot_override(self) -> BootOverride:
        self._reach()
        return self._override()

    def clear_boot_override(self) -> BootOverride:
        def cleared() -> None:
            self.boots_from_network = self.keeps_override = self.keeps_override and self.override_sticks

        self._reach()
        self.act("clear override", cleared)
        if self.keeps_override:
            raise UndecidedError(
                "BMC https://10.67.0.11: it accepted that the boot override is cleared", "look at Boot"
            )
        return self._override()

    def _override(self) -> BootOverride:
        if self.drops_override or not (self.boots_from_network or self.keeps_override):
            return BootOverride(BootTarget.NONE, BootEnabled.DISABLED)
        return BootOverride(BootTarget.PXE, BootEnabled.CONTINUOUS if self.override_stays else BootEnabled.ONCE)

    def reset(self, kind: Reset) -> None:
        self._reach()
        self.act(f"reset {kind}", lambda: self.press(kind))
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnreachableError("BMC https://10.67.0.11: asking for On: it does not answer", "check it")

    # ImageSite

    @property
    def _site(self) -> ProvisionSite:
        return ProvisionSite(self.root, "http://10.66.255.1", lambda: image_trust(_keys(), self.now))

    def image(self, name: str) -> ImageSource:
        return self._site.image(name)

    def places(self, token: str, signed: bool) -> Places:
        return self._site.places(token, signed)

    def publish_seed(self, token: str, files: Mapping[str, SeedFile]) -> Seed:
        seed: Seed = self.act("publish seed", lambda: self._site.publish_seed(token, files))
        return seed

    def publish_certificate(self, token: str, certificate: str) -> None:
        self.act("publish certificate", lambda: self._site.publish_certificate(token, certificate))

    def publish_boot(self, node: Unit, token: str, script: str) -> None:
        self.act("publish boot", lambda: self._site.publish_boot(node, token, script))

    def offer(self, node: Unit) -> Offer | None:
        return self._site.offer(node)

    def log(self, token: str) -> bytes:
        return self._site.log(token)

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

    @property
    def _bmc(self) -> _Bmc:
        return _Bmc(self)

    def run(self, attempt_s: float = 60.0) -> ImageResult:
        means = Means(
            bmc=self._bmc, site=self, journal=self, is_running=lambda key: self.running == key,
            new_token=self.new_token, clock=lambda: self.now, sleep=self.sleep,
            progress=lambda text, _done: self.said.append(text), keep_log=self._keep_log,
            sign_host_key=(lambda key: f"certificate of {key}") if self.makes_host_key else None,
            strangers=self._look,
        )  # fmt: skip
        order = ImageOrder(NODE, IMAGE, ("ssh-ed25519 AAAA operator",), "rackproof bringup demo")
        return image_node(order, means, Patience(attempt_s, 0.5, 10.0, 3.0))

    def _look(self) -> tuple[DhcpServer, ...]:
        if self.nobody_looks:
            raise UsageError("no interface of this machine is in the network of 10.66.0.11", "elsewhere")
        return self.strangers

    def _keep_log(self, log: bytes) -> str:
        self.logs.append(log)
        return sha256(log).hexdigest()

    @property
    def offers(self) -> list[str]:
        """Boot scripts, seeds and certificates that are still published."""
        assert NODE.host is not None
        offer = BootOffers(self.root).look(NODE.host.mac)
        scripts = [offer.token] if offer is not None and offer.script else []
        seeds = self.root / "seeds"
        return scripts + ([p.name for p in seeds.iterdir()] if seeds.exists() else [])


@dataclass(frozen=True)
class _Bmc:
    """The BMC's face of the world: `power` is a method there."""

    world: World

    def power(self) -> Power:
        self.world._reach()
        return self.world.power_word or self.world.power

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world in which all is well and the machine is off."""
    return World(tmp_path / "provision")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The image stage over real virtual machines."""
    with site_at(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def site(machines: Site) -> Site:
    """The same, its node bare and off."""
    machines.bare()
    return machines
