"""The real nginx before the real service, on loopback."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.netboot.conftest import TOKEN, Service, until
from toolkit.netboot.offers import EXIT_SCRIPT, BootOffers
from toolkit.netboot.posts import LOG_MAX_BYTES, REPORT_MAX_BYTES
from toolkit.netboot.site import Limits

NODE = "127.0.0.2"  # the first node's address by plan
TARGET = "/boot/52-54-00-66-00-01.ipxe"
SCRIPT = "#!ipxe\nboot\n"
MIB = 1024 * 1024


@pytest.fixture
def service(local: Service) -> Iterator[Service]:
    """nginx and the service run; the node's attempt is armed."""
    BootOffers(local.site.provision).arm("52:54:00:66:00:01", NODE, TOKEN, SCRIPT)
    (local.site.provision / "seeds" / f"{TOKEN}.tar").write_bytes(b"seed")
    with local.deciding(), local.serving():
        yield local


def as_node(service: Service, *arguments: object) -> bytes:
    """What curl gets that comes from the node's address."""
    return service.curl("-sS", "--interface", NODE, *arguments)[1]


def test_a_script_is_served_once_to_its_node(service: Service) -> None:
    """Not to another address, whatever it says of itself; not to a look; then the disk."""
    assert service.status_of(TARGET) == 404
    assert service.status_of(TARGET, "-H", f"X-Real-IP: {NODE}") == 404
    assert service.status_of(TARGET, "--interface", NODE, "--head") == 200
    assert as_node(service, f"{service.site.url}{TARGET}").decode() == SCRIPT
    assert as_node(service, f"{service.site.url}{TARGET}").decode() == EXIT_SCRIPT
    assert "BOOT_LOOP" in service.said


def test_a_file_is_served_in_ranges_and_resumed(service: Service) -> None:
    """206 with what was asked for, 416 beyond the end; curl goes on where a file was cut."""
    content = os.urandom(2 * MIB)
    (service.site.provision / "images/os.img").write_bytes(content)
    url = f"{service.site.url}/images/os.img"
    assert service.curl("-sS", url)[1] == content
    assert service.curl("-sS", "-r", "1000-1999", url)[1] == content[1000:2000]
    assert service.status_of("/images/os.img", "-r", "1000-1999") == 206
    assert service.status_of("/images/os.img", "-r", f"{len(content)}-") == 416
    half = service.folder / "half"
    half.write_bytes(content[:MIB])
    service.curl("-sS", "-C", "-", "-o", half, url)
    assert half.read_bytes() == content


PATHS = (
    "/", "/images/", "/boot/", "/images/.hidden", f"/reports/{TOKEN}.jsonl", "/offers/", "/hosts/demo-small",
    "/offers/52-54-00-66-00-01/offer.json", f"/logs/{TOKEN}.log", "/boot/ipxe/../../etc/passwd", "/images/link",
    "/boot/ipxe../passwd", "/images../hosts/demo-small", "/report/", f"/report/{TOKEN}", "/nothing",
)  # fmt: skip


def test_nothing_is_listed_and_nothing_of_ours_is_served(service: Service) -> None:
    """No folder, no offer, no report, nothing through a link or a climbing path."""
    (service.site.provision / "images/.hidden").write_text("x")
    (service.site.provision / "images/link").symlink_to("/etc/passwd")
    found = {path: service.status_of(path, "--path-as-is") for path in PATHS}
    assert set(found.values()) <= {400, 403, 404}, found


def test_the_firmware_programs_are_served(service: Service) -> None:
    """What Debian's package has; the target of its link too."""
    for name in ("snponly.efi", "ipxe.efi", "undionly.kpxe"):
        found = service.curl("-sS", "-f", f"{service.site.url}/boot/ipxe/{name}")[1]
        assert found == (service.site.firmware / name).read_bytes()


def test_reports_and_logs_are_kept_or_refused(service: Service) -> None:
    """By size, token, form; and a file cannot be written."""
    report = f"/report/{TOKEN}"
    assert service.status_of(report, "--data-binary", '{"event": "started"}') == 204
    assert service.status_of(report, "--data-binary", "no json") == 400
    assert service.status_of("/report/" + "f" * 32, "--data-binary", "{}") == 404
    big = service.folder / "big"
    big.write_bytes(b" " * (REPORT_MAX_BYTES + 1))
    assert service.status_of(report, "--data-binary", f"@{big}") == 413
    big.write_bytes(b"l" * LOG_MAX_BYTES)
    assert service.status_of(f"/log/{TOKEN}", "--data-binary", f"@{big}") == 204
    big.write_bytes(b"l" * (LOG_MAX_BYTES + 1))
    assert service.status_of(f"/log/{TOKEN}", "--data-binary", f"@{big}") == 413
    assert service.status_of("/images/new", "--upload-file", str(big)) == 403
    reports = service.site.provision / "reports" / f"{TOKEN}.jsonl"
    assert reports.read_text() == '{"event": "started"}\n'


def test_a_second_download_of_many_is_told_to_wait(local: Service) -> None:
    """503 with Retry-After beyond the site's number of downloads; a single one keeps to its rate."""
    limits = Limits(connection_bytes_per_s=512 * 1024, connections=1)
    limited = replace(local, site=replace(local.site, limits=limits))
    (local.site.provision / "images/os.img").write_bytes(b"x" * MIB)
    path = "/images/os.img"
    with limited.serving():
        with socket.create_connection(("127.0.0.1", local.site.port)) as first:
            first.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 200 " in first.recv(64)
            told = limited.curl("-s", "-D", "-", "-o", "/dev/null", f"{limited.site.url}{path}")[1]
            assert b" 503 " in told
            assert b"Retry-After: 5" in told
        until("its turn", 10, lambda: limited.status_of(path, "--head") == 200)
        began = time.monotonic()
        assert len(limited.curl("-sS", f"{limited.site.url}{path}")[1]) == MIB
        assert time.monotonic() - began > 1.0  # 2 s at the limit, less its first burst


def test_a_service_that_is_gone_ends_in_a_502_and_comes_back(local: Service) -> None:
    """The web server outlives it; files are served meanwhile; a script that was not taken is still there."""
    BootOffers(local.site.provision).arm("52:54:00:66:00:01", NODE, TOKEN, SCRIPT)
    (local.site.provision / "images/os.img").write_bytes(b"x")
    with local.serving():
        assert local.status_of(TARGET, "--interface", NODE) == 502
        assert local.status_of("/images/os.img") == 200
        with local.deciding():
            assert as_node(local, f"{local.site.url}{TARGET}").decode() == SCRIPT


def test_half_a_post_is_no_report(local: Service, tmp_path: Path) -> None:
    """Straight to the service's socket, as if the web server had been killed in the middle."""
    (local.site.provision / "seeds" / f"{TOKEN}.tar").write_bytes(b"seed")
    with local.deciding():
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(local.site.socket))
            line.sendall(f'POST /report/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{{"event":'.encode())
            line.shutdown(socket.SHUT_WR)
            assert b" 400 " in line.recv(100)
        assert not (local.site.provision / "reports").exists()
        assert local.site.socket.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "999999"])
def test_a_post_of_an_absurd_length_is_refused_unread(local: Service, length: str) -> None:
    """An answer, not a connection that breaks: whoever posts knows not to try again."""
    with local.deciding(), socket.socket(socket.AF_UNIX) as line:
        line.connect(str(local.site.socket))
        line.sendall(f"POST /report/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert b" 413 " in line.recv(100)
