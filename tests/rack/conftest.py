"""A small inventory of its own for every test: one profile, one rack, both known to load."""

from pathlib import Path

import pytest

from toolkit.errors import InputError, Problem
from toolkit.rack.loading import load_profile, load_rack

SHIPPED = Path(__file__).parents[2] / "inventory"

PROFILE = """\
profile: small
sku: Small
mode: nvswitch_gen3
units: {node: 2, leaf: 2}
gpus_per_node: 2
nvlinks_per_gpu: 18
nvlink_gb_per_s: 26.562
hcas_per_node: 2
image: small.img.zst
certificate_lifetime: 30d
expected: {driver_version: 580.95.05}
versions: {nvidia-driver-580-open: 580.95.05}
gates:
  - code: DRIVER_VERSION_WRONG
    metric: driver_version
    unit: version
    scope: node
    operator: equals
    limit: 580.95.05
    stage: base
    required: true
    part: software
    why: Another driver was not tested.
    source: the lock
    date: 2026-11-23
"""

RACK = """\
rack: pair
site: here
profile: small
units:
  - {name: node1, kind: node, slot: 1, serial: N1, bmc: {address: 10.0.1.1, credentials: bmc},
     host: {address: 10.0.0.1, mac: "52:54:00:00:00:01", disk: {device: /dev/nvme0n1, serial: D1}},
     hcas: [{name: mlx5_0, guid: "0x0200000000000010", rail: 0}, {name: mlx5_1, guid: "0x0200000000000011", rail: 1}]}
  - {name: node2, kind: node, slot: 2, serial: N2, bmc: {address: 10.0.1.2, credentials: bmc},
     host: {address: 10.0.0.2, mac: "52:54:00:00:00:02", disk: {device: /dev/nvme0n1, serial: D2}},
     hcas: [{name: mlx5_0, guid: "0x0200000000000020", rail: 0}, {name: mlx5_1, guid: "0x0200000000000021", rail: 1}]}
  - {name: leaf1, kind: leaf, slot: 3, serial: L1}
  - {name: leaf2, kind: leaf, slot: 4, serial: L2}
links:
  - {a: "node[1-2]:mlx5_0", b: "leaf1:[1-2]", kind: infiniband, rate_gb_per_s: 50}
  - {a: "node[1-2]:mlx5_1", b: "leaf2:[1-2]", kind: infiniband, rate_gb_per_s: 50}
"""


class Inventory:
    """An inventory folder whose files a test rewrites."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("racks", "profiles"):
            (folder / name).mkdir(parents=True)
        self.profile(PROFILE)
        self.rack(RACK)

    def profile(self, text: str, name: str = "small") -> None:
        """Writes a profile."""
        (self.folder / "profiles" / f"{name}.yml").write_text(text)

    def rack(self, text: str, name: str = "pair") -> None:
        """Writes a rack."""
        (self.folder / "racks" / f"{name}.yml").write_text(text)

    def changed(self, old: str, new: str, count: int = 1) -> None:
        """The rack with one text replaced; the text must be there."""
        assert old in RACK, old
        self.rack(RACK.replace(old, new, count))

    def load(self):
        """The rack."""
        return load_rack("pair", self.folder)

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the rack."""
        with pytest.raises(InputError) as error:
            self.load()
        return error.value.problems

    def gate_problems(self, old: str, new: str) -> tuple[Problem, ...]:
        """What is wrong with the profile when one text in it is replaced."""
        assert old in PROFILE, old
        self.profile(PROFILE.replace(old, new, 1))
        with pytest.raises(InputError) as error:
            load_profile("small", self.folder)
        return error.value.problems


@pytest.fixture
def inventory(tmp_path) -> Inventory:
    """A valid inventory in a folder of its own."""
    return Inventory(tmp_path / "inventory")


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The inventory the product ships."""
    return SHIPPED
