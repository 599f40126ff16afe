"""Versions that do not go together: in a lock, with file and line, and on a node before a playbook builds on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import InputError
from toolkit.judge.skew import Installed, judge_installed
from toolkit.judge.verdict import Answer
from toolkit.judge.version_drift import drift, is_locked
from toolkit.rack.loading import list_profiles, load_profile
from toolkit.rack.model import Mode
from toolkit.rack.skew import skews

SHIPPED = Path(__file__).parents[2] / "inventory"
H100 = load_profile("dgx-h100", SHIPPED)
GB200 = load_profile("gb200-nvl72", SHIPPED)
DRIVER = {"nvidia-driver-580-open": "580.95.05"}


@pytest.mark.parametrize(
    ("versions", "mode", "firmware", "pin", "words"),
    [
        (DRIVER | {"nvidia-fabricmanager": "580.105.08"}, Mode.NVSWITCH_GEN3, {}, "nvidia-fabricmanager", "CUDA"),
        (DRIVER | {"nvidia-imex": "580.126.20"}, Mode.MNNVL_HOST_IMEX, {}, "nvidia-imex", "IMEX ends by itself"),
        (DRIVER | {"libnvidia-nscq": "615.1.1"}, Mode.NVSWITCH_GEN3, {}, "libnvidia-nscq", "615.1.1"),
        (DRIVER | {"libnvsdm": "580.1"}, Mode.NVLINK5_SINGLE, {}, "libnvsdm", "580.1"),
        (DRIVER | {"nvidia-fabricmanager": "580.95.05"}, Mode.MNNVL_DRA, {}, "nvidia-fabricmanager", "must not run"),
        (DRIVER | {"nvlsm": "2025.10.11"}, Mode.MNNVL_HOST_IMEX, {}, "nvlsm", "must not run"),
        (DRIVER | {"nvidia-fabricmanager": "580.95.05"}, Mode.PCIE, {}, "nvidia-fabricmanager", "must not run"),
        (
            DRIVER | {"nvidia-fabricmanager": "580.95.05", "libnvsdm": "580.95.05"},
            Mode.NVLINK5_SINGLE, {}, "nvidia-fabricmanager", "without nvlsm",
        ),
        ({"nvidia-driver-580": "580.95.05"}, Mode.MNNVL_DRA, {}, "nvidia-driver-580", "in mode mnnvl_dra"),
        ({"nvidia-driver-580-open": "570.1.1"}, Mode.NVSWITCH_GEN3, {}, "nvidia-driver-580-open", "not of branch 580"),
        (DRIVER | {"nvidia-driver-570": "570.1.1"}, Mode.NVSWITCH_GEN3, {}, "nvidia-driver-580-open", "beside"),
        (
            {"nvidia-driver-570-open": "570.1.1", "datacenter-gpu-manager-4-cuda13": "1:4.6.0"},
            Mode.NVSWITCH_GEN3, {}, "datacenter-gpu-manager-4-cuda13", "needs driver 580",
        ),
        ({"doca-ofed": "3.1.0"}, Mode.NVSWITCH_GEN3, {"mt4129": "28.47.1026"}, "mt4129", "comes with 28.46"),
        ({"doca-ofed": "3.2.1"}, Mode.NVSWITCH_GEN3, {"mt4131": "40.45.1020"}, "mt4131", "ConnectX-8 firmware"),
    ],
)  # fmt: skip
def test_a_pair_that_does_not_go_together_is_one_skew_with_its_pin(
    versions: dict[str, str], mode: Mode, firmware: dict[str, str], pin: str, words: str
) -> None:
    """Named once, with the pin to correct and a source."""
    (found,) = skews(versions, mode, firmware)
    assert found.pin == pin
    assert words in found.wrong
    assert found.source


@pytest.mark.parametrize(
    ("versions", "mode", "firmware"),
    [
        (DRIVER | {"nvidia-fabricmanager": "580.95.05-1"}, Mode.NVSWITCH_GEN3, {}),
        ({"nvidia-driver-580-open": "1:580.95.05-0ubuntu1", "nvidia-imex": "580.95.05"}, Mode.MNNVL_HOST_IMEX, {}),
        ({"nvidia-driver-570-open": "570.1.1", "libnvsdm": "1.0"}, Mode.NVLINK5_SINGLE, {}),
        ({"doca-ofed": "3.2.1"}, Mode.NVSWITCH_GEN3, {"mt4129": "28.47.1088", "mt4119": "16.35.4554"}),
        ({"doca-ofed": "9.9.9"}, Mode.NVSWITCH_GEN3, {"mt4129": "28.10.1"}),
        ({}, Mode.PCIE, {}),
    ],
)
def test_what_goes_together_is_no_skew(versions: dict[str, str], mode: Mode, firmware: dict[str, str]) -> None:
    """Debian's epoch and revision are not the vendor's; a pair that nobody published is not judged."""
    assert skews(versions, mode, firmware) == ()


@pytest.mark.parametrize("name", list_profiles(SHIPPED))
def test_shipped_locks_go_together(name: str) -> None:
    """They load, so they have no skew; and none is hidden from the loader."""
    profile = load_profile(name, SHIPPED)
    assert skews(dict(profile.versions), profile.mode, dict(profile.firmware)) == ()


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("  libnvidia-nscq: 580.95.05\n", "  libnvidia-nscq: 580.82.07\n", "versions.libnvidia-nscq", "580.82.07"),
        ("versions:\n", "firmware: {mt4129: 28.43.1014}\nversions:\n", "firmware.mt4129", "DOCA 3.2.1"),
        ("  driver_version: 580.95.05\n", "  driver_version: 580.82.07\n", "expected.driver_version", "the lock has"),
    ],
)  # fmt: skip
def test_a_lock_with_a_skew_does_not_load(tmp_path: Path, old: str, new: str, field: str, words: str) -> None:
    """File, line and the pin to correct."""
    (tmp_path / "profiles").mkdir()
    text = (SHIPPED / "profiles/dgx-h100.yml").read_text()
    assert text.count(old) == 1
    changed = text.replace(old, new)
    (tmp_path / "profiles/dgx-h100.yml").write_text(changed)
    with pytest.raises(InputError) as refused:
        load_profile("dgx-h100", tmp_path)
    problem = next(p for p in refused.value.problems if p.field == field)
    key, value = new.replace("versions:\n", "").strip().replace("firmware: {", "").rstrip("}").split(": ")
    assert key in changed.splitlines()[problem.line - 1]
    assert value in changed.splitlines()[problem.line - 1]
    assert words in problem.wrong


def as_locked() -> Installed:
    """A node that has what the lock of dgx-h100 says."""
    return Installed(dict(H100.versions), "580.95.05", {})


def test_a_node_as_locked_goes_on() -> None:
    """No skew, no doubt."""
    assert judge_installed(as_locked(), H100).answer is Answer.PASS


def test_a_node_whose_manager_is_of_another_version_is_refused() -> None:
    """The lock is right here: the message says which stage to play again."""
    packages = dict(H100.versions) | {"nvidia-fabricmanager": "580.82.07-1"}
    found = judge_installed(replace(as_locked(), packages=packages), H100)
    assert found.answer is Answer.FAIL
    assert "the lock has nvidia-fabricmanager 580.95.05: play the stage that installs it again" in str(found)


def test_a_driver_that_is_loaded_and_not_installed_is_refused() -> None:
    """An upgrade without a reboot."""
    found = judge_installed(replace(as_locked(), driver="580.82.07"), H100)
    assert found.answer is Answer.FAIL
    assert "driver 580.82.07 is loaded and nvidia-driver-580-open 580.95.05 is installed" in str(found)


def test_firmware_is_asked_where_the_lock_names_it() -> None:
    """28.43 with DOCA 3.2 is refused in a rack whose lock says 28.47, and nobody's claim in one that says nothing."""
    older = replace(as_locked(), firmware={"mt4129": "28.43.1014"})
    assert judge_installed(older, H100).answer is Answer.PASS
    found = judge_installed(older, replace(H100, firmware=(("mt4129", "28.47.1088"),)))
    assert found.answer is Answer.FAIL
    assert "the lock has mt4129 28.47.1088" in str(found)


