"""Runs once on a freshly imaged machine, after sshd: posts who it is and its host key to the provisioning server.

Standard library only: it is copied into the image as /usr/lib/rackproof/first_boot.py. The stage `image` planted
`node.json` beside the root login key: {"name", "serial", "image": sha256 that was written, "report": URL}.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

ATTEMPTS = 120
PAUSE_S = 0.5
ANSWER_S = 5.0

NODE = Path("etc/rackproof/node.json")
HOST_KEY = Path("etc/ssh/ssh_host_ed25519_key.pub")
BOOTED = Path("var/lib/rackproof/booted")
# A virtual node's hardware is told in /run/hardware; there /sys shows the machine that carries the node.
SERIALS = (Path("run/hardware/serial"), Path("sys/class/dmi/id/product_serial"))


def message(root: Path) -> tuple[str, dict[str, str]]:
    """The URL to post to, and what. OSError or KeyError where the machine lacks a piece of it."""
    node = json.loads((root / NODE).read_text())
    kind, key = (root / HOST_KEY).read_text().split()[:2]
    body = {"event": "booted", "serial": serial(root), "host_key": f"{kind} {key}", "image": node["image"]}
    return node["report"], body


def serial(root: Path) -> str:
    """The machine's serial by its own word; empty when it has none."""
    for path in SERIALS:
        try:
            return (root / path).read_text().split("\n")[0].strip()
        except OSError:
            continue
    return ""


def post(url: str, body: dict[str, str]) -> bool:
    """Whether the server took it."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=ANSWER_S)
    try:
        connection.request("POST", where.path, json.dumps(body), {"Content-Type": "application/json"})
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(root: Path = Path("/"), pause_s: float = PAUSE_S) -> int:
    """Posts until it is taken, then never again. 1 when nobody took it: systemd tries later."""
    url, body = message(root)
    for _ in range(ATTEMPTS):
        if post(url, body):
            (root / BOOTED).parent.mkdir(parents=True, exist_ok=True)
            (root / BOOTED).touch()
            return 0
        time.sleep(pause_s)
    return 1


if __name__ == "__main__":
    sys.exit(main())
