"""Which way a claimed test's bytes take, by its shape and environment, and what that way can carry at most."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.judge import ceilings
from toolkit.judge.ceilings import Ceiling
from toolkit.rack.claim import Claim, Sku, Span

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv")
_OFF = ("0", "N", "n", "false")
_NO_GDR = ("0", "LOC")


class Way(StrEnum):
    """What carries the bytes."""

    NVLINK = "nvlink"
    NIC = "nic"
    HBM = "hbm"
    HOST = "host"
    PORT = "port"  # one link or port by itself


@dataclass(frozen=True, slots=True)
class Route:
    """The way taken. `yardstick` is what plain hardware must nearly reach on it: B, R, the memory's peak."""

    way: Way
    ranks: int
    nodes: int
    node_nic_gb_per_s: float
    in_switch: bool
    ceiling: Ceiling
    yardstick: Ceiling


def route(claim: Claim, sku: Sku) -> Route | None:
    """The way this claim's bytes take; None for a test that no closed form covers."""
    if claim.test in COLLECTIVES:
        return _collective(claim, sku)
    found = _single(claim, sku)
    if found is None or found[1].gb_per_s <= 0:
        return None
    return Route(found[0], 0, 0, 0.0, False, found[1], found[1])


def _single(claim: Claim, sku: Sku) -> tuple[Way, Ceiling] | None:
    port = claim.nic_gb_per_s or sku.nic_gb_per_s
    table = {
        "hbm": (Way.HBM, ceilings.hbm(sku.hbm_gb_per_s)),
        "h2d": (Way.HOST, ceilings.rate(sku.host, sku.host_gb_per_s)),
        "d2h": (Way.HOST, ceilings.rate(sku.host, sku.host_gb_per_s)),
        "p2p": (Way.NVLINK, ceilings.rate("NVLink of a GPU", sku.nvlink_gb_per_s)),
        "p2p_bidirectional": (Way.NVLINK, ceilings.rate("NVLink of a GPU", sku.nvlink_gb_per_s, 2)),
        "nvlink": (Way.PORT, ceilings.rate("one NVLink, trained", sku.nvlink_trained_gb_per_s)),
        "nic": (Way.PORT, ceilings.rate("one NIC port", port)),
        "nic_bidirectional": (Way.PORT, ceilings.rate("one NIC port", port, 2)),
    }
    return table.get(claim.test)


