"""Partitions of the NVLink domain and NVOS access in a rack file, and what manages NVLink in a profile's lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import InputError
from toolkit.rack.loading import load_profile, load_rack, topology_digest
from toolkit.rack.model import Nvos

SHIPPED = Path(__file__).parents[2] / "inventory"
TEXT = (SHIPPED / "racks" / "gb200-nvl72.yml").read_text()


def load(tmp_path, more: str, old: str = "", new: str = ""):
    """The example rack with lines added at its end, and one text replaced."""
    path = tmp_path / "changed.yml"
    path.write_text(TEXT.replace(old, new, 1) + more)
    return load_rack(str(path), SHIPPED)


def wrongs(tmp_path, more: str, old: str = "", new: str = "") -> str:
    """What is wrong with it, in words."""
    with pytest.raises(InputError) as error:
        load(tmp_path, more, old, new)
    return str(error.value)


HALVES = 'partitions:\n  - {name: a, nodes: "tray[01-09]"}\n  - {name: b, nodes: "tray[10-18]"}\n'


def test_partitions_unfold_to_nodes_in_slot_order(tmp_path) -> None:
    """Each node in exactly one."""
    rack = load(tmp_path, HALVES)
    assert [(p.name, len(p.nodes), p.nodes[0]) for p in rack.partitions] == [("a", 9, "tray01"), ("b", 9, "tray10")]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (HALVES.replace("tray[10-18]", "tray[09-18]"), "tray09 is in a already"),
        (HALVES.replace("tray[10-18]", "tray[10-17]"), "tray18 is in no partition"),
        (HALVES.replace("tray[10-18]", "tray[10-19]"), "no node is named 'tray19'"),
        (HALVES.replace("tray[10-18]", "nvswitch[1-9]"), "no node is named 'nvswitch1'"),
        (HALVES.replace("tray[10-18]", "tray[10-"), "tray[10-"),
        (HALVES.replace("name: b", "name: a"), "a is used twice"),
        (HALVES + "  - {name: c}\n", "is missing"),
    ],
)
def test_a_wrong_partition_is_told_with_its_line(tmp_path, more, words) -> None:
    """Twice, never, unknown, unfoldable, same name, without nodes."""
    assert words.replace("'", "") in wrongs(tmp_path, more).replace("'", "").replace('"', "")


def test_partitions_are_of_nvl72_racks(tmp_path) -> None:
    """A rack of single nodes has no NVLink domain to part."""
    text = (SHIPPED / "racks" / "demo.yml").read_text() + 'partitions:\n  - {name: a, nodes: "node[1-6]"}\n'
    path = tmp_path / "demo2.yml"
    path.write_text(text)
    with pytest.raises(InputError, match="only NVL72 racks have an NVLink domain"):
        load_rack(str(path), SHIPPED)


def test_access_to_a_switch_tray_is_its_own_address(tmp_path) -> None:
    """NVOS is not the BMC: another address, another login. No two parts share one."""
    rack = load_rack("gb200-nvl72", SHIPPED)
    assert rack.unit("nvswitch3").nvos == Nvos("10.31.4.3", "nvos")
    assert "address 10.31.4.1 is used twice" in wrongs(tmp_path, "", "10.31.4.2", "10.31.4.1")
    node = "bmc: {address: 10.31.1.1, credentials: tray}"
    told = wrongs(tmp_path, "", node, f"{node}, nvos: {{address: 10.31.9.1, credentials: nvos}}")
    assert "a node runs no NVOS" in told


def test_what_nobody_wrote_changes_no_digest(tmp_path) -> None:
    """Certificates that are older than the fields stay in force; what is written is bound."""
    rack = load_rack("gb200-nvl72", SHIPPED)
    bare = replace(rack, units=tuple(replace(u, nvos=None) for u in rack.units))
    assert topology_digest(bare) != rack.digest
    assert load(tmp_path, HALVES).digest != load(tmp_path, "").digest
    demo = load_rack("demo", SHIPPED)
    assert topology_digest(replace(demo, partitions=())) == demo.digest


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("gb200-nvl72", "  nvidia-imex: 580.126.20\n", "  nvidia-imex: 580.126.20\n  nvidia-fabricmanager: 580.95.05\n",
         "the fabric is managed on a switch tray"),
        ("dgx-b200", "nvlsm:", "nvlsm-no-more:", "its fabric manager needs it"),
    ],
)  # fmt: skip
def test_a_lock_against_the_mode_is_refused(tmp_path, name, old, new, words) -> None:
    """A fabric manager on NVL72 trays, or none of nvlsm on B200."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    for path in (SHIPPED / "profiles").glob("*.yml"):
        text = path.read_text()
        assert path.stem != name or old in text
        (folder / path.name).write_text(text.replace(old, new, 1) if path.stem == name else text)
    with pytest.raises(InputError, match=words):
        load_profile(name, tmp_path)
