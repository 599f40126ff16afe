"""Firmware against the rack's lock, and brought to it: never twice, whatever happens on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rehearsal import now

from tests.redfish.units import UPDATE_S, Bench, bench
from toolkit.errors import UndecidedError, UsageError
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.bmc_policy import BmcPolicy, FirmwarePin
from toolkit.rack.firmware_plan import Standing, firmware_rows, rank
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.unit_kind import UnitKind
from toolkit.redfish.tasks import TaskPatience
from toolkit.redfish.update import push, update_service
from toolkit.stages.rack_firmware import Flashing, Source, UpdateDone, UpdateEnd, read_rack, update
from toolkit.virtual.chassis import Button
from toolkit.virtual.faults import Fault, FaultKind

LOCK = (
    FirmwarePin(UnitKind.POWER_SHELF, "bmc", "1.0.4", "test"),
    FirmwarePin(UnitKind.NVLINK_SWITCH, "BMC_0", "88.0002.1400", "test"),
    FirmwarePin(UnitKind.NVLINK_SWITCH, "CPLD_0", "0.4", "test"),
    FirmwarePin(UnitKind.NODE, "UEFI", "2.05.01", "test"),
)
QUICK = TaskPatience(whole_s=5.0, silent_s=1.0, poll_s=0.05)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, ("shelf1", "nvswitch1", "tray01")) as made:
        made.rack = replace(made.rack, profile=replace(made.rack.profile, bmc=BmcPolicy(firmware=LOCK)))
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", now) as opened:
        yield opened


def flashing(rack: Bench, ledger: Ledger, **options: object) -> Flashing:
    return Flashing(rack.rack, rack, ledger, time.monotonic, time.sleep, lambda unit, text: None, QUICK, **options)


def file_of(tmp_path: Path, component: str, version: str) -> Source:
    path = tmp_path / f"{component}.fwpkg"
    path.write_text(json.dumps({"component": component, "version": version}))
    return Source(path)


def one(rack: Bench, ledger: Ledger, source: Source, component: str, unit: str, **options: object) -> UpdateDone:
    (done,) = update(flashing(rack, ledger, **options), component, source, [unit]).updates
    return done


def applied(rack: Bench, unit: str) -> list[tuple[str, str]]:
    return rack.bmcs[unit].updates.applied


# The plan


def test_the_lock_is_compared_in_the_order_of_update(rack: Bench) -> None:
    """Shelf, switch tray (BMC before CPLD), tray; what was not read is neither right nor wrong."""
    rows = read_rack(rack.rack, rack)
    assert [(r.unit, r.component, r.standing.value) for r in rows] == [
        ("shelf1", "bmc", "as locked"), ("nvswitch1", "BMC_0", "differs"), ("nvswitch1", "CPLD_0", "differs"),
        ("tray01", "UEFI", "differs"),
    ]  # fmt: skip
    rows = firmware_rows(rack.rack, {"tray01": None, "nvswitch1": {"BMC_0": "88.0002.1400"}})
    assert {(r.unit, r.component): r.standing for r in rows} == {
        ("nvswitch1", "BMC_0"): Standing.AS_LOCKED, ("nvswitch1", "CPLD_0"): Standing.NOT_THERE,
        ("tray01", "UEFI"): Standing.UNREAD,
    }  # fmt: skip
    words = ["HostBIOS_0", "EROT_BMC_0", "FW_CPLD_0", "NIC_0", "UEFI", "HostBMC_0"]
    assert sorted(words, key=rank) == ["HostBMC_0", "FW_CPLD_0", "HostBIOS_0", "UEFI", "EROT_BMC_0", "NIC_0"]


def test_what_comes_later_waits_for_what_comes_first(rack: Bench, ledger: Ledger, tmp_path: Path) -> None:
    """A compute tray is not touched while a switch tray differs, nor a CPLD while its BMC does."""
    tray = one(rack, ledger, file_of(tmp_path, "UEFI", "2.05.01"), "UEFI", "tray01")
    cpld = one(rack, ledger, file_of(tmp_path, "CPLD_0", "0.4"), "CPLD_0", "nvswitch1")
    assert (tray.end, cpld.end) == (UpdateEnd.BLOCKED, UpdateEnd.BLOCKED)
    assert "nvswitch1 BMC_0" in tray.said and "nvswitch1 BMC_0" in cpld.said
    assert applied(rack, "tray01") == applied(rack, "nvswitch1") == []


# Updating


def test_a_bmc_is_updated_and_its_inventory_says_so(rack: Bench, ledger: Ledger, tmp_path: Path) -> None:
    """Pushed, followed, read back; the file's sha256 is on record before; a second time nothing is asked."""
    source = file_of(tmp_path, "BMC_0", "88.0002.1400")
    assert one(rack, ledger, source, "BMC_0", "nvswitch1").end is UpdateEnd.UPDATED
    assert one(rack, ledger, source, "BMC_0", "nvswitch1").end is UpdateEnd.AS_LOCKED
    assert applied(rack, "nvswitch1") == [("BMC_0", "88.0002.1400")]
    begun = ledger.find(rack.rack.name, "nvswitch1", EventKind.INTENT, "firmware BMC_0")
    assert begun is not None and begun.body["details"]["sha256"] == source.digest()
    assert rack.bmcs["nvswitch1"].sessions() == ()


