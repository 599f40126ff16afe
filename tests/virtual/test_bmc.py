"""The BMC over real TLS on loopback, asked by sushy and by hand."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sushy
import yaml
from sushy.auth import BasicAuth

from toolkit.errors import UsageError
from toolkit.rack.model import Rack
from toolkit.settings import Settings
from toolkit.virtual import credentials
from toolkit.virtual.bmc import Bmc, BmcServer
from toolkit.virtual.chassis import Chassis, Lag
from toolkit.virtual.credentials import Login
from toolkit.virtual.fault_table import FaultTable
from toolkit.virtual.firmware import BootEnabled, BootOverride, BootTarget
from toolkit.virtual.layout import layout_of
from toolkit.virtual.tls import Authority

LOGIN = Login("admin", "correct horse")
SYSTEM = "/redfish/v1/Systems/DGX"


class Served:
    """A BMC that listens on loopback; its chassis has no thread: buttons are recorded, nothing powers on."""

    def __init__(self, folder: Path, chassis: Chassis) -> None:
        self.chassis = chassis
        self.ca = folder / "ca.pem"
        pem = Authority.at(self.ca, folder / "ca.key").issue("node1-bmc", "127.0.0.1")
        (folder / "server.pem").write_bytes(pem)
        self.server = BmcServer(Bmc(chassis, LOGIN, "127.0.0.1"), 0, folder / "server.pem")
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def client(self, **options: object) -> httpx.Client:
        import ssl

        context = ssl.create_default_context(cafile=self.ca)
        return httpx.Client(base_url=self.url, verify=context, trust_env=False, **options)

    def sushy(self) -> sushy.Sushy:
        # Basic: a session would be closed by __del__, which retries for half a minute once the server is gone.
        return sushy.Sushy(self.url, auth=BasicAuth(LOGIN.username, LOGIN.password), verify=str(self.ca))


@pytest.fixture
def bmc(tmp_path: Path, rack: Rack, settings: Settings) -> Iterator[Served]:
    faults = FaultTable(rack, lambda _: None)
    served = Served(tmp_path, Chassis(layout_of(settings, rack.name), rack.nodes[0], rack.profile, faults, Lag()))
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_sushy_reads_who_the_machine_is(bmc: Served) -> None:
    """Serial, model, firmware and MAC, over TLS that verifies."""
    system = bmc.sushy().get_system(SYSTEM)
    assert (system.serial_number, system.power_state.value) == ("VR00000001", "Off")
    assert list(system.ethernet_interfaces.summary) == ["52:54:00:66:00:01"]
    assert system.managers[0].firmware_version
    assert system.chassis[0].serial_number == "VR00000001"
    found = {item.identity: item.version for item in bmc.sushy().get_update_service().firmware_inventory.get_members()}
    assert found["HostBIOS_0"] == system.bios_version


def test_sushy_sets_the_boot_override_and_presses_the_button(bmc: Served) -> None:
    """The chassis gets what the client asked for, and the event log tells it."""
    system = bmc.sushy().get_system(SYSTEM)
    system.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE)
    assert bmc.chassis.override == BootOverride(BootTarget.PXE, BootEnabled.ONCE)
    system.refresh(force=True)
    assert system.boot.enabled == sushy.BOOT_SOURCE_ENABLED_ONCE
    system.reset_system(sushy.RESET_ON)
    messages = [event.message for event in bmc.chassis.events]
    assert messages == ["Boot override set: Pxe Once", "Power button: On"]


def test_every_link_of_the_tree_leads_somewhere(bmc: Served) -> None:
    """A client that follows each @odata.id from the root never meets a 404."""
    bmc.chassis.set_override(BootOverride(BootTarget.PXE, BootEnabled.CONTINUOUS))
    seen: set[str] = set()
    todo = ["/redfish/v1"]
    with bmc.client(auth=(LOGIN.username, LOGIN.password)) as client:
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "${" not in answer.text
            todo += links(answer.json())
    assert f"{SYSTEM}/LogServices/EventLog/Entries/1" in seen


def links(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "@odata.id":
                yield value
            else:
                yield from links(value)
    elif isinstance(node, list):
        for value in node:
            yield from links(value)


def test_without_a_login_only_the_root_is_readable(bmc: Served) -> None:
    """No login, a wrong password, garbage: 401 with a Redfish error body."""
    with bmc.client() as client:
        assert client.get("/redfish/v1/").status_code == 200
        assert client.get(SYSTEM).status_code == 401
        assert client.get(SYSTEM, auth=("admin", "wrong")).status_code == 401
        assert client.get(SYSTEM, headers={"Authorization": "Basic ???"}).status_code == 401
        refused = client.post(f"{SYSTEM}/Actions/ComputerSystem.Reset", json={"ResetType": "On"})
        assert refused.status_code == 401
        assert refused.json()["error"]["code"].startswith("Base.")
    assert bmc.chassis.events == ()


def test_a_session_opens_and_closes(bmc: Served) -> None:
    """Its token works until the session is deleted; a wrong password opens none."""
    sessions = "/redfish/v1/SessionService/Sessions"
    with bmc.client() as client:
        wrong = client.post(sessions, json={"UserName": "admin", "Password": "wrong"})
        assert wrong.status_code == 401
        opened = client.post(sessions, json={"UserName": LOGIN.username, "Password": LOGIN.password})
        token = {"X-Auth-Token": opened.headers["X-Auth-Token"]}
        assert client.get(SYSTEM, headers=token).status_code == 200
        assert client.delete(opened.headers["Location"], headers=token).status_code == 204
        assert client.get(SYSTEM, headers=token).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", {"ResetType": "Explode"}, 400),
        ("POST", f"{SYSTEM}/Actions/Nothing", {}, 404),
        ("PATCH", SYSTEM, {"Boot": {"BootSourceOverrideTarget": "Floppy"}}, 400),
        ("PATCH", SYSTEM, {"Boot": {"BootSourceOverrideMode": "Legacy"}}, 400),
        ("PATCH", SYSTEM, {"AssetTag": "mine"}, 400),
        ("PATCH", "/redfish/v1", {}, 405),
        ("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", ["On"], 400),
        ("GET", "/redfish/v1/Systems/HAL", None, 404),
    ],
)
def test_what_the_bmc_cannot_do_it_refuses(bmc: Served, method: str, path: str, body: object, status: int) -> None:
    """The status and a Redfish error, and the chassis stays as it is."""
    with bmc.client(auth=(LOGIN.username, LOGIN.password)) as client:
        answer = client.request(method, path, json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["@Message.ExtendedInfo"]
    assert not bmc.chassis.override.active
    assert bmc.chassis.events == ()


def test_a_huge_body_is_refused_unread(bmc: Served) -> None:
    """A client cannot fill the BMC's memory."""
    with bmc.client(auth=(LOGIN.username, LOGIN.password)) as client:
        answer = client.patch(SYSTEM, content=b" " * (64 * 1024 + 1))
    assert answer.status_code == 413


