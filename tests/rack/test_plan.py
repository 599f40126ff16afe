"""The plan is a value: what, on whom, why."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rack.lifecycle import STAGES_OF, NodeState, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.plan import NodeStatus, make_plan
from toolkit.settings import load

RACK = load_rack("demo", load({}).inventory)
NAMES = [n.name for n in RACK.nodes]
STATUS = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(NodeStatus, st.sampled_from(NodeState), st.frozensets(st.sampled_from(Stage)), st.just("why")),
)


def test_a_new_rack_goes_the_whole_way():
    """Without any record every node takes every stage, and the plan says that disks will be lost."""
    plan = make_plan(RACK, {})
    assert [s.stage for s in plan.steps] == list(Stage)
    assert all([t.node for t in s.targets] == NAMES for s in plan.steps)
    assert plan.destructive
    assert plan.steps[0].targets[0].why == "is PLANNED"


def test_a_passed_first_fabric_is_not_done_again():
    """CONFIGURED needs two stages; the one that passed is left out, the other is not."""
    status = {name: NodeStatus(NodeState.ADMITTED) for name in NAMES}
    status[NAMES[0]] = NodeStatus(NodeState.CONFIGURED, frozenset({Stage.NVLINK}))
    plan = make_plan(RACK, status)
    assert plan.steps[0].stage is Stage.INFINIBAND
    assert not plan.destructive


def test_a_quarantined_node_is_held_with_the_way_out():
    """The plan names the reason and the command that lets it back in."""
    plan = make_plan(RACK, {"node2": NodeStatus(NodeState.QUARANTINED, reason="HBM_ECC_CORRECTED GPU 3")})
    (held,) = plan.held
    assert held.node == "node2"
    assert "HBM_ECC_CORRECTED GPU 3" in held.why
    assert "rackproof release node2" in held.why


@given(STATUS)
def test_every_node_is_either_in_the_plan_or_held(status):
    """Nobody is forgotten and nobody is both."""
    plan = make_plan(RACK, status)
    stepped = {t.node for s in plan.steps for t in s.targets}
    held = {h.node for h in plan.held}
    assert stepped | held == set(NAMES)
    assert not stepped & held


@given(STATUS)
def test_the_first_stage_of_a_node_belongs_to_its_state(status):
    """No node is asked to do what its state does not allow."""
    plan = make_plan(RACK, status)
    for name in NAMES:
        now = status.get(name, NodeStatus())
        first = next((s.stage for s in plan.steps if name in {t.node for t in s.targets}), None)
        allowed = STAGES_OF.get(now.state, ())
        assert first is None or first in allowed


@given(STATUS)
def test_the_digest_is_of_the_value_alone(status):
    """The same facts give the same digest; another rack digest gives another."""
    assert make_plan(RACK, status).digest == make_plan(RACK, dict(status)).digest
    assert make_plan(replace(RACK, digest="0" * 64), status).digest != make_plan(RACK, status).digest


def test_a_goal_short_of_admission_stops_there():
    """`--to` is honoured: nothing past the goal is planned."""
    plan = make_plan(RACK, {}, goal=NodeState.CONFIGURED)
    assert [s.stage for s in plan.steps] == [Stage.IMAGE, Stage.BASE]


@given(STATUS, st.sampled_from([*STAGES_OF, NodeState.ADMITTED]))
def test_nothing_past_the_goal_is_planned_for_anybody(status, goal):
    """A node that is past the goal already is held; no stage that leads beyond it is in the plan."""
    way = [*STAGES_OF, NodeState.ADMITTED]
    allowed = {stage for state in way[: way.index(goal)] for stage in STAGES_OF[state]}
    plan = make_plan(RACK, status, goal)
    assert {s.stage for s in plan.steps} <= allowed
    stepped = {t.node for s in plan.steps for t in s.targets}
    assert not [n for n, now in status.items() if n in stepped and way.index(now.state) >= way.index(goal)]


def test_a_plan_does_not_change():
    """It is frozen: what was shown is what is run."""
    with pytest.raises(AttributeError):
        make_plan(RACK, {}).steps = ()
