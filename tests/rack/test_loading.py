"""What is wrong in a rack file is told at once: line, field, what is wrong, what would be right."""

import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rack.conftest import RACK
from toolkit.errors import InputError, UsageError
from toolkit.rack.loading import list_racks, load_rack, topology_digest
from toolkit.rack.model import Gpu, Port, UnitKind

# What is replaced in conftest's rack and by what; then the problem: its line, the text it points at, field, words.
BAD = [
    ("site: here\n", "", 1, "rack", "site", "is missing"),
    ("site: here", "site: ../etc", 2, "../etc", "site", "not valid here"),
    ("site: here", "sit: here", 2, "sit", "sit", "did you mean site?"),
    ("profile: small", "profile: smal", 3, "smal", "profile", "did you mean small?"),
    ("kind: node, slot: 2", "kind: nod, slot: 2", 8, "nod,", "units[1].kind", "did you mean node?"),
    ("slot: 2,", "slot: two,", 8, "two", "units[1].slot", "'two' is not a number"),
    ("slot: 2,", "slot: 0,", 8, "0,", "units[1].slot", "from 1 to 10000"),
    ("slot: 2,", "slot: 1,", 8, "1,", "units[1].slot", "line 5 has it too"),
    ("name: node2", "name: node1", 8, "node1", "units[1].name", "name node1 is used twice"),
    ("name: node2", "name: Node2", 8, "Node2", "units[1].name", "lower-case"),
    ("serial: N2", "serial: N1", 8, "N1", "units[1].serial", "serial N1 is used twice"),
    ("serial: N2", "serial: ", 8, ", bmc", "units[1].serial", "is empty"),
    ("10.0.1.2", "10.0.1.1", 8, "10.0", "units[1].bmc.address", "address 10.0.1.1 is used twice"),
    ("10.0.1.2", "10.0.0.1", 8, "10.0", "units[1].bmc.address", "line 6 has it too"),
    ("10.0.1.2", "10.0.1.256", 8, "10.0", "units[1].bmc.address", "not an IP address"),
    ("10.0.1.2", "224.0.0.1", 8, "224", "units[1].bmc.address", "cannot be a host's address"),
    ("00:02", "00:01", 9, '"52', "units[1].host.mac", "MAC 52:54:00:00:00:01 is used twice"),
    ('"52:54:00:00:00:02"', "52:54:00:00:02", 9, "52:", "units[1].host.mac", "six octets"),
    ('"52:54:00:00:00:02"', "01:54:00:00:00:02", 9, "01:", "units[1].host.mac", "unicast"),
    ("serial: D2", "serial: D1", 9, "D1", "units[1].host.disk.serial", "disk serial D1 is used twice"),
    ("/dev/nvme0n1, serial: D2", "nvme0n1, serial: D2", 9, "nvme", "units[1].host.disk.device", "a device"),
    ("0x0200000000000020", "0x0200000000000010", 10, '"0x', "units[1].hcas[0].guid", "line 7 has it too"),
    ("0x0200000000000020", "0x20", 10, '"0x', "units[1].hcas[0].guid", "sixteen hexadecimal digits"),
    ("0x0200000000000020", "0x0000000000000000", 10, '"0x', "units[1].hcas[0].guid", "GUID is zero"),
    ('00021", rail: 1', '00021", rail: 0', 10, "hcas", "units[1].hcas", "rails 0, 0"),
    (', {name: mlx5_1, guid: "0x0200000000000021", rail: 1}', "", 10, "hcas", "units[1].hcas", "1 HCAs, small has 2"),
    ("serial: L1", "serial: L1, gpus: [{index: 0, serial: G}]", 11, "gpus", "units[2].gpus", "a leaf has no gpus"),
    ("  - {name: leaf2, kind: leaf, slot: 4, serial: L2}\n", "", 4, "units", "units", "1 of 2 units of kind leaf"),
    ("kind: leaf, slot: 4", "kind: spine, slot: 4", 12, "{name", "units[3]", "a rack of small has 0"),
    ('"leaf2:[1-2]"', '"leaf3:[1-2]"', 15, '"leaf', "links[1].b", "no unit is named leaf3"),
    ('"leaf2:[1-2]"', '"leaf1:[1-2]"', 15, '"leaf', "links[1].b", "the port leaf1:1 already has a cable"),
    ('"leaf2:[1-2]"', '"leaf2:[1-3]"', 15, '"leaf', "links[1].b", "2 ends on side a and 3 on side b"),
    ('"leaf2:[1-2]"', '"leaf2"', 15, '"leaf', "links[1].b", "names no port"),
    ('"leaf2:[1-2]"', '"leaf2:[1-"', 15, '"leaf', "links[1].b", "NodeSet syntax"),
    ('"node[1-2]:mlx5_1"', '"n[1-999999999]:mlx5_1"', 15, '"n[', "links[1].a", "unfolds to 999,999,999 names"),
    ('"node[1-2]:mlx5_1"', '"node[1-2]:mlx5_7"', 15, '"node', "links[1].a", "one of: mlx5_0, mlx5_1"),
    ('"leaf2:[1-2]", kind: infiniband', '"leaf2:[1-2]", kind: nvlink', 15, '"node', "links[1].a", "no NVLink port"),
    ("[1-2]\", kind: infiniband, rate_gb_per_s: 50", "[1-2]\", kind: infiniband, rate_gb_per_s: fast", 14, "fast",
     "links[0].rate_gb_per_s", "not a number"),
    ("links:\n", "mode: mnnvl_dra\nlinks:\n", 13, "mnnvl", "mode", "small is nvswitch_gen3"),
    ("links:\n", "mode: nvswitch\nlinks:\n", 13, "nvswitch", "mode", "did you mean nvswitch_gen3?"),
    ("links:\n", "partial: maybe\nlinks:\n", 13, "maybe", "partial", "true or false"),
    ("links:\n", "links: []\nlink:\n", 14, "link", "link", "did you mean links?"),
    ("links:\n", "provision: ftp://x\nlinks:\n", 13, "ftp", "provision", "an http:// URL"),
    ("rack: pair", "rack: other", 1, "other", "rack", "rename the file"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "at", "field", "words"), BAD)
