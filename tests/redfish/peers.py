"""Redfish servers and clients that nobody here wrote, as processes of their own: sushy-tools, simhall, DMTF's tools."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from toolkit.rack.model import Bmc
from toolkit.virtual.tls import Authority
from toolkit.virtual.tls_server import TlsServer

PROGRAMS = Path(sys.executable).parent
STARTS_S = 30.0
# As published; by its metadata it wants Python 3.12, and runs on 3.11 unmodified.
SIMHALL = ("simhall==0.1.0", "fastapi>=0.115,<1", "uvicorn>=0.40,<1")
SUSHY_UUID = "27946b59-9e44-4fa7-8e91-f3527a1ef094"


def certificate(folder: Path) -> Path:
    """A PEM file with key and certificate of 127.0.0.1; its CA is ca.pem beside it."""
    pem = folder / "server.pem"
    pem.write_bytes(Authority.at(folder / "ca.pem", folder / "ca.key").issue("bmc", "127.0.0.1"))
    return pem


@contextmanager
def running(argv: list[str], port: int, log: Path, **env: str) -> Iterator[None]:
    """A server's process, up when its port answers; stopped at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=os.environ | env)
        try:
            until = time.monotonic() + STARTS_S
            while not _answers(port):
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < until, log.read_text()[-2000:]
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(timeout=STARTS_S)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def sushy_emulator(folder: Path) -> Iterator[Bmc]:
    """sushy-tools' emulator with one fake system, over TLS."""
    pem, port = certificate(folder), free_port()
    (folder / "state").mkdir()
    config = folder / "sushy.conf"
    config.write_text(f"SUSHY_EMULATOR_STATE_DIR = {str(folder / 'state')!r}\n")
    argv = [str(PROGRAMS / "sushy-emulator"), "--fake", "--config", str(config), "-i", "127.0.0.1", "-p", str(port)]
    argv += ["--ssl-certificate", str(pem), "--ssl-key", str(pem)]
    with running(argv, port, folder / "sushy.log"):
        yield Bmc("127.0.0.1", "bmc", port)


def simhall_program(cache: Path) -> Path:
    """simhall, installed once into a folder of its own; skips where it cannot be had."""
    place = cache / "simhall-0.1.0"
    if not (place / ".whole").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(place), "--upgrade"]
        done = subprocess.run(
            [*pip, "--ignore-requires-python", *SIMHALL], capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"simhall cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
        (place / ".whole").touch()
    return place


@contextmanager
def simhall(folder: Path, cache: Path, faults: str = "") -> Iterator[dict[str, Bmc]]:
    """A hall of two nodes, each of whose BMCs has an address of its own: simhall serves them below a path."""
    place, port = simhall_program(cache), free_port()
    spec = folder / "hall.yml"
    spec.write_text(
        "site: bench\nracks: 1\nnodes_per_rack: 2\nports_per_node: 2\nleaves_per_rack: 2\n"
        f'node_model: "DGX H100"\nswitch_vendor: nvidia\n{faults}'
    )
    argv = [sys.executable, "-m", "simhall.cli", "serve", "--spec", str(spec), "--port", str(port)]
    pem = certificate(folder)
    with running(argv, port, folder / "simhall.log", PYTHONPATH=str(place)):
        fronts = {name: Front(port, f"/dev/{name}", pem) for name in ("node1", "node2")}
        try:
            yield {name: Bmc("127.0.0.1", "bmc", front.server_address[1]) for name, front in fronts.items()}
        finally:
            for front in fronts.values():
                front.shutdown()
                front.server_close()


class Front(TlsServer):
    """TLS at an address of its own in front of a server that has neither."""

    def __init__(self, port: int, below: str, pem: Path) -> None:
        self.port, self.below = port, below
        super().__init__(("127.0.0.1", 0), _Forward, pem)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class _Forward(BaseHTTPRequestHandler):
    server: Front
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        back = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        sent = {"Content-Type": self.headers.get("Content-Type", "application/json")} if body else {}
        back.request(self.command, self.server.below + self.path.rstrip("/"), body, sent)
        answer = back.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def do_PATCH(self) -> None:
        self._forward()

    def do_DELETE(self) -> None:
        self._forward()