def shape(claim: Claim, sku: Sku) -> tuple[int, int]:
    """(ranks, nodes) of the communicator: as stated, else the least that the scope can mean."""
    nodes = claim.nodes or (-(-claim.ranks // sku.gpus_per_node) if claim.ranks else 0)
    if not nodes:
        nodes = {Span.FABRIC: 2, Span.DOMAIN: max(1, sku.domain_gpus // sku.gpus_per_node)}.get(claim.scope, 1)
    return claim.ranks or nodes * sku.gpus_per_node, nodes


def domain_ranks(claim: Claim, sku: Sku) -> int:
    """GPUs that NCCL can reach over NVLink under the claim's environment; 1 where it may not use NVLink at all."""
    environment = dict(claim.environment)
    if environment.get("NCCL_P2P_DISABLE") == "1" or environment.get("NCCL_P2P_LEVEL") in _NO_GDR:
        return 1
    multi_node = sku.domain_gpus > sku.gpus_per_node and environment.get("NCCL_MNNVL_ENABLE") not in _OFF
    return sku.domain_gpus if multi_node else sku.gpus_per_node


def in_switch(claim: Claim, sku: Sku) -> bool:
    """Whether the NVSwitches may reduce."""
    environment = dict(claim.environment)
    algorithm = environment.get("NCCL_ALGO", "")
    return (
        sku.in_switch_reduction
        and environment.get("NCCL_NVLS_ENABLE") not in _OFF
        and (not algorithm or "nvls" in algorithm.lower())
    )


def _collective(claim: Claim, sku: Sku) -> Route | None:
    ranks, nodes = shape(claim, sku)
    if ranks < 2:
        return None
    reach, reduces = domain_ranks(claim, sku), in_switch(claim, sku)
    link = _link(sku)
    if ranks <= reach and _in_one_domain(nodes, reach, sku):
        return Route(Way.NVLINK, ranks, nodes, 0.0, reduces, _nvlink_ceiling(claim, sku, ranks, ranks, reduces), link)
    node_nics = (claim.nics or sku.nics) * (claim.nic_gb_per_s or sku.nic_gb_per_s)
    if node_nics <= 0:
        return None
    # NVLink joins `per` ranks into what the NICs see as one node; several trays bring their NICs along.
    trays = max(1, reach // sku.gpus_per_node)
    per, groups = (min(reach, ranks), -(-ranks // reach)) if trays > 1 else (max(1, ranks // nodes), nodes)
    group_nics = node_nics * trays
    found = _nic_ceiling(claim, group_nics, groups, per)
    inside = _nvlink_ceiling(claim, sku, ranks, per, reduces) if per > 1 else found
    ceiling = min(found, inside, key=lambda c: c.gb_per_s)
    spread = per if claim.test in ("alltoall", "sendrecv") else 1
    yardstick = ceilings.rate("R" if spread == 1 else "R/g", group_nics / spread)
    return Route(Way.NIC, ranks, nodes, node_nics, reduces, ceiling, min(yardstick, link, key=lambda c: c.gb_per_s))


def _in_one_domain(nodes: int, reach: int, sku: Sku) -> bool:
    return nodes * min(sku.gpus_per_node, reach) <= reach


def _link(sku: Sku) -> Ceiling:
    """The ring's ceiling; a GPU without NVLink reaches its neighbour through its PCIe slot."""
    return ceilings.ring(sku.nvlink_gb_per_s) if sku.nvlink_gb_per_s else ceilings.rate(sku.host, sku.host_gb_per_s)


def _nvlink_ceiling(claim: Claim, sku: Sku, ranks: int, group: int, reduces: bool) -> Ceiling:
    link = sku.nvlink_gb_per_s
    if ranks == 2 and link:
        return ceilings.pair(link)
    candidates = [_link(sku)]
    if claim.test == "all_reduce" and reduces:
        candidates.append(ceilings.nvls(link, ranks, group))
    return max(candidates, key=lambda c: c.gb_per_s)


def _nic_ceiling(claim: Claim, node_nics: float, nodes: int, per: int) -> Ceiling:
    if nodes < 2:
        return ceilings.rate("R", node_nics)
    if claim.test == "alltoall":
        return ceilings.nic_bound_alltoall(node_nics, nodes, per)
    if claim.test == "sendrecv":
        return ceilings.rate("R/g", node_nics / per)
    if claim.test == "all_reduce" and dict(claim.environment).get("NCCL_COLLNET_ENABLE") == "1":
        return ceilings.sharp(node_nics, nodes * per)
    return ceilings.nic_bound(node_nics, nodes, per)


def off_path(claim: Claim, sku: Sku) -> str:
    """Why the bytes do not take the way that the scope is meant to measure; empty where they do."""
    if claim.test not in COLLECTIVES:
        return ""
    environment = dict(claim.environment)
    ranks, nodes = shape(claim, sku)
    reach = domain_ranks(claim, sku)
    stays = ranks <= reach and _in_one_domain(nodes, reach, sku)
    if claim.scope in (Span.NODE, Span.DOMAIN):
        if stays:
            return ""
        named = [
            f"{k}={v}" for k in ("NCCL_MNNVL_ENABLE", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL") if (v := environment.get(k))
        ]
        cause = f"{' '.join(named)} takes NVLink away" if named else "no NVLink domain is that large"
        return f"{cause}: {ranks} ranks on {nodes} nodes, and NVLink joins {reach}"
    if claim.scope is not Span.FABRIC:
        return ""
    if stays:
        return f"{ranks} ranks on {nodes} nodes are in one NVLink domain of {reach}: no byte needs a NIC"
    if environment.get("NCCL_IB_DISABLE") == "1" or environment.get("NCCL_NET") == "Socket":
        return "NCCL is told to use TCP sockets: about 3 GB/s where RDMA gives 489 (NVIDIA/aicr#2683)"
    return ""
