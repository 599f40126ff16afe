"""Gates relative to peers in the lint: shares that blame everybody or nobody, and whom no readings can settle."""

from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.judge.lint import Code, ceiling_of, lint
from toolkit.rack.claim import Claim, Span
from toolkit.rack.claims import load_skus, profile_claims
from toolkit.rack.gate import Operator

INVENTORY = Path(__file__).parents[2] / "inventory"
SKUS = load_skus(INVENTORY)
SANE = Claim("DGXH100", "hbm", Span.GPU, Operator.PEERS, 0.04, "GB/s", "policy of this project", "gates.yml:1:1")


def codes(**changed):
    """What is wrong with the sane one, changed so."""
    return [f.code for f in lint([replace(SANE, **changed)], SKUS).findings]


@pytest.mark.parametrize("limit", [0.03, 0.04, 0.1, 0.33, 0.4])
def test_a_sane_share_is_let_alone(limit):
    """And counts as checked; no ceiling stands over a share."""
    claim = replace(SANE, limit=limit)
    found = lint([claim], SKUS)
    assert (found.findings, found.unchecked) == ((), ())
    assert ceiling_of(claim, SKUS) is None


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"limit": 0.0}, Code.IMPOSSIBLE),
        ({"limit": -0.1}, Code.IMPOSSIBLE),
        ({"limit": 0.01}, Code.UNDECIDABLE),
        ({"limit": 1e-223}, Code.UNDECIDABLE),
        ({"limit": 0.41}, Code.VACUOUS),
        ({"limit": 0.9}, Code.VACUOUS),
        ({"limit": 60.0}, Code.VACUOUS),
        ({"limit": 3.0}, Code.UNIT_SLIP),
        ({"limit": 3.0, "unit": "%"}, None),
        ({"limit": 50.0, "unit": "%"}, Code.VACUOUS),
        ({"source": "experience"}, Code.UNSOURCED),
        ({"source": ""}, Code.UNSOURCED),
    ],
)
def test_each_defect_has_its_code(changed, code):
    """Whatever else is right with it."""
    assert codes(**changed) == ([code] if code else [])


def test_a_share_needs_no_data_of_its_sku():
    """Siblings are of the same SKU, whichever it is."""
    assert codes(sku="Somebody's", limit=0.5) == [Code.VACUOUS]


def test_what_would_be_right_is_said_with_the_numbers():
    """The readings it would take, and how many there are."""
    (finding,) = lint([replace(SANE, limit=0.02)], SKUS).findings
    assert "44 of them or more" in finding.why
    assert "24 at most" in finding.why
    assert "0.016" in finding.formula


@pytest.mark.parametrize("name", ["dgx-h100", "dgx-h200", "dgx-b200", "gb200-nvl72", "gb300-nvl72"])
def test_every_metal_profile_has_sound_gates_relative_to_peers(name):
    """Memory, products and collectives at least, each with a source, none by the host's speed on a virtual rack."""
    gates = [(g, c) for g, c in profile_claims(name, INVENTORY) if g.operator is Operator.PEERS]
    assert {g.code for g, _ in gates} >= {
        "HBM_BANDWIDTH_BELOW_PEERS",
        "GEMM_RATE_BELOW_PEERS",
        "NCCL_BUSBW_BELOW_PEERS",
    }
    assert lint([c for _, c in gates], SKUS).findings == ()
    assert all(g.required for g, _ in gates)
    assert {g.code for g, _ in profile_claims("virtual-dgx-h100", INVENTORY) if g.operator is Operator.PEERS} == {
        "NCCL_BUSBW_BELOW_PEERS"
    }
