"""BMCs that make every boot one from the network, and strangers on that network: imaged once, or named."""

from __future__ import annotations

import pytest

from tests.imaging.conftest import HOST_KEY, NODE, Killed, World
from toolkit.netboot.probe import DhcpServer
from toolkit.rack.lifecycle import Outcome
from toolkit.redfish import OverrideStaysError, Power
from toolkit.stages.boot_override import AttemptOverride

ROGUE = DhcpServer("10.66.250.1", "52:54:00:99:00:99", "10.66.240.1", "http://10.66.250.1/owned.ipxe")
ROUTER = DhcpServer("10.66.0.1", "52:54:00:99:00:01", "10.66.9.1", "")


def _mended(world: World) -> None:
    result = world.run()
    assert (result.outcome, result.host_key) == (Outcome.PASSED, HOST_KEY), result
    assert (world.offers, world.keeps_override) == ([], False)


def test_a_bmc_that_makes_continuous_of_once_is_imaged_once_and_cleared(world: World) -> None:
    """Under the script that is given out once; afterwards the override is seen to be gone, and the operator is told."""
    world.override_stays = True
    result = world.run()
    assert (result.outcome, world.writes) == (Outcome.PASSED, 1)
    assert "kept the boot override (Pxe Continuous); it is cleared now (None Disabled)" in result.message
    assert not world.keeps_override
    assert world.find_observed("image-power")["override"] == "Pxe Continuous"
    assert world.find_observed("image-override")["was"] == "Pxe Continuous"
    assert world.acts.index("clear override") < world.acts.index("observed image")
    before = len(world.acts)
    assert world.run().outcome is Outcome.PASSED
    assert world.acts[before:] == []


def test_a_bmc_that_shows_once_and_never_uses_it_up_is_cleared_too(world: World) -> None:
    """It said Once when it was asked; after the boot from disk it still does."""
    world.keeps_override = True
    result = world.run()
    assert (result.outcome, world.writes) == (Outcome.PASSED, 1)
    assert "kept the boot override (Pxe Once)" in result.message
    assert not world.keeps_override


@pytest.mark.parametrize("kill_before", [True, False])
def test_killed_anywhere_the_override_that_stays_is_cleared_by_the_next_run(tmp_path, kill_before: bool) -> None:
    """Every single act in turn: the disk is written at most twice, and no network boot is left behind."""
    whole = World(tmp_path / "whole", override_stays=True)
    whole.run()
    for at in range(len(whole.acts)):
        world = World(tmp_path / str(at), override_stays=True, kill_at=at, kill_before=kill_before)
        with pytest.raises(Killed):
            world.run()
        _mended(world)
        assert world.writes <= 2


def test_an_override_that_cannot_be_cleared_is_named_and_the_next_run_clears_it(world: World) -> None:
    """The image is up; where the next boot goes, nobody can say: an error until it is gone; nothing is rewritten."""
    world.override_stays = world.override_sticks = True
    for _ in range(2):
        result = world.run()
        assert (result.outcome, result.code, world.writes) == (Outcome.ERROR, "BMC_OVERRIDE_STAYS", 1)
        assert "runs the planned image" in result.message
        assert "set the override to Disabled at its BMC" in result.next_command
    world.override_sticks = False
    _mended(world)
    assert world.writes == 1


def test_an_override_that_stays_is_not_believed_gone_of_a_bmc_that_is_silent(world: World) -> None:
    """It showed Continuous, and answers no more once the node is up: named; asked again by the next run."""
    world.override_stays, world.idle_steps, world.refuses_after = True, 20, 4
    result = world.run()
    assert (result.outcome, result.code, world.writes) == (Outcome.ERROR, "BMC_OVERRIDE_STAYS", 1)
    world.refuses_after = None
    _mended(world)
    assert world.writes == 1


def test_a_loop_of_network_boots_has_its_override_cleared(world: World) -> None:
    """Sent on to a disk that does not boot: named as a loop, and the BMC is told to end it."""
    world.keeps_override, world.hangs = True, True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "BOOT_LOOP")
    assert "it is cleared now (None Disabled)" in result.message
    assert not world.keeps_override
    world.hangs = False
    _mended(world)


def test_an_override_that_stays_is_cleared_when_the_attempt_fails(world: World) -> None:
    """A damaged image: nobody leaves a machine behind that boots from whoever answers."""
    world.override_stays, world.damaged_downloads = True, 9
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "IMAGE_HASH_MISMATCH")
    assert not world.keeps_override
    world.damaged_downloads = 0
    _mended(world)


def test_without_the_one_time_script_nobody_goes_on_under_continuous(world: World) -> None:
    """Another attempt's script, or none that is armed: the override is cleared, and no button was pressed."""
    world.override_stays = True
    override = AttemptOverride(NODE, world._bmc, world, world)
    for _ in range(2):
        with pytest.raises(OverrideStaysError, match="not one that is given out once"):
            override.ask("ab" * 16)
        assert not world.keeps_override
        world.publish_boot(NODE, "cd" * 16, "#!ipxe\nboot\n")
    assert not any(act.startswith("reset") for act in world.acts)


def test_a_bmc_that_drops_the_override_is_named_and_nothing_is_pressed(world: World) -> None:
    """It says 204 and shows None: the old disk would boot."""
    world.drops_override = True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "BMC_OVERRIDE_IGNORED")
    assert (world.power, world.writes) == (Power.OFF, 0)
    world.drops_override = False
    _mended(world)
    assert world.tokens == 1


def test_a_stranger_that_answers_first_is_named_with_his_address(world: World) -> None:
    """Nobody fetched our script, and somebody else offers one: where he is plugged in; gone, the same command ends."""
    world.strangers = (ROGUE, ROUTER)
    result = world.run()
    assert (result.outcome, result.code, world.writes) == (Outcome.ERROR, "ROGUE_DHCP", 0)
    for word in (ROGUE.address, ROGUE.hardware, ROGUE.boot_file):
        assert word in result.message
    assert ROUTER.address not in result.message
    assert world.offers == []
    world.strangers = ()
    _mended(world)


def test_a_dhcp_server_that_boots_nobody_is_told_and_not_blamed(world: World) -> None:
    """A site's own server may stand there: the state is that no script was fetched."""
    world.strangers = (ROUTER,)
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "NETWORK_BOOT_ABSENT")
    assert f"{ROUTER.address} at {ROUTER.hardware}" in result.message


def test_where_nobody_can_look_for_strangers_that_is_said(world: World) -> None:
    """The controller is behind a router: no word on strangers is no word that there are none."""
    world.ignores_override = world.nobody_looks = True
    result = world.run()
    assert (result.outcome, result.code) == (Outcome.ERROR, "NETWORK_BOOT_ABSENT")
    assert "nobody looked for other DHCP servers: no interface" in result.message
