"""How long a collective takes at the rate of healthy hardware, and until when it is waited for. Pure.

The burn-in's plan and the stages that run it reckon here, so that what is shown is what is run.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.judge.lint import reference_of
from toolkit.judge.route import route
from toolkit.rack.burnin_plan import Collective, Figure, unknown
from toolkit.rack.claim import Claim, Sku, Span
from toolkit.rack.gate import Operator
from toolkit.rack.model import Profile

# SSH to every node, MPI's daemons, NCCL's bootstrap: what a collective's deadline has beyond that of one node. Policy
# of this project: nobody publishes a figure.
LAUNCH_S = 60.0
# A slow rail is to be measured, not cut off: a deadline is twice what the test takes, or the node's if that is longer.
PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """One communicator: `ranks` GPUs on `nodes` nodes, `nics` HCAs of each (0: all)."""

    span: Span
    nodes: int
    ranks: int
    nics: int = 0
    environment: tuple[tuple[str, str], ...] = ()


def seconds_of(profile: Profile, sku: Sku | None, asked: Collective, shape: Shape) -> Figure:
    """Time of a collective at the rate of healthy hardware: nccl-tests' bus bandwidth, turned back into time."""
    if profile.virtual:
        return unknown("time of collectives: on a virtual rack a stand-in makes up their numbers")
    if sku is None:
        return unknown(f"time of collectives: {profile.sku} is not among the SKUs of the inventory")
    rate = float(dict(profile.expected).get("hca_rate_gbit_per_s", 0)) / 8
    claim = Claim(
        profile.sku, asked.kind, shape.span, Operator.AT_LEAST, None, "GB/s", "", "",
        shape.ranks, shape.nodes, shape.environment, asked.largest, shape.nics, rate,
    )  # fmt: skip
    taken = route(claim, sku)
    if taken is None or taken.ceiling.gb_per_s <= 0:
        return unknown(f"time of {asked.kind}: no closed form for {shape.ranks} GPUs of {sku.name}")
    healthy = reference_of(claim, sku, taken)
    gb_per_s = healthy.gb_per_s if healthy else taken.ceiling.gb_per_s
    source = f"healthy, {healthy.source}" if healthy else f"no published figure: ceiling {taken.ceiling.formula}"
    share = _share(asked.kind, shape.ranks)
    moved = asked.bytes_moved
    return Figure(
        moved * share / gb_per_s / 1e9,
        f"{asked.kind} {moved / 1e9:,.0f} GB x {share:.3g} / {gb_per_s:.4g} GB/s ({source})",
    )


def deadline_of(on_node_s: float, seconds: Figure, rounds: int = 1) -> Figure:
    """Of all rounds, from the deadline of a node's collective and the seconds that one round takes."""
    limit_s, words = on_node_s, f"{on_node_s:g} s as on a node"
    if seconds.value is not None and PATIENCE * seconds.value > on_node_s:
        limit_s, words = PATIENCE * seconds.value, f"{PATIENCE} x {seconds.value:.0f} s"
    times = f"{rounds} x " if rounds > 1 else ""
    launch = f"{LAUNCH_S:g} s to launch, policy of this project"
    return Figure(rounds * (limit_s + LAUNCH_S), f"deadline {times}({words} + {launch})")


def _share(kind: str, ranks: int) -> float:
    """Bytes on the busiest link for a byte of size (NVIDIA/nccl-tests doc/PERFORMANCE.md)."""
    if kind == "sendrecv":
        return 1.0
    return (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks
