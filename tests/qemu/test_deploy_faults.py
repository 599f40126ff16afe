"""What can go wrong while a machine with a real kernel and NVMe disks is deployed, and the state that each ends in."""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.qemu.deploy_bench import DATA1, MIB, NODE, SYSTEM, DeployBench, benched, read, root_bytes
from tests.qemu.deploy_machine import Ending, Run
from tests.qemu.deploy_parts import BOOTED, DISK_BYTES, ESP, make_image
from toolkit.rack.imaging import EraseMethod, ErasePolicy, ImagingPolicy, StoragePolicy
from toolkit.rack.model import Disk
from toolkit.stages.boot_script import ImageSource

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def ending(fault: str, state: str, run: Run) -> None:
    """A line of the table of faults, for whoever runs this with `-s`."""
    print(f"FAULT | {fault} | {state} | {run.lines[-1].at_s:.0f} s")  # noqa: T201


def _another_serial(bench: DeployBench) -> str:
    bench.plug(0, "VD00000009")
    return "refused DISK_SERIAL_MISMATCH"


def _two_of_one_serial(bench: DeployBench) -> str:
    bench.plug(1, SYSTEM)
    return "failed DISK_AMBIGUOUS"


def _another_size_of_a_data_disk(bench: DeployBench) -> str:
    bench.plug(1, DATA1)
    data = Disk(serial=DATA1, size_bytes=bench.disk(1).stat().st_size + 512)
    assert NODE.host is not None
    bench.planned = replace(NODE, host=replace(NODE.host, data_disks=(data,)))
    bench.policy = ImagingPolicy(storage=StoragePolicy(data_mount="/raid", source="test"))
    return "refused DISK_SIZE_MISMATCH"


def _too_small(bench: DeployBench) -> str:
    bench.plug(0, SYSTEM, DISK_BYTES - MIB)
    return "failed DISK_TOO_SMALL"


def _unsigned(bench: DeployBench) -> str:
    source = bench.site.image("small")
    file = bench.image_file.with_name("manifest.dsse.json")
    document = json.loads(file.read_text())
    statement = base64.b64decode(document["payload"]).replace(b'"sizeBytes":', b'"sizeBytes": ')
    document["payload"] = base64.b64encode(statement).decode()
    file.write_text(json.dumps(document))
    bench.site = _Stale(bench.site, source)
    return "failed MANIFEST_UNTRUSTED"


class _Stale:
    """A site that looked at the image before somebody changed it."""

    def __init__(self, site: object, source: ImageSource) -> None:
        self._site, self._source = site, source

    def image(self, _name: str) -> ImageSource:
        return self._source

    def __getattr__(self, name: str) -> object:
        return getattr(self._site, name)


@pytest.mark.parametrize(
    "spoil", [_another_serial, _two_of_one_serial, _another_size_of_a_data_disk, _too_small, _unsigned]
)
def test_what_is_not_as_planned_is_refused_with_nothing_written(bench, spoil: Callable[[DeployBench], str]):
    """Every disk has the sha256 that it had before."""
    told = spoil(bench)
    before = bench.sums()
    ended, events, run = bench.deploy()
    ending(spoil.__name__, f"{events[-1]}, {ended}", run)
    assert (ended, events) == (Ending.POWER_OFF, ["started", told]), run.text
    assert bench.sums() == before
    assert bench.site.log(bench.token)


def _truncated(bench: DeployBench) -> str:
    os.truncate(bench.image_file, bench.image_file.stat().st_size - MIB)
    return "failed IMAGE_DOWNLOAD"


def _corrupted(bench: DeployBench) -> str:
    with bench.image_file.open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(16))
    return "hash_mismatch"


@pytest.mark.parametrize("spoil", [_truncated, _corrupted])
def test_an_image_that_is_not_what_was_signed_leaves_nothing_bootable(bench, spoil: Callable[[DeployBench], str]):
    """The disk was bootable before: what was there is gone, and nothing else came."""
    bench.disk().write_bytes(bench.raw + bytes(13 * MIB))
    assert bench.boots(BOOTED)
    whole = bench.image_file.read_bytes()
    bench.site = _Stale(bench.site, bench.site.image("small"))
    told = spoil(bench)
    ended, events, run = bench.deploy()
    ending(spoil.__name__, f"{events[-1]}, {ended}", run)
    assert (ended, events) == (Ending.POWER_OFF, ["started", told]), run.text
    assert not bench.boots(BOOTED)
    bench.image_file.write_bytes(whole)
    ended, events, run = bench.deploy()
    assert (ended, events) == (Ending.REBOOT, ["started", "written"]), run.text
    assert bench.boots(BOOTED)