def test_a_fault_has_its_line_and_field(inventory, old, new, line, at, field, words):
    """One change in a good rack file, one problem that says where and what."""
    inventory.changed(old, new)
    column = (inventory.folder / "racks" / "pair.yml").read_text().splitlines()[line - 1].index(at) + 1
    problems = inventory.problems()
    assert any(
        (p.line, p.column, p.field) == (line, column, field) and words in f"{p.wrong} {p.right}" for p in problems
    ), "\n".join(map(str, problems))


def test_the_rack_of_the_tests_is_good(inventory):
    """Otherwise the table above proves nothing."""
    rack = inventory.load()
    assert [unit.name for unit in rack.nodes] == ["node1", "node2"]
    assert rack.unit("node1").gpus == (Gpu(0), Gpu(1))
    assert [f"{link.a} {link.b}" for link in rack.links] == [
        "node1:mlx5_0 leaf1:1", "node1:mlx5_1 leaf2:1", "node2:mlx5_0 leaf1:2", "node2:mlx5_1 leaf2:2",
    ]  # fmt: skip


def test_a_rail_on_two_leaves_is_told_for_each_cable(inventory):
    """Two cables swapped: both rails are wrong, each at its line."""
    text = inventory.folder / "racks" / "pair.yml"
    lines = text.read_text().splitlines()[:13]
    cable = '  - {{a: "node{}:mlx5_{}", b: "leaf{}:{}", kind: infiniband, rate_gb_per_s: 50}}'
    lines += [cable.format(*c) for c in ((1, 0, 1, 1), (1, 1, 2, 1), (2, 0, 2, 2), (2, 1, 1, 2))]
    text.write_text("\n".join(lines) + "\n")
    problems = inventory.problems()
    assert [(p.line, p.wrong.split(":")[0]) for p in problems] == [
        (16, "rail 0 lands on two leaves"),
        (17, "rail 1 lands on two leaves"),
    ]


def test_an_uncabled_hca_is_told(inventory):
    """In a rack with leaves every rail is cabled."""
    inventory.changed('  - {a: "node[1-2]:mlx5_1", b: "leaf2:[1-2]", kind: infiniband, rate_gb_per_s: 50}\n', "")
    assert [p.wrong for p in inventory.problems()] == ["node1:mlx5_1 has no cable", "node2:mlx5_1 has no cable"]