def test_a_client_that_does_not_know_the_ca_refuses_the_bmc(bmc: Served) -> None:
    """Verification is on and means something."""
    with pytest.raises(sushy.exceptions.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        sushy.Sushy(bmc.url, auth=BasicAuth("admin", "x"), verify=True)


def test_passwords_are_made_once_and_kept_private(rack: Rack, settings: Settings) -> None:
    """bmc.yml is 0600 in a 0700 folder; a second `up` keeps the password; its text form hides it."""
    folder = settings.secrets("bench")
    credentials.prepare(layout_of(settings, rack.name), rack, folder)
    first = yaml.safe_load((folder / "bmc.yml").read_text())
    credentials.prepare(layout_of(settings, rack.name), rack, folder)
    assert yaml.safe_load((folder / "bmc.yml").read_text()) == first
    assert len(first["bmc"]["password"]) >= 24
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    private = [folder / "bmc.yml", folder / "bmc-ca.key", layout_of(settings, rack.name).certificates / "node1.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    login = credentials.logins_of(rack, folder)["node1"]
    assert login.password not in repr(login)


def test_an_encrypted_secret_file_is_not_overwritten(rack: Rack, settings: Settings) -> None:
    """A real site's vault in the virtual rack's place: refused, and left as it is."""
    folder = settings.secrets("bench")
    folder.mkdir(parents=True)
    (folder / "bmc.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    with pytest.raises(UsageError, match="does not hold BMC logins"):
        credentials.prepare(layout_of(settings, rack.name), rack, folder)
    assert (folder / "bmc.yml").read_text().startswith("$ANSIBLE_VAULT")
