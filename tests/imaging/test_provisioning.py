"""What is published for a node and what it may answer."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.imaging.conftest import IMAGE, NODE, SHA256
from toolkit.certificate.purpose import Purpose
from toolkit.certificate.sign import load_or_create
from toolkit.errors import RackproofError, UsageError
from toolkit.image.manifest import Role
from toolkit.image.packages import Package, written
from toolkit.image.ramdisk import SOURCE as SOURCE_FOLDER
from toolkit.image.release import describe, publish, read_signed, sign_release, write_manifest
from toolkit.image.site import image_trust
from toolkit.netboot.offers import BootOffers, OfferState
from toolkit.rack.imaging import EraseMethod, ErasePolicy, ImagingPolicy, OnFailure, StoragePolicy
from toolkit.rack.model import Disk, HostNetwork
from toolkit.stages.boot_script import ImageSource, Places, Seed, render_boot_script
from toolkit.stages.deploy_reports import Report, ReportEvent, parse_reports
from toolkit.stages.provisioning import ProvisionSite
from toolkit.stages.seeds import SeedFile, pack_seed, seed_files
from toolkit.virtual.blank_image import publish_blank

TOKEN = "0123456789abcdef" * 2
SOURCE = ImageSource(
    "http://s/images/i", SHA256, "http://s/boot/vmlinuz", "http://s/boot/deploy.cpio.zst", "http://s/images/m", ("KEY",)
)
PLACES = Places(TOKEN, f"http://s/report/{TOKEN}", f"http://s/log/{TOKEN}")
SEED = Seed("http://s/seeds/t.tar", "cd" * 32)


def test_the_boot_script_is_ipxe_and_names_everything_the_ramdisk_checks():
    """Golden: the other end is a shell script that cannot import our types."""
    assert render_boot_script(NODE, SOURCE, SEED, PLACES) == (
        "#!ipxe\n"
        "echo rackproof: imaging node1\n"
        "kernel http://s/boot/vmlinuz initrd=deploy.cpio.zst"
        f" deploy.url=http://s/images/i deploy.sha256={SHA256}"
        " deploy.manifest=http://s/images/m deploy.image_key=KEY"
        " deploy.disk=/dev/nvme0n1 deploy.disk_serial=VD00000001 deploy.serial=VR00000001"
        " deploy.mac=52:54:00:66:00:01"
        f" deploy.seed=http://s/seeds/t.tar deploy.seed_sha256={SEED.sha256}"
        f" deploy.report=http://s/report/{TOKEN} deploy.log_url=http://s/log/{TOKEN} deploy.token={TOKEN}"
        " deploy.erase=none deploy.on_failure=power_off\n"
        "initrd http://s/boot/deploy.cpio.zst\n"
        "boot\n"
    )


def test_every_argument_that_is_told_is_one_that_the_ramdisk_reads():
    """A misspelt one would be passed over in silence: an erase policy, say."""
    host = replace(
        NODE.host, disk=Disk("/dev/nvme0n1", "S1", "eui.0025384111b0ab01", 1 << 40),
        mirror_disk=Disk(serial="S2", size_bytes=1 << 39),
        data_disks=(Disk(serial="S3", size_bytes=1 << 41), Disk(wwn="eui.0025384111b0ab04")),
    )  # fmt: skip
    policy = ImagingPolicy(
        ErasePolicy((EraseMethod.SANITIZE, EraseMethod.FORMAT), True, "s"), StoragePolicy(True, True, "/raid", "s"),
        OnFailure.HOLD, console="ttyS0,115200n8",
    )  # fmt: skip
    places = replace(PLACES, certificate=f"http://s/seeds/{TOKEN}.cert")
    script = render_boot_script(replace(NODE, host=host), SOURCE, SEED, places, policy)
    told = dict(re.findall(r"deploy\.(\w+)=(\S+)", script))
    argv = ["busybox", "sh", "-c", f". {SOURCE_FOLDER / 'lib/arguments.sh'}; echo $known"]
    known = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert set(told) - {"token"} == set(known)
    assert (told["erase"], told["data"], told["mirror"]) == ("sanitize,format", "S3,wwn:eui.0025384111b0ab04", "S2")
    assert (told["disk_size"], told["mirror_size"], told["data_size"]) == (str(1 << 40), str(1 << 39), f"{1 << 41},0")
    assert " console=ttyS0,115200n8 deploy.url=" in script


def test_a_command_line_that_the_kernel_would_cut_is_refused():
    """x86 takes 2,048 characters, and cuts the rest off without a word."""
    host = replace(NODE.host, data_disks=tuple(Disk(serial=f"{n:060}") for n in range(30)))
    policy = ImagingPolicy(storage=StoragePolicy(data_mount="/raid", source="s"))
    with pytest.raises(UsageError, match="2048 is most"):
        render_boot_script(replace(NODE, host=host), SOURCE, SEED, PLACES, policy)


@pytest.mark.parametrize(
    "storage, words",
    [
        (StoragePolicy(mirrored=True, source="s"), "would not see its mirror"),
        (StoragePolicy(data_mount="/raid", source="s"), "would not see the array at /raid"),
        (StoragePolicy(mirrored=True, data_mount="/raid", source="s"), "its mirror and the array at /raid"),
    ],
)
def test_an_image_that_would_not_see_its_arrays_is_refused(storage, words):
    """It would run from one half of the mirror. One that lists nothing is not known to be wrong."""
    policy = ImagingPolicy(storage=storage)
    without = replace(SOURCE, packages=frozenset({"udev"}))
    with pytest.raises(UsageError, match=words):
        render_boot_script(NODE, without, SEED, PLACES, policy)
    render_boot_script(NODE, without, SEED, PLACES)
    for known in (frozenset({"udev", "mdadm"}), None):
        render_boot_script(NODE, replace(SOURCE, packages=known), SEED, PLACES, policy)


@pytest.mark.parametrize("serial", ["", "A B", "A\nboot", "${net0/mac}", "A;reboot", "$(id)", "a'b", "é"])
def test_a_serial_that_would_change_the_scripts_meaning_is_refused(serial):
    """Nothing is escaped: such a serial is a mistake in the rack file."""
    with pytest.raises(UsageError, match="serial"):
        render_boot_script(replace(NODE, serial=serial), SOURCE, SEED, PLACES)


def test_a_unit_without_a_host_cannot_be_imaged():
    """A switch tray in the wrong list ends as a usage error."""
    with pytest.raises(UsageError, match="no host"):
        render_boot_script(replace(NODE, host=None), SOURCE, SEED, PLACES)


def test_the_seed_makes_the_image_this_node():
    """Host name, login keys, and where to report; private files in private folders."""
    packed = pack_seed(
        seed_files(NODE, None, SHA256, "http://s/report/x", ["ssh-ed25519 AAAA me\n", "ssh-ed25519 BBBB"])
    )
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        modes = {member.name: (member.mode, member.uid) for member in tar}
        keys = tar.extractfile("root/.ssh/authorized_keys").read()
        told = json.load(tar.extractfile("etc/rackproof/node.json"))
    assert modes["root/.ssh"] == (0o700, 0)
    assert modes["root/.ssh/authorized_keys"] == (0o600, 0)
    assert modes["etc/rackproof/node.json"] == (0o600, 0)
    assert modes["etc"] == (0o755, 0)
    assert keys == b"ssh-ed25519 AAAA me\nssh-ed25519 BBBB\n"
    assert told == {"name": "node1", "serial": "VR00000001", "image": SHA256, "report": "http://s/report/x"}


def test_the_same_seed_packs_to_the_same_bytes():
    """A resumed attempt publishes what the boot script already names."""
    files = seed_files(NODE, None, SHA256, "http://s/report/x", ["k"])
    assert pack_seed(files) == pack_seed(dict(reversed(files.items())))


@pytest.mark.parametrize("name", ["etc/x", "/etc/../x", "/etc/a b", '/etc/"x'])
def test_seed_files_are_planted_where_they_say_or_not_at_all(name):
    """Relative, climbing and quoted names are refused."""
    with pytest.raises(RackproofError):
        pack_seed({name: SeedFile(0o600, b"")})


@given(st.lists(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("utf-8", "replace"))))
def test_no_line_a_node_writes_is_an_error(lines):
    """Whatever comes is passed over, or is a report with bounded printable text."""
    for report in parse_reports(lines):
        assert isinstance(report.event, ReportEvent)


@given(
    st.dictionaries(
        st.sampled_from(["event", "serial", "code", "found", "host_key", "image"]),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)),
    ),
    st.sampled_from(list(ReportEvent)),
)
def test_fields_of_the_wrong_type_are_empty(body, event):
    """The event counts; a serial that is a list is no serial."""
    (report,) = parse_reports([json.dumps({**body, "event": event})])
    for name in ("serial", "code", "found", "host_key", "image"):
        value = getattr(report, name)
        assert isinstance(value, str)
        assert len(value) <= 300
        assert value.isprintable()


def test_reports_are_bounded():
    """A node cannot make us read for ever; a bomb of brackets is not a report."""
    assert len(list(parse_reports(['{"event":"started"}'] * 1000))) == 64
    assert list(parse_reports(["[" * 100_000, '{"event":"started"' + " " * 10_000])) == []


def test_terminal_escapes_in_a_report_are_gone():
    """They would reach the operator's terminal."""
    (report,) = parse_reports([json.dumps({"event": "failed", "message": "\x1b[2Jdisk\x07 full"})])
    assert report == Report(ReportEvent.FAILED, message="[2Jdisk  full")


