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
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from burnin.record import dump
from toolkit.durable import write_whole
from toolkit.errors import UnreachableError, UsageError
from toolkit.image.site import image_trust
from toolkit.netboot.probe import DhcpServer
from toolkit.nvue.rest import RestNvue
from toolkit.pool.file import FilePool
from toolkit.pool.join import Joins
from toolkit.pool.policy import PoolPolicy, Regulation
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import Power
from toolkit.runners.play import HostOutcome, HostResult, PlayEvent, PlayRequest, PlayResult
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult
from toolkit.runners.systemd import SystemdCarrier
from toolkit.settings import Settings
from toolkit.stages.provisioning import ProvisionSite
from toolkit.virtual.blank_image import publish_blank
from toolkit.virtual.devices import ibstat, nvidia_smi
from toolkit.virtual.devices.state import parse
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import render_state
from toolkit.virtual.in_process_bmc import InProcessBmc
from toolkit.virtual.in_process_burnin import BurnIn, Noise
from toolkit.virtual.in_process_fabric import Fabric, is_tool
from toolkit.virtual.in_process_machine import Machine
from toolkit.virtual.in_process_mpi import Mpi
from toolkit.virtual.in_process_nvlink import Nvlink, client, nvos_of
from toolkit.virtual.nvos import VirtualNvos
from toolkit.virtual.stranger import STRANGER

_TOOLS: Mapping[str, Callable[[Sequence[str]], int]] = {"nvidia-smi": nvidia_smi.main, "ibstat": ibstat.main}
_ONE_AT_A_TIME = threading.RLock()  # the stand-ins write to sys.stdout and read the environment
_TAINTED = (
    "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
    "registerWithTaints:\n  - {key: rackproof.dev/uncertified, effect: NoSchedule}\n"
)


IN_NO_TIME = PoolPolicy(regulation=Regulation(soak_s=0.0, smoke=False))


