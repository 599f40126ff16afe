"""The image stage for one node, in a small world: what it does, what it refuses, and that it may die anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.imaging.conftest import HOST_KEY, SHA256, Killed, World
from toolkit.rack.lifecycle import Outcome
from toolkit.redfish import Power


def test_a_bare_node_is_imaged_and_named(world):
    """PASSED carries host key, image and time; nothing stays published."""
    result = world.run()
    assert (result.outcome, result.host_key, result.image_sha256) == (Outcome.PASSED, HOST_KEY, SHA256)
    assert result.seconds > 0
    assert (world.writes, world.offers) == (1, [])


def test_intent_is_on_record_before_anything_outside_is_touched(world):
    """Write-ahead: the attempt before the offer, the power action before the button."""
    world.run()
    assert world.acts[:3] == ["intent image", "publish seed", "publish boot"]
    assert world.acts[3:7] == ["intent image-power", "boot once", "reset On", "observed image-power"]


def test_the_boot_script_is_taken_back_as_soon_as_the_disk_is_written(world):
    """A second network boot would wipe what was just written."""
    world.hangs = True
    world.run()
    assert world.acts.index("withdraw") < world.acts.index("observed image")
    assert world.offers == []


def test_a_running_machine_is_restarted(world):
    """Power was on: ForceRestart, not On."""
    world.power = Power.ON
    assert world.run().outcome is Outcome.PASSED
    assert "reset ForceRestart" in world.acts


def test_a_node_that_runs_the_image_is_left_alone(world):
    """Observed first: a second run acts on nothing."""
    world.run()
    before = len(world.acts)
    result = world.run()
    assert (result.outcome, result.host_key) == (Outcome.PASSED, HOST_KEY)
    assert (world.acts[before:], world.writes) == ([], 1)


def test_a_node_that_no_longer_answers_is_imaged_again(world):
    """The record alone proves nothing about now."""
    world.run()
    world.running, world.power = "", Power.OFF
    assert world.run().outcome is Outcome.PASSED
    assert world.writes == 2


def test_another_machine_behind_the_bmc_is_refused_untouched(world):
    """NODE_SERIAL_MISMATCH before anything is published or pressed."""
    world.bmc_serial = "VR99999999"
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.FAILED, "NODE_SERIAL_MISMATCH")
    assert "VR99999999" in result.message
    assert "slot 1" in result.part
    assert world.acts == []


@pytest.mark.parametrize(
    ("change", "code", "part"),
    [
        ({"node_serial": "VR00000002"}, "NODE_SERIAL_MISMATCH", "slot 1"),
        ({"disk_serial": "VD77777777"}, "DISK_SERIAL_MISMATCH", "VD00000001"),
        ({"disk_serial": ""}, "DISK_SERIAL_MISMATCH", "/dev/nvme0n1"),
    ],
)
def test_what_the_ramdisk_refuses_is_evidence(world, change, code, part):
    """FAILED with the part; not a byte was written."""
    for name, value in change.items():
        setattr(world, name, value)
    result = world.run()
    assert (result.outcome, result.code, world.writes) == (Outcome.FAILED, code, 0)
    assert part in result.part
    assert world.offers == []


def test_one_damaged_download_is_repeated_under_a_new_token(world):
    """The node is not to blame, and not bothered twice under one token."""
    world.damaged_downloads = 1
    assert world.run().outcome is Outcome.PASSED
    assert (world.writes, world.tokens) == (2, 2)


def test_a_damaged_image_is_the_servers_fault(world):
    """Twice damaged: ERROR, never FAILED."""
    world.damaged_downloads = 9
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "IMAGE_HASH_MISMATCH")
    assert (world.writes, world.disk, world.offers) == (2, "", [])
    assert result.part == ""


def test_a_dead_bmc_is_an_error_not_a_failure(world):
    """BMC_UNREACHABLE with the address."""
    world.dead_bmc = True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "BMC_UNREACHABLE")
    assert "10.67.0.11" in result.message


def test_a_lost_answer_to_the_power_button_is_survived(world):
    """The deed was done: the script that it used up, override and button once more, in this order."""
    world.lost_answers = 1
    assert world.run().outcome is Outcome.PASSED
    assert world.acts[4:9] == ["boot once", "reset On", "publish boot", "boot once", "reset On"]


def test_a_node_that_never_comes_up_times_out_with_its_last_word(world):
    """The image was written, and then nothing."""
    world.hangs = True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "IMAGE_TIMEOUT")
    assert "'written'" in result.message


def test_a_machine_that_switches_itself_off_is_not_waited_for(world):
    """The ramdisk had no network to say why; the power says enough."""
    world.silent = True
    began = world.now
    result = world.run(attempt_s=3600.0)
    assert result.code == "DEPLOY_SILENT"
    assert (world.now - began).total_seconds() < 60


def test_the_next_run_after_a_timeout_starts_afresh(world):
    """What timed out is over: its token is not waited on again."""
    world.hangs = True
    world.run()
    world.hangs = False
    assert world.run().outcome is Outcome.PASSED
    assert world.tokens == 2


def test_another_image_is_another_attempt(world):
    """An attempt that was cut off for an image nobody wants any more is not resumed."""
    world.kill_at = 2
    with pytest.raises(Killed):
        world.run()
    world.record[0][2]["image"] = "00" * 32
    world.kill_at = None
    assert world.run().outcome is Outcome.PASSED
    assert world.tokens == 2


def _same_end(world: World) -> None:
    result = world.run()
    assert (result.outcome, result.host_key) == (Outcome.PASSED, HOST_KEY)
    assert world.running == HOST_KEY
    assert world.offers == []


@pytest.mark.parametrize("kill_before", [True, False])
@pytest.mark.parametrize("damaged", [0, 1])
def test_killed_at_any_act_and_run_again_ends_the_same(tmp_path, damaged, kill_before):
    """Every single act in turn; the disk is written at most once more than needed."""
    whole = World(tmp_path / "whole", damaged_downloads=damaged)
    whole.run()
    for at in range(len(whole.acts)):
        world = World(tmp_path / str(at), damaged_downloads=damaged, kill_at=at, kill_before=kill_before)
        with pytest.raises(Killed):
            world.run()
        _same_end(world)
        assert world.writes <= damaged + 2


def test_an_attempt_under_way_is_waited_for_not_repeated(world):
    """Killed after the button: the disk is written once, under one token."""
    world.kill_at = 5
    with pytest.raises(Killed):
        world.run()
    for _ in range(3):
        world.sleep(0.5)
    _same_end(world)
    assert (world.writes, world.tokens) == (1, 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kills=st.lists(st.tuples(st.integers(0, 14), st.booleans(), st.integers(0, 6)), max_size=4),
    damaged=st.integers(0, 1),
)
def test_killed_again_and_again_it_still_ends(kills, damaged):
    """Any few deaths, with any time between them in which the machine goes on by itself."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "provision", damaged_downloads=damaged)
        for at, before, pause in kills:
            world.kill_at, world.kill_before = at, before
            try:
                world.run()
            except Killed:
                for _ in range(pause):
                    world.sleep(0.5)
        world.kill_at = None
        _same_end(world)
