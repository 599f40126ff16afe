"""When each node and GPU of a rack takes up its load, so that the rack's power grows no faster than it may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.rack.model import Profile


@dataclass(frozen=True, slots=True)
class Begin:
    """When a node's load begins.

    after_s        seconds after the rack's common beginning, for its first GPU
    gpu_stagger_s  seconds from one of its GPUs to the next
    """

    after_s: float = 0.0
    gpu_stagger_s: float = 0.0


def begins(nodes: Sequence[str], profile: Profile, step: bool = False) -> dict[str, Begin]:
    """A beginning for each node, in the order given: GPU after GPU, node after node, at the profile's ramp.

    step  every GPU at the same time instead: the 0 to 100 % step that a power domain has to stand some day
    A profile without a ramp (`power_ramp_kw_per_s: 0`) bounds nothing.
    """
    watts = float(dict(profile.expected).get("gpu_power_watts", 0))
    if step or profile.power_ramp_kw_per_s <= 0:
        return dict.fromkeys(nodes, Begin())
    each_s = watts / 1000 / profile.power_ramp_kw_per_s
    return {node: Begin(n * profile.gpus_per_node * each_s, each_s) for n, node in enumerate(nodes)}


def ramp_seconds(nodes: int, profile: Profile) -> float:
    """From the first GPU's beginning to the last's."""
    gpus = nodes * profile.gpus_per_node
    found = begins([str(n) for n in range(nodes)], profile)
    return max(0, gpus - 1) * next(iter(found.values())).gpu_stagger_s if found else 0.0
