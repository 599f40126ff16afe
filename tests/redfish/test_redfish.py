"""The sushy client against a Redfish service over TLS, well-behaved and not."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from toolkit import redfish
from toolkit.errors import InputError, UndecidedError, UnreachableError, UsageError
from toolkit.rack.model import Bmc
from toolkit.redfish import AcCycle, BmcRefusedError, Credentials, Power, Reset, connect, load_credentials, transport
from toolkit.virtual.tls import Authority

SYSTEM = "/redfish/v1/Systems/DGX"
LOGIN = Credentials("admin", "correct horse")


def test_identity_is_the_hosts_not_the_baseboards(service, ca):
    """Two systems and two managers are listed; the HGX ones are passed over, texts trimmed, odd MACs dropped."""
    found = connect(service.bmc, LOGIN, ca).identity()
    assert found == redfish.SystemIdentity("VR00000001", "DGXH100", "1.06.07", "25.06.27", ("52:54:00:66:00:01",))


@pytest.mark.parametrize(
    ("said", "read"),
    [("On", Power.ON), ("PoweringOff", Power.POWERING_OFF), ("Paused", Power.UNKNOWN), (None, Power.UNKNOWN)],
)
def test_power_is_read_afresh(service, ca, said, read):
    """Each call asks the BMC; a word we have no name for is UNKNOWN."""
    client = connect(service.bmc, LOGIN, ca)
    assert client.power() is Power.OFF
    service.documents[SYSTEM]["PowerState"] = said
    assert client.power() is read


def test_network_boot_is_set_once_and_read_back(service, ca):
    """The override is Pxe, Once."""
    connect(service.bmc, LOGIN, ca).boot_once_from_network()
    boot = service.documents[SYSTEM]["Boot"]
    assert (boot["BootSourceOverrideTarget"], boot["BootSourceOverrideEnabled"]) == ("Pxe", "Once")


def test_a_bmc_that_forgets_the_boot_override_is_noticed(service, ca):
    """204 and no change: the node would boot its old disk."""
    service.forgets_boot = True
    with pytest.raises(UndecidedError, match="does not show it"):
        connect(service.bmc, LOGIN, ca).boot_once_from_network()


def test_setting_network_boot_survives_a_dropped_connection(service, ca):
    """The same property to the same value: it may be said twice."""
    client = connect(service.bmc, LOGIN, ca)
    client.power()
    service.drops = 1
    client.boot_once_from_network()
    assert service.documents[SYSTEM]["Boot"]["BootSourceOverrideTarget"] == "Pxe"


def test_a_bmc_that_accepts_and_says_nothing_is_known_in_ten_seconds(ca):
    """The port is open and nobody is home: no TLS answer ever comes."""
    begin = time.monotonic()
    with (
        socket.create_server(("127.0.0.1", 0), backlog=8) as silent,
        pytest.raises(UnreachableError, match="in time"),
    ):
        connect(Bmc("127.0.0.1", "bmc", silent.getsockname()[1]), LOGIN, ca).power()
    assert time.monotonic() - begin < 10


def test_no_connection_is_used_twice(service, ca):
    """We ask the BMC to close each; a request on one that is about to be closed is lost now and then."""
    client = connect(service.bmc, LOGIN, ca)
    for _ in range(30):
        client.boot_once_from_network()
    assert len(service.connections) == len(service.asked)


def test_reset_is_asked_exactly_once(service, ca):
    """Also when the answer is lost: two restarts are not one."""
    client = connect(service.bmc, LOGIN, ca)
    client.power()
    service.drops = 1
    with pytest.raises(UnreachableError):
        client.reset(Reset.FORCE_RESTART)
    assert [body for method, _, body in service.asked if method == "POST"] == [{"ResetType": "ForceRestart"}]


def test_a_dropped_reading_is_tried_once_more(service, ca):
    """BMCs drop connections; one lost answer is no verdict."""
    client = connect(service.bmc, LOGIN, ca)
    client.power()
    service.drops = 1
    assert client.power() is Power.OFF


def test_a_certificate_of_another_ca_is_refused(service, tmp_path):
    """And nothing is sent, above all not the password."""
    other = tmp_path / "other.pem"
    Authority.at(other, tmp_path / "other.key")
    with pytest.raises(BmcRefusedError, match="does not verify"):
        connect(service.bmc, LOGIN, other).power()
    assert service.asked == []


def test_a_certificate_for_another_address_is_refused(authority, service, ca):
    """The certificate names 127.0.0.1; the same server reached as 127.0.0.2 is somebody else."""
    moved = Bmc("localhost", "bmc", service.bmc.port)
    with pytest.raises(BmcRefusedError):
        connect(moved, LOGIN, ca).power()


def test_a_wrong_password_is_refused_and_not_shown(service, ca):
    """The error names the user, never the password."""
    with pytest.raises(BmcRefusedError) as caught:
        connect(service.bmc, Credentials("admin", "hunter2-canary"), ca).identity()
    assert "hunter2" not in f"{caught.value!r} {caught.value}"
    assert "'admin'" in str(caught.value)


def test_a_missing_ca_is_a_usage_error(service, tmp_path):
    """There is no falling back to unverified TLS."""
    with pytest.raises(UsageError, match="no CA certificate"):
        connect(service.bmc, LOGIN, tmp_path / "none.pem")


def test_a_dead_address_is_known_in_ten_seconds(ca):
    """Nobody answers at all (TEST-NET-1, or a refused route)."""
    begin = time.monotonic()
    with pytest.raises(UnreachableError, match=r"BMC https://192\.0\.2\.1:443: reading the power state"):
        connect(Bmc("192.0.2.1", "bmc"), LOGIN, ca).power()
    assert time.monotonic() - begin < 10


def test_a_closed_port_is_known_at_once(ca):
    """Connection refused, twice."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(UnreachableError):
        connect(Bmc("127.0.0.1", "bmc", port), LOGIN, ca).power()
    assert time.monotonic() - begin < 3


