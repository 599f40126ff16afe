"""Our client against Redfish servers that nobody here wrote, and DMTF's own tools against our virtual BMC."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imaging.conftest import NODE, World
from tests.redfish.peers import PROGRAMS, simhall, sushy_emulator
from tests.redfish.units import CREDENTIALS, LOGIN, Bench, bench
from toolkit.errors import UndecidedError
from toolkit.rack.model import Bmc
from toolkit.redfish import BmcAnswerError, BootTarget, OverrideStaysError, Power, Reset, SushyBmc, Wire
from toolkit.redfish.event_log import harvest
from toolkit.redfish.inventory import read_inventory
from toolkit.redfish.leaks import DetectorState, read_detectors
from toolkit.redfish.media import eject, insert
from toolkit.redfish.quirks import Quirk, look
from toolkit.redfish.sessions import Login, dialogue
from toolkit.stages.boot_override import AttemptOverride

PROFILE = Path(__file__).with_name("rackproof_bmc.v1_0_0.json")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bmc, Path]]:
    folder = tmp_path_factory.mktemp("sushy")
    with sushy_emulator(folder) as bmc:
        yield bmc, folder / "ca.pem"


@pytest.fixture(scope="module")
def hall(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[dict[str, Bmc], Path]]:
    folder = tmp_path_factory.mktemp("simhall")
    assert request.config.cache is not None
    faults = "faults:\n  - {kind: coolant_leak, node: node2}\n  - {kind: gpu_unhealthy, node: node2, gpu: 1, xid: 79}\n"
    with simhall(folder, request.config.cache.mkdir("peers"), faults) as bmcs:
        yield bmcs, folder / "ca.pem"


# sushy-tools


def test_the_emulators_power_goes_on_and_off(emulator: tuple[Bmc, Path]) -> None:
    """Its machine takes its time, as hardware does."""
    bmc = SushyBmc(emulator[0], CREDENTIALS, emulator[1])
    assert bmc.power() is Power.OFF
    for kind, wanted in ((Reset.ON, Power.ON), (Reset.FORCE_OFF, Power.OFF)):
        bmc.reset(kind)
        until = time.monotonic() + 30
        while bmc.power() is not wanted:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_the_emulator_makes_continuous_of_once_and_is_named_for_it(emulator: tuple[Bmc, Path]) -> None:
    """Asked for one boot it shows every boot: that is told, and cleared to the disk, for it has no Disabled."""
    bmc = SushyBmc(emulator[0], CREDENTIALS, emulator[1])
    with pytest.raises(OverrideStaysError, match="Continuous"):
        bmc.boot_once_from_network()
    assert str(bmc.boot_from_network(BootTarget.PXE)) == "Pxe Continuous"
    assert bmc.clear_boot_override().target is BootTarget.HDD
    seen = look(Wire(emulator[0], CREDENTIALS, emulator[1]))
    assert seen.shape is not None and seen.shape.name == "sushy_emulator"
    assert Quirk.OVERRIDE_SHOWS_CONTINUOUS in seen.quirks


def test_a_node_behind_the_emulator_is_imaged_once_and_its_override_ends_at_the_disk(
    emulator: tuple[Bmc, Path], tmp_path: Path
) -> None:
    """The image stage's own steps: Continuous under a script that is given out once, then the disk, on record."""
    bmc = SushyBmc(emulator[0], CREDENTIALS, emulator[1])
    world = World(tmp_path / "provision")
    override = AttemptOverride(NODE, bmc, world, world)
    token = "ab" * 16
    with pytest.raises(OverrideStaysError, match="not one that is given out once"):
        override.ask(token)
    assert bmc.boot_override().target is BootTarget.HDD
    world.publish_boot(NODE, token, "#!ipxe\nboot\n")
    assert str(override.ask(token)) == "Pxe Continuous"
    assert not override.is_settled(token)  # nothing on record says that it showed Once: a killed run is met like this
    released = override.release(token, is_certain=True)
    assert (released.said, released.left) == (
        "its BMC kept the boot override (Pxe Continuous); it is cleared now (Hdd Continuous)", ""
    )  # fmt: skip
    assert override.is_settled(token)
    assert override.release(token, is_certain=True).said == ""


def test_the_emulator_has_no_sessions_and_is_asked_by_password(emulator: tuple[Bmc, Path], tmp_path: Path) -> None:
    """No SessionService: Basic, said so, and nothing is left behind."""
    with dialogue(Wire(emulator[0], CREDENTIALS, emulator[1]), tmp_path / "sessions") as login:
        assert login is Login.NO_SESSIONS
    assert not (tmp_path / "sessions").exists()