@pytest.fixture
def site(tmp_path):
    """A provisioning folder with a signed image."""
    keys = tmp_path / "keys"
    publish_blank(tmp_path / "provision", keys, IMAGE)
    return ProvisionSite(tmp_path / "provision", "http://10.66.255.1", lambda: image_trust(keys, datetime.now(UTC)))


def _release(site):
    return next(path for path in (site.root / "images" / IMAGE).iterdir() if path.is_dir())


def _with_packages(site, folder, *installed):
    """The same image, one day newer, with a list of what is installed."""
    (folder / "release").mkdir()
    old = read_signed(_release(site) / "manifest.dsse.json", site.trust())
    for part in old.parts:
        (folder / "release" / part.name).write_bytes((_release(site) / part.name).read_bytes())
    listed = folder / "release/packages.json"
    listed.write_bytes(written(Package(name, "1", "amd64", SHA256) for name in installed))
    newer = replace(
        old, created_at=old.created_at + timedelta(days=1), parts=(*old.parts, describe(listed, Role.PACKAGES))
    )
    write_manifest(folder / "release", newer)
    sign_release(folder / "release", load_or_create(folder / "keys", None, Purpose.IMAGE))
    return publish(folder / "release", site.root, site.trust())


def test_what_an_image_lists_as_installed_is_read_as_it_was_signed(site, tmp_path):
    """No list, a list, and one that somebody changed to the same length."""
    assert site.image(IMAGE).packages is None
    release = _with_packages(site, tmp_path, "udev", "mdadm")
    assert site.image(IMAGE).packages == {"udev", "mdadm"}
    listed = site.root / release.path(release.manifest.part(Role.PACKAGES))
    listed.write_bytes(listed.read_bytes().replace(b"mdadm", b"MDADM"))
    with pytest.raises(UsageError, match="another hash than the signed one"):
        site.image(IMAGE)


