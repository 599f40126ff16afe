"""A probe is a command and the parser of its output. Reading one gives a fact: a value, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.facts import fabric_manager_log, host, imex, infiniband, kernel_log, nvidia_smi, nvlink
from toolkit.facts.unreadable import UnreadableError
from toolkit.rack.model import Unit
from toolkit.runners.shell import CommandResult, Shell

SERVICES = (
    "nvidia-fabricmanager.service",
    "nvidia-persistenced.service",
    "nvidia-imex.service",
    "containerd.service",
    "kubelet.service",
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What to run and how to read it.

    parse     the output as JSON-able value; raises UnreadableError where it is none
    statuses  exit statuses with which the output is whole: nvidia-smi describes every GPU and then exits 14 or 15
              because one of them has a corrupt InfoROM or is lost
    """

    name: str
    argv: tuple[str, ...]
    parse: Callable[[str], Any]
    timeout_s: float
    statuses: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Fact:
    """What a node answered. Either `value` or `problem` is None: a problem never comes with a default.

    raw   standard output as received, within the shell's bound
    """

    name: str
    at: datetime
    value: Any
    raw: bytes
    problem: str | None


# A virtual node shares its host's DMI and has its own serial in /run/hardware; a node of metal has no /run/hardware.
_SERIAL = (
    'for f in /run/hardware/serial /sys/class/dmi/id/product_serial; do [ -s "$f" ] && exec cat "$f"; done; exit 1'
)
_PRODUCT = (
    'for f in /run/hardware/product /sys/class/dmi/id/product_name; do [ -s "$f" ] && exec cat "$f"; done; exit 1'
)
# A plain file stands for the kernel's log on a virtual node. dmesg leaves out what user space wrote into the log.
_KERNEL_LOG = "if [ -f /dev/kmsg ]; then exec cat /dev/kmsg; else exec dmesg --kernel --decode --time-format=iso; fi"
# kubeadm's file, then the drop-ins in the kubelet's own order.
_KUBELET = (
    "for f in /var/lib/kubelet/config.yaml /etc/kubernetes/kubelet.conf.d/*.conf; do"
    ' if [ -f "$f" ]; then echo "---"; cat "$f"; echo; fi; done'
)
# The domain, by every node's own view. A node without the tool says so: that is no failure where IMEX runs in pods.
_IMEX = f"command -v nvidia-imex-ctl >/dev/null || {{ echo {imex.ABSENT}; exit 0; }}; exec nvidia-imex-ctl -N -j"
_IMEX_NODES = "f=/etc/nvidia-imex/nodes_config.cfg; [ -e $f ] || { echo absent; exit 0; }; sha256sum $f && cat $f"
_MANAGER_LOG = "f=/var/log/fabricmanager.log; [ -e $f ] || exit 0; exec tail -c 262144 $f"
_PACKAGES = ("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Status}\\n")
_GPU_TROUBLE = (0, 14, 15)

IDENTITY = Probe("identity", ("sh", "-c", _SERIAL), host.word, 20)
PRODUCT = Probe("product", ("sh", "-c", _PRODUCT), host.word, 20)
IMAGE = Probe("image", ("cat", "/etc/rackproof/image"), host.word, 20)
GPUS = Probe("gpus", ("nvidia-smi", "-q", "-x"), lambda t: nvidia_smi.parse(t).as_json(), 120, _GPU_TROUBLE)
NVLINK = Probe("nvlink", ("nvidia-smi", "nvlink", "-s"), lambda t: nvlink.parse(t).as_json(), 120, _GPU_TROUBLE)
FABRIC_MANAGER = Probe("fabric_manager", ("nv-fabricmanager", "--version"), host.fabric_manager_version, 30)
STATES = Probe(
    "services",
    ("systemctl", "show", "--property=Id,LoadState,ActiveState,SubState,UnitFileState", *SERVICES),
    host.services,
    30,
)
KERNEL_LOG = Probe("kernel_log", ("sh", "-c", _KERNEL_LOG), lambda t: kernel_log.parse(t).as_json(), 60)
IBSTAT = Probe("ibstat", ("ibstat",), lambda t: infiniband.parse(t).as_json(), 60)
PACKAGES = Probe("packages", _PACKAGES, host.packages, 60)
KUBELET = Probe("kubelet", ("sh", "-c", _KUBELET), host.kubelet, 20)

IMEX = Probe("imex", ("sh", "-c", _IMEX), lambda t: imex.parse(t).as_json(), 60)
IMEX_NODES = Probe("imex_nodes", ("sh", "-c", _IMEX_NODES), host.nodes_config, 20)
MODULES = Probe("modules", ("cat", "/proc/modules"), host.modules, 20)
MANAGER_LOG = Probe("manager_log", ("sh", "-c", _MANAGER_LOG), lambda t: fabric_manager_log.parse(t).as_json(), 30)

PROBES = (
    IDENTITY, PRODUCT, IMAGE, GPUS, NVLINK, FABRIC_MANAGER, STATES, KERNEL_LOG, IBSTAT, PACKAGES, KUBELET,
    IMEX, IMEX_NODES,
)  # fmt: skip


def read(shell: Shell, node: Unit, probe: Probe, clock: Callable[[], datetime]) -> Fact:
    """Asks the node. Raises UnreachableError where it does not answer; anything else is in the fact."""
    result = shell.run(node, probe.argv, probe.timeout_s)
    value, problem = _value(probe, result)
    return Fact(probe.name, clock(), value, result.stdout, problem)


def _value(probe: Probe, result: CommandResult) -> tuple[Any, str | None]:
    command = " ".join(probe.argv[:3]) if probe.argv[0] != "sh" else f"reading {probe.name}"
    if result.status not in probe.statuses:
        words = _words(result.stderr) or _words(result.stdout)
        return None, f"{command}: exit status {result.status}{f': {words}' if words else ''}"
    if result.truncated:
        return None, f"{command}: the node sent more than the {len(result.stdout)} bytes that were read"
    try:
        return probe.parse(result.stdout.decode("utf-8", "replace")), None
    except UnreadableError as error:
        return None, f"{command}: {error.message}"


def _words(output: bytes) -> str:
    """The last line a command said, made printable: a node may send anything."""
    lines = output[-4096:].decode("utf-8", "replace").strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:200] if lines else ""
