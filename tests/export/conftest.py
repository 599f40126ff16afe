"""Results of a rack that was brought up, and results in which everything is hostile."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from on_record import brought_up
from rehearsal import folder, open_ledger

from toolkit.export.on_record import results
from toolkit.export.results import Answered, Case, Results, Suite, TestedNode
from toolkit.judge.part import GpuSeat
from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.lifecycle import NodeState

AT = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
HOSTILE = (
    '=HYPERLINK("http://evil.example","x")\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>]]>&\r\n@SUM(A1)\ud800\ufffe'
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """node1 is admitted, node2 in quarantine."""
    with folder(tmp_path_factory.mktemp("export") / "folder") as made:
        yield brought_up(made)


@pytest.fixture(scope="session")
def found(lab):
    """Its results."""
    with open_ledger(lab.settings) as ledger:
        return results(ledger, lab.rack, AT, "1.2.3")


@pytest.fixture(scope="session")
def hostile():
    """Every word that a node, a tool or a rack file may have written is an attack; one case of each answer."""
    gate = Gate(
        "HBM_MISCOMPARE", "hbm_miscompares", "count", Scope.GPU, Operator.AT_MOST, 0, "burnin", True, "gpu", HOSTILE,
        HOSTILE, "2026-11-23",
    )  # fmt: skip
    word = Gate(
        "LINK_WORD", "fabric_state", "word", Scope.GPU, Operator.ONE_OF, ("a.b", "c|d"), "nvlink", True, "gpu", "", "",
        "2026-11-23",
    )  # fmt: skip
    cases = tuple(
        Case("HBM_MISCOMPARE", HOSTILE, answer, HOSTILE, gate, -3.5, AT, None, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
        for answer in Answered
    )
    words = Case("LINK_WORD", "n/gpu0", Answered.PASSED, "", word, HOSTILE, AT)
    own = Case("outcome", HOSTILE, Answered.FAILED, HOSTILE * 40, at=AT, seconds=1.25, code=HOSTILE, part=HOSTILE)
    node = TestedNode(HOSTILE, HOSTILE, 1, NodeState.QUARANTINED, ((0, GpuSeat(HOSTILE, HOSTILE)),))
    suites = (Suite(HOSTILE, "burnin", (own, *cases), AT, AT), Suite("n", "nvlink", (words,), AT, None))
    return Results(HOSTILE, HOSTILE, HOSTILE, HOSTILE, "1.2.3", AT, (node,), suites)