def test_an_image_is_offered_with_its_signed_hash(site):
    """URLs and hash as they were signed, and the key that the ramdisk verifies with."""
    source, folder = site.image(IMAGE), _release(site)
    place = f"http://10.66.255.1/images/{IMAGE}/{folder.name}"
    assert (source.url, source.sha256) == (f"{place}/disk.img.zst", SHA256)
    assert source.ramdisk_url == f"{place}/deploy.cpio.zst"
    assert source.manifest_url == f"{place}/manifest.dsse.json"
    (key,) = source.keys
    pem = (site.root.parent / "keys/image.pub").read_text()
    assert f"\n{key}=\n" in pem


@pytest.mark.parametrize("missing", ["disk.img.zst", "deploy.cpio.zst"])
def test_an_image_that_is_not_whole_is_not_offered(site, missing):
    """Each part is needed, in its size."""
    (_release(site) / missing).write_bytes(b"cut")
    with pytest.raises(UsageError, match="IMAGE_PART_TRUNCATED"):
        site.image(IMAGE)
    (_release(site) / missing).unlink()
    with pytest.raises(UsageError, match="IMAGE_PART_MISSING"):
        site.image(IMAGE)


def test_an_image_that_nobody_signed_is_not_offered(site):
    """An old file with a sum beside it, and one that another site signed."""
    (site.root / "images" / IMAGE / "manifest.dsse.json").unlink()
    with pytest.raises(UsageError, match="no image"):
        site.image(IMAGE)
    publish_blank(site.root, site.root.parent / "others", IMAGE)
    with pytest.raises(UsageError, match="IMAGE_UNTRUSTED"):
        site.image(IMAGE)


