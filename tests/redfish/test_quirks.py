"""The table of what BMCs do that the standard does not say, and the shapes that it was written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.redfish.units import CREDENTIALS, Bench, bench
from toolkit.errors import InputError, UndecidedError
from toolkit.redfish import (
    BmcAnswerError,
    BmcRefusedError,
    BootOverride,
    BootTarget,
    OverrideStaysError,
    Power,
    Reset,
    SushyBmc,
    connect,
)
from toolkit.redfish.bios import system_path
from toolkit.redfish.model import BootEnabled
from toolkit.redfish.quirks import Quirk, look, read_table, shapes
from toolkit.redfish.sushy_bmc import mac_of
from toolkit.virtual.chassis import Button
from toolkit.virtual.faults import Fault, FaultKind

SYSTEM = "/redfish/v1/Systems/DGX"


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def test_every_machine_of_the_rack_is_told_by_its_chassis(rack: Bench) -> None:
    """Shelf, switch tray, compute tray: by ids, not by a product name that makers change."""
    seen = {u.name: look(rack.wire(u)) for u in rack.rack.units}
    assert {name: s.shape.name for name, s in seen.items() if s.shape} == {
        "shelf1": "power_shelf", "nvswitch1": "nvlink_switch_tray", "tray01": "gb200_compute_tray",
        "tray02": "gb200_compute_tray",
    }  # fmt: skip
    assert Quirk.AC_CYCLE_ACTIVATES in seen["nvswitch1"].quirks
    for unit in rack.rack.units:
        shape = seen[unit.name].shape
        assert shape is not None
        assert system_path(rack.wire(unit)) == f"/redfish/v1/Systems/{shape.system}"


def test_two_systems_and_a_mac_spelled_otherwise_are_one_machine(rack: Bench) -> None:
    """A GB200 tray lists its GPU baseboard as a system and calls its MAC MacAddress."""
    identity = rack.bmc(rack.rack.unit("tray01")).identity()
    assert (identity.serial, identity.macs) == ("EX182102500001", ("02:4e:56:02:00:01",))


@pytest.mark.parametrize(
    ("nic", "mac"),
    [
        ({"MACAddress": " 52:54:00:66:00:01\n"}, "52:54:00:66:00:01"),
        ({"MacAddress": "52:54:00:66:00:0A"}, "52:54:00:66:00:0a"),
        ({"MACAddress": "00:00:00:00:00:00"}, ""),
        ({"MACAddress": "N/A"}, ""),
        ({"MACAddress": None}, ""),
        ([], ""),
    ],
)
def test_macs_are_read_as_bmcs_write_them(nic: object, mac: str) -> None:
    """Both spellings, padding, a disabled NIC's zeros, and what is none."""
    assert mac_of(nic) == mac


def test_the_table_is_whole_and_every_row_says_where_it_was_seen() -> None:
    """Each quirk's name is used, each shape has its source; names are told apart."""
    table = shapes()
    assert len({shape.name for shape in table}) == len(table)
    assert all(len(shape.source) > 10 for shape in table)
    assert {quirk for shape in table for quirk in shape.quirks} == set(Quirk)


def test_a_wrong_table_is_told_by_line(tmp_path: Path) -> None:
    """A quirk nobody knows, a pattern that is none, a shape without a source."""
    file = tmp_path / "quirks.yml"
    file.write_text(
        "shapes:\n"
        "  - {name: x, kind: node, leak_detectors: {}, quirks: [levitates], source: seen, vendor: '('}\n"
        "  - {name: y, kind: node, leak_detectors: {}, quirks: []}\n"
        "logins: []\n"
    )
    with pytest.raises(InputError) as caught:
        read_table(file)
    assert "quirks.yml:2:" in str(caught.value)
    assert "levitates" in str(caught.value)
    assert "source" in str(caught.value)


# Boot override


def test_an_override_that_stays_is_named_and_cleared(rack: Bench) -> None:
    """Asked for once, shown for ever: an error of its own; who wants to go on clears it after the boot."""
    rack.faults["tray01"].append(Fault(FaultKind.BMC_OVERRIDE_STAYS, "tray01"))
    bmc = rack.bmc(rack.rack.unit("tray01"))
    assert isinstance(bmc, SushyBmc)
    with pytest.raises(OverrideStaysError, match="every boot would be one") as caught:
        bmc.boot_once_from_network()
    assert "one-time token" in caught.value.hint
    assert not bmc.boot_override().active
    assert bmc.boot_from_network() == BootOverride(BootTarget.PXE, BootEnabled.CONTINUOUS)
    assert not bmc.clear_boot_override().active
    assert not bmc.clear_boot_override().active