@dataclass(slots=True)
class InProcessRack:
    """Hands over a rack of files. `faults` may be changed while it runs."""

    rack: Rack
    settings: Settings
    folder: Path
    faults: list[Fault] = field(default_factory=list)
    serials: dict[str, str] = field(default_factory=dict)  # of GPU 0, by node: another board in the slot
    reset_status: int = 0  # what nvidia-smi ends with when it is asked for a reset
    warm_boot_helps: bool = True  # a lost GPU comes back by a restart; else only when its power was away
    ac_cycles: bool = False  # the BMCs can take standby power away
    silent: set[str] = field(default_factory=set)  # nodes whose operating system hangs until their power was away
    noise: Noise = field(default_factory=Noise)  # of healthy parts' rates
    nvos: VirtualNvos | None = None  # of a rack with NVLink switch trays
    imex_shut: set[str] = field(default_factory=set)  # nodes whose IMEX command port nobody reaches
    policy: PoolPolicy = IN_NO_TIME  # how it is let into its pool
    joins: Joins | None = None  # its nodes' way into a cluster: a pool in a file has none

    def __post_init__(self) -> None:
        self.nvos = self.nvos or nvos_of(self.rack)

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
        keys = self.settings.keys
        return ProvisionSite(
            self.settings.provision, self.rack.provision_url, lambda: image_trust(keys, datetime.now(UTC))
        )

    @property
    def pool(self) -> FilePool:
        """A real pool, in a file."""
        return FilePool(self.settings.pool(self.rack.site))

    def carrier(self, node: Unit) -> SystemdCarrier:
        """Burn-ins as systemd units, as over SSH."""
        return SystemdCarrier(self)

    def bmc(self, node: Unit) -> InProcessBmc:
        """The node's BMC; one with the fault `bmc_dead` answers nothing."""
        return InProcessBmc(self, node)

    def strangers(self, node: Unit) -> tuple[DhcpServer, ...]:
        """The one of the fault `rogue_dhcp`."""
        return (STRANGER,) if self.fault(node.name, FaultKind.ROGUE_DHCP) else ()

    def nvue(self, tray: Unit) -> RestNvue:
        """NVUE of a switch tray, without a network."""
        if self.nvos is None:
            raise UsageError(f"{self.rack.name} has no NVLink switch trays", "use a rack of an NVL72 profile")
        return client(self.nvos, tray)

    def fault(self, node: str, kind: FaultKind) -> Fault | None:
        """The node's fault of that kind, if it has it."""
        return next((f for f in self.faults if f.node == node and f.kind is kind), None)

    def machine(self, node: str) -> Machine:
        """What the node remembers now."""
        path = self.folder / node / "machine.json"
        return Machine(**json.loads(path.read_text())) if path.exists() else Machine()

    @contextlib.contextmanager
    def changing(self, node: str) -> Iterator[Machine]:
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
        if machine.power != Power.ON.value or not machine.image or node.name in self.silent:
            raise UnreachableError(f"{node.name}: no route to host", "is it powered on?")
        words = list(argv)
        status, text = self._fabric().answer(node, words) if is_tool(argv) else self._answer(node, machine, words)
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

    def _answer(self, node: Unit, machine: Machine, argv: list[str]) -> tuple[int, str]:
        of_collective = self._mpi(argv).answer(node, argv)
        if of_collective is not None:
            return of_collective
        match argv:
            case ["nvidia-smi", "--gpu-reset", *_]:
                return self._reset_gpus(node)
            case [tool, *arguments] if tool in _TOOLS:
                self._drop(node, machine.fallen)
                status, text = self._tool(node, _TOOLS[tool], arguments)
                return status, _with_waiting(text, machine.waiting)
            case ["sha256sum", path]:
                file = self.folder / node.name / "files" / path.lstrip("/")
                return (0, hashlib.sha256(file.read_bytes()).hexdigest()) if file.exists() else (1, "")
            case ["systemd-run", *rest]:
                return self._burn_in(node, rest)
            case ["mkdir", *_]:
                return 0, ""
            case ["cat", "/etc/rackproof/image"]:
                return 0, f"{machine.image}\n"
        return self._system(node, machine, argv) or self._file(node, machine, " ".join(argv))

    def _system(self, node: Unit, machine: Machine, argv: list[str]) -> tuple[int, str] | None:
        """What the service manager does, and which boot this is."""
        match argv:
            case ["systemctl", "is-active", *_]:
                return 3, ""
            case ["systemctl", "list-units", *_]:
                return 0, ""
            case ["systemctl", "is-system-running"]:
                return 0, "running\n"
            case ["systemctl", "reboot", *_]:
                with self.changing(node.name) as changing:
                    changing.boot(cold=self.warm_boot_helps)
                return 0, ""
            case ["cat", "/proc/sys/kernel/random/boot_id"]:
                return 0, f"{uuid.uuid5(uuid.NAMESPACE_OID, f'{node.serial} boot {machine.boots}')}\n"
        return None

    def _mpi(self, argv: Sequence[str]) -> Mpi:
        """The launcher, with the state of every node that is up where something is launched."""
        launched = argv[0] == "systemd-run"
        up = [n for n in self.rack.nodes if launched and self.machine(n.name).power == Power.ON.value]
        mine = {n.name: [f for f in self.faults if f.node == n.name] for n in up}
        states = {n.name: parse(render_state(n, self.rack.profile, mine[n.name]), self.folder / n.name) for n in up}
        return Mpi(self.rack, self.folder, states)

    def _fabric(self) -> Fabric:
        """Cables of this moment. A node without power has dark ports; counters grow with the time since the first."""
        off = [n.name for n in self.rack.nodes if self.machine(n.name).power != Power.ON.value]
        began = self.folder / "fabric_began"
        with _ONE_AT_A_TIME:
            if not began.exists():
                write_whole(began, repr(time.time()).encode())
            seconds = 1 + time.time() - float(began.read_text())
        return Fabric.of(self.rack, self.faults, off, seconds)

    def _file(self, node: Unit, machine: Machine, command: str) -> tuple[int, str]:
        """Facts that are not of a device, by what the probe's command speaks of."""
        driver = dict(self.rack.profile.expected)["driver_version"]
        nvlink = Nvlink(self.rack, self.nvos, driver)
        if "nvidia-imex-ctl" in command:
            return 0, nvlink.imex(self.imex_shut, lambda n: self.machine(n).power == Power.ON.value)
        skewed = "580.82.07" if self.fault(node.name, FaultKind.FABRIC_MANAGER_SKEW) else ""
        packages = "".join(f"{name} {version} installed\n" for name, version in self.rack.profile.versions)
        answers = (
            ("product_serial", f"{node.serial}\n"),
            ("product_name", f"{dict(self.rack.profile.expected).get('product_name', '')}\n"),
            ("nv-fabricmanager", f"Fabric Manager version is : {skewed or driver}\n"),
            ("kubelet.conf.d", _TAINTED if "kubernetes.yml" in machine.played else ""),
            ("machine-id", f"{node.serial}\n"),
            ("systemctl show", nvlink.services()),
            ("nodes_config", nvlink.nodes_config()),
            ("fabricmanager.log", ""),
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
        fabric = Nvlink(self.rack, self.nvos, "").state()
        (hardware / "state").write_text(render_state(node, self.rack.profile, mine) + swapped + fabric)
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
        suite, now = arguments[arguments.index("--suite") + 1], self.machine(node.name)
        mine = tuple(f for f in self.faults if f.node == node.name and not now.has_outlived(f))
        swapped = self.serials.get(node.name, "")
        told = BurnIn(node, self.rack.profile, mine, identity, suite, self.noise, swapped)
        with self.changing(node.name) as machine:
            replaced = machine.replaced
            machine.waiting = list(told.remapped(replaced))
            machine.fallen = [f.gpu or 0 for f in mine if f.kind is FaultKind.XID_79 and f.times is not None]
        for _, name, content in told.artifacts(replaced):
            write_whole(folder / name, content)
        write_whole(folder / "records.jsonl", "".join(map(dump, told.records(replaced))).encode())
        return 0, ""

    def _drop(self, node: Unit, fallen: Sequence[int]) -> None:
        """What the GPUs moved: so much, where they fell off the bus, that they are lost to every tool."""
        load = self.folder / node.name / "hardware/load"
        for gpu in range(self.rack.profile.gpus_per_node):
            if gpu in fallen:
                load.mkdir(parents=True, exist_ok=True)
                (load / f"gpu{gpu}").write_text(f"{1 << 62}\n")
            else:
                (load / f"gpu{gpu}").unlink(missing_ok=True)

    def _reset_gpus(self, node: Unit) -> tuple[int, str]:
        """Rows that wait are replaced."""
        if self.reset_status:
            return self.reset_status, "GPU is in use by another client"
        if self.machine(node.name).fallen:
            return 255, "The following GPUs could not be reset: GPU is lost"
        with self.changing(node.name) as machine:
            machine.resets += 1
            machine.replace_rows()
        return 0, "GPUs were successfully reset."


def _with_waiting(text: str, waiting: Sequence[int]) -> str:
    """nvidia-smi's XML in which these GPUs have a row remap pending."""
    parts = re.split(r"(<remapped_row_pending>)No", text)
    shown = parts[0]
    for gpu, (tag, rest) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        shown += f"{tag}{'Yes' if gpu in waiting else 'No'}{rest}"
    return shown


def publish_blank_image(settings: Settings, rack: Rack) -> None:
    """An image and a ramdisk of a few bytes, signed and published: nothing here boots them."""
    publish_blank(settings.provision, settings.keys, rack.profile.image)
