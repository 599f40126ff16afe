"""What goes wrong between a node and its boot service: a rogue, lost packets, a restart, a crowd."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.netboot.conftest import (
    ADDRESS,
    CONTROLLER,
    NODE,
    NODE_MAC,
    STRANGER,
    TOKEN,
    Service,
    dhcp,
    node_address,
    started,
    until,
)
from toolkit.netboot import shaping
from toolkit.netboot.offers import EXIT_SCRIPT, BootOffers, OfferState
from toolkit.netboot.probe import DhcpServer, find_servers, rogues
from toolkit.virtual import dhcp as client
from toolkit.virtual import network
from toolkit.virtual.ipxe import Interpreter
from toolkit.virtual.programs import run as sh

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MIB = 1024 * 1024
ROGUE = "10.66.250.1"
ROGUE_MAC = "52:54:00:99:00:99"
SCRIPT_PATH = "/boot/52-54-00-66-00-01.ipxe"


@contextmanager
def rogue(folder: Path) -> Iterator[None]:
    """A second DHCP server at the stranger's port: any address, and a script of its own."""
    sh(["ip", "-n", STRANGER, "address", "add", f"{ROGUE}/16", "dev", "eth0"])
    argv = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces",
        "--dhcp-range=10.66.240.1,10.66.240.9,255.255.0.0", "--leasefile-ro", "--user=root", "--pid-file=",
        "--dhcp-authoritative", "--no-ping", f"--dhcp-boot=http://{ROGUE}/owned.ipxe", "--log-facility=-",
    ]  # fmt: skip
    log = folder / "rogue.log"
    try:
        with started(argv, log, STRANGER):
            until("the rogue", 10, lambda: "started" in log.read_text())
            yield
    finally:
        sh(["ip", "-n", STRANGER, "address", "flush", "dev", "eth0"])