def test_an_image_goes_into_the_emulators_drive_and_out_again(emulator: tuple[Bmc, Path], tmp_path: Path) -> None:
    """Virtual media below a manager; the emulator fetches the image itself."""
    import http.server
    import threading
    from functools import partial

    (tmp_path / "boot.iso").write_bytes(b"\0" * 4096)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    wire = Wire(emulator[0], CREDENTIALS, emulator[1])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as images:
        threading.Thread(target=images.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{images.server_address[1]}/boot.iso"
        assert insert(wire, uri).image == uri
        assert insert(wire, uri).inserted
        assert not eject(wire).inserted
        images.shutdown()


def test_an_emulator_without_firmware_is_undecided_not_up_to_date(emulator: tuple[Bmc, Path]) -> None:
    """An inventory that is empty or absent proves nothing."""
    with pytest.raises(UndecidedError):
        read_inventory(Wire(emulator[0], CREDENTIALS, emulator[1]))


# simhall


def test_a_hall_of_another_makers_bmcs_is_read(hall: tuple[dict[str, Bmc], Path]) -> None:
    """Identity, firmware, logs and leaks of BMCs whose ids are Dell's; the planned faults show, and only there."""
    bmcs, ca = hall
    sound, ill = (Wire(bmcs[name], CREDENTIALS, ca) for name in ("node1", "node2"))
    identity = SushyBmc(bmcs["node1"], CREDENTIALS, ca).identity()
    assert identity.serial and identity.bmc_version
    assert {c.id for c in read_inventory(sound)} >= {"BMC", "BIOS", "NIC"}
    assert look(sound).shape is not None
    assert {d.state for d in read_detectors(sound)} == {DetectorState.DRY}
    assert DetectorState.LEAK in {d.state for d in read_detectors(ill)}
    told = harvest(ill)
    assert any("79" in entry.message for entry in told.entries)
    assert not harvest(sound).severities.get("Critical")


def test_a_hall_that_changes_nothing_is_told_as_that(hall: tuple[dict[str, Bmc], Path], tmp_path: Path) -> None:
    """Its BMCs are read-only: a reset is an error of theirs with its status, and sessions fall back to Basic."""
    bmcs, ca = hall
    with pytest.raises(UndecidedError, match="405"):
        SushyBmc(bmcs["node1"], CREDENTIALS, ca).reset(Reset.ON)
    with dialogue(Wire(bmcs["node1"], CREDENTIALS, ca), tmp_path) as login:
        assert login is Login.NO_SESSIONS
    with pytest.raises(BmcAnswerError) as refused:
        Wire(bmcs["node1"], CREDENTIALS, ca).patch("/redfish/v1/Systems/System.Embedded.1", {}, "asking")
    assert refused.value.status == 405


# DMTF's tools against our virtual BMC


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, ("nvswitch1", "shelf1")) as made:
        yield made


def dmtf(rack: Bench, unit: str, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """One of DMTF's programs against a unit's BMC, TLS verified by its environment."""
    where = rack.rack.unit(unit).bmc
    assert where is not None
    argv = [str(PROGRAMS / program), "-u", LOGIN.username, "-p", LOGIN.password]
    argv += ["-r", f"https://127.0.0.1:{where.port}", *words]
    env = os.environ | {"REQUESTS_CA_BUNDLE": str(rack.ca), "SSL_CERT_FILE": str(rack.ca)}
    return subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False, env=env)


def table(text: str) -> dict[str, int]:
    """The result table that DMTF's validators print."""
    found = re.search(r"PASS[ |]+WARN[ |]+FAIL[ |]+NOT TESTED[ |]+\n[+-]+\n\|([ \d|]+)\|", text)
    assert found is not None, text[-2000:]
    counts = [int(word) for word in found[1].split("|")]
    return dict(zip(("pass", "warn", "fail", "not_tested"), counts, strict=True))


@pytest.mark.parametrize("unit", ["nvswitch1", "shelf1"])
def test_our_bmc_meets_the_interoperability_profile(ours: Bench, unit: str, tmp_path: Path) -> None:
    """DMTF's validator with the profile in this folder: power, boot, firmware, tasks, sessions, media, BIOS."""
    assert json.loads(PROFILE.read_text())["ProfileName"] == "rackproof_bmc"
    done = dmtf(ours, unit, "rf_interop_validator", "--logdir", str(tmp_path / "logs"), str(PROFILE))
    found = table(done.stdout)
    print(unit, found)  # noqa: T201 - shown by pytest -s: the table that is reported
    assert found["fail"] == 0, done.stdout
    assert found["pass"] >= 40, found


def test_a_bmc_that_breaks_the_profile_is_found_out(ours: Bench, tmp_path: Path) -> None:
    """The profile can fail: one that asks for what no BMC of ours has."""
    profile = json.loads(PROFILE.read_text())
    profile["Resources"]["ComputerSystem"]["PropertyRequirements"]["HostWatchdogTimer"] = {}
    (tmp_path / "more.json").write_text(json.dumps(profile))
    done = dmtf(ours, "shelf1", "rf_interop_validator", "--logdir", str(tmp_path / "logs"), str(tmp_path / "more.json"))
    assert table(done.stdout)["fail"] == 1


def test_dmtfs_use_cases_of_boot_override_pass(ours: Bench, tmp_path: Path) -> None:
    """Set, continuous, once, used up by a boot, disabled: by DMTF's client, not ours."""
    words = ("--report-dir", str(tmp_path / "reports"), "--test-list", "BootOverride")
    done = dmtf(ours, "nvswitch1", "rf_use_case_checkers", *words)
    found = table(done.stdout)
    print(found)  # noqa: T201
    assert found["fail"] == 0, done.stdout
    assert found["pass"] >= 3, done.stdout


@pytest.mark.slow
def test_dmtfs_use_cases_of_power_pass(ours: Bench, tmp_path: Path) -> None:
    """Every reset type the BMC names, by DMTF's client, which waits ten seconds after each."""
    words = ("--report-dir", str(tmp_path / "reports"), "--test-list", "PowerControl")
    done = dmtf(ours, "nvswitch1", "rf_use_case_checkers", *words)
    found = table(done.stdout)
    assert found["fail"] == 0, done.stdout
    assert found["pass"] >= 6, done.stdout
