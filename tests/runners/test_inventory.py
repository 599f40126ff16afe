"""Our runs and plain ansible-playbook see the same hosts, groups and variables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from toolkit.rack.model import Rack
from toolkit.runners.inventory import dynamic, static
from toolkit.settings import Settings


def listed(source: Path) -> dict[str, object]:
    """What Ansible understands."""
    argv = [sys.executable, "-P", "-m", "ansible", "inventory", "-i", str(source), "--list"]
    answer: dict[str, object] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return answer


def test_the_file_and_the_script_say_the_same(settings: Settings, rack: Rack, tmp_path: Path) -> None:
    """One as we write it for a run, the other as `rackproof inventory --list` answers."""
    file, script = tmp_path / "hosts.json", tmp_path / "hosts.sh"
    file.write_text(json.dumps(static(settings, rack, rack.nodes)))
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(dynamic(settings, rack))}\nEND\n")
    script.chmod(0o755)
    by_file, by_script = listed(file), listed(script)
    assert by_file["_meta"] == by_script["_meta"]
    assert {"nodes", "rack_bench", "mode_nvswitch_gen3", "virtual"} <= set(by_file)
    assert by_file["nodes"] == by_script["nodes"]