def test_what_needs_a_power_cycle_is_staged_and_not_sent_again(rack: Bench, ledger: Ledger, tmp_path: Path) -> None:
    """A CPLD is in force after the next start: until then the same command says so and sends nothing."""
    one(rack, ledger, file_of(tmp_path, "BMC_0", "88.0002.1400"), "BMC_0", "nvswitch1")
    source = file_of(tmp_path, "CPLD_0", "0.4")
    assert one(rack, ledger, source, "CPLD_0", "nvswitch1").end is UpdateEnd.STAGED
    assert one(rack, ledger, source, "CPLD_0", "nvswitch1").end is UpdateEnd.STAGED
    rack.bmcs["nvswitch1"].reset({"ResetType": Button.ON.value})
    assert one(rack, ledger, source, "CPLD_0", "nvswitch1").end is UpdateEnd.AS_LOCKED
    assert [what for what, _ in applied(rack, "nvswitch1")] == ["BMC_0", "CPLD_0"]


@pytest.mark.parametrize("after", ["intent", "task"])
def test_killed_in_the_middle_nothing_is_sent_twice(
    rack: Bench, ledger: Ledger, tmp_path: Path, after: str
) -> None:  # fmt: skip
    """After the intent, with the BMC asked and its task not noted; or with the task on record: the next one follows."""
    source = file_of(tmp_path, "BMC_0", "88.0002.1400")

    class KilledError(BaseException):
        """What ends a process ends this."""

    class Cut(Ledger):
        """A ledger whose process dies before (or after) it notes the task."""

        def observed(self, rack, node, what, details):
            if what == "firmware BMC_0 task":
                if after == "task":
                    super().observed(rack, node, what, details)
                raise KilledError
            return super().observed(rack, node, what, details)

    cut = Cut.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", now)
    with pytest.raises(KilledError):
        one(rack, cut, source, "BMC_0", "nvswitch1", at_once=1)
    cut.close()
    assert one(rack, ledger, source, "BMC_0", "nvswitch1").end is UpdateEnd.UPDATED
    assert applied(rack, "nvswitch1") == [("BMC_0", "88.0002.1400")]


def test_killed_before_the_task_was_noted_an_ended_task_is_taken_for_what_it_is(
    rack: Bench, ledger: Ledger, tmp_path: Path
) -> None:  # fmt: skip
    """A CPLD whose update ended while nobody looked: the BMC's own list has a task that is on no record. Staged."""
    one(rack, ledger, file_of(tmp_path, "BMC_0", "88.0002.1400"), "BMC_0", "nvswitch1")
    source = file_of(tmp_path, "CPLD_0", "0.4")
    ledger.intent(rack.rack.name, "nvswitch1", "firmware CPLD_0", {"version": "0.4"})
    wire = rack.wire(rack.rack.unit("nvswitch1"))
    assert source.file is not None
    push(wire, update_service(wire), source.file, [])
    time.sleep(2 * UPDATE_S)
    assert one(rack, ledger, source, "CPLD_0", "nvswitch1").end is UpdateEnd.STAGED
    assert applied(rack, "nvswitch1") == [("BMC_0", "88.0002.1400"), ("CPLD_0", "0.4")]


def test_killed_and_come_back_when_all_is_over_it_is_known_as_done(
    rack: Bench, ledger: Ledger, tmp_path: Path
) -> None:  # fmt: skip
    """An intent without an end, and the inventory at the lock: nothing is sent, and the end is put on record."""
    ledger.intent(rack.rack.name, "nvswitch1", "firmware BMC_0", {"version": "88.0002.1400"})
    rack.bmcs["nvswitch1"].updates._versions["BMC_0"] = "88.0002.1400"
    assert one(rack, ledger, file_of(tmp_path, "BMC_0", "88.0002.1400"), "BMC_0", "nvswitch1").end is UpdateEnd.UPDATED
    assert applied(rack, "nvswitch1") == []
    assert ledger.find(rack.rack.name, "nvswitch1", EventKind.OBSERVED, "firmware BMC_0") is not None


def test_an_update_that_fails_at_sixty_percent_is_a_failure_with_the_bmcs_words(
    rack: Bench, ledger: Ledger, tmp_path: Path
) -> None:  # fmt: skip
    """FAILED, exit 1; when the fault is gone the same command sends it anew."""
    rack.faults["nvswitch1"].append(Fault(FaultKind.UPDATE_FAILS, "nvswitch1", value=60))
    source = file_of(tmp_path, "BMC_0", "88.0002.1400")
    found = update(flashing(rack, ledger), "BMC_0", source, ["nvswitch1"])
    assert found.exit_code == 1
    assert found.updates[0].end is UpdateEnd.FAILED
    assert "failed at 60 %" in found.updates[0].said
    rack.faults["nvswitch1"].clear()
    assert one(rack, ledger, source, "BMC_0", "nvswitch1").end is UpdateEnd.UPDATED