def _erase_begins(run: Run, bench: DeployBench) -> None:
    """The first sector is gone. Until then the disk is as it was, and boots what it booted."""
    run.wait_for("deploy: overwriting", 300)
    _until(lambda: not _sector(bench, 0).strip(b"\0"), run)


def _image_begins(run: Run, bench: DeployBench) -> None:
    """The first of the image is on the disk, which read as zeros before."""
    run.wait_for("deploy: writing", 300)
    _until(lambda: bool(_sector(bench, ESP.start_bytes).strip(b"\0")), run)


def _sector(bench: DeployBench, at: int) -> bytes:
    with bench.disk().open("rb") as disk:
        disk.seek(at)
        return disk.read(512)


def _until(condition: Callable[[], bool], run: Run) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end, run.text
        time.sleep(0.01)


def _says(text: str) -> Callable[[Run, DeployBench], None]:
    return lambda run, _bench: run.wait_for(text, 300)


# Step -> when it is at work, and whether the disk boots after a cut there.
STEPS = {
    "erase": (_erase_begins, False),
    "write": (_image_begins, False),
    "read back": (_says("deploy: reading"), False),
    "grow": (_says("deploy: resize2fs"), False),
    "seed": (_says("deploy: planting the seed"), False),
    "boot record": (_says("bootable from here on"), True),
}


@pytest.mark.timeout(1500)
def test_the_power_may_go_at_every_step(bench):
    """SIGKILL at each step in turn, each over what the one before left: nothing boots but a whole image, and the last
    attempt finishes.
    """
    bench.disk().write_bytes(bench.raw + bytes(13 * MIB))
    bench.policy = ImagingPolicy(
        erase=ErasePolicy((EraseMethod.OVERWRITE,), source="test"),
        storage=StoragePolicy(grow_root=True, source="test"),
    )
    for name, (is_reached, boots) in STEPS.items():
        with bench.deploying() as run:
            is_reached(run, bench)
            run.cut_power()
        ending(f"power cut: {name}", "boots" if boots else "boots nothing", run)
        assert not any(event.startswith("written") for event in bench.events)
        assert bench.boots(BOOTED) is boots, name
    ended, events, run = bench.deploy()
    ending("after the cuts", events[-1], run)
    assert (ended, events) == (Ending.REBOOT, ["started", "erased overwrite", "written"]), run.text
    assert bench.boots(BOOTED)
    assert read(bench.disk(), "/etc/hostname") == b"node1\n"
    assert root_bytes(bench.disk()) > 50 * MIB


def test_a_web_server_that_restarts_is_gone_on_with_at_the_byte(bench):
    """nginx is killed in the middle, and is away for two seconds; what was on its way is all that is sent twice."""
    bench.serve(bytes_per_s=256 * 1024)
    with bench.deploying() as run:
        run.wait_for("deploy: write ", 240)
        bench.stop_serving()
        time.sleep(2)
        bench.serve()
        assert run.ending() is Ending.REBOOT, run.text
        ending("web server restarted", bench.events[-1], run)
    assert bench.events == ["started", "written"]
    assert "going on there" in run.text
    size = bench.image_file.stat().st_size
    assert bench.sent_bytes < size * 1.05 + 2 * MIB  # what was in the kernel's buffers when nginx died
    assert bench.boots(BOOTED)


@pytest.mark.timeout(900)
def test_a_link_that_loses_every_third_packet_is_slow_and_no_more(netboot):
    """30 % each way, from the DHCP request to the last report."""
    with tempfile.TemporaryDirectory() as folder:
        small = make_image(Path(folder), noise_bytes=MIB // 4)
    with benched(netboot, small) as bench:
        bench.lose(30)
        ended, events, run = bench.deploy(800)
        ending(f"30 % loss, {bench.lost} packets dropped", events[-1], run)
        assert (ended, events[0], events[-1]) == (Ending.REBOOT, "started", "written"), run.text
        assert all(count > 20 for count in bench.lost)
        assert bench.boots(BOOTED)