def probed(*arguments: str) -> tuple[int, dict[str, Any]]:
    """`rackproof netboot probe` on the controller: its exit status and what it says."""
    argv = [
        "nsenter", f"--net=/run/netns/{CONTROLLER}", "--", sys.executable, "-c", "from toolkit.cli import main; main()",
        "netboot", "probe", "--interface", "inband0", "--wait", "1.5", "--json", *arguments,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def test_a_second_dhcp_server_is_found_by_its_hardware_address(wired: Service) -> None:
    """ROGUE_DHCP, exit 1: its address, where it is plugged in, and what it would have a node boot. Ours is none."""
    with dhcp(wired):
        status, found = probed()
        assert (status, found["code"], found["servers"]) == (0, "", [])
        with rogue(wired.folder):
            status, found = probed()
            assert (status, found["code"]) == (1, "ROGUE_DHCP")
            (server,) = found["rogues"]
            assert (server["address"], server["hardware"]) == (ROGUE, ROGUE_MAC)
            assert server["boot_file"] == f"http://{ROGUE}/owned.ipxe"
            assert probed("--ours", ROGUE)[0] == 0
            as_node = network.inside(CONTROLLER, lambda: find_servers("inband0", NODE_MAC, 1.5))
            assert {s.address for s in rogues(as_node, ())} == {ROGUE}


def test_a_node_that_listens_to_the_rogue_never_takes_its_script(wired: Service) -> None:
    """The controller sees it: armed, not taken, no report. Its script stays for the boot that comes to us."""
    offers = BootOffers(wired.site.provision)
    offers.arm(NODE_MAC, "10.66.0.11", TOKEN, "#!ipxe\nboot\n")
    with rogue(wired.folder):  # ours is down: the rogue wins for certain
        lease = network.inside(NODE, lambda: client.ask("eth0", NODE_MAC, lambda: None))
    assert lease is not None
    assert lease.boot_file == f"http://{ROGUE}/owned.ipxe"
    asked: list[str] = []

    def fetch(url: str) -> str:
        asked.append(url)
        raise OSError("connection refused")

    with pytest.raises(OSError, match="refused"):
        Interpreter({}, fetch, lambda _: None).boot(lease.boot_file)
    assert asked == [f"http://{ROGUE}/owned.ipxe"]
    offer = offers.look(NODE_MAC)
    assert offer is not None
    assert (offer.state, offer.taken_at) == (OfferState.ARMED, "")


@contextmanager
def losing(percent: int) -> Iterator[None]:
    """Of what comes to the node that share is dropped (nftables: this kernel may have no netem)."""
    drop = f"iif eth0 numgen random mod 100 < {percent} drop"
    rules = f"table inet loss {{\nchain in {{\ntype filter hook input priority 0;\n{drop}\n}}\n}}\n"
    inside = ["nsenter", f"--net=/run/netns/{NODE}", "nft"]
    subprocess.run([*inside, "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "delete", "table", "inet", "loss"], check=True)


def test_a_node_boots_through_a_wire_that_loses_a_third(wired: Service) -> None:
    """30 % lost: DHCP and TCP ask again; the script is whole and taken once, the download is what was sent."""
    content = os.urandom(256 * 1024)
    (wired.site.provision / "images/os.img").write_bytes(content)
    script = "#!ipxe\n" + "# padding\n" * 400 + "boot\n"
    BootOffers(wired.site.provision).arm(NODE_MAC, "10.66.0.11", TOKEN, script)
    (wired.site.provision / "seeds" / f"{TOKEN}.tar").write_bytes(b"seed")
    with dhcp(wired), wired.deciding(), wired.serving(), losing(30):
        lease = None
        while lease is None:
            lease = network.inside(NODE, lambda: client.ask("eth0", NODE_MAC, lambda: None))
        with node_address():
            assert wired.curl("-sS", f"{wired.site.url}{SCRIPT_PATH}", namespace=NODE)[1].decode() == script
            assert wired.curl("-sS", f"{wired.site.url}{SCRIPT_PATH}", namespace=NODE)[1].decode() == EXIT_SCRIPT
            assert wired.curl("-sS", f"{wired.site.url}/images/os.img", namespace=NODE)[1] == content
            posted = ("--data-binary", '{"event": "written"}')
            assert wired.status_of(f"/report/{TOKEN}", *posted, namespace=NODE) == 204


def test_a_download_goes_on_where_a_restart_cut_it(wired: Service) -> None:
    """The web server is killed five times in the middle; the image is whole, and less than 5 % was sent twice."""
    content = os.urandom(24 * MIB)
    (wired.site.provision / "images/os.img").write_bytes(content)
    slow = replace(wired, site=replace(wired.site, limits=replace(wired.site.limits, connection_bytes_per_s=8 * MIB)))
    target = wired.folder / "got"
    url = f"{wired.site.url}/images/os.img"
    cuts = [size * MIB for size in (3, 7, 11, 15, 19)]
    before = sent_bytes()
    with node_address():
        for cut in cuts:
            with slow.serving() as nginx:
                ended = threading.Thread(target=_fetch, args=(slow, target, url))
                ended.start()
                until(f"{cut} bytes", 20, lambda cut=cut: target.exists() and target.stat().st_size >= cut)  # type: ignore[misc]
                nginx.terminate()
                nginx.wait(10)
                ended.join(20)
            assert target.stat().st_size < len(content)
        with slow.serving():
            assert _fetch(slow, target, url) == 0
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert len(content) < sent_bytes() - before < 1.05 * len(content)  # headers of all packets among them


def sent_bytes() -> int:
    """What the controller has sent so far, by its interface's counter."""
    shown = json.loads(sh(["ip", "-n", CONTROLLER, "-json", "-stats", "link", "show", "dev", "inband0"]))
    count: int = shown[0]["stats64"]["tx"]["bytes"]
    return count


def _fetch(service: Service, target: Path, url: str) -> int:
    return service.curl("-sS", "-C", "-", "-o", target, url, namespace=NODE, check=False)[0]


@pytest.mark.parametrize("mbyte_per_s", [4])
def test_all_downloads_together_keep_to_the_cap(wired: Service, mbyte_per_s: int) -> None:
    """Four at once: measured, between 80 % and 110 % of the cap; a report is not held up behind them."""
    cap = mbyte_per_s * MIB
    size = 3 * MIB
    (wired.site.provision / "images/os.img").write_bytes(os.urandom(size))
    (wired.site.provision / "seeds" / f"{TOKEN}.tar").write_bytes(b"seed")
    for words in shaping.cap(wired.site, cap):
        sh(["nsenter", f"--net=/run/netns/{CONTROLLER}", *words])
    try:
        with node_address(), wired.deciding(), wired.serving():
            began = time.monotonic()
            threads = [
                threading.Thread(
                    target=_fetch, args=(wired, wired.folder / f"got{n}", f"{wired.site.url}/images/os.img")
                )
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            asked = time.monotonic()
            assert wired.status_of(f"/report/{TOKEN}", "--data-binary", "{}", namespace=NODE) == 204
            assert time.monotonic() - asked < 2.5
            for thread in threads:
                thread.join(60)
            rate = 4 * size / (time.monotonic() - began)
        assert 0.8 * cap < rate < 1.1 * cap, rate / MIB
        assert all((wired.folder / f"got{n}").stat().st_size == size for n in range(4))
    finally:
        sh(["nsenter", f"--net=/run/netns/{CONTROLLER}", *shaping.uncap(wired.site)])
    shown = sh(["nsenter", f"--net=/run/netns/{CONTROLLER}", "tc", "qdisc", "show", "dev", "inband0"])
    assert "htb" not in shown


def test_a_frame_that_is_no_offer_is_passed_over() -> None:
    """Whatever is on the wire: cut frames, other protocols, other ports."""
    from toolkit.netboot.probe import _broadcast, _server

    assert _server(b"", 7) is None
    assert _server(b"\xff" * 60, 7) is None
    assert _server(_broadcast(b"\x02" * 6, b"x" * 300), 7) is None
    assert rogues((DhcpServer("10.0.0.1", "", "0.0.0.0", ""),), ("10.0.0.1",)) == ()  # noqa: S104
    assert str(ADDRESS) not in ROGUE