def test_a_server_without_tls_is_no_bmc(ca):
    """Plain HTTP at the port: an error of ours, in our words."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):  # the test has ended
                while True:
                    connection, _ = server.accept()
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(UnreachableError):
            connect(Bmc("127.0.0.1", "bmc", server.getsockname()[1]), LOGIN, ca).power()


@pytest.mark.parametrize(
    "garbage", [b"<html>", b"[]", b'"text"', b"null", b'{"Boot": [1]}', b"[" * 100_000, b"\xff\xfe{"]
)
@pytest.mark.parametrize("path", ["/redfish/v1", "/redfish/v1/Systems", SYSTEM])
def test_garbage_is_undecided(service, ca, garbage, path):
    """Whatever shape the answer has, it ends as an UndecidedError with the BMC's address, never as a traceback."""
    service.raw[path] = itertools.chain([garbage])
    with pytest.raises(UndecidedError, match=r"https://127\.0\.0\.1"):
        connect(service.bmc, LOGIN, ca).identity()


def test_a_hundred_megabytes_are_not_read(service, ca):
    """The client hangs up after its bound, at once."""
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1_000_000

    service.raw[SYSTEM] = flood()
    begin = time.monotonic()
    with pytest.raises(UndecidedError, match="did not end within"):
        connect(service.bmc, LOGIN, ca).identity()
    assert time.monotonic() - begin < 5
    assert sent < 50


def test_an_answer_that_drips_is_cut(service, ca, monkeypatch):
    """A byte now and then keeps every single wait short; the whole is bounded too."""
    monkeypatch.setattr(transport, "ANSWER_S", 0.5)

    def drip() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b" "

    service.raw[SYSTEM] = drip()
    with pytest.raises(UndecidedError, match="did not end within"):
        connect(service.bmc, LOGIN, ca).identity()


def test_a_missing_serial_is_undecided(service, ca):
    """Without a serial nobody may say that this is the planned machine."""
    service.documents[SYSTEM]["SerialNumber"] = "  "
    with pytest.raises(UndecidedError, match="no serial"):
        connect(service.bmc, LOGIN, ca).identity()


def test_a_blank_serial_is_the_chassis_own(service, ca):
    """Some BMCs leave the system's blank; one chassis holds it, and of two nobody picks."""
    chassis(service)
    service.documents["/redfish/v1/Chassis/BMC_0"]["SerialNumber"] = " CH01 "
    service.documents[SYSTEM]["SerialNumber"] = ""
    held = service.documents[SYSTEM]["Links"]
    held["Chassis"] = [{"@odata.id": "/redfish/v1/Chassis/BMC_0"}]
    assert connect(service.bmc, LOGIN, ca).identity().serial == "CH01"
    held["Chassis"].append({"@odata.id": "/redfish/v1/Chassis/Other"})
    with pytest.raises(UndecidedError, match="no serial"):
        connect(service.bmc, LOGIN, ca).identity()


def test_a_long_escape_ridden_model_is_bounded(service, ca):
    """Terminal escapes and length are cut before anybody prints them."""
    service.documents[SYSTEM]["Model"] = "\x1b[2J" + "A" * 10_000
    model = connect(service.bmc, LOGIN, ca).identity().model
    assert len(model) <= 128
    assert model.isprintable()


def test_two_host_systems_are_undecided(service, ca):
    """Which of them would be switched off? Nobody guesses."""
    members = service.documents["/redfish/v1/Systems"]["Members"]
    members.append({"@odata.id": "/redfish/v1/Systems/Other"})
    with pytest.raises(UndecidedError, match="2 host systems"):
        connect(service.bmc, LOGIN, ca).power()


