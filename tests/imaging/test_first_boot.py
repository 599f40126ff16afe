"""The program that a fresh machine runs once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from toolkit.image.node import first_boot
from toolkit.stages.deploy_reports import parse_reports


class Server(HTTPServer):
    """Takes reports; answers the first `refusals` of them with 503."""

    refusals = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.server.refusals:
            self.server.refusals -= 1
            return self.send_error(503)
        self.server.taken.append(body)
        self.send_response(204)
        return self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server."""
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def machine(tmp_path: Path, server: Server) -> Path:
    """The files of a freshly imaged machine."""
    node = {
        "name": "node1",
        "serial": "planned",
        "image": "ab" * 32,
        "report": f"http://127.0.0.1:{server.server_port}/report/t",
    }
    for path, text in {
        first_boot.NODE: json.dumps(node),
        first_boot.HOST_KEY: "ssh-ed25519 AAAA root@node1\n",
        first_boot.SERIALS[0]: "VR00000001\n",
        first_boot.SERIALS[1]: "the carrier's serial\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_it_says_who_it_is_by_its_own_word(machine, server):
    """The serial is the hardware's, not the one it was told; the stage reads the same words."""
    assert first_boot.main(machine) == 0
    (report,) = parse_reports(server.taken)
    assert (report.event, report.serial, report.image) == ("booted", "VR00000001", "ab" * 32)
    assert report.host_key == "ssh-ed25519 AAAA"
    assert (machine / first_boot.BOOTED).exists()


def test_on_metal_the_serial_is_the_firmwares(machine, server):
    """Without /run/hardware, DMI."""
    (machine / first_boot.SERIALS[0]).unlink()
    first_boot.main(machine)
    assert json.loads(server.taken[0])["serial"] == "the carrier's serial"


def test_it_insists_until_it_is_heard(machine, server):
    """A server that is starting answers 503 for a while."""
    server.refusals = 3
    assert first_boot.main(machine, pause_s=0.01) == 0
    assert len(server.taken) == 1


def test_a_report_nobody_took_is_not_marked_as_made(machine, server, monkeypatch):
    """systemd starts it again then."""
    server.refusals = 100
    monkeypatch.setattr(first_boot, "ATTEMPTS", 3)
    assert first_boot.main(machine, pause_s=0.01) == 1
    assert not (machine / first_boot.BOOTED).exists()


def test_it_needs_nothing_but_the_standard_library():
    """It is copied alone into the image, and runs isolated."""
    source = Path(first_boot.__file__)
    code = f"import runpy; runpy.run_path({str(source)!r}, run_name='first_boot')"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd="/", timeout=30)
