"""The deploy ramdisk in a container: signatures, host keys, erasing, growing, its log, and how it fails."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.imaging.conftest import NODE
from tests.imaging.ramdisk_bench import MIB, RUBBISH, TOKEN, Bench, benched, events, make_image, wired
from toolkit.rack.imaging import EraseMethod, ErasePolicy, ImagingPolicy, OnFailure, StoragePolicy
from toolkit.rack.model import Disk
from toolkit.virtual.machine import End
from toolkit.virtual.programs import run as sh

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def image() -> Iterator[bytes]:
    """The small image, and the wire that it goes over."""
    with wired(), tempfile.TemporaryDirectory() as folder:
        yield make_image(Path(folder))


@pytest.fixture
def bench(image: bytes, tmp_path: Path) -> Iterator[Bench]:
    """All set up, with something old on the disk."""
    with benched(image, tmp_path) as made:
        yield made


def _other_hash(document: dict[str, str]) -> None:
    statement = base64.b64decode(document["payload"])
    changed = re.sub(rb'"content":\{"sha256":"..', b'"content":{"sha256":"00', statement)
    document["payload"] = base64.b64encode(changed).decode()


def _no_signature(document: dict[str, object]) -> None:
    document["signatures"] = []


def _another_type(document: dict[str, object]) -> None:
    document["payloadType"] = "text/plain"


@pytest.mark.parametrize("change", [_other_hash, _no_signature, _another_type])
def test_a_manifest_that_the_site_did_not_sign_touches_nothing(bench, change: Callable[[dict[str, str]], None]):
    """Changed between the controller's look and the node's: the node looks for itself, before it writes."""
    file, source = bench.published / "manifest.dsse.json", bench.site.image("small")
    document = json.loads(file.read_text())
    change(document)
    before = bench.disk.read_bytes()
    bench.site = _Stale(bench.site, source)
    file.write_text(json.dumps(document))
    end, reports = bench.boot()
    assert (end, events(reports), reports[-1].code) == (End.POWER_OFF, ["started", "failed"], "MANIFEST_UNTRUSTED")
    assert bench.disk.read_bytes() == before


class _Stale:
    """A site that looked at the image before somebody changed it."""

    def __init__(self, site, source) -> None:
        self._site, self._source = site, source

    def image(self, _name: str):
        return self._source

    def __getattr__(self, name: str):
        return getattr(self._site, name)


def test_the_key_in_the_ramdisk_outranks_the_boot_scripts(bench):
    """A boot script that brings its own key and an image signed by it is not believed."""
    folder = bench._root() / "etc/rackproof/image-keys"
    others = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True).stdout
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=others, capture_output=True, check=True).stdout
    (folder / "0.pem").write_bytes(public)
    end, reports = bench.boot()
    assert (end, reports[-1].code) == (End.POWER_OFF, "MANIFEST_UNTRUSTED")
    (folder / "1.pem").write_bytes((bench.folder / "keys/image.pub").read_bytes())
    end, _ = bench.boot()
    assert end is End.REBOOT


def test_the_node_makes_its_host_key_and_plants_its_certificate(bench):
    """The private half never leaves the machine; what is planted is the key that was told, and its certificate."""
    authority = bench.folder / "ssh_ca"
    sh(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(authority)])
    signer = threading.Thread(target=_sign_when_told, args=(bench, authority), daemon=True)
    signer.start()
    end, reports = bench.boot(host_key="signed", certificate=bench.site.places(TOKEN, signed=True).certificate)
    signer.join(30)
    assert (end, events(reports)) == (End.REBOOT, ["started", "host_key", "written"])
    assert reports[-1].code == "certified"
    told = next(r.host_key for r in reports if r.event == "host_key")
    assert bench.read("/etc/ssh/ssh_host_ed25519_key.pub").decode().strip() == told
    (bench.folder / "key").write_bytes(bench.read("/etc/ssh/ssh_host_ed25519_key"))
    (bench.folder / "key").chmod(0o600)
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(bench.folder / "key")], capture_output=True, text=True, check=True
    ).stdout
    assert derived.split()[:2] == told.split()
    assert bench.read("/etc/ssh/ssh_host_ed25519_key-cert.pub").startswith(b"ssh-ed25519-cert-v01@openssh.com ")
    assert b"HostCertificate" in bench.read("/etc/ssh/sshd_config.d/50-rackproof-host-certificate.conf")
    listing = sh(["debugfs", "-R", "ls -l /etc/ssh", f"{bench.disk}?offset={MIB}"])
    modes = {line.split()[-1]: line.split()[1] for line in listing.splitlines() if line.strip()}
    assert modes["ssh_host_ed25519_key"] == "100600"
    assert b"PRIVATE" not in bench.site.log(TOKEN)


def _sign_when_told(bench: Bench, authority: Path) -> None:
    until = time.monotonic() + 25
    while time.monotonic() < until:
        told = [r.host_key for r in bench.site.reports(TOKEN) if r.host_key]
        if told:
            key = bench.folder / "told.pub"
            key.write_text(f"{told[0]}\n")
            sh(["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "node1", "-n", "node1", str(key)])
            bench.site.publish_certificate(TOKEN, (bench.folder / "told-cert.pub").read_text())
            return
        time.sleep(0.1)


def test_the_log_reaches_the_controller_and_stays_on_the_disk(bench):
    """Every step with its second; also of a node that gave up."""
    bench.boot()
    sent = bench.site.log(TOKEN).decode()
    assert "the site signed its manifest" in sent
    assert "read back 16777216 bytes" in sent
    assert "read back 16777216 bytes" in bench.read("/var/log/rackproof-deploy.log").decode()


def test_a_node_that_failed_stays_on_and_says_why_where_the_policy_says_so(bench):
    """`hold`: powered, no way in, the reason on its console once a minute; the log is with the controller."""
    bench.policy = ImagingPolicy(on_failure=OnFailure.HOLD)
    machine = threading.Thread(target=bench.boot, kwargs={"seed_sha256": "cd" * 32}, daemon=True)
    machine.start()
    until = time.monotonic() + 60
    while "imaging FAILED, the machine waits: SEED_HASH_MISMATCH" not in bench.written_on_console():
        assert time.monotonic() < until, bench.written_on_console()
        time.sleep(0.2)
    assert machine.is_alive()
    assert bench.site.reports(TOKEN)[-1].code == "SEED_HASH_MISMATCH"
    assert "SEED_HASH_MISMATCH" in bench.site.log(TOKEN).decode()
    assert not bench.bootable()
    bench.cut_power()
    machine.join(30)
    assert not machine.is_alive()


def test_disks_are_erased_as_the_policy_says_and_what_they_answered_is_told(bench):
    """A disk that takes no format and no sanitize takes the next method; the data disk goes too, the stranger stays."""
    bench.disks["nvme0n1"] = bench.disk
    for name, serial in (("nvme1n1", "DATA1"), ("nvme2n1", "STRANGER")):
        bench.tell_disk(name, serial, size_bytes=4 * MIB)
        (bench.folder / f"{name}.img").write_bytes(RUBBISH + bytes(4 * MIB - len(RUBBISH)))
    methods = (EraseMethod.SANITIZE, EraseMethod.FORMAT, EraseMethod.OVERWRITE)
    bench.policy = ImagingPolicy(erase=ErasePolicy(methods, data_disks=True, source="test"))
    assert NODE.host is not None
    planned = replace(NODE, host=replace(NODE.host, data_disks=(Disk(serial="DATA1"),)))
    end, reports = bench.boot(planned)
    assert (end, events(reports)) == (End.REBOOT, ["started", "erased", "erased", "written"])
    erased = [(r.code, r.found) for r in reports if r.event == "erased"]
    assert erased == [("overwrite", "VD00000001"), ("overwrite", "DATA1")]
    told = [r.message for r in reports if r.event == "erased"]
    assert all("refused sanitize (no NVMe disk); format (no NVMe disk)" in words for words in told)
    assert not any((bench.folder / "nvme1n1.img").read_bytes())
    assert (bench.folder / "nvme2n1.img").read_bytes().startswith(RUBBISH)
    assert RUBBISH not in bench.disk.read_bytes()


def test_a_disk_that_takes_no_allowed_method_is_not_written(bench):
    """No half-erased disk comes into service."""
    bench.policy = ImagingPolicy(erase=ErasePolicy((EraseMethod.FORMAT,), source="test"))
    before = bench.disk.read_bytes()
    end, reports = bench.boot()
    assert (end, reports[-1].code) == (End.POWER_OFF, "ERASE_REFUSED")
    assert "format (no NVMe disk)" in reports[-1].message
    assert bench.disk.read_bytes() == before


def test_the_root_partition_grows_to_the_end_of_the_disk(bench):
    """Table and file system; without the kernel ever having seen the partition."""
    bench.policy = ImagingPolicy(storage=StoragePolicy(grow_root=True, source="test"))
    end, _ = bench.boot()
    assert end is End.REBOOT
    with bench.disk.open("rb") as file:
        sector = file.read(512)
    assert int.from_bytes(sector[458:462], "little") * 512 == 30 * MIB
    sh(["e2fsck", "-f", "-n", f"{bench.disk}?offset={MIB}"])
    told = sh(["debugfs", "-R", "stats -h", f"{bench.disk}?offset={MIB}"])
    assert int(re.search(r"Block count: +(\d+)", told)[1]) * 1024 == 30 * MIB
    assert bench.read("/etc/hostname") == b"node1\n"
