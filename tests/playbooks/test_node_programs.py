"""The programs that roles run on a node: settings in adapter firmware, and redirection of PCIe bridges."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.virtual.devices import mlxconfig

ROOT = Path(__file__).resolve().parents[2]
ACS = ROOT / "playbooks/roles/acs/files/rackproof-acs"
HCA = ROOT / "playbooks/roles/hca_firmware_settings/files/hca_settings.py"
STATE = "driver 580.95.05\nhca.mlx5_0.guid 0x1\nhca.mlx5_1.guid 0x2\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hardware folder with two adapters, and mlxconfig's stand-in in the search path."""
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/state").write_text(STATE)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/mlxconfig"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT / 'toolkit/virtual')!r})\n"
        "from devices.mlxconfig import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("RACKPROOF_HARDWARE", str(tmp_path / "hardware"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "hardware"


def settings(check: bool = False, default: bool = False, **wanted: str) -> tuple[int, dict[str, object], str]:
    """Status, answer and words of the program, as the role starts it."""
    request = {
        "adapters": ["mlx5_0", "mlx5_1"],
        "settings": wanted,
        "timeout_s": 30,
        "check": check,
        "default": default,
    }
    argv = [sys.executable, "-I", "-", json.dumps(request)]
    done = subprocess.run(argv, input=HCA.read_text(), capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else {}, done.stderr


def test_a_setting_is_set_once_and_waits_for_a_boot(home: Path) -> None:
    """check, run, run, boot, run: tells, sets, nothing, and then nothing waits."""
    expected = [f"mlx5_{n}: PCI_WR_ORDERING: per_mkey(0) -> 1 at the next boot" for n in (0, 1)]
    _, foretold, _ = settings(check=True, PCI_WR_ORDERING="1")
    assert (foretold["changed"], foretold["lines"]) == (True, expected)
    assert not (home / "mlxconfig").exists()
    _, done, _ = settings(PCI_WR_ORDERING="1")
    assert (done["changed"], done["lines"]) == (True, expected)
    assert done["pending"] == [f"mlx5_{n}: PCI_WR_ORDERING is per_mkey(0) until a boot, then 1" for n in (0, 1)]
    _, again, _ = settings(PCI_WR_ORDERING="force_relax")
    assert (again["changed"], len(again["pending"])) == (False, 2)
    mlxconfig.boot(home)
    assert settings(PCI_WR_ORDERING="1")[1] == {"changed": False, "lines": [], "pending": []}


def test_the_undo_goes_back_to_the_firmwares_defaults(home: Path) -> None:
    """Whatever value the profile names."""
    settings(MAX_ACC_OUT_READ="128")
    _, undone, _ = settings(default=True, MAX_ACC_OUT_READ="128")
    assert undone["lines"] == [f"mlx5_{n}: MAX_ACC_OUT_READ: 128 -> 0 at the next boot" for n in (0, 1)]
    assert settings(default=True, MAX_ACC_OUT_READ="128")[1]["changed"] is False


def test_an_adapter_that_lacks_a_setting_stops_before_anything_is_set(home: Path) -> None:
    """The tool's own words."""
    status, _, said = settings(PCI_WR_ORDERING="1", WARP_SPEED="9")
    assert status == 1
    assert "doesn't support WARP_SPEED parameter" in said
    assert not (home / "mlxconfig").exists()


@pytest.mark.parametrize("name", ["-y", "PCI_WR_ORDERING; reboot", "a"])
def test_what_cannot_be_a_setting_never_reaches_the_tool(home: Path, name: str) -> None:
    """A site's typo is no option of mlxconfig."""
    status, _, said = settings(**{name: "1"})
    assert status == 1
    assert "is no setting of mlxconfig" in said


def test_without_mlxconfig_it_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """And sets nothing."""
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, said = settings(PCI_WR_ORDERING="1")
    assert status == 1
    assert "play doca_ofed first" in said


def bridge(folder: Path, control: int, kind: str = "0x060400", capabilities: bool = True) -> Path:
    """A device's configuration space with an ACS capability behind another one."""
    folder.mkdir(parents=True)
    (folder / "class").write_text(f"{kind}\n")
    space = bytearray(4096 if capabilities else 256)
    if capabilities:
        struct.pack_into("<I", space, 0x100, 0x0001 | 1 << 16 | 0x220 << 20)
        struct.pack_into("<I", space, 0x220, 0x000D | 1 << 16)
        struct.pack_into("<H", space, 0x226, control)
    (folder / "config").write_bytes(space)
    return folder / "config"


def acs(folder: Path, *words: str) -> tuple[int, list[str]]:
    """Status and lines of the program."""
    done = subprocess.run([sys.executable, "-I", ACS, *words, folder], capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_only_redirect_bits_of_bridges_are_cleared(tmp_path: Path) -> None:
    """Other bits, other devices and bridges without the capability stay as they are."""
    first = bridge(tmp_path / "0000:17:01.0", 0x001D)
    bridge(tmp_path / "0000:18:00.0", 0x0011)
    bridge(tmp_path / "0000:19:00.0", 0, capabilities=False)
    other = bridge(tmp_path / "0000:1b:00.0", 0x001D, kind="0x030200")
    kept = other.read_bytes()
    assert acs(tmp_path, "--check") == (0, ["0000:17:01.0: ACSCtl 001d -> 0011", "3 bridges"])
    assert struct.unpack_from("<H", first.read_bytes(), 0x226) == (0x001D,)
    assert acs(tmp_path) == (0, ["0000:17:01.0: ACSCtl 001d -> 0011", "3 bridges"])
    assert struct.unpack_from("<H", first.read_bytes(), 0x226) == (0x0011,)
    assert acs(tmp_path) == (0, ["3 bridges"])
    assert other.read_bytes() == kept


def test_a_bridge_that_cannot_be_read_is_no_bridge_in_order(tmp_path: Path) -> None:
    """Status 1; the others are still done."""
    bridge(tmp_path / "0000:17:01.0", 0x000C)
    (bridge(tmp_path / "0000:18:01.0", 0x000C)).unlink()
    status, lines = acs(tmp_path)
    assert status == 1
    assert "0000:17:01.0: ACSCtl 000c -> 0000" in lines
    assert any("0000:18:01.0" in line and "No such file" in line for line in lines)


def test_a_chain_of_capabilities_that_never_ends_is_left(tmp_path: Path) -> None:
    """Garbage in a configuration space is not followed for ever."""
    config = bridge(tmp_path / "0000:17:01.0", 0)
    space = bytearray(config.read_bytes())
    struct.pack_into("<I", space, 0x220, 0x0002 | 1 << 16 | 0x100 << 20)
    config.write_bytes(space)
    assert acs(tmp_path) == (0, ["1 bridges"])


def test_the_program_is_as_setpci_would_do_it(tmp_path: Path) -> None:
    """Read only: real bridges of this machine, where it has any, are understood and not written."""
    if not shutil.which("setpci") and not Path("/sys/bus/pci/devices").is_dir():
        pytest.skip("no PCI bus here")
    status, lines = acs(Path("/sys/bus/pci/devices"), "--check")
    assert status == 0
    assert lines[-1].endswith("bridges")
