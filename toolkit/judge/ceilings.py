"""What physics allows: closed forms for the bandwidth of collectives, memory and host link.

All rates are GB/s, 10^9 bytes a second, one way. busbw is nccl-tests' bus bandwidth: for all_reduce the algorithm's
bandwidth times 2(n-1)/n, for the other collectives times (n-1)/n (NVIDIA/nccl-tests doc/PERFORMANCE.md). The forms
are derived, not published: B is a GPU's NVLink rate, R a node's NIC rate, n ranks, N nodes, g ranks of one node.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ceiling:
    """An upper bound: its name, the formula with its numbers in it, and what it comes to in GB/s."""

    name: str
    formula: str
    gb_per_s: float

    def share(self, gb_per_s: float) -> float:
        """What part of this ceiling a rate is."""
        return gb_per_s / self.gb_per_s


def ring(link_gb_per_s: float) -> Ceiling:
    """busbw of any collective by ring over NVLink: every byte counted crosses each GPU's links once, each way."""
    return Ceiling("ring", f"B = {link_gb_per_s:g} GB/s", link_gb_per_s)


def pair(link_gb_per_s: float) -> Ceiling:
    """busbw of two ranks: 2(n-1)/n is 1, so that a wrong scaling factor shows only from three ranks on."""
    return Ceiling("pair", f"B x 2(n-1)/n = {link_gb_per_s:g} x 2 x 1/2 = {link_gb_per_s:g} GB/s", link_gb_per_s)


def nvls(link_gb_per_s: float, ranks: int, group: int = 0) -> Ceiling:
    """busbw of all_reduce where the switch reduces: a GPU sends S(1 + 1/g) each way, which may exceed its link rate.

    `group` is the ranks of one NVLink domain where the communicator spans several; 0: all of them.
    """
    group = group or ranks
    result = link_gb_per_s * 2 * group * (ranks - 1) / ((group + 1) * ranks)
    if group == ranks:
        formula = f"B x 2(n-1)/(n+1) = {link_gb_per_s:g} x 2 x {ranks - 1}/{ranks + 1} = {result:.0f} GB/s"
    else:
        formula = (
            f"B x g/(g+1) x 2(n-1)/n = {link_gb_per_s:g} x {group}/{group + 1} x 2 x {ranks - 1}/{ranks}"
            f" = {result:.0f} GB/s"
        )
    return Ceiling("NVLS", formula, result)


def nic_bound(node_nic_gb_per_s: float, nodes: int, ranks_per_node: int) -> Ceiling:
    """busbw of all_reduce, all_gather and reduce_scatter over NICs, reduced inside each node first (hierarchical)."""
    ranks = nodes * ranks_per_node
    result = node_nic_gb_per_s * nodes / (nodes - 1) * (ranks - 1) / ranks
    formula = (
        f"R x N/(N-1) x (n-1)/n = {node_nic_gb_per_s:g} x {nodes}/{nodes - 1} x {ranks - 1}/{ranks} = {result:.0f} GB/s"
    )
    return Ceiling("NIC-bound", formula, result)


def nic_bound_alltoall(node_nic_gb_per_s: float, nodes: int, ranks_per_node: int) -> Ceiling:
    """busbw of alltoall over NICs: a rank's share of its node's NICs, less what stays inside the node."""
    ranks = nodes * ranks_per_node
    result = node_nic_gb_per_s / ranks_per_node * nodes / (nodes - 1) * (ranks - 1) / ranks
    formula = (
        f"R/g x N/(N-1) x (n-1)/n = {node_nic_gb_per_s:g}/{ranks_per_node} x {nodes}/{nodes - 1}"
        f" x {ranks - 1}/{ranks} = {result:.0f} GB/s"
    )
    return Ceiling("NIC-bound alltoall", formula, result)


def sharp(node_nic_gb_per_s: float, ranks: int) -> Ceiling:
    """busbw of all_reduce where the InfiniBand switches reduce: a node sends its data once."""
    result = node_nic_gb_per_s * 2 * (ranks - 1) / ranks
    formula = f"R x 2(n-1)/n = {node_nic_gb_per_s:g} x 2 x {ranks - 1}/{ranks} = {result:.0f} GB/s"
    return Ceiling("SHARP", formula, result)


def hbm(peak_gb_per_s: float) -> Ceiling:
    """Memory traffic, reads and writes together: the data sheet's peak, bus width x clock."""
    return Ceiling("HBM peak", f"{peak_gb_per_s:g} GB/s by the data sheet", peak_gb_per_s)


def pcie(generation: int, lanes: int) -> Ceiling:
    """Copies between host and GPU, one way, by 128b/130b encoding; packet headers are not taken off. Gen3 to Gen5."""
    gigatransfers = {3: 8, 4: 16, 5: 32}[generation]
    result = gigatransfers * lanes * 128 / 130 / 8
    formula = f"lanes x GT/s x 128/130 / 8 = {lanes} x {gigatransfers} x 128/130 / 8 = {result:.1f} GB/s"
    return Ceiling(f"PCIe Gen{generation} x{lanes}", formula, result)


def rate(name: str, gb_per_s: float, ways: int = 1) -> Ceiling:
    """A single link, port or chip-to-chip bus: its own rate, twice where both ways are counted."""
    formula = f"{gb_per_s:g} GB/s" if ways == 1 else f"{ways} x {gb_per_s:g} = {ways * gb_per_s:g} GB/s"
    return Ceiling(name, formula, ways * gb_per_s)