def test_everything_wrong_is_told_at_once(inventory):
    """Three faults in three places, three problems in the file's order."""
    text = (inventory.folder / "racks" / "pair.yml").read_text()
    text = text.replace("serial: N2", "serial: N1").replace("00:02", "00:01").replace("leaf2:[1-2]", "leaf2:[1-9]")
    inventory.rack(text)
    assert [(p.line, p.field) for p in inventory.problems()] == [
        (8, "units[1].serial"),
        (9, "units[1].host.mac"),
        (15, "links[1].b"),
    ]


def test_a_duplicate_is_told_beside_a_misspelt_word(inventory):
    """What does not fit the schema does not hide what can still be compared."""
    inventory.rack(RACK.replace("serial: N2", "serial: N1").replace("kind: leaf, slot: 4", "kind: leef, slot: 4"))
    assert [(p.line, p.field) for p in inventory.problems()] == [(8, "units[1].serial"), (12, "units[3].kind")]


def test_a_partial_rack_says_so(inventory):
    """Fewer units than the profile's are allowed where the file declares it."""
    lines = RACK.replace("site: here", "site: here\npartial: true").replace("node[1-2]", "node1").replace("[1-2]", "1")
    lines = lines.splitlines(keepends=True)
    inventory.rack("".join(lines[:8] + lines[11:]))
    rack = inventory.load()
    assert rack.partial
    assert [unit.name for unit in rack.nodes] == ["node1"]


def test_an_unknown_rack_lists_the_known(inventory):
    """The command line is at fault, not a file."""
    with pytest.raises(UsageError, match="pair"):
        load_rack("nowhere", inventory.folder)
    assert list_racks(inventory.folder) == ("pair",)


def test_a_rack_may_be_given_by_its_path(inventory, tmp_path):
    """A file outside the inventory, with the inventory's profiles; its name is free."""
    aside = tmp_path / "draft.yml"
    aside.write_text((inventory.folder / "racks" / "pair.yml").read_text())
    assert load_rack(str(aside), inventory.folder) == inventory.load()


@pytest.mark.parametrize("text", ["", "~", "- a\n- b\n", "just text\n", "units: 7\n"])
def test_a_file_of_another_shape_is_refused(inventory, text):
    """Not a mapping, or not the right one."""
    inventory.rack(text)
    assert inventory.problems()


def test_ten_thousand_nodes_are_refused_quickly(inventory):
    """One problem, not ten thousand, in seconds."""
    inventory.rack(many(10_000))
    began = time.process_time()
    (problem,) = inventory.problems()
    assert time.process_time() - began < 5
    assert "units has more than 2,048 entries" in problem.wrong


def test_a_thousand_nodes_are_refused_by_their_count(inventory):
    """What else is wrong with them is not told: it would only hide it."""
    inventory.rack(many(1000))
    leaves, nodes = inventory.problems()
    assert "0 of 2 units of kind leaf" in leaves.wrong
    assert "1,000 units of kind node, and a rack of small has 2" in nodes.wrong


def many(count: int) -> str:
    """A rack file of `count` nodes."""
    node = (
        "  - {{name: n{i}, kind: node, slot: {slot}, serial: S{i}, bmc: {{address: 10.0.0.1, credentials: b}},"
        " host: {{address: 10.1.0.1, mac: '52:54:00:00:00:01', disk: {{device: /dev/sda, serial: D}}}}}}\n"
    )
    head = "rack: pair\nsite: here\nprofile: small\nunits:\n"
    return head + "".join(node.format(i=i, slot=i + 1) for i in range(count))


def test_cables_cannot_be_multiplied_without_end(inventory):
    """Folds on both sides of the colon, and many lines of them, are counted before they are written out."""
    line = '  - {a: "node[1-2]:mlx5_1", b: "leaf2:[1-2]", kind: infiniband, rate_gb_per_s: 50}\n'
    bomb = '  - {a: "leaf[1-2]:[1-4096]", b: "leaf[1-2]:[5000-9095]", kind: ethernet, rate_gb_per_s: 1}\n'
    many_lines = '  - {a: "leaf1:[1-4000]", b: "leaf2:[1-4000]", kind: ethernet, rate_gb_per_s: 1}\n' * 2000
    inventory.rack(RACK.replace(line, bomb))
    assert "unfolds to 8,192 ports" in inventory.problems()[0].wrong
    inventory.rack(RACK.replace(line, many_lines))
    began = time.process_time()
    with pytest.raises(InputError) as error:
        inventory.load()
    assert len(error.value.problems) == 20
    assert time.process_time() - began < 5