def test_an_override_that_is_ignored_is_undecided(rack: Bench) -> None:
    """204, and the BMC shows nothing of it: the old disk would boot."""
    rack.faults["tray01"].append(Fault(FaultKind.BMC_IGNORES_OVERRIDE, "tray01"))
    with pytest.raises(UndecidedError, match="does not show it"):
        rack.bmc(rack.rack.unit("tray01")).boot_once_from_network()


def test_http_boot_is_asked_for_by_its_own_word(rack: Bench) -> None:
    """UefiHttp, Once, on a machine that has it; one that has not says so."""
    bmc = rack.bmc(rack.rack.unit("tray01"))
    assert isinstance(bmc, SushyBmc)
    assert str(bmc.boot_from_network(BootTarget.UEFI_HTTP)) == "UefiHttp Once"
    shelf = rack.bmc(rack.rack.unit("shelf1"))
    assert isinstance(shelf, SushyBmc)
    with pytest.raises(UndecidedError):
        shelf.boot_from_network(BootTarget.UEFI_HTTP)


def test_a_word_for_an_override_that_nobody_knows_is_unknown(service, ca) -> None:
    """Never taken for Once or Disabled."""
    from tests.redfish.conftest import LOGIN

    service.documents[SYSTEM]["Boot"] = {"BootSourceOverrideTarget": "Moon", "BootSourceOverrideEnabled": 7}
    client = connect(service.bmc, LOGIN, ca)
    assert isinstance(client, SushyBmc)
    assert client.boot_override() == BootOverride(BootTarget.UNKNOWN, BootEnabled.UNKNOWN)
    assert client.boot_override().active


def test_an_error_of_the_bmcs_own_keeps_its_status(rack: Bench) -> None:
    """Told apart by number where a caller has to."""
    with pytest.raises(BmcAnswerError) as caught:
        rack.wire(rack.rack.unit("tray01")).patch("/redfish/v1/Chassis/Chassis_0", {"AssetTag": "x"}, "asking")
    assert caught.value.status == 405
    assert CREDENTIALS.password not in str(caught.value)


# A login that is refused in the middle


def test_one_refusal_in_the_middle_is_no_wrong_password(rack: Bench) -> None:
    """The BMC refuses one request of many, with the right login: asked once more, and a button is pressed once."""
    unit = rack.rack.unit("tray01")
    bmc = rack.bmc(unit)
    bmc.power()
    rack.faults["tray01"].append(Fault(FaultKind.BMC_UNAUTHORISED, "tray01", value=rack.bmcs["tray01"]._requests + 1))
    assert bmc.power() is Power.OFF
    rack.faults["tray01"][:] = [Fault(FaultKind.BMC_UNAUTHORISED, "tray01", value=rack.bmcs["tray01"]._requests + 1)]
    bmc.reset(Reset.ON)
    assert rack.tray("tray01").pressed == [Button.ON]


def test_a_password_that_was_changed_in_the_middle_is_told_and_tried_twice_at_most(rack: Bench) -> None:
    """It opened the BMC a moment ago and does not any more: said so, the account is not locked by trying on."""
    unit = rack.rack.unit("tray01")
    bmc = rack.bmc(unit)
    bmc.power()
    account = rack.bmcs["tray01"].account
    account.login = replace(account.login, password="another, and long")
    before = rack.bmcs["tray01"]._requests
    with pytest.raises(BmcRefusedError, match="a moment ago") as refused:
        bmc.power()
    assert rack.bmcs["tray01"]._requests == before + 2
    assert "changed its password" in refused.value.hint
    with pytest.raises(BmcRefusedError):
        bmc.power()
    assert rack.bmcs["tray01"]._requests == before + 3


def test_the_virtual_bmc_tells_apart_what_is_not_there_and_what_cannot_be_done(rack: Bench) -> None:
    """404, 405 for a method that a resource has not, 412 for another OData: as DMTF's protocol validator asks."""
    login = (CREDENTIALS.username, CREDENTIALS.password)
    with rack.http("tray01") as http:
        assert http.post("/redfish/v1/Nothing", json={}, auth=login).status_code == 404
        assert http.delete("/redfish/v1/Systems", auth=login).status_code == 405
        assert http.post("/redfish/v1/Systems", json={}).status_code == 401
        root = http.get("/redfish/v1", headers={"OData-Version": "4.0"})
        assert (root.status_code, root.headers["Allow"], root.headers["Cache-Control"]) == (
            200,
            "GET, HEAD",
            "no-cache",
        )
        assert http.get("/redfish/v1", headers={"OData-Version": "4.1"}).status_code == 412
