"""Where the locator is measured: racks of the inventory, and larger fabrics made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from toolkit.judge.locate import Fabric, fabric_of
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Gpu, Hca, Link, LinkKind, Mode, Port, Profile, Rack, Unit, UnitKind

RAILS = 8
INVENTORY = Path(__file__).parent.parent / "inventory"


@dataclass(frozen=True, slots=True)
class Place:
    """A fabric and how much is run in it, unless the command line says otherwise.

    trials   of each fault class; `nodes`: of a bad node, which a goal is about
    clean    racks without a fault
    every    trials of each class by all pairs, 0 where there are too many; by bisection five times that, or one
    """

    make: Callable[[], Fabric]
    trials: int
    nodes: int
    clean: int
    every: int


def places() -> dict[str, Place]:
    """By name."""
    return {
        "NVL72 domain": Place(lambda: inventory("gb200-nvl72"), 100, 100, 3000, 2),
        "6 nodes, rails apart": Place(lambda: inventory("demo"), 50, 50, 200, 2),
        "scalable unit (31 nodes)": Place(lambda: inventory("dgx-h100-su"), 12, 40, 60, 1),
        "232 nodes": Place(lambda: fabric_of(synthetic("n232", 8, 29)), 2, 14, 2, 0),
        "1,024 nodes": Place(lambda: fabric_of(synthetic("n1024", 32, 32)), 1, 2, 1, 0),
    }


def inventory(rack: str) -> Fabric:
    """Of a rack in the repository."""
    return fabric_of(load_rack(rack, INVENTORY))


def synthetic(name: str, units: int, nodes_per_unit: int) -> Rack:
    """Scalable units of DGX H100, 8 rails on 8 leaves each, joined by 16 spines."""
    racks = []
    links = []
    for u in range(units):
        for n in range(nodes_per_unit):
            node = f"u{u}n{n}"
            hcas = tuple(Hca(f"mlx5_{r}", f"0x{u:02x}{n:04x}{r:02x}", r) for r in range(RAILS))
            gpus = tuple(Gpu(g) for g in range(RAILS))
            racks.append(Unit(node, UnitKind.NODE, f"S{u}-{n}", n, gpus=gpus, hcas=hcas))
            for r in range(RAILS):
                ends = Port(node, f"mlx5_{r}"), Port(f"u{u}leaf{r}", str(n + 1))
                links.append(Link(*ends, LinkKind.INFINIBAND, 50.0, "cable"))
        racks += [Unit(f"u{u}leaf{r}", UnitKind.LEAF, f"L{u}-{r}", 40 + r) for r in range(RAILS)]
    racks += [Unit(f"spine{s}", UnitKind.SPINE, f"P{s}", 50) for s in range(16)]
    profile = Profile(
        name, "DGX H100", Mode.NVSWITCH_GEN3, 8, 18, 26.562, RAILS, (), "", (), (), (), timedelta(days=30), virtual=True
    )
    return Rack(name, "synthetic", profile, tuple(racks), tuple(links), "")
