"""A gate as its author claims it, whoever that is, and what a SKU can do. Data only; `judge.lint` compares the two."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.rack.gate import Operator

WORDS = "words"  # unit of a claim whose limit is text: nothing is compared with it


class Span(StrEnum):
    """What the test is meant to exercise."""

    GPU = "gpu"
    LINK = "link"  # one NVLink
    HCA = "hca"  # one port
    NODE = "node"  # NVLink inside a node or tray
    DOMAIN = "domain"  # NVLink between the nodes of one NVLink domain
    FABRIC = "fabric"  # NICs between nodes


@dataclass(frozen=True, slots=True)
class Claim:
    """One gate.

    test           all_reduce, all_gather, reduce_scatter, alltoall, sendrecv, p2p, hbm, h2d, d2h, nvlink, nic, ...
    limit          in `unit`; None: the author states none, or the unit is WORDS
    place          where it is written: file:line:column
    ranks, nodes   0 where not stated
    environment    variables the author sets, as (name, value)
    message_bytes  size of the row that is judged, the largest if several; 0 where not stated
    nics           NICs a node really has in this offer, and each one's rate; 0: the SKU's
    tolerance      factor the author multiplies the limit by before comparing
    publisher      whose gate: neighbours are compared within one publisher's gates
    required       a gate that is not required cannot fail anything
    guarded        a missing limit is INCONCLUSIVE in the author's tool (as in ours) instead of a pass
    """

    sku: str
    test: str
    scope: Span
    operator: Operator
    limit: float | None
    unit: str
    source: str
    place: str
    ranks: int = 0
    nodes: int = 0
    environment: tuple[tuple[str, str], ...] = ()
    message_bytes: int = 0
    nics: int = 0
    nic_gb_per_s: float = 0.0
    tolerance: float = 1.0
    publisher: str = ""
    code: str = ""
    required: bool = True
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """What healthy hardware measured, one way, in GB/s; the lowest published where there are several.

    route         nvlink, nic, hbm, host
    nodes         0: the number of nodes does not matter
    ring          measured without the switch's help (NVLS off, or a generation without)
    """

    test: str
    route: str
    gb_per_s: float
    source: str
    date: str
    nodes: int = 0
    ring: bool = False


@dataclass(frozen=True, slots=True)
class Sku:
    """What the data sheet says of a SKU. Rates are GB/s, one way.

    domain_gpus             GPUs of one NVLink domain: those of a node, or 72
    nvlink_gb_per_s         a GPU's payload rate over all its links
    nvlink_trained_gb_per_s one link as nvidia-smi prints it, which is a little above its payload rate
    in_switch_reduction     NVLS: Hopper and later with NVSwitch
    nics                    NIC ports of the compute fabric of a node
    host                    name of the bus between host and GPU: `PCIe Gen5 x16`, `NVLink-C2C`
    not_slower_than         SKU that this one may be expected to match, test by test
    """

    name: str
    aliases: tuple[str, ...]
    gpus_per_node: int
    domain_gpus: int
    nvlinks: int
    nvlink_gb_per_s: float
    nvlink_trained_gb_per_s: float
    in_switch_reduction: bool
    nics: int
    nic_gb_per_s: float
    hbm_gb_per_s: float
    host: str
    host_gb_per_s: float
    not_slower_than: str
    source: str
    date: str
    references: tuple[Reference, ...]