def test_the_digest_is_of_the_rack_not_of_the_file(inventory):
    """Which end is written first and how it is folded do not matter; a moved cable does."""
    rack = inventory.load()
    text = (inventory.folder / "racks" / "pair.yml").read_text()
    inventory.rack(
        text.replace('"node[1-2]:mlx5_0", b: "leaf1:[1-2]"', '"leaf1:[1,2]", b: "node[1,2]:mlx5_0"').replace(
            "00:02", "00:02"
        )
    )
    assert inventory.load().digest == rack.digest == topology_digest(rack)
    moved = replace(rack.links[0], b=Port("leaf1", "9"))
    assert topology_digest(replace(rack, links=(moved, *rack.links[1:]))) != rack.digest


@pytest.mark.parametrize(
    ("name", "kinds", "links"),
    [
        ("demo", {UnitKind.NODE: 6, UnitKind.LEAF: 8}, 48),
        ("demo-small", {UnitKind.NODE: 2, UnitKind.LEAF: 8}, 16),
        ("dgx-h100-su", {UnitKind.NODE: 31, UnitKind.LEAF: 8, UnitKind.SPINE: 4}, 31 * 8 + 256),
        ("gb200-nvl72", {UnitKind.NODE: 18, UnitKind.NVLINK_SWITCH: 9, UnitKind.POWER_SHELF: 8}, 72 * 18),
    ],
)
def test_a_shipped_rack_has_what_its_vendor_says(shipped, name, kinds, links):
    """Units by kind and cables, as in the reference architectures."""
    rack = load_rack(name, shipped)
    assert {kind: sum(u.kind is kind for u in rack.units) for kind in {u.kind for u in rack.units}} == kinds
    assert len(rack.links) == links
    assert all(len(node.gpus) == rack.profile.gpus_per_node for node in rack.nodes)
    assert list_racks(shipped) == ("demo", "demo-small", "dgx-h100-su", "gb200-nvl72")


def test_every_gpu_of_the_nvl72_reaches_every_switch_chip(shipped):
    """72 GPUs, 18 links each, 144 ports on each of 9 trays, every port once."""
    rack = load_rack("gb200-nvl72", shipped)
    ports = [port for link in rack.links for port in (link.a, link.b)]
    assert len(set(ports)) == len(ports)
    gpus = {(p.unit, p.port.partition(".")[0]) for p in ports if p.unit.startswith("tray")}
    switches = {u.name: sum(p.unit == u.name for p in ports) for u in rack.units if u.kind is UnitKind.NVLINK_SWITCH}
    assert len(gpus) == 72
    assert set(switches.values()) == {144}


def test_the_demo_rack_has_the_addresses_the_virtual_rack_gives(shipped):
    """Node i: 10.66.0.(10+i) in band, 10.67.0.(10+i) its BMC, MAC and serials by number."""
    for number, node in enumerate(load_rack("demo", shipped).nodes, 1):
        assert (node.name, node.serial) == (f"node{number}", f"VR{number:08d}")
        assert node.bmc and node.bmc.address == f"10.67.0.{10 + number}"
        assert node.host and node.host.address == f"10.66.0.{10 + number}"
        assert node.host.mac == f"52:54:00:66:00:{number:02x}"
        assert node.host.disk.serial == f"VD{number:08d}"


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=60
)
@given(st.data())
def test_any_corrupted_character_loads_or_is_refused(shipped, tmp_path, data):
    """No exception but InputError leaves the loader, whatever one character of the demo rack becomes."""
    text = (shipped / "racks" / "demo.yml").read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    with_char = data.draw(st.just("") | st.characters(codec="utf-8") | st.sampled_from("{}[]:,&*!|>'\"#%@`-?\n\t 0"))
    file = tmp_path / "demo.yml"
    file.write_text(text[:at] + with_char + text[at + 1 :], encoding="utf-8", newline="")
    try:
        load_rack(str(file), shipped)
    except InputError as error:
        assert all(p.line >= 1 and p.wrong for p in error.problems)