@pytest.mark.parametrize("url", ["", "10.66.255.1", "https://10.66.255.1"])
def test_a_server_the_firmware_cannot_reach_is_told_before_anything_is_touched(site, url):
    """A rack file without `provision` would send nodes to nowhere."""
    with pytest.raises(UsageError, match="provisioning server"):
        replace(site, url=url).image(IMAGE)


def test_a_boot_script_is_given_out_once_and_withdrawn_twice_without_harm(site):
    """Withdrawing what is gone is no error: a resumed run does it."""
    site.publish_boot(NODE, TOKEN, "#!ipxe\n")
    site.publish_seed(TOKEN, {"/etc/hostname": SeedFile(0o644, b"n\n")})
    site.publish_certificate(TOKEN, "ssh-ed25519-cert-v01@openssh.com AAAA")
    taken = [BootOffers(site.root).take(NODE.host.mac, NODE.host.address) for _ in range(2)]
    assert [(offer.script, is_given) for offer, is_given in taken] == [("#!ipxe\n", True), ("#!ipxe\n", False)]
    assert (site.offer(NODE).state, site.offer(NODE).again) == (OfferState.TAKEN, 1)
    site.withdraw(NODE, TOKEN)
    site.withdraw(NODE, TOKEN)
    assert list((site.root / "seeds").iterdir()) == []
    assert (site.offer(NODE).state, site.offer(NODE).script) == (OfferState.DISARMED, "")


def test_progress_never_takes_the_place_of_an_end(site):
    """A node that tells of every byte is still heard when it is done."""
    line = '{"event":"progress","step":"write","percent":1}\n'
    (site.root / "reports").mkdir()
    (site.root / "reports" / f"{TOKEN}.jsonl").write_text(line * 300 + '{"event":"written"}\n')
    reports = site.reports(TOKEN)
    assert [r.event for r in reports[-2:]] == ["progress", "written"]
    assert len(reports) == 257


@pytest.mark.parametrize("percent", [-1, 101, True, "50", 1.5, None, 10**30])
def test_a_percentage_that_is_none_is_nothing(percent):
    """It reaches a progress bar."""
    (report,) = parse_reports([json.dumps({"event": "progress", "percent": percent})])
    assert report.percent == 0


def test_a_static_address_goes_to_the_interface_with_the_planned_mac():
    """Both kinds of image find theirs; a node without a written network asks DHCP, and gets neither file."""
    host = replace(NODE.host, network=HostNetwork(16, "10.66.255.1", ("10.66.255.2",)))
    files = seed_files(replace(NODE, host=host), None, SHA256, "http://s/report/x", [])
    networkd = files["/etc/systemd/network/05-rackproof-inband.network"].content.decode()
    assert "MACAddress=52:54:00:66:00:01" in networkd
    assert "Address=10.66.0.11/16\nDHCP=no\nGateway=10.66.255.1\nDNS=10.66.255.2\n" in networkd
    netplan = json.loads(files["/etc/netplan/05-rackproof-inband.yaml"].content)
    interface = netplan["network"]["ethernets"]["inband"]
    assert (interface["match"], interface["addresses"]) == ({"macaddress": "52:54:00:66:00:01"}, ["10.66.0.11/16"])
    assert not any("inband" in name for name in seed_files(NODE, None, SHA256, "http://s/report/x", []))


def test_half_a_report_line_is_not_read_yet(site):
    """The server may be in the middle of writing it."""
    (site.root / "reports").mkdir()
    (site.root / "reports" / f"{TOKEN}.jsonl").write_text('{"event":"started"}\n{"event":"boo')
    assert [r.event for r in site.reports(TOKEN)] == ["started"]
    assert site.reports("f" * 32) == ()


@pytest.mark.parametrize("token", ["", "../x", "A" * 32, "0" * 31, "0" * 33])
def test_a_token_never_becomes_a_path(site, token):
    """Tokens are ours; one that is not is a defect, not a file name."""
    with pytest.raises(RackproofError):
        site.reports(token)


def test_a_disk_without_serial_cannot_be_named():
    """An empty serial would match a machine that has none."""
    host = replace(NODE.host, disk=Disk("/dev/nvme0n1", ""))
    with pytest.raises(UsageError, match="disk_serial"):
        render_boot_script(replace(NODE, host=host), SOURCE, SEED, PLACES)
