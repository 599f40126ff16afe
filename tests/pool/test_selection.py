"""What selectors and affinities ask of labels, as Kubernetes documents each operator."""

import pytest

from toolkit.pool.selection import holds

LABELS = {"leaf": "leaf3", "gpus": "8"}


@pytest.mark.parametrize(
    ("key", "operator", "values", "met"),
    [
        ("leaf", "In", ["leaf2", "leaf3"], True),
        ("leaf", "In", ["leaf2"], False),
        ("rail", "In", ["1"], False),
        ("leaf", "NotIn", ["leaf3"], False),
        ("rail", "NotIn", ["1"], True),
        ("leaf", "Exists", None, True),
        ("rail", "Exists", None, False),
        ("rail", "DoesNotExist", None, True),
        ("gpus", "Gt", ["4"], True),
        ("gpus", "Lt", ["8"], False),
        ("leaf", "Gt", ["4"], False),
        ("gpus", "Gt", [], False),
        ("leaf", "Matches", ["leaf.*"], None),
    ],
)
def test_each_operator_is_met_or_not_and_an_unknown_one_is_neither(key, operator, values, met):
    """A label that is not there meets NotIn and DoesNotExist alone."""
    assert holds({"key": key, "operator": operator, "values": values}, LABELS) is met