def test_a_fabric_manager_on_a_gb200_tray_is_refused() -> None:
    """Whoever installed it."""
    node = Installed(dict(GB200.versions) | {"nvidia-fabricmanager": "580.126.20"}, "580.126.20", {})
    found = judge_installed(node, GB200)
    assert found.answer is Answer.FAIL
    assert "nvidia-fabricmanager must not run in mode mnnvl_host_imex" in str(found)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (Installed(None), "packages were not read"),
        (Installed({}), "base.yml has not been played"),
        (Installed(DRIVER), "nvidia-smi gave no answer"),
    ],
)
def test_what_was_not_read_is_never_in_order(missing: Installed, words: str) -> None:
    """Neither a pass nor a skew."""
    found = judge_installed(missing, H100)
    assert found.answer is Answer.INCONCLUSIVE
    assert words in str(found)


def test_drift_names_pin_version_and_nodes() -> None:
    """One lock for the rack: what two of three nodes have is drift on these two, absent packages too."""
    other = dict(H100.versions) | {"doca-ofed": "3.1.0-1"}
    del other["kubelet"]
    nodes = {"node1": as_locked(), "node2": Installed(other, "580.95.05"), "node3": Installed(other, "580.95.05")}
    report = drift(H100, nodes)
    assert report.answer is Answer.FAIL
    assert {(d.pin, d.locked, d.found) for d in report.drifts} == {
        ("doca-ofed", "3.2.1", (("3.1.0-1", ("node2", "node3")),)),
        ("kubelet", "1.36.4", (("not installed", ("node2", "node3")),)),
    }


