"""The virtual rack without processes: the same faults behind the same hands, in files under one folder.

It has no machines, no network and no time lag; what it has is memory that outlives the process that drives it, so
that a bringup may be killed at any instant and met again. It also counts what must not be done twice. Tests walk the
pipeline over it in milliseconds a step, and a user who is not root can rehearse on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from burnin.record import dump
from toolkit.durable import write_whole
from toolkit.errors import UnreachableError
from toolkit.pool.file import FilePool
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import Power, Reset, SystemIdentity
from toolkit.runners.play import HostOutcome, HostResult, PlayEvent, PlayRequest, PlayResult
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult
from toolkit.settings import Settings
from toolkit.stages.provisioning import ProvisionSite, host_of
from toolkit.virtual.devices import ibstat, nvidia_smi
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import render_state
from toolkit.virtual.in_process_burnin import BurnIn

_TOOLS: Mapping[str, Callable[[Sequence[str]], int]] = {"nvidia-smi": nvidia_smi.main, "ibstat": ibstat.main}
_ONE_AT_A_TIME = threading.RLock()  # the stand-ins write to sys.stdout and read the environment
_TAINTED = (
    "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
    "registerWithTaints:\n  - {key: rackproof.dev/uncertified, effect: NoSchedule}\n"
)


@dataclass(slots=True)
class _Machine:
    """What a node remembers; written in one piece, as real hardware goes on when its driver is killed.

    disk_writes  how often an image was written
    resets       how often its GPUs were reset
    waiting      GPUs with a faulty row that a reset or a boot replaces
    replaced     how often it did
    reports      what ramdisk and first boot said, by token: posted as soon as anybody looks
    """

    power: str = Power.OFF.value
    boot_once: bool = False
    image: str = ""
    disk_writes: int = 0
    played: list[str] = field(default_factory=list)
    resets: int = 0
    replaced: int = 0
    waiting: list[int] = field(default_factory=list)
    reports: dict[str, str] = field(default_factory=dict)

    def replace_rows(self) -> None:
        """What a GPU does with its faulty rows when it begins anew."""
        self.replaced += bool(self.waiting)
        self.waiting = []


@dataclass(slots=True)
class InProcessRack:
    """Hands over a rack of files. `faults` may be changed while it runs."""

    rack: Rack
    settings: Settings
    folder: Path
    faults: list[Fault] = field(default_factory=list)
    serials: dict[str, str] = field(default_factory=dict)  # of GPU 0, by node: another board in the slot
    reset_status: int = 0  # what nvidia-smi ends with when it is asked for a reset

    @property
    def playbooks(self) -> InProcessRack:
        """Itself."""
        return self

    @property
    def shell(self) -> InProcessRack:
        """Itself."""
        return self

    @property
    def site(self) -> ProvisionSite:
        """The real provisioning folder, with all that the nodes had to say posted."""
        for node in self.rack.nodes:
            self.post(node.name)
        return ProvisionSite(self.settings.provision, self.rack.provision_url)

    @property
    def pool(self) -> FilePool:
        """A real pool, in a file."""
        return FilePool(self.settings.pool(self.rack.site))

    def bmc(self, node: Unit) -> _Bmc:
        """The node's BMC; one with the fault `bmc_dead` answers nothing."""
        return _Bmc(self, node)

    def fault(self, node: str, kind: FaultKind) -> Fault | None:
        """The node's fault of that kind, if it has it."""
        return next((f for f in self.faults if f.node == node and f.kind is kind), None)

    def machine(self, node: str) -> _Machine:
        """What the node remembers now."""
        path = self.folder / node / "machine.json"
        return _Machine(**json.loads(path.read_text())) if path.exists() else _Machine()

    @contextlib.contextmanager
    def changing(self, node: str) -> Iterator[_Machine]:
        """The node's memory, written back whole or not at all."""
        with _ONE_AT_A_TIME:
            machine = self.machine(node)
            yield machine
            kept = {name: getattr(machine, name) for name in machine.__slots__}
            write_whole(self.folder / node / "machine.json", json.dumps(kept).encode())

    def burnins(self, node: str) -> tuple[str, ...]:
        """Ids of the burn-ins the node ever began."""
        folder = self.folder / node / "files/var/lib/rackproof/burnin"
        return tuple(sorted(p.name for p in folder.iterdir())) if folder.exists() else ()

    def post(self, node: str) -> None:
        """Posts what the node had to say and has not said yet."""
        for token, line in self.machine(node).reports.items():
            path = self.settings.provision / "reports" / f"{token}.jsonl"
            if not path.exists():
                write_whole(path, line.encode())

    # Playbooks

    def play(self, request: PlayRequest, on_event: Callable[[PlayEvent], None]) -> PlayResult:
        """Every node that is up takes the playbook."""
        hosts = {}
        for name in request.nodes:
            if self.machine(name).power != Power.ON.value:
                hosts[name] = HostResult(HostOutcome.UNREACHABLE, message="no route to host")
                continue
            with self.changing(name) as machine:
                machine.played = sorted({*machine.played, request.playbook})
            on_event(PlayEvent(name, request.playbook, "ok"))
            hosts[name] = HostResult(HostOutcome.OK)
        return PlayResult("successful", hosts, self.folder)

    # Shell

    def run(
        self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = MAX_OUTPUT_BYTES
    ) -> CommandResult:
        """What the node's tools would print."""
        machine = self.machine(node.name)
        if machine.power != Power.ON.value or not machine.image:
            raise UnreachableError(f"{node.name}: no route to host", "is it powered on?")
        status, text = self._answer(node, machine, list(argv))
        output = text.encode()
        return CommandResult(status, output[:max_bytes], b"", len(output) > max_bytes)

    def put(self, node: Unit, local: Path, remote: str, mode: int = 0o644) -> None:
        """Keeps the file under the node's folder."""
        target = self.folder / node.name / "files" / remote.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(local.read_bytes())

    def read(self, node: Unit, remote: str, offset: int, max_bytes: int) -> bytes:
        """A slice of a file under the node's folder."""
        with (self.folder / node.name / "files" / remote.lstrip("/")).open("rb") as file:
            file.seek(offset)
            return file.read(max_bytes)

    def _answer(self, node: Unit, machine: _Machine, argv: list[str]) -> tuple[int, str]:
        match argv:
            case ["nvidia-smi", "--gpu-reset", *_]:
                return self._reset_gpus(node)
            case [tool, *arguments] if tool in _TOOLS:
                status, text = self._tool(node, _TOOLS[tool], arguments)
                return status, _with_waiting(text, machine.waiting)
            case ["sha256sum", path]:
                file = self.folder / node.name / "files" / path.lstrip("/")
                return (0, hashlib.sha256(file.read_bytes()).hexdigest()) if file.exists() else (1, "")
            case ["systemd-run", *rest]:
                return self._burn_in(node, rest)
            case ["systemctl", "is-active", *_]:
                return 3, ""
            case ["systemctl", "list-units", *_]:
                return 0, ""
            case ["mkdir", *_]:
                return 0, ""
            case ["cat", "/etc/rackproof/image"]:
                return 0, f"{machine.image}\n"
        return self._file(node, machine, " ".join(argv))

    def _file(self, node: Unit, machine: _Machine, command: str) -> tuple[int, str]:
        """Facts that are not of a device, by what the probe's command speaks of."""
        services = "nvidia-fabricmanager", "nvidia-persistenced", "nvidia-imex", "containerd", "kubelet"
        shown = "\n".join(f"Id={s}.service\nLoadState=loaded\nActiveState=active\n" for s in services)
        driver = dict(self.rack.profile.expected)["driver_version"]
        skewed = "580.82.07" if self.fault(node.name, FaultKind.FABRIC_MANAGER_SKEW) else ""
        packages = "".join(f"{name} {version} installed\n" for name, version in self.rack.profile.versions)
        answers = (
            ("product_serial", f"{node.serial}\n"),
            ("product_name", f"{dict(self.rack.profile.expected)['product_name']}\n"),
            ("nv-fabricmanager", f"Fabric Manager version is : {skewed or driver}\n"),
            ("kubelet.conf.d", _TAINTED if "kubernetes.yml" in machine.played else ""),
            ("systemctl show", shown),
            ("dpkg-query", packages),
            ("kmsg", ""),
        )
        for words, text in answers:
            if words in command:
                return 0, text
        return 127, ""

    def _tool(self, node: Unit, tool: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> tuple[int, str]:
        hardware = self.folder / node.name / "hardware"
        hardware.mkdir(parents=True, exist_ok=True)
        mine = [f for f in self.faults if f.node == node.name]
        swapped = f"gpu0.serial {self.serials[node.name]}\n" if node.name in self.serials else ""
        (hardware / "state").write_text(render_state(node, self.rack.profile, mine) + swapped)
        with _ONE_AT_A_TIME, contextlib.redirect_stdout(io.StringIO()) as printed:
            os.environ["RACKPROOF_HARDWARE"] = str(hardware)
            return tool(arguments), printed.getvalue()

    # Burn-in

    def _burn_in(self, node: Unit, arguments: Sequence[str]) -> tuple[int, str]:
        """Runs to its end at once; the same id again does nothing, like the real one."""
        identity, out = arguments[arguments.index("--run") + 1], arguments[arguments.index("--out") + 1]
        folder = self.folder / node.name / "files" / out.lstrip("/")
        if (folder / "records.jsonl").exists():
            return 0, ""
        told = BurnIn(node, self.rack.profile, tuple(f for f in self.faults if f.node == node.name))
        with self.changing(node.name) as machine:
            replaced = machine.replaced
            machine.waiting = list(told.remapped(replaced))
        for _, name, content in told.artifacts(replaced):
            write_whole(folder / name, content)
        write_whole(folder / "records.jsonl", "".join(map(dump, told.records(identity, replaced))).encode())
        return 0, ""

    def _reset_gpus(self, node: Unit) -> tuple[int, str]:
        """Rows that wait are replaced."""
        if self.reset_status:
            return self.reset_status, "GPU is in use by another client"
        with self.changing(node.name) as machine:
            machine.resets += 1
            machine.replace_rows()
        return 0, "GPUs were successfully reset."


@dataclass(frozen=True, slots=True)
class _Bmc:
    """The BMC of a node of files. What it starts has happened when it returns."""

    lab: InProcessRack
    node: Unit

    def identity(self) -> SystemIdentity:
        """As the rack file says."""
        self._alive()
        return SystemIdentity(self.node.serial, "DGXH100", "1.6.7", "25.06.27", (host_of(self.node).mac.lower(),))

    def power(self) -> Power:
        """Power state now."""
        self._alive()
        return Power(self.lab.machine(self.node.name).power)

    def boot_once_from_network(self) -> None:
        """Kept until the next boot."""
        self._alive()
        with self.lab.changing(self.node.name) as machine:
            machine.boot_once = True

    def reset(self, kind: Reset) -> None:
        """Switches off, or on and through the boot."""
        self._alive()
        with self.lab.changing(self.node.name) as machine:
            if kind is Reset.FORCE_OFF:
                machine.power = Power.OFF.value
                return
            machine.power = Power.ON.value
            machine.replace_rows()
            from_network, machine.boot_once = machine.boot_once, False
            script = self._script() if from_network else {}
            if script:
                self._deploy(machine, script)
        self.lab.post(self.node.name)

    def _alive(self) -> None:
        if self.lab.fault(self.node.name, FaultKind.BMC_DEAD):
            raise UnreachableError(f"BMC of {self.node.name} does not answer", "check its power, cable and address")

    def _script(self) -> dict[str, str]:
        """Arguments of the boot script the provisioning server offers; empty if it offers none."""
        mac = host_of(self.node).mac.lower().replace(":", "-")
        path = self.lab.settings.provision / "boot" / f"{mac}.ipxe"
        words = path.read_text().split() if path.exists() else []
        return {w.split("=", 1)[0]: w.split("=", 1)[1] for w in words if w.startswith("deploy.")}

    def _deploy(self, machine: _Machine, script: Mapping[str, str]) -> None:
        """What the ramdisk does to the disk, and what it or the first boot then has to say."""
        machine.disk_writes += 1
        machine.played = []
        told: dict[str, object] = {"event": "booted", "serial": self.node.serial, "image": script["deploy.sha256"]}
        told["host_key"] = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
        machine.image = script["deploy.sha256"]
        fault = self.lab.fault(self.node.name, FaultKind.BAD_IMAGE)
        if fault and (fault.value or 0) >= machine.disk_writes:
            told = {"event": "hash_mismatch", "expected": script["deploy.sha256"], "found": "0" * 64}
            machine.image, machine.power = "", Power.OFF.value
        machine.reports[script["deploy.token"]] = json.dumps(told) + "\n"


def _with_waiting(text: str, waiting: Sequence[int]) -> str:
    """nvidia-smi's XML in which these GPUs have a row remap pending."""
    parts = re.split(r"(<remapped_row_pending>)No", text)
    shown = parts[0]
    for gpu, (tag, rest) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        shown += f"{tag}{'Yes' if gpu in waiting else 'No'}{rest}"
    return shown


def publish_blank_image(settings: Settings, rack: Rack) -> None:
    """An image and a ramdisk of a few bytes, published: nothing here boots them."""
    for folder, name in (("images", rack.profile.image), ("boot", "deploy.cpio.zst")):
        path = settings.provision / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"blank")
        path.with_name(f"{name}.sha256").write_text(f"{hashlib.sha256(b'blank').hexdigest()}  {name}\n")
