"""What can go wrong between the power button and the first boot: each has a name, and another run ends well."""

from __future__ import annotations

import pytest

from tests.imaging.conftest import HOST_KEY, NODE, OTHER_KEY, World
from toolkit.netboot.offers import Offer, OfferState
from toolkit.rack.lifecycle import Outcome
from toolkit.redfish import Power
from toolkit.stages.deploy_reports import Report, ReportEvent
from toolkit.stages.imaging_end import Silence, judge_silence


def _mended(world: World) -> None:
    """What was wrong is gone: the same command ends well, and nothing stays published."""
    result = world.run()
    assert (result.outcome, result.host_key) == (Outcome.PASSED, HOST_KEY), result
    assert world.offers == []


def test_a_power_cut_while_it_writes_is_begun_anew_by_itself(world):
    """The half-written disk is written once more, under another token."""
    world.power_cuts = 1
    assert world.run().outcome is Outcome.PASSED
    assert (world.writes, world.tokens) == (2, 2)
    assert "its power went away: once more" in world.said


def test_power_that_goes_twice_is_named(world):
    """Somebody or something switches it off: not for a third try of ours."""
    world.power_cuts = 2
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "IMAGE_POWER_LOST")
    assert "switched off now" in result.message
    _mended(world)


def test_a_kernel_that_does_not_come_up_is_named(world):
    """Corrupt kernel, truncated ramdisk, no driver: the boot script was fetched, and then nothing."""
    world.never_starts = True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "DEPLOY_SILENT")
    assert "fetched its boot script at" in result.message
    world.never_starts = False
    _mended(world)


def test_a_bmc_that_ignores_the_boot_override_is_named(world):
    """It starts its old system, or nothing: the boot script lies there untouched, and is taken back."""
    world.ignores_override = True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "NETWORK_BOOT_ABSENT")
    assert "nobody fetched its boot script, the BMC says power On" in result.message
    assert world.offers == []
    world.ignores_override = False
    _mended(world)


def test_a_bmc_that_keeps_the_boot_override_writes_the_disk_once(world):
    """The second network boot is sent on to the disk, which comes up: no loop."""
    world.keeps_override = True
    assert world.run().outcome is Outcome.PASSED
    assert world.writes == 1


def test_a_loop_of_network_boots_is_named(world):
    """Sent on to a disk that does not boot, again and again."""
    world.keeps_override, world.hangs = True, True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "BOOT_LOOP")
    assert "its last word was 'written'" in result.message
    world.keeps_override = world.hangs = False
    _mended(world)


@pytest.mark.parametrize("spoke", [True, False])
def test_a_loop_before_the_ramdisk_spoke_points_at_the_kernel_first(spoke):
    """One that cannot be unpacked restarts the machine, which then asks the network again."""
    offer = Offer("t", "10.66.0.11", "", OfferState.TAKEN, "2026-11-23T00:00:00Z", "2026-11-23T00:00:09Z", again=3)
    reports = [Report(ReportEvent.STARTED)] if spoke else []
    told = judge_silence(NODE, Silence(reports, offer, Power.ON), "again")
    assert told.code == "BOOT_LOOP"
    assert ("a damaged kernel or ramdisk" in told.next_command) is not spoke


@pytest.mark.parametrize("word", [Power.OFF, Power.ON])
def test_a_bmc_that_lies_about_power_does_not_stop_a_node_that_reports(world, word):
    """The node's own word outranks its BMC's, as long as it speaks."""
    world.power_word = word
    world.progress_steps = 8
    assert world.run().outcome is Outcome.PASSED
    assert world.writes == 1


def test_a_password_that_is_refused_at_the_button_is_named_and_resumed(world):
    """401 after the identity was read: nothing was pressed, and the next run goes on with the same attempt."""
    world.refuses_after = 2
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "BMC_UNTRUSTED")
    assert world.writes == 0
    world.refuses_after = None
    _mended(world)
    assert (world.writes, world.tokens) == (1, 1)


def test_a_password_that_is_refused_while_it_writes_does_not_stop_the_node(world):
    """401 in the middle: the node goes on by itself, and its own word says how it ended."""
    world.refuses_after, world.idle_steps = 4, 20
    assert world.run().outcome is Outcome.PASSED
    assert world.refuses_after < 0
    assert world.writes == 1


def test_progress_keeps_the_wait_alive(world):
    """Eight minutes of writing, with a patience of two minutes without a word."""
    world.progress_steps = 9
    slow = world.sleep
    world.sleep = lambda seconds: slow(seconds + 40.0)  # type: ignore[method-assign]
    assert world.run(attempt_s=130.0).outcome is Outcome.PASSED
    assert "write 80 %" in world.said


def test_a_node_that_stops_in_the_middle_of_writing_is_named_with_how_far_it_was(world):
    """The last word is progress."""
    world.progress_steps, world.idle_steps = 3, 1000
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "IMAGE_TIMEOUT")
    assert "its last word was 'write 20 %'" in result.message


def test_the_ramdisks_log_is_kept_with_the_end(world):
    """An artifact, named in the record."""
    world.run()
    (log,) = world.logs
    assert log == b"what the ramdisk did\n"
    ended = world.find_observed("image")
    assert len(ended["log"]) == 64


def test_the_host_key_of_the_ramdisk_gets_its_certificate_while_the_image_is_written(world):
    """The key is the one that boots; the end says that it is certified; nothing stays published."""
    world.makes_host_key = True
    result = world.run()
    assert (result.outcome, result.host_key, result.certified) == (Outcome.PASSED, HOST_KEY, True)
    assert world.acts.index("publish certificate") < world.acts.index("withdraw")
    assert world.offers == []
    assert world.run().certified


def test_another_host_key_than_the_planted_one_is_not_believed(world):
    """Whatever booted there is not what was written."""
    world.makes_host_key = True
    world.booted_key = OTHER_KEY
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "IMAGE_FAILED")
    assert "another host key" in result.message


def test_what_was_erased_and_what_the_device_answered_is_on_record(world):
    """The intent names the methods before anything is touched; the observation has the device's words."""
    world.erases = True
    assert world.run().outcome is Outcome.PASSED
    assert world.find_intent("image")["erase"] == "none"
    erased = world.find_observed("image-erase")
    assert (erased["method"], erased["disk_serial"], erased["answer"]) == ("format", "VD00000001", "Success")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("DISK_AMBIGUOUS", Outcome.ERROR), ("DISK_IN_USE", Outcome.ERROR), ("DISK_TOO_SMALL", Outcome.ERROR),
        ("DISK_READBACK", Outcome.ERROR), ("ERASE_REFUSED", Outcome.ERROR), ("MANIFEST_UNTRUSTED", Outcome.ERROR),
        ("RAID_FAILED", Outcome.ERROR), ("DISK_SIZE_MISMATCH", Outcome.FAILED), ("SEED_WRITE", Outcome.ERROR),
    ],
)  # fmt: skip
def test_what_the_ramdisk_gives_up_with_has_a_name_and_a_next_step(world, code, outcome):
    """FAILED only where the machine or the disk is not the planned one."""
    world.gives_up = code
    result = world.run()
    assert result.outcome is outcome
    assert result.code == ("IMAGE_FAILED" if code == "SEED_WRITE" else code)
    assert result.next_command
    assert world.offers == []
    world.gives_up = ""
    _mended(world)