def _secrets(path: Path, text: str, mode: int = 0o600) -> Path:
    file = path / "bmc.yml"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_credentials_are_read_and_hidden(tmp_path):
    """The password is there and shows in no repr."""
    found = load_credentials(_secrets(tmp_path, "bmc: {username: admin, password: canary-77}\n"), "bmc")
    assert found.password == "canary-77"
    assert "canary" not in repr(found)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_credentials_others_can_read_are_refused(tmp_path, mode):
    """With the command that mends it."""
    with pytest.raises(UsageError, match="chmod 600"):
        load_credentials(_secrets(tmp_path, "bmc: {username: a, password: b}\n", mode), "bmc")


@pytest.mark.parametrize(
    "text",
    [
        "bmc: {username: admin, password: [canary-77",
        "other: {}",
        "canary-77",
        "",
        "bmc: {username: a, password: 123}",
        "bmc: canary-77",
    ],
)
def test_wrong_credential_files_are_named_without_their_content(tmp_path, text):
    """The file and the entry are named; its text is not quoted."""
    with pytest.raises(InputError) as caught:
        load_credentials(_secrets(tmp_path, text), "bmc")
    assert "canary" not in str(caught.value)
    assert "bmc.yml:1:" in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_credential_file_is_a_usage_error(tmp_path):
    """It says which file to write."""
    with pytest.raises(UsageError, match=r"bmc\.yml"):
        load_credentials(tmp_path / "bmc.yml", "bmc")


# Standby power


def chassis(service, **actions):
    """The service lists one chassis, with these actions of its own."""
    path = "/redfish/v1/Chassis"
    service.documents["/redfish/v1"]["Chassis"] = {"@odata.id": path}
    service.documents[path] = {
        "@odata.id": path, "Name": "collection", "Members": [{"@odata.id": f"{path}/BMC_0"}], "Members@odata.count": 1,
    }  # fmt: skip
    service.documents[f"{path}/BMC_0"] = {
        "@odata.id": f"{path}/BMC_0", "Id": "BMC_0", "Name": "BMC", "ChassisType": "Module", "Actions": actions,
    }  # fmt: skip
    return f"{path}/BMC_0"


def test_an_ac_cycle_is_asked_for_as_the_bmc_offers_it(service, ca):
    """The standard's word on the system, NVIDIA's own on a chassis, none where none is listed; asked exactly once."""
    client = connect(service.bmc, LOGIN, ca)
    path = chassis(service)
    assert client.ac_cycle() is None
    target = f"{path}/Actions/Oem/NvidiaChassis.AuxPowerReset"
    aux = {"target": target, "ResetType@Redfish.AllowableValues": ["AuxPowerCycle", "AuxPowerCycleForce"]}
    chassis(service, Oem={"#NvidiaChassis.AuxPowerReset": aux})
    assert client.ac_cycle() == AcCycle(target, "AuxPowerCycleForce")
    client.cut_ac(AcCycle(target, "AuxPowerCycleForce"))
    posted = [(path, body) for method, path, body in service.asked if method == "POST"]
    assert posted == [(target, {"ResetType": "AuxPowerCycleForce"})]
    reset = service.documents[SYSTEM]["Actions"]["#ComputerSystem.Reset"]
    reset["ResetType@Redfish.AllowableValues"].append("FullPowerCycle")
    assert connect(service.bmc, LOGIN, ca).ac_cycle() == AcCycle(reset["target"], "FullPowerCycle")


@pytest.mark.parametrize(
    "action",
    [
        {"target": "https://elsewhere.example/x", "ResetType@Redfish.AllowableValues": ["AuxPowerCycleForce"]},
        {"target": 7, "ResetType@Redfish.AllowableValues": ["AuxPowerCycleForce"]},
        {"target": "/redfish/v1/x", "ResetType@Redfish.AllowableValues": "AuxPowerCycleForce"},
        {"target": "/redfish/v1/x", "ResetType@Redfish.AllowableValues": ["On"]},
        [],
    ],
)
def test_an_action_that_is_none_is_not_taken_for_one(service, ca, action):
    """Another host's address, other words, other shapes."""
    chassis(service, Oem={"#NvidiaChassis.AuxPowerReset": action})
    assert connect(service.bmc, LOGIN, ca).ac_cycle() is None


def test_an_ac_cycle_whose_answer_is_lost_is_not_asked_for_again(service, ca):
    """The BMC may go down with its own power: two cycles are not one."""
    client = connect(service.bmc, LOGIN, ca)
    client.power()
    service.drops = 1
    with pytest.raises(UnreachableError):
        client.cut_ac(AcCycle(f"{SYSTEM}/Actions/ComputerSystem.Reset", "FullPowerCycle"))
    assert len([1 for method, _, _ in service.asked if method == "POST"]) == 1
