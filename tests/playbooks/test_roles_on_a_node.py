"""The playbooks on a real node: what check mode foretells is done, and a second run changes nothing.

One systemd machine from the virtual rack's own image, with the vendors' packages from its repository; its own network
namespace, and nothing else of a virtual rack.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toolkit import settings as installed
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack
from toolkit.runners.ansible import AnsibleRunner
from toolkit.runners.play import HostOutcome, HostResult, PlayRequest
from toolkit.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.rack]

CONTROLLER, NODE = "10.253.99.1", "10.253.99.2"


def run(*argv: object) -> str:
    """A program's output; CalledProcessError when it fails."""
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True).stdout


@dataclass
class Node:
    """A machine that answers, and how to play on it."""

    settings: Settings
    rack: Rack
    arguments: tuple[str, ...]

    def play(self, playbook: str, check: bool = False) -> HostResult:
        """The result on the node, which must be OK."""
        request = PlayRequest(self.rack, playbook, ("node1",), playbook.removesuffix(".yml"), 300, check=check)
        host = AnsibleRunner(self.settings, arguments=self.arguments).play(request, lambda _: None).hosts["node1"]
        assert host.outcome is HostOutcome.OK, host
        return host

    def sh(self, script: str) -> str:
        """A script's output on the node."""
        pins, key = self.settings.known_hosts("demo"), self.settings.keys / "login"
        return run("ssh", "-F", "none", "-i", key, f"-oUserKnownHostsFile={pins}", f"root@{NODE}", script)


@contextmanager
def network(name: str) -> Iterator[Path]:
    """A namespace with eth0, joined to ours."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "address", "add", f"{CONTROLLER}/24", "dev", name)
        run("ip", "link", "set", name, "up")
        run("ip", "-n", name, "address", "add", f"{NODE}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")
        yield Path("/run/netns") / name
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def machine(root: Path, namespace: Path, hardware: Path, console: Path) -> Iterator[None]:
    """systemd from `root`, until the end of the block."""
    argv = [
        "systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--register=no", "--keep-unit",
        f"--machine={namespace.name}", "--hostname=localhost", f"--network-namespace-path={namespace}",
        "--console=pipe", "--capability=CAP_NET_ADMIN", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        f"--bind={hardware}:/run/hardware", "--kill-signal=SIGRTMIN+4",
    ]  # fmt: skip
    modern = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
    with console.open("wb") as out:
        process = subprocess.Popen(
            argv, env=os.environ | modern, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            for pid in run("pgrep", "-P", process.pid).split():
                os.kill(int(pid), signal.SIGKILL)
            process.wait(30)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The folder over HTTP on the controller's address; its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer((CONTROLLER, 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{CONTROLLER}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """node1 of the demo rack, freshly imaged."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    from toolkit.virtual import disk, hardware_files
    from toolkit.virtual.images import build_image
    from toolkit.virtual.packages import build_repository

    folder, ours = tmp_path_factory.mktemp("node"), installed.load()
    settings = replace(ours, home=folder / "home")
    rack = load_rack("demo", settings.inventory)
    unit = replace(rack.nodes[0], host=replace(rack.nodes[0].host, address=NODE))  # type: ignore[type-var]
    settings.keys.mkdir(parents=True)
    for key in ("login", "ssh_ca"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", settings.keys / key)
    with ExitStack() as stack:
        repository = build_repository(ours.cache, rack.profile.versions, lambda _: None)
        image = folder / "disk"
        run("zstd", "-qd", build_image(ours.cache, lambda _: None).path, "-o", image)
        hardware_files.lay_out(folder / "hardware", unit, rack.profile)
        hardware_files.write_state(folder / "hardware", unit, rack.profile, ())
        hardware_files.power_on(folder / "hardware")
        partition = disk.first_partition(image)
        assert partition is not None
        loop = stack.enter_context(disk.attached(image, partition))
        root = stack.enter_context(disk.mounted(str(loop), folder / "root", "ext4", "rw"))
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (root / "root/.ssh/authorized_keys").write_text((settings.keys / "login.pub").read_text())
        (root / "etc/systemd/network/10-inband.network").unlink()
        namespace = stack.enter_context(network(f"rp-role-{os.getpid()}"))
        url = stack.enter_context(serving(repository))
        stack.enter_context(machine(root, namespace, folder / "hardware", folder / "console"))
        host_key = root / "etc/ssh/ssh_host_ed25519_key.pub"
        wait_for_ssh(settings.known_hosts("demo"), host_key)
        source = {
            "name": "vendors",
            "uris": [url],
            "suites": ["./"],
            "key": (repository / "archive-key.asc").read_text(),
        }
        (folder / "site.json").write_text(json.dumps({"package_repositories_sources": [source]}))
        yield Node(settings, replace(rack, units=(unit,)), ("-e", f"@{folder / 'site.json'}"))


def wait_for_ssh(pins: Path, host_key: Path) -> None:
    """Pins the key the node makes at its first boot, and waits until its server shows it."""
    pins.parent.mkdir(parents=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = subprocess.run(["ssh-keyscan", "-t", "ed25519", NODE], capture_output=True, text=True, check=False)
        if host_key.exists() and host_key.read_text().split()[1] in shown.stdout:
            pins.write_text(f"{NODE} {host_key.read_text()}")
            return
        time.sleep(0.5)
    raise TimeoutError("the node does not come up")


@pytest.mark.parametrize("playbook", ["base.yml", "nvlink.yml", "infiniband.yml", "kubernetes.yml"])
def test_a_playbook_changes_what_it_foretold_and_then_nothing(node: Node, playbook: str) -> None:
    """check, run, run, check: changes, changes, none, none."""
    assert node.play(playbook, check=True).changed > 0
    assert node.play(playbook).changed > 0
    assert node.play(playbook).changed == 0
    assert node.play(playbook, check=True).changed == 0


def test_the_node_is_what_the_roles_promise(node: Node) -> None:
    """Held versions, running services, the taint, and a host key that users of the CA trust."""
    held = node.sh("apt-mark showhold").split()
    assert {"nvidia-driver-580-open", "nvidia-fabricmanager", "kubelet"} <= set(held)
    active = node.sh("systemctl is-active nvidia-persistenced nvidia-fabricmanager containerd kubelet").split()
    assert active == ["active"] * 4
    assert node.sh("systemctl is-enabled nvidia-imex || true").strip() == "masked"
    assert "rackproof.dev/uncertified" in node.sh("cat /etc/kubernetes/kubelet.conf.d/*.conf")
    trusted = node.settings.keys / "trusted"
    trusted.write_text(f"@cert-authority node1 {(node.settings.keys / 'ssh_ca.pub').read_text()}")
    options = (f"-oUserKnownHostsFile={trusted}", "-oStrictHostKeyChecking=yes", "-oHostKeyAlias=node1")
    assert run("ssh", "-F", "none", "-i", node.settings.keys / "login", *options, f"root@{NODE}", "echo hi") == "hi\n"


def test_a_mode_that_forbids_a_fabric_manager_is_refused(node: Node) -> None:
    """Before anything is touched."""
    from toolkit.rack.model import Mode

    rack = replace(node.rack, profile=replace(node.rack.profile, mode=Mode.MNNVL_DRA))
    request = PlayRequest(rack, "nvlink.yml", ("node1",), "refused", 60)
    host = AnsibleRunner(node.settings, arguments=node.arguments).play(request, lambda _: None).hosts["node1"]
    assert host.outcome is HostOutcome.FAILED
    assert host.changed == 0
    assert "must not run in mode mnnvl_dra" in host.message
