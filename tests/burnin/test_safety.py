"""When a GPU must not go on: at its own limit for three samples in a row, or after an Xid that calls for its reset."""

from __future__ import annotations

import pytest

from burnin.device.nvml import Missing
from burnin.kernel_log import Xid
from burnin.safety import Heat, pci_place, why_stop, word
from burnin.snapshot import Snapshot

ABSENT = Missing(3)
HERE = (0, 0x1B, 0)


def stops(limits: Snapshot, *samples: Snapshot) -> list[str]:
    heat = Heat({0: limits})
    return [heat.look(0, sample) for sample in samples]


def test_three_samples_at_the_limit_stop_it_once() -> None:
    """Two may be a fluke; the third stops, and says the numbers."""
    hot, cool = {"gpu_celsius": 92}, {"gpu_celsius": 91}
    said = stops({"slowdown_celsius": 92}, hot, hot, cool, hot, hot, hot, hot)
    assert said == ["", "", "", "", "", "GPU at 92 celsius, limit 92", ""]


@pytest.mark.parametrize(
    ("limits", "sample", "stopped"),
    [
        ({"slowdown_celsius": ABSENT}, {"gpu_celsius": 99, "margin_celsius": 1}, False),
        ({"slowdown_celsius": ABSENT}, {"gpu_celsius": 60, "margin_celsius": 0}, True),
        ({"slowdown_celsius": ABSENT}, {"gpu_celsius": 99, "margin_celsius": ABSENT}, False),
        ({"slowdown_celsius": 0}, {"gpu_celsius": 40}, False),
        ({"hbm_max_celsius": 95}, {"gpu_celsius": 60, "hbm_celsius": 96}, True),
        ({"hbm_max_celsius": 95}, {"gpu_celsius": 60, "hbm_celsius": ABSENT}, False),
        ({}, {}, False),
    ],
)
def test_each_board_is_held_to_the_limit_it_has(limits: Snapshot, sample: Snapshot, stopped: bool) -> None:
    """Absolute thresholds to Ampere, the margin since; a limit that is unknown stops nothing."""
    assert any(stops(limits, sample, sample, sample)) is stopped


def test_gpus_are_counted_apart() -> None:
    """One hot sample each of three GPUs is not three of one."""
    heat = Heat({})
    assert [heat.look(gpu, {"margin_celsius": -1}) for gpu in range(3)] == ["", "", ""]


@pytest.mark.parametrize("number", [48, 62, 64, 74, 79, 92, 94, 95, 119, 120, 140, 143, 158, 171])
def test_an_xid_that_calls_for_a_reset_stops_its_gpu(number: int) -> None:
    """By NVIDIA's catalog, with its meaning in the reason."""
    assert why_stop(Xid(HERE, number, False)).startswith(f"Xid {number}: ")


@pytest.mark.parametrize("number", [13, 31, 43, 45, 63, 121, 154, 999])
def test_an_xid_of_a_program_or_a_repair_stops_nothing(number: int) -> None:
    """An application's error, a consequence, a row that was remapped."""
    assert why_stop(Xid(HERE, number, False)) == ""


def test_an_nvlink_event_stops_when_its_line_says_fatal() -> None:
    """144 to 150 come in all severities."""
    assert why_stop(Xid(HERE, 149, True)) and not why_stop(Xid(HERE, 149, False))


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("00000000:1B:00.0", HERE),
        ("0000:1b:00", HERE),
        ("00010009:01:00.0", (0x10009, 1, 0)),
        ("", None),
        ("nonsense", None),
        ("1b:00.0", None),
    ],
)
def test_addresses_are_compared_as_numbers(address: str, place: tuple[int, int, int] | None) -> None:
    """NVML writes eight digits of domain in capitals, the kernel four in small letters."""
    assert pci_place(address) == place


def test_the_word_names_every_gpu_however_many() -> None:
    """A record holds 256 characters: reasons are cut before GPUs are."""
    assert word({}) == "none"
    assert word({5: "Xid 79: GPU has fallen off the bus", 3: "GPU at 93 celsius, limit 92"}) == (
        "gpu 3: GPU at 93 celsius, limit 92; gpu 5: Xid 79: GPU has fallen off the bus"
    )
    many = word(dict.fromkeys(range(8), "memory at 106 celsius, limit 105") | {7: "Xid 119: GSP RPC timeout"})
    assert len(many) <= 256 and many.endswith("; gpu 7: Xid 119: GSP") and many.count("gpu ") == 8
