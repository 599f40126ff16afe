"""Which levels of a rack a certificate's evidence is of, and in words what was measured of none of its nodes."""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.judge.verdict import Finding
from toolkit.rack.burnin_plan import LevelName
from toolkit.rack.gate import Gate, Scope
from toolkit.rack.metric import RAIL_METRIC
from toolkit.rack.model import Mode, Profile

ONE_NODE = "no collective over more than one node was measured"
_OF_SCOPE = {Scope.DOMAIN: LevelName.DOMAIN, Scope.LEAF: LevelName.LEAF, Scope.RACK: LevelName.UNIT}
_DOMAIN_OF_NODES = (Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA)


def measured_levels(findings: Iterable[Finding]) -> frozenset[LevelName]:
    """By the findings that rest on a measurement: the nodes, their rails, a leaf, the unit, the NVLink domain."""
    found = {LevelName.NODES}
    for finding in findings:
        if finding.value is None:
            continue
        if finding.gate.metric == RAIL_METRIC:
            found.add(LevelName.RAILS)
        elif finding.subject.scope in _OF_SCOPE:
            found.add(_OF_SCOPE[finding.subject.scope])
    return frozenset(found)


def rails_not_asked(profile: Profile) -> tuple[Gate, ...]:
    """The required gates of rails that nothing answers, because the profile does not have them measured."""
    return () if profile.rail_test else tuple(g for g in profile.gates if g.metric == RAIL_METRIC and g.required)


def unmeasured_levels(profile: Profile, measured: Iterable[LevelName]) -> list[str]:
    """What a reader might take for measured, and is not."""
    levels = frozenset(measured)
    rails = [f"{g.code} was not asked: the profile's rail_test is off" for g in rails_not_asked(profile)]
    if levels <= {LevelName.NODES}:
        return [ONE_NODE, *rails]
    wanted = [LevelName.DOMAIN] if profile.mode in _DOMAIN_OF_NODES else []
    wanted += [LevelName.RAILS, LevelName.LEAF, LevelName.UNIT] if profile.hcas_per_node else []
    return [*(f"no collective was measured of this level: {level}" for level in wanted if level not in levels), *rails]
