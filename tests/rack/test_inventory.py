"""The racks as an Ansible inventory: plain ansible-inventory accepts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.rack.loading import load_rack

REPOSITORY = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("ansible-inventory")


@pytest.mark.parametrize("name", ["demo", "dgx-h100-su", "gb200-nvl72"])
def test_plain_ansible_inventory_accepts_a_rack(shipped, tmp_path, name):
    """The dynamic inventory as a script, read by Ansible itself with its own warnings as errors."""
    script = tmp_path / "rack.py"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "from pathlib import Path\n"
        "from toolkit.rack.loading import load_rack\n"
        "from toolkit.runners.inventory import dynamic\n"
        "from toolkit.settings import load\n"
        f"rack = load_rack({name!r}, Path({str(shipped)!r}))\n"
        "json.dump(dynamic(load(), rack), sys.stdout)\n"
    )
    script.chmod(0o755)
    ran = subprocess.run(
        [COMMAND, "-i", script, "--list"], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr
    listed = json.loads(ran.stdout)
    rack = load_rack(name, shipped)
    hosts = listed["_meta"]["hostvars"]
    assert set(hosts) == {node.name for node in rack.nodes}
    for node in rack.nodes:
        assert node.host
        assert hosts[node.name]["ansible_host"] == node.host.address
        assert hosts[node.name]["ansible_python_interpreter"] == "/usr/bin/python3"
        assert hosts[node.name]["rackproof_serial"] == node.serial
        assert hosts[node.name]["rackproof_versions"] == dict(rack.profile.versions)
