"""The daemons: what they check, what they tell systemd, how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit.virtual.devices import imex, services
from toolkit.virtual.faults import Fault, FaultKind

FILES = Path(services.__file__).parent.parent


class Daemon:
    """A daemon under a notify socket, as systemd runs it."""

    def __init__(self, entry: str, folder: Path, *arguments: str, version: tuple[str, str] | None = None) -> None:
        module, function = entry.split(":")
        faked = f"devices.{module}.packed_version = {dict([version])!r}.__getitem__;" if version else ""
        code = (
            f"import sys; sys.path.insert(0, {str(FILES)!r}); import devices.{module}; {faked}"
            f"sys.exit(devices.{module}.{function}())"
        )
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.settimeout(15)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def ready(self) -> bool:
        """Waits until the daemon says that it is up."""
        return self.socket.recv(64) == b"READY=1"

    def stop(self) -> tuple[int, str]:
        """Asks it to end; its exit code and output."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=15)
        return self.process.returncode, output


@pytest.fixture(name="start")
def _start(node: Any, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def start(entry: str, *arguments: str, version: tuple[str, str] | None = None) -> Daemon:
        folder = tmp_path / f"daemon{len(started)}"
        folder.mkdir()
        started.append(Daemon(entry, folder, *arguments, version=version))
        return started[-1]

    yield start
    for daemon in started:
        daemon.process.kill()
        daemon.process.communicate()
        daemon.socket.close()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Path:
    path = tmp_path / "fabricmanager.cfg"
    path.write_text(f"LOG_FILE_NAME={tmp_path / 'fm.log'}  # where\n")
    return path


def test_a_fabric_manager_of_the_drivers_version_completes_the_fabric(
    node: Any, start: Callable[..., Daemon], config: Path, tmp_path: Path
) -> None:
    """Ready once the switches are programmed; stopped when it is asked to; both are seen by NVML and CUDA."""
    daemon = start("services:fabric_manager", "-c", str(config), version=("nvidia-fabricmanager", "580.95.05"))
    assert daemon.ready()
    assert (node.folder / "load/fabric_manager").read_text() == "running 580.95.05\n"
    assert daemon.stop()[0] == 0
    assert (node.folder / "load/fabric_manager").read_text() == "stopped\n"
    assert "Successfully configured all the available NVSwitches" in (tmp_path / "fm.log").read_text()


@pytest.mark.parametrize("skewed_by", ["fault", "package"])
def test_a_fabric_manager_of_another_version_fails_to_start(
    node: Any, start: Callable[..., Daemon], config: Path, make_fault: Callable[..., Fault], skewed_by: str
) -> None:
    """By the fault or by a wrong package: the vendor's sentence, exit code 1, fabric not programmed."""
    if skewed_by == "fault":
        node.set(make_fault(FaultKind.FABRIC_MANAGER_SKEW, gpu=None))
    version = "580.95.05" if skewed_by == "fault" else "580.82.07"
    daemon = start("services:fabric_manager", "-c", str(config), version=("nvidia-fabricmanager", version))
    output, _ = daemon.process.communicate(timeout=15)
    assert daemon.process.returncode == 1
    assert (
        "fabric manager NVIDIA GPU driver interface version 580.82.07 don't match with driver version 580.95.05."
        in output
    )
    assert (node.folder / "load/fabric_manager").read_text() == "failed\n"


@pytest.mark.parametrize("entry", ["services:persistenced", "services:host_engine", "services:containerd"])
def test_a_daemon_stays_until_it_is_stopped(start: Callable[..., Daemon], entry: str) -> None:
    """Up, and a clean end on SIGTERM."""
    daemon = start(entry)
    assert daemon.ready()
    assert daemon.stop()[0] == 0


def test_kubelet_reads_its_configuration_and_answers_on_its_health_port(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """A KubeletConfiguration with its own port; a missing file is the real one's failure."""
    port, path = _free_port(), tmp_path / "config.yaml"
    path.write_text(f"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nhealthzPort: {port}\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/90-taints.conf").write_text(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nregisterWithTaints: []\n"
    )
    daemon = start("kubelet:main", f"--config={path}", f"--config-dir={tmp_path / 'more'}", "--node-labels=a=b")
    assert daemon.ready()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        assert answer.read() == b"ok"
    assert daemon.stop()[0] == 0
    (tmp_path / "more/91-wrong.conf").write_text("kind: Pod\n")
    for wrong in (f"--config={tmp_path / 'none.yaml'}", f"--config-dir={tmp_path / 'more'}"):
        broken = start("kubelet:main", wrong)
        output, _ = broken.process.communicate(timeout=15)
        assert broken.process.returncode == 1
        assert "failed to load kubelet config file" in output


@pytest.fixture(name="domain")
def _domain(tmp_path: Path) -> Path:
    nodes = tmp_path / "nodes_config.cfg"
    nodes.write_text("# this node, and one that is not there\n127.0.0.1\n")
    path = tmp_path / "imex.cfg"
    path.write_text(f"SERVER_PORT={_free_port()}\nIMEX_CMD_PORT={_free_port()}\nIMEX_NODE_CONFIG_FILE={nodes}\n")
    return path


def test_an_imex_domain_of_reachable_nodes_is_up(
    start: Callable[..., Daemon], domain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-q` prints READY; `-N` and `-N -j` show every node READY and the domain UP."""
    assert start("imex:daemon", "-c", str(domain)).ready()
    assert imex.control(["-q", "-c", str(domain)]) == 0
    assert capsys.readouterr().out == "READY\n"
    assert imex.control(["-N", "-c", str(domain)]) == 0
    output = capsys.readouterr().out
    assert "127.0.0.1" in output
    assert output.endswith("Domain State: UP\n")
    assert imex.control(["-N", "-j", "-c", str(domain)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["nodes"]["0"]["version"]) == ("UP", "580.95.05")


def test_an_imex_node_that_cannot_be_asked_degrades_the_domain(
    start: Callable[..., Daemon], domain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """UNAVAILABLE with an empty version, while `-q` still says READY: it is about this node alone."""
    (tmp_path / "nodes_config.cfg").write_text("127.0.0.1\npeer.invalid\n")
    assert start("imex:daemon", "-c", str(domain)).ready()
    assert imex.control(["-q", "-c", str(domain)]) == 0
    assert capsys.readouterr().out == "READY\n"
    assert imex.control(["-N", "-j", "-c", str(domain)]) == 0
    answer = json.loads(capsys.readouterr().out)
    peer = answer["nodes"]["1"]
    assert (answer["status"], peer["status"], peer["version"]) == ("DEGRADED", "UNAVAILABLE", "")
    assert answer["nodes"]["0"]["connections"]["1"]["status"] == "NEVER_CONNECTED"


def test_without_the_daemon_imex_is_down(node: Any, domain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-q` fails; the domain is DOWN."""
    assert imex.control(["-q", "-c", str(domain)]) == 1
    assert imex.control(["-N", "-c", str(domain)]) == 0
    assert capsys.readouterr().out.endswith("Domain State: DOWN\n")
