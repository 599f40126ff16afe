"""The provisioning server over real HTTP on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from toolkit.netboot.offers import EXIT_SCRIPT, BootOffers
from toolkit.netboot.posts import REPORT_MAX_BYTES, REPORTS_PER_TOKEN
from toolkit.virtual.documents import DocumentServer


class Served:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.spoil = False
        self.server = DocumentServer(("127.0.0.1", 0), root, lambda _address, _path: self.spoil, lambda _text: None)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.server.server_port}", trust_env=False)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def put(self, name: str, content: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "provision")
    yield served
    served.client.close()
    served.server.shutdown()
    served.server.server_close()


def test_a_file_comes_whole_with_its_length(site: Served) -> None:
    """Also one that is larger than a chunk, and an empty one."""
    content = bytes(range(256)) * 4000
    site.put("images/os.img", content)
    site.put("boot/empty", b"")
    answer = site.client.get("/images/os.img")
    assert (answer.status_code, answer.content) == (200, content)
    assert site.client.head("/images/os.img").headers["Content-Length"] == str(len(content))
    assert site.client.get("/boot/empty").content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/",
        "/images",
        "/../secret",
        "/%2e%2e/secret",
        "//etc/passwd",
        "/link",
        "/reports/t.jsonl",
        "/%00",
        "/offers/o",
        "/logs/l",
        "/hosts/r",
        "/boot/x.ipxe",
        "/boot/../reports/t.jsonl",
    ],
)
def test_nothing_outside_the_root_is_served(site: Served, path: str) -> None:
    """Not by dots, not by links, not a folder, not what nodes reported."""
    site.put("images/a", b"a")
    for name in ("reports/t.jsonl", "offers/o", "logs/l", "hosts/r", "boot/x.ipxe"):
        site.put(name, b"{}")
    (site.root.parent / "secret").write_text("secret")
    (site.root / "link").symlink_to(site.root.parent / "secret")
    url = httpx.URL(str(site.client.base_url), raw_path=path.encode())
    assert site.client.get(url).status_code == 404


def test_a_spoiled_image_differs_in_one_bit(site: Served) -> None:
    """And only images are spoiled."""
    content = b"\0" * 600_000
    site.put("images/disk.img.zst", content)
    site.put("boot/a", b"ramdisk")
    site.spoil = True
    got = site.client.get("/images/disk.img.zst").content
    assert len(got) == len(content)
    assert sum(got) == 1
    assert site.client.get("/boot/a").content == b"ramdisk"


def test_reports_are_appended_a_line_each(site: Served) -> None:
    """In the order they came, whatever white space they had."""
    site.put("seeds/tok-1.tar", b"")
    assert site.client.post("/report/tok-1", content=b'{"event":\n "written"}').status_code == 204
    assert site.client.post("/report/tok-1", content=b'{"event": "booted"}').status_code == 204
    lines = (site.root / "reports/tok-1.jsonl").read_text().splitlines()
    assert lines == ['{"event": "written"}', '{"event": "booted"}']


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/report/t", b"x" * (REPORT_MAX_BYTES + 1), 413),
        ("/report/t", b"not json", 400),
        ("/report/t", b"[1]", 400),
        ("/report/../boot/x", b"{}", 404),
        ("/report/.hidden", b"{}", 404),
        ("/report/", b"{}", 404),
        ("/boot/x.ipxe", b"{}", 404),
    ],
)
def test_a_report_that_is_none_is_refused(site: Served, path: str, body: bytes, status: int) -> None:
    """Too long, no JSON object, no token: nothing is written."""
    url = httpx.URL(str(site.client.base_url), raw_path=path.encode())
    site.put("seeds/t.tar", b"")
    assert site.client.post(url, content=body).status_code == status
    assert not (site.root / "reports").exists()


def test_a_node_cannot_report_without_end(site: Served) -> None:
    """Its lines are bounded."""
    site.put("seeds/t.tar", b"")
    for _ in range(REPORTS_PER_TOKEN):
        assert site.client.post("/report/t", content=b"{}").status_code == 204
    assert site.client.post("/report/t", content=b"{}").status_code == 429
    assert len((site.root / "reports/t.jsonl").read_text().splitlines()) == REPORTS_PER_TOKEN


def test_a_download_goes_on_where_it_was_cut(site: Served) -> None:
    """206 with the rest, 416 beyond the end; a byte that a fault flips stays in its place."""
    content = bytes(range(256)) * 4000
    site.put("images/disk.img.zst", content)
    answer = site.client.get("/images/disk.img.zst", headers={"Range": "bytes=1000-"})
    assert (answer.status_code, answer.content) == (206, content[1000:])
    assert answer.headers["Content-Range"] == f"bytes 1000-{len(content) - 1}/{len(content)}"
    assert site.client.get("/images/disk.img.zst", headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    site.spoil = True
    middle = len(content) // 2
    got = site.client.get("/images/disk.img.zst", headers={"Range": f"bytes={middle - 5}-{middle + 4}"}).content
    assert [a ^ b for a, b in zip(got, content[middle - 5 : middle + 5], strict=True)] == [0] * 5 + [1] + [0] * 4


def test_a_boot_script_is_decided_and_served_once(site: Served) -> None:
    """The service's own decision: to the planned node's address, armed, once; then the disk."""
    mac = "52:54:00:66:00:01"
    assert site.client.get("/boot/52-54-00-66-00-01.ipxe").status_code == 404
    site.put("hosts/rack", f"{mac},127.0.0.1\n".encode())
    BootOffers(site.root).arm(mac, "127.0.0.1", "a" * 32, "#!ipxe\nboot\n")
    assert site.client.get("/boot/52-54-00-66-00-01.ipxe").text == "#!ipxe\nboot\n"
    assert site.client.get("/boot/52-54-00-66-00-01.ipxe").text == EXIT_SCRIPT