def test_a_task_that_the_bmc_forgot_is_settled_by_the_inventory(rack: Bench, ledger: Ledger, tmp_path: Path) -> None:
    """It restarted in the middle and went on flashing: the version says that it is in."""
    rack.faults["nvswitch1"].append(Fault(FaultKind.TASK_LOST, "nvswitch1"))
    done = one(rack, ledger, file_of(tmp_path, "BMC_0", "88.0002.1400"), "BMC_0", "nvswitch1")
    assert done.end is UpdateEnd.UPDATED


def test_a_task_that_the_bmc_forgot_with_the_old_version_is_unknown(
    rack: Bench, ledger: Ledger, tmp_path: Path
) -> None:  # fmt: skip
    """A CPLD that is in force after the next start cannot tell: unknown, exit 3, and never sent again by itself."""
    one(rack, ledger, file_of(tmp_path, "BMC_0", "88.0002.1400"), "BMC_0", "nvswitch1")
    rack.faults["nvswitch1"].append(Fault(FaultKind.TASK_LOST, "nvswitch1"))
    source = file_of(tmp_path, "CPLD_0", "0.4")
    assert one(rack, ledger, source, "CPLD_0", "nvswitch1").end is UpdateEnd.UNKNOWN
    rack.faults["nvswitch1"].clear()
    found = update(flashing(rack, ledger), "CPLD_0", source, ["nvswitch1"])
    assert (found.updates[0].end, found.exit_code) == (UpdateEnd.UNKNOWN, 3)
    assert len(applied(rack, "nvswitch1")) == 2
    assert one(rack, ledger, source, "CPLD_0", "nvswitch1", again=True).end is UpdateEnd.STAGED


def test_a_bmc_that_says_completed_and_changed_nothing_is_not_believed(
    rack: Bench, ledger: Ledger, tmp_path: Path
) -> None:  # fmt: skip
    """The task ended well and the version is the old one: staged at most, never updated."""
    rack.faults["nvswitch1"].append(Fault(FaultKind.UPDATE_LIES, "nvswitch1"))
    done = one(rack, ledger, file_of(tmp_path, "BMC_0", "88.0002.1400"), "BMC_0", "nvswitch1")
    assert done.end is UpdateEnd.STAGED


def test_what_the_lock_does_not_have_and_who_takes_jobs_is_refused(
    rack: Bench, ledger: Ledger, tmp_path: Path
) -> None:  # fmt: skip
    """UsageError before anything is sent."""
    with pytest.raises(UsageError, match="has no NIC_0"):
        update(flashing(rack, ledger), "NIC_0", file_of(tmp_path, "NIC_0", "1"), ["tray01"])
    ledger.enter(rack.rack.name, {"tray01": NodeState.ADMITTED}, "test")
    with pytest.raises(UsageError, match="take jobs") as refused:
        update(flashing(rack, ledger), "UEFI", file_of(tmp_path, "UEFI", "2.05.01"), ["tray01"])
    assert "rackproof drain tray01" in refused.value.hint
    assert applied(rack, "tray01") == []


def test_a_file_for_another_component_is_the_bmcs_refusal(rack: Bench, ledger: Ledger, tmp_path: Path) -> None:
    """Sent for BMC_0 and made for CPLD_0: an error of ours with its words, and nothing was flashed."""
    wrong = file_of(tmp_path, "CPLD_0", "0.4")
    done = one(rack, ledger, wrong, "BMC_0", "nvswitch1")
    assert done.end is UpdateEnd.REFUSED
    assert "none of the targets" in done.said
    assert applied(rack, "nvswitch1") == []


def test_a_bmc_fetches_a_file_by_itself(rack: Bench, ledger: Ledger, tmp_path: Path) -> None:
    """SimpleUpdate over HTTP; an address with a login in it is refused."""
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    file_of(tmp_path, "BMC_0", "88.0002.1400")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    ) as files:  # fmt: skip
        threading.Thread(target=files.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{files.server_address[1]}/BMC_0.fwpkg"
        assert one(rack, ledger, Source(uri=uri), "BMC_0", "nvswitch1").end is UpdateEnd.UPDATED
        files.shutdown()
    with pytest.raises(UsageError, match="no address"):
        from toolkit.redfish.update import UpdateService, simple_update

        simple_update(rack.wire(rack.rack.unit("tray01")), UpdateService("/redfish/v1/x", ""), "http://u:p@h/f", [])


def test_an_inventory_without_entries_is_no_inventory(rack: Bench) -> None:
    """UndecidedError, so that an empty list never counts as up to date."""
    from toolkit.redfish.inventory import read_inventory

    rack.bmcs["tray01"].updates._versions.clear()
    with pytest.raises(UndecidedError, match="lists no firmware"):
        read_inventory(rack.wire(rack.rack.unit("tray01")))
