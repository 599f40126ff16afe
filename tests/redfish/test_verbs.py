"""`power`, `firmware` and `bmc` as an operator types them, over a rack file, secrets and BMCs that listen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from tests.redfish.units import CREDENTIALS, Bench, bench
from toolkit.cli import rackproof
from toolkit.cli.documents import schema_text
from toolkit.errors import RackproofError
from toolkit.redfish import Power
from toolkit.settings import load
from toolkit.virtual.faults import Fault, FaultKind

Run = Callable[..., tuple[int, str, str]]
LOCK = """
  bios:
    - {attribute: Ipv4Http, value: Enabled, source: test}
  firmware:
    - {kind: nvlink_switch, component: BMC_0, version: 88.0002.1400, source: test}
"""


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.fixture
def run(rack: Bench, tmp_path: Path) -> Run:
    """Gives the command in it: exit code, stdout, and the words of what was refused."""
    home, inventory = tmp_path / "home", tmp_path / "inventory"
    (inventory / "racks").mkdir(parents=True)
    (inventory / "profiles").mkdir()
    for profile in (load({}).inventory / "profiles").glob("*.yml"):
        text = profile.read_text()
        if profile.stem == "gb200-nvl72":
            text = text.replace("\nbmc:\n", f"\nbmc:{LOCK}", 1)
        (inventory / "profiles" / profile.name).write_text(text)
    units = "\n".join(
        f"  - {{name: {u.name}, kind: {u.kind}, slot: {u.slot}, serial: {u.serial},"
        f" bmc: {{address: 127.0.0.1, credentials: bmc, port: {u.bmc.port}}}{_host(u)}}}"
        for u in rack.rack.units
        if u.bmc is not None
    )
    head = "rack: bench\nsite: bench\nprofile: gb200-nvl72\nmode: mnnvl_host_imex\npartial: true\nunits:\n"
    (inventory / "racks" / "bench.yml").write_text(f"{head}{units}\n")
    secrets = home / "secrets" / "bench"
    secrets.mkdir(parents=True)
    (secrets / "bmc-ca.pem").write_bytes(rack.ca.read_bytes())
    (secrets / "bmc.yml").write_text(f"bmc: {{username: admin, password: {CREDENTIALS.password}}}\n")
    (secrets / "bmc.yml").chmod(0o600)
    env = {"RACKPROOF_HOME": str(home), "RACKPROOF_INVENTORY": str(inventory)}

    def start(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(rackproof, words, env=env)
        assert CREDENTIALS.password not in done.stdout
        if isinstance(done.exception, RackproofError):
            return done.exception.exit_code, done.stdout, str(done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, ""

    return start


def _host(unit: object) -> str:
    host = getattr(unit, "host", None)
    if host is None:
        return ""
    hcas = ", ".join(f'{{name: {h.name}, guid: "{h.guid}", rail: {h.rail}}}' for h in unit.hcas)
    disk = f"{{device: {host.disk.device}, serial: {host.disk.serial}}}"
    return f', host: {{address: {host.address}, mac: "{host.mac}", disk: {disk}}}, hcas: [{hcas}]'


def document(text: str, name: str) -> dict[str, object]:
    """The JSON, held against the schema that is shipped."""
    found = json.loads(text)
    jsonschema.validate(found, json.loads(schema_text(name)))
    return found


def test_a_rack_is_switched_on_with_its_name_typed(run: Run, rack: Bench) -> None:
    """The plan presses nothing; no name, or another, is refused; then on, told as a table and as JSON, and off."""
    code, text, _ = run("power", "on", "bench", "--plan")
    assert code == 0 and "leak check" in text
    assert run("power", "on", "bench")[0] == 2
    assert run("power", "on", "bench", "--confirm", "other")[0] == 2
    assert all(rack.tray(name).pressed == [] for name in rack.bmcs)
    code, text, said = run("power", "on", "bench", "--confirm", "bench")
    assert (code, said) == (0, ""), text
    assert text.splitlines()[0].split() == ["power", "on", "done", "1:", "shelf1"]
    found = document(run("power", "status", "bench", "--json")[1], "power-status")
    assert [row["power"] for row in found["units"]] == ["On"] * 4
    off = document(run("power", "off", "bench", "--confirm", "bench", "--json")[1], "power")
    assert off["exit_code"] == 0
    assert rack.tray("tray01").power is Power.OFF and rack.tray("shelf1").power is Power.ON


def test_a_leak_is_told_by_detector_and_ends_with_one(run: Run, rack: Bench) -> None:
    """Exit 1; the tray's slot and serial and the detector are on the screen, and what was not begun."""
    rack.faults["nvswitch1"].append(Fault(FaultKind.COOLANT_LEAK, "nvswitch1", value=2))
    code, text, _ = run("power", "on", "bench", "--confirm", "bench")
    assert code == 1
    assert "EXMT2447NV0001" in text and "MGX_BMC_0/LeakDetector_2" in text
    assert "not begun" in text


