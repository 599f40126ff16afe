"""Our runs and plain ansible-playbook see the same hosts, groups and variables."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from toolkit.rack.model import Mode, Partition, Rack
from toolkit.runners.inventory import dynamic, imex_nodes, static
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


def test_trays_of_a_partition_are_listed_in_slot_order_and_alike(settings: Settings, rack: Rack) -> None:
    """Of all planned trays, whichever are played; a partition's trays see no others. Elsewhere there is no list."""
    assert {tuple(imex_nodes(rack, n)) for n in rack.nodes} == {()}
    domain = replace(rack, profile=replace(rack.profile, mode=Mode.MNNVL_HOST_IMEX))
    addresses = [n.host.address for n in domain.nodes if n.host]
    assert [imex_nodes(domain, n) for n in domain.nodes] == [addresses] * len(addresses)
    names = [n.name for n in domain.nodes]
    split = replace(domain, partitions=(Partition("a", (names[0],)), Partition("b", tuple(names[1:]))))
    assert imex_nodes(split, split.nodes[0]) == addresses[:1]
    assert imex_nodes(split, split.nodes[1]) == addresses[1:]
    told = static(settings, split, split.nodes[:1])["all"]["hosts"][names[0]]  # type: ignore[index,call-overload]
    assert told["rackproof_imex_nodes"] == addresses[:1]
