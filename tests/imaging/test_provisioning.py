"""What is published for a node and what it may answer."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.imaging.conftest import IMAGE, NODE, SHA256
from toolkit.errors import RackproofError, UsageError
from toolkit.rack.model import Disk
from toolkit.stages.provisioning import (
    ImageSource,
    ProvisionSite,
    Report,
    ReportEvent,
    Seed,
    SeedFile,
    pack_seed,
    parse_reports,
    render_boot_script,
    seed_files,
)

TOKEN = "0123456789abcdef" * 2
SOURCE = ImageSource("http://s/images/i", SHA256, "http://s/boot/vmlinuz", "http://s/boot/deploy.cpio.zst")
SEED = Seed("http://s/seeds/t.tar", "cd" * 32)


def test_the_boot_script_is_ipxe_and_names_everything_the_ramdisk_checks():
    """Golden: the other end is a shell script that cannot import our types."""
    assert render_boot_script(NODE, SOURCE, SEED, f"http://s/report/{TOKEN}", TOKEN) == (
        "#!ipxe\n"
        "echo rackproof: imaging node1\n"
        "kernel http://s/boot/vmlinuz initrd=deploy.cpio.zst"
        f" deploy.url=http://s/images/i deploy.sha256={SHA256}"
        " deploy.disk=/dev/nvme0n1 deploy.disk_serial=VD00000001 deploy.serial=VR00000001"
        " deploy.mac=52:54:00:66:00:01"
        f" deploy.seed=http://s/seeds/t.tar deploy.seed_sha256={SEED.sha256}"
        f" deploy.report=http://s/report/{TOKEN} deploy.token={TOKEN}\n"
        "initrd http://s/boot/deploy.cpio.zst\n"
        "boot\n"
    )


@pytest.mark.parametrize("serial", ["", "A B", "A\nboot", "${net0/mac}", "A;reboot", "$(id)", "a'b", "é"])
def test_a_serial_that_would_change_the_scripts_meaning_is_refused(serial):
    """Nothing is escaped: such a serial is a mistake in the rack file."""
    with pytest.raises(UsageError, match="serial"):
        render_boot_script(replace(NODE, serial=serial), SOURCE, SEED, "http://s/report/x", TOKEN)


def test_a_unit_without_a_host_cannot_be_imaged():
    """A switch tray in the wrong list ends as a usage error."""
    with pytest.raises(UsageError, match="no host"):
        render_boot_script(replace(NODE, host=None), SOURCE, SEED, "http://s/report/x", TOKEN)


def test_the_seed_makes_the_image_this_node():
    """Host name, login keys, and where to report; private files in private folders."""
    packed = pack_seed(seed_files(NODE, SHA256, "http://s/report/x", ["ssh-ed25519 AAAA me\n", "ssh-ed25519 BBBB"]))
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
    files = seed_files(NODE, SHA256, "http://s/report/x", ["k"])
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
    """A provisioning folder with an image and a ramdisk."""
    for folder, name in (("images", IMAGE), ("boot", "deploy.cpio.zst")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"x")
        (tmp_path / folder / f"{name}.sha256").write_text(f"{SHA256}  {name}\n")
    return ProvisionSite(tmp_path, "http://10.66.255.1")


def test_an_image_is_offered_with_its_published_hash(site):
    """URLs and hash of what lies in the folder."""
    assert site.image(IMAGE) == ImageSource(
        f"http://10.66.255.1/images/{IMAGE}", SHA256,
        "http://10.66.255.1/boot/vmlinuz", "http://10.66.255.1/boot/deploy.cpio.zst",
    )  # fmt: skip


@pytest.mark.parametrize("missing", [f"images/{IMAGE}", f"images/{IMAGE}.sha256", "boot/deploy.cpio.zst"])
def test_an_image_that_is_not_whole_is_not_offered(site, missing):
    """File and sum, of image and ramdisk: each is needed."""
    (site.root / missing).unlink()
    with pytest.raises(UsageError, match="not published"):
        site.image(IMAGE)


@pytest.mark.parametrize("url", ["", "10.66.255.1", "https://10.66.255.1"])
def test_a_server_the_firmware_cannot_reach_is_told_before_anything_is_touched(site, url):
    """A rack file without `provision` would send nodes to nowhere."""
    with pytest.raises(UsageError, match="provisioning server"):
        replace(site, url=url).image(IMAGE)


def test_a_sum_that_is_none_is_refused(site):
    """An empty or cut .sha256 file is no hash."""
    (site.root / "images" / f"{IMAGE}.sha256").write_text(SHA256[:40])
    with pytest.raises(UsageError):
        site.image(IMAGE)


def test_boot_scripts_are_named_by_mac_and_withdrawn_twice_without_harm(site):
    """Withdrawing what is gone is no error: a resumed run does it."""
    site.publish_boot(NODE, "#!ipxe\n")
    site.publish_seed(TOKEN, {"/etc/hostname": SeedFile(0o644, b"n\n")})
    assert (site.root / "boot/52-54-00-66-00-01.ipxe").read_text() == "#!ipxe\n"
    site.withdraw(NODE, TOKEN)
    site.withdraw(NODE, TOKEN)
    assert list((site.root / "seeds").iterdir()) == []
    assert not list((site.root / "boot").glob("*.ipxe"))


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
        render_boot_script(replace(NODE, host=host), SOURCE, SEED, "http://s/report/x", TOKEN)
