"""The one table of moves, and what hangs on it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rack.lifecycle import (
    MOVE_AFTER,
    MOVES,
    STAGES_OF,
    IllegalMoveError,
    Move,
    Moved,
    NodeState,
    Stage,
    after,
    diagram,
)


def test_the_stages_lead_from_planned_to_admitted():
    """Following every state's stages to their move ends at ADMITTED, through all eight stages in order."""
    state, walked = NodeState.PLANNED, []
    while state in STAGES_OF:
        walked += STAGES_OF[state]
        move = MOVE_AFTER[walked[-1]]
        assert move is not None
        state = after("node1", state, move)
    assert state is NodeState.ADMITTED
    assert walked == list(Stage)


def test_an_illegal_move_raises_with_the_nodes_story():
    """The story is what an engineer needs to find the defect."""
    story = (Moved("2026-11-23T01:00:00Z", NodeState.PLANNED, Move.IMAGE, NodeState.IMAGED),)
    with pytest.raises(IllegalMoveError, match=r"node1: IMAGED has no move 'admit'.*PLANNED -image-> IMAGED"):
        after("node1", NodeState.IMAGED, Move.ADMIT, story)


@given(st.sampled_from(NodeState), st.sampled_from(Move))
def test_every_pair_either_moves_or_raises(state, move):
    """There is no third way, and RETIRED is final."""
    if (state, move) in MOVES:
        assert after("n", state, move) is not state
        assert state is not NodeState.RETIRED
    else:
        with pytest.raises(IllegalMoveError):
            after("n", state, move)


@given(st.lists(st.sampled_from(Move), max_size=30))
def test_only_a_certified_node_is_admitted(moves):
    """However the moves are drawn, ADMITTED is entered from CERTIFIED alone."""
    state = NodeState.PLANNED
    for move in moves:
        before, state = state, MOVES.get((state, move), state)
        if state is NodeState.ADMITTED and before is not state:
            assert before is NodeState.CERTIFIED


def test_a_failed_node_comes_back_through_planned_only():
    """Nothing learnt before a repair counts after it."""
    ways_out = {move: to for (state, move), to in MOVES.items() if state is NodeState.QUARANTINED}
    assert ways_out == {Move.REPAIR: NodeState.PLANNED, Move.RETIRE: NodeState.RETIRED}


def test_the_readme_shows_the_diagram_of_the_table():
    """The picture is generated; a stale one fails here. Print it with toolkit.rack.lifecycle.diagram()."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = re.search(r"```mermaid\n(.*?)\n```", readme, re.DOTALL)
    assert shown, "README.md has no mermaid block"
    assert shown[1] == diagram()
