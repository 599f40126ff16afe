"""The image on its way to the disk: a broken transfer goes on where it broke, and all of it is read back."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.imaging.shell_bench import ShellBench

RAW = os.urandom(6 << 20) + bytes(6 << 20)
WIRE = subprocess.run(["zstd", "-q", "-c", "-1"], input=RAW, capture_output=True, check=True).stdout
WRITE = "sparse=\nmkdir -p $work\nwrite_image\nmake_bootable\n"


@dataclass
class Mirror:
    """What the server does to transfers.

    cuts       connections that end after `cut_at` bytes each
    ranges     whether it knows them
    refusals   requests that it answers with `status` before it serves anything
    stalls     connections that stay open and bring nothing after the cut
    """

    content: bytes = WIRE
    cuts: int = 0
    cut_at: int = 1 << 20
    ranges: bool = True
    refusals: int = 0
    status: int = 503
    stalls: int = 0
    sent: int = 0
    asked: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        mirror = self.server.mirror
        told = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        mirror.asked.append(int(told))
        if mirror.refusals:
            mirror.refusals -= 1
            return self.send_error(mirror.status)
        start = int(told) if mirror.ranges else 0
        body = mirror.content[start:]
        self.send_response(206 if mirror.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = mirror.cuts > 0 or mirror.stalls > 0
        body = body[: mirror.cut_at] if cut else body
        self.wfile.write(body)
        mirror.sent += len(body)
        mirror.cuts -= mirror.cuts > 0
        if mirror.stalls:
            mirror.stalls -= 1
            self.wfile.flush()
            mirror.ended.wait(30)
        self.close_connection = True
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mirror = mirror


@contextmanager
def serving(mirror: Mirror) -> Iterator[str]:
    """The URL of the image."""
    with _Server(mirror) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/images/disk.img.zst"
        mirror.ended.set()
        server.shutdown()


@pytest.fixture
def bench(tmp_path: Path) -> ShellBench:
    """A disk that is a file, larger than the image."""
    target = tmp_path / "disk.img"
    target.write_bytes(b"old" * 100)
    os.truncate(target, 20 << 20)
    made = ShellBench(tmp_path / "bench")
    made.variables = {
        "disk": str(target), "boot_disks": str(target), "wire_bytes": str(len(WIRE)), "raw_bytes": str(len(RAW)),
        "sha256": sha256(WIRE).hexdigest(), "raw_sha256": sha256(RAW).hexdigest(), "report": "http://127.0.0.1:9/",
    }  # fmt: skip
    return made


def _written(bench: ShellBench) -> bytes:
    return Path(bench.variables["disk"]).read_bytes()[: len(RAW)]


def test_a_transfer_that_breaks_goes_on_where_it_broke(bench):
    """Three cuts: the server sends no byte twice, and the disk has every byte."""
    mirror = Mirror(cuts=3)
    with serving(mirror) as url:
        bench.variables["url"] = url
        done = bench.run(f'{WRITE}echo "$found_sha256 $(status connections)"')
    assert f"{bench.variables['sha256']} 4" in done.stdout, done.stdout + done.stderr
    assert _written(bench) == RAW
    assert mirror.asked == [0, 1 << 20, 2 << 20, 3 << 20]
    assert mirror.sent < len(WIRE) * 1.05


def test_a_server_that_knows_no_ranges_sends_all_of_it_and_nothing_is_written_twice(bench):
    """What was there already is passed over."""
    mirror = Mirror(cuts=1, ranges=False)
    with serving(mirror) as url:
        bench.variables["url"] = url
        bench.run(WRITE)
    assert _written(bench) == RAW


def test_a_server_that_is_away_for_a_while_is_waited_for(bench):
    """It restarts: three refusals, then it serves."""
    mirror = Mirror(refusals=3)
    with serving(mirror) as url:
        bench.variables["url"] = url
        bench.run(WRITE)
    assert _written(bench) == RAW


def test_a_connection_that_went_dead_is_opened_anew(bench):
    """A switch that lost its state drops everything and says nothing: no byte for three seconds is enough here."""
    mirror = Mirror(stalls=1)
    with serving(mirror) as url:
        bench.variables["url"] = url
        done = bench.run(WRITE)
    assert "no byte for 3 s" in done.stdout
    assert _written(bench) == RAW


def test_an_image_that_ends_early_is_named_and_leaves_nothing_bootable(bench):
    """Truncated on the server: the sizes differ, and the first MiB is zeros."""
    mirror = Mirror(content=WIRE[: 3 << 20])
    with serving(mirror) as url:
        bench.variables["url"] = url
        done = bench.run("tries_without_a_byte=2\nclear_disk() { sparse=; }\nwrite_verified_image")
    assert done.returncode == 86
    assert f"ended after {3 << 20} of {len(WIRE)} bytes" in done.stdout
    assert _written(bench)[: 1 << 20] == bytes(1 << 20)


def test_a_disk_that_does_not_keep_what_is_written_is_found(bench):
    """One bit, changed between the write and the reading back."""
    with serving(Mirror()) as url:
        bench.variables["url"] = url
        flip = "printf '\\001' | dd of=\"$disk\" bs=1 seek=9000000 conv=notrunc 2>/dev/null\n"
        done = bench.run(f"{WRITE}{flip}read_back")
    assert (done.returncode, "DISK_READBACK" in done.stdout) == (86, True), done.stdout
    assert _written(bench)[: 1 << 20] == bytes(1 << 20)


def test_nothing_but_the_last_write_makes_the_disk_bootable(bench):
    """All of the image is there and was read back, and the first sector is still nobody's; then it is the image's."""
    with serving(Mirror()) as url:
        bench.variables["url"] = url
        done = bench.run(f"wipe\n{WRITE.removesuffix('make_bootable' + chr(10))}read_back")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (_written(bench)[:4096], _written(bench)[4096:]) == (bytes(4096), RAW[4096:])
        done = bench.run("make_bootable")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _written(bench) == RAW


def test_progress_is_told_with_bytes_and_rationed(bench):
    """Every five seconds at first, and no more than the server keeps."""
    script = (
        'post() { echo "POST $3"; }\nmkdir -p $work\nn=0\nseconds_up() { echo $((n * 5)); }\n'
        "while [ $n -lt 4000 ]; do n=$((n + 1)); progress write $n 4000; done"
    )
    lines = [line for line in bench.run(script).stdout.splitlines() if line.startswith("POST")]
    assert lines[0] == 'POST {"event":"progress","step":"write","percent":0,"bytes":1,"total":4000}'
    assert lines[1].endswith('"bytes":2,"total":4000}')
    assert 150 < len(lines) <= 200