def test_drift_of_adapter_firmware_is_of_the_same_lock() -> None:
    """A tray that was swapped came with older firmware."""
    profile = replace(H100, firmware=(("mt4129", "28.47.1088"),))
    nodes = {
        name: replace(as_locked(), firmware={"mt4129": v}) for name, v in (("a", "28.47.1088"), ("b", "28.39.3004"))
    }
    (found,) = drift(profile, nodes).drifts
    assert (found.pin, found.found) == ("mt4129", (("28.39.3004", ("b",)),))


def test_a_node_that_was_not_read_leaves_drift_undecided() -> None:
    """Not "as locked": but a version that was seen to differ stays a drift."""
    silent = drift(H100, {"node1": as_locked(), "node2": Installed(None)})
    assert silent.answer is Answer.INCONCLUSIVE
    assert {d.found for d in silent.drifts} == {(("not read", ("node2",)),)}
    older = Installed(dict(H100.versions) | {"kubelet": "1.33.0"}, "580.95.05")
    assert drift(H100, {"node1": older, "node2": Installed(None)}).answer is Answer.FAIL


def test_a_package_that_a_mode_keeps_out_may_be_absent() -> None:
    """It is named; what is there in another version drifts all the same."""
    packages = dict(GB200.versions)
    del packages["nvidia-imex"]
    node = Installed(packages, "580.126.20")
    assert drift(GB200, {"a": node}, frozenset({"nvidia-imex"})).answer is Answer.PASS
    assert drift(GB200, {"a": node}).answer is Answer.FAIL


@pytest.mark.parametrize(
    ("has", "locked", "same"),
    [
        ("580.95.05", "580.95.05", True),
        ("580.95.05-0ubuntu1", "580.95.05", True),
        ("2510.0.5-1", "2510", True),
        ("580.95.051", "580.95.05", False),
        ("580.95", "580.95.05", False),
        ("1:4.6.0-1", "1:4.6.0", True),
        ("4.6.0", "1:4.6.0", False),
        ("not installed", "1", False),
    ],
)
def test_a_version_is_locked_as_the_pins_mean_it(has: str, locked: str, same: bool) -> None:
    """`580.95.05*`, but not another number."""
    assert is_locked(has, locked) is same
