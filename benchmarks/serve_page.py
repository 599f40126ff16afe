"""How long the first page of `rackproof serve` takes, asked over HTTP of the program itself."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from toolkit.settings import Settings

TIMES = 10
START_S = 300.0


def timed(program: Path | str, env: Mapping[str, str], settings: Settings) -> tuple[float, float]:
    """(wall time of the fleet page in seconds, the least of TIMES once warm; the peak memory of the process in MB)."""
    with subprocess.Popen(
        [program, "serve", "--port", "0"], env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = urlsplit(server.stdout.readline().strip())
            took = [_asked(address.hostname or "", address.port or 0, "/") for _ in range(TIMES)]
            status = Path(f"/proc/{server.pid}/status").read_text()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return min(took[1:]), peak_kb / 1024


def _asked(host: str, port: int, path: str) -> float:
    """Seconds until the last byte of the page is here."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", path, headers={"Accept": "text/html", "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    connection.close()
    assert answer.status == 200 and body, f"{path}: {answer.status}"
    return took


def pages(program: Path | str, env: Mapping[str, str], paths: list[str]) -> dict[str, float]:
    """Seconds of each page, the second time it is asked for; under `start` those until the address was printed."""
    began = time.perf_counter()
    with subprocess.Popen(
        [program, "serve", "--port", "0"], env=dict(env), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = urlsplit(server.stdout.readline().strip())
            found = {"start": time.perf_counter() - began}
            for path in paths:
                _asked(address.hostname or "", address.port or 0, path)
                found[path] = _asked(address.hostname or "", address.port or 0, path)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
    return found


if __name__ == "__main__":
    import sys

    for name, seconds in pages("rackproof", os.environ, sys.argv[1:] or ["/"]).items():
        print(f"{name:<50}{seconds * 1000:9,.0f} ms")
