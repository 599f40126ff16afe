"""Disks in the rack file and what the profile does to them: known by serial or WWN, and every mistake with its line."""

from __future__ import annotations

from tests.rack.conftest import PROFILE, RACK
from toolkit.rack.imaging import BY_DEFAULT, EraseMethod, OnFailure
from toolkit.rack.model import Disk

DISK = "disk: {device: /dev/nvme0n1, serial: D1}"


def test_a_disk_is_planned_by_serial_or_wwn_and_size(inventory):
    """The device is a hint that may be left out."""
    inventory.changed(DISK, "disk: {wwn: eui.0025384111b0ab01, size_bytes: 3840755982336}")
    disk = inventory.load().nodes[0].host.disk
    assert disk == Disk(wwn="eui.0025384111b0ab01", size_bytes=3840755982336)


def test_a_disk_by_its_name_alone_is_refused(inventory):
    """The kernel gives that name to another disk tomorrow."""
    inventory.changed(DISK, "disk: {device: /dev/nvme0n1}")
    (problem,) = inventory.problems()
    assert "device name alone" in problem.wrong
    assert problem.line > 1


def test_one_disk_is_not_planned_twice(inventory):
    """As the data disk of a node and the system disk of another: one of them would be erased by mistake."""
    inventory.changed(DISK, f"{DISK}, data_disks: [{{serial: D9}}, {{serial: D2}}]")
    (problem,) = inventory.problems()
    assert "the disk serial D2 is used twice" in problem.wrong


def test_what_nobody_wrote_changes_no_topology(inventory):
    """Certificates that were issued before a disk could have a WWN stay in force."""
    before = inventory.load().digest
    inventory.changed(DISK, f"{DISK[:-1]}, wwn: eui.0025384111b0ab01}}")
    assert inventory.load().digest != before
    inventory.rack(RACK)
    assert inventory.load().digest == before


def test_the_profile_says_how_disks_are_erased_and_laid_out(inventory):
    """Each with its source; a profile that says nothing erases nothing beyond what the image overwrites."""
    assert inventory.load().profile.imaging == BY_DEFAULT
    text = (
        "erase: {methods: [sanitize, format], data_disks: true, source: NIST SP 800-88r1}\n"
        "storage: {grow_root: true, data_mount: /raid, source: DGX OS 7 user guide}\n"
        "imaging: {on_failure: hold, silence: 30m, console: 'ttyS0,115200n8'}\n"
    )
    inventory.profile(text + PROFILE)
    policy = inventory.load().profile.imaging
    assert policy.erase.methods == (EraseMethod.SANITIZE, EraseMethod.FORMAT)
    assert (policy.erase.data_disks, policy.storage.grow_root, policy.storage.data_mount) == (True, True, "/raid")
    assert (policy.on_failure, policy.silence.total_seconds(), policy.console) == (
        OnFailure.HOLD, 1800.0, "ttyS0,115200n8"
    )  # fmt: skip


def test_a_mirror_needs_its_second_disk(inventory):
    """Told with the node that lacks it, before a machine finds out."""
    inventory.profile("storage: {mirrored: true, source: site}\n" + PROFILE)
    problems = inventory.problems()
    assert problems
    assert all("mirrors the system disk" in problem.wrong for problem in problems)