def test_firmware_is_planned_and_brought_to_the_lock(run: Run, rack: Bench, tmp_path: Path) -> None:
    """Exit 1 while it differs, 0 when it is as locked; the update wants the rack's name and one source."""
    code, text, _ = run("firmware", "plan", "bench", "--json")
    assert code == 1
    assert [r["standing"] for r in document(text, "firmware-plan")["rows"]] == ["differs"]
    file = tmp_path / "bmc.fwpkg"
    file.write_text(json.dumps({"component": "BMC_0", "version": "88.0002.1400"}))
    words = ("firmware", "update", "bench", "--component", "BMC_0")
    assert run(*words, "--file", str(file))[0] == 2
    assert run(*words, "--confirm", "bench")[0] == 2
    # a virtual update takes part of a second, and a task is looked at every five
    code, text, said = run(*words, "--file", str(file), "--confirm", "bench", "--json")
    assert (code, said) == (0, "")
    assert document(text, "firmware-update")["done"]["updates"][0]["end"] == "updated"
    assert run("firmware", "plan", "bench")[0] == 0


def test_a_bmc_is_checked_its_log_kept_and_its_bios_staged(run: Run, rack: Bench) -> None:
    """Documents as their schemas say; a BIOS that differs is 1, pending 3, in force 0."""
    found = document(run("bmc", "check", "bench", "--json")[1], "bmc-check")
    assert [u["shape"] for u in found["units"]] == [
        "power_shelf", "gb200_compute_tray", "gb200_compute_tray", "nvlink_switch_tray",
    ]  # fmt: skip
    assert run("bmc", "check", "bench", "nobody")[0] == 2
    code, text, _ = run("bmc", "sensors", "bench", "tray01", "--json")
    assert (code, document(text, "bmc-sensors")["report"]["answer"]) == (0, "PASS")
    rack.faults["tray01"].append(Fault(FaultKind.INLET_HOT, "tray01"))
    code, text, _ = run("bmc", "sensors", "bench", "tray01")
    assert code == 1 and "47 Cel" in text and "critical" in text
    rack.faults["tray01"][:] = [Fault(FaultKind.LEAK_DETECTOR_GONE, "tray01")]
    assert run("bmc", "sensors", "bench", "tray01")[0] == 3
    rack.faults["tray01"].clear()
    log = document(run("bmc", "log", "bench", "tray01", "--json")[1], "bmc-log")
    assert len(log["artifact"]) == 64
    assert run("bmc", "bios", "bench", "tray01")[0] == 1
    assert run("bmc", "bios", "bench", "tray01", "--stage")[0] == 2
    code, text, _ = run("bmc", "bios", "bench", "tray01", "--stage", "--confirm", "tray01", "--json")
    assert (code, document(text, "bmc-bios")["report"]["answer"]) == (3, "INCONCLUSIVE")
    rack.bmcs["tray01"].reset({"ResetType": "On"})
    assert run("bmc", "bios", "bench", "tray01")[0] == 0


def test_a_factory_login_is_a_finding_and_a_password_is_rotated(run: Run, rack: Bench, tmp_path: Path) -> None:
    """Exit 1 with its source and without the password; after rotation the site's file opens the BMC."""
    rack.faults["tray01"].append(Fault(FaultKind.DEFAULT_PASSWORD, "tray01"))
    assert run("bmc", "check", "bench", "tray01")[0] == 0
    tree = rack.bmcs["tray01"].tree._resources["/redfish/v1"]
    tree["Vendor"] = "NVIDIA"
    try:
        code, text, _ = run("bmc", "check", "bench", "tray01", "--check-default-passwords")
    finally:
        tree["Vendor"] = "rackproof"
    assert code == 1
    assert "BMC_FACTORY_LOGIN: root" in text and "docs.nvidia.com" in text and "0penBmc" not in text
    assert run("bmc", "rotate-password", "bench", "tray01")[0] == 2
    code, text, _ = run("bmc", "rotate-password", "bench", "tray01", "--confirm", "tray01", "--json")
    assert (code, document(text, "bmc-rotation")["end"]) == (0, "changed")
    new = rack.bmcs["tray01"].login.password
    assert new != CREDENTIALS.password and new not in text
    ledger = (tmp_path / "home" / "ledger.db").read_bytes()
    assert new.encode() not in ledger and CREDENTIALS.password.encode() not in ledger


def test_a_node_boots_from_an_image_and_gives_it_back(run: Run, rack: Bench) -> None:
    """The node's name is typed; then Cd Once; then ejected."""
    words = ("bmc", "boot", "bench", "tray01")
    assert run(*words)[0] == 2
    assert run(*words, "--image", "http://10.0.0.1/a.iso")[0] == 2
    code, text, _ = run(*words, "--image", "http://10.0.0.1/a.iso", "--confirm", "tray01", "--json")
    assert code == 0 and "Cd Once" in document(text, "bmc-boot")["said"]
    assert run(*words, "--eject")[0] == 0
    assert rack.bmcs["tray01"].media.image == ""
