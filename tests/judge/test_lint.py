"""Gates of the field: the wrong ones are flagged for their reason, the sane ones are not, and ours are clean."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InputError
from toolkit.judge.ceilings import pcie
from toolkit.judge.lint import TO_GB_PER_S, Code, ceiling_of, lint
from toolkit.judge.route import COLLECTIVES
from toolkit.rack.claim import Claim, Span
from toolkit.rack.claims import load_claims, load_skus, profile_claims
from toolkit.rack.gate import Operator
from toolkit.rack.loading import list_profiles

ROOT = Path(__file__).parents[2]
INVENTORY = ROOT / "inventory"
FIELD = ROOT / "benchmarks" / "field_gates"
SKUS = load_skus(INVENTORY)

SMALL_AND_IMPOSSIBLE = {Code.UNDERSIZED, Code.IMPOSSIBLE}
SMALL_AND_VACUOUS = {Code.UNDERSIZED, Code.VACUOUS}
REASONS = {
    "dcgm-h200-2335": {Code.UNIT_SLIP},
    "dcgm-ga100-20b0": {Code.UNIT_SLIP},
    "dcgm-gb200": {Code.VACUOUS},
    "aws-p4d": SMALL_AND_IMPOSSIBLE,
    "aws-p5": SMALL_AND_IMPOSSIBLE,
    "aws-p6-b200": SMALL_AND_IMPOSSIBLE,
    "oci-gb200-v3-local": {Code.VACUOUS},
    "oci-gb300-local": {Code.VACUOUS},
    "oci-b200-local": {Code.VACUOUS},
    "chs-a4x": {Code.OFF_PATH},
    "chs-gpu-count": {Code.IMPOSSIBLE},
    "gpud-gb200-ports": {Code.IMPOSSIBLE},
    "aicr-gb200-nvls": {Code.VACUOUS},
    "aicr-eks": {Code.VACUOUS},
    "aicr-aks": {Code.VACUOUS},
    "aicr-gb200-net": {Code.VACUOUS},
    "nvsentinel-loopback-h100": SMALL_AND_VACUOUS,
    "nvsentinel-loopback-b200": SMALL_AND_VACUOUS,
    "nvsentinel-loopback-l40s": SMALL_AND_IMPOSSIBLE,
    "nvsentinel-all-reduce-h100": {Code.VACUOUS},
    "azn-h100-nvl-p2p": {Code.IMPOSSIBLE},
}

SOUND = Claim(
    sku="h100",
    test="all_reduce",
    scope=Span.NODE,
    operator=Operator.AT_LEAST,
    limit=440,
    unit="GB/s",
    source="measured here on 2026-11-01",
    place="gates.yml:2:5",
    message_bytes=8 << 30,
)


def codes(*claims):
    """What the linter says of these claims together, warnings included."""
    return {finding.code for finding in lint(claims, SKUS).findings}


def ours(name):
    """The claims of a profile of ours."""
    return tuple(claim for _, claim in profile_claims(name, INVENTORY))


@pytest.mark.parametrize("claim", load_claims(FIELD / "defects.yml"), ids=lambda c: c.code)
def test_a_defect_of_the_field_is_flagged_for_its_reason(claim):
    """Each by itself, with exactly the codes it deserves."""
    assert codes(claim) == REASONS[claim.code]


@pytest.mark.parametrize("claim", load_claims(FIELD / "sane.yml"), ids=lambda c: c.code)
def test_a_sane_gate_of_the_field_is_silent_and_was_looked_at(claim):
    """No finding, and not because there was nothing to compare it with."""
    found = lint([claim], SKUS)
    assert not found.findings
    assert not found.unchecked


def test_a_newer_skus_lower_floor_is_a_warning_and_no_defect():
    """431 on the H200 beside 460 on the H100, of one publisher."""
    found = lint(load_claims(FIELD / "sane.yml"), SKUS)
    assert not found.defects
    assert {f.claim.code for f in found.findings} == {"azn-h200", "azn-h200-ib", "oci-b300-ib"}
    older, newer = replace(SOUND, limit=431), replace(SOUND, sku="h200", limit=431)
    assert codes(older, newer) == set()
    assert codes(replace(older, limit=460), newer) == {Code.CONTRADICTS_NEIGHBOUR}
    assert codes(replace(older, limit=460), replace(newer, publisher="another")) == set()


@pytest.mark.parametrize("name", list_profiles(INVENTORY))
def test_a_profile_of_ours_is_clean(name):
    """What ships passes its own linter."""
    assert not lint(ours(name), SKUS).findings


@pytest.mark.parametrize("name", list_profiles(INVENTORY))
def test_a_profiles_sku_is_known(name):
    """A profile without data of its SKU would be clean because nothing was compared."""
    assert not [u for u in lint(ours(name), SKUS).unchecked if "no data" in u.why]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"limit": 701}, set()),  # within rounding of 700
        ({"limit": 710}, {Code.IMPOSSIBLE}),
        ({"limit": 470, "environment": (("NCCL_NVLS_ENABLE", "0"),)}, {Code.IMPOSSIBLE}),  # by ring 450
        ({"limit": 440, "environment": (("NCCL_ALGO", "Ring"),)}, set()),
        ({"limit": 0}, {Code.VACUOUS}),
        ({"limit": -1}, {Code.VACUOUS}),
        ({"limit": None}, {Code.VACUOUS}),
        ({"limit": 286}, {Code.VACUOUS}),
        ({"limit": 288}, set()),
        ({"limit": 440_000}, {Code.UNIT_SLIP}),
        ({"limit": 440, "unit": "MB/s"}, {Code.UNIT_SLIP}),
        ({"limit": 0.44}, {Code.UNIT_SLIP}),
        ({"limit": 440_000, "unit": "MB/s"}, set()),
        ({"message_bytes": 1 << 30}, set()),
        ({"message_bytes": (1 << 30) - 1}, {Code.UNDERSIZED}),
        ({"source": ""}, {Code.UNSOURCED}),
        ({"source": " TBD "}, {Code.UNSOURCED}),
        ({"environment": (("NCCL_P2P_DISABLE", "1"),), "limit": 300}, {Code.OFF_PATH}),
        ({"scope": Span.FABRIC, "nodes": 1}, {Code.OFF_PATH}),
        ({"scope": Span.FABRIC, "nodes": 2}, set()),
        ({"scope": Span.FABRIC, "nodes": 2, "environment": (("NCCL_NET", "Socket"),)}, {Code.OFF_PATH}),
        ({"scope": Span.DOMAIN, "nodes": 2}, {Code.OFF_PATH}),  # an H100's domain is its node
        ({"test": "nic", "scope": Span.HCA, "limit": 400}, {Code.UNIT_SLIP}),  # Gb/s written as GB/s
        ({"test": "nic", "scope": Span.HCA, "limit": 51}, {Code.IMPOSSIBLE}),
    ],
)
def test_one_change_to_a_sound_gate_gives_one_finding(change, expected):
    """The line between sound and wrong, from both sides."""
    assert codes(replace(SOUND, **change)) == expected


def test_mnnvl_on_keeps_a_network_test_off_the_network():
    """Two trays of one NVL72 talk over NVLink: a NIC floor would measure nothing of the NICs."""
    two_trays = replace(SOUND, sku="gb200", scope=Span.FABRIC, nodes=2, limit=150)
    assert Code.OFF_PATH in codes(two_trays)
    assert codes(replace(two_trays, environment=(("NCCL_MNNVL_ENABLE", "0"),))) == set()


@pytest.mark.parametrize(
    ("change", "busbw"),
    [
        ({}, 700),
        ({"test": "all_gather"}, 450),
        ({"ranks": 2}, 450),
        ({"scope": Span.FABRIC, "nodes": 2}, 750),
        ({"scope": Span.FABRIC, "nodes": 64}, 406),
        ({"sku": "a100-80gb"}, 300),
        ({"sku": "gb200"}, 1080),
        ({"sku": "gb200", "scope": Span.DOMAIN}, 1751),
        ({"sku": "gb200", "scope": Span.FABRIC, "nodes": 2, "environment": (("NCCL_MNNVL_ENABLE", "0"),)}, 350),
        ({"sku": "gb300", "scope": Span.FABRIC, "nodes": 2, "environment": (("NCCL_MNNVL_ENABLE", "0"),)}, 700),
        # Two whole racks: 72 x 50 GB/s of NICs are more than a GPU's NVLink can feed.
        ({"sku": "gb200", "scope": Span.FABRIC, "nodes": 36}, 1763),
        ({"sku": "p4d", "scope": Span.FABRIC, "nodes": 2, "nics": 4, "nic_gb_per_s": 12.5}, 94),
        ({"scope": Span.FABRIC, "nodes": 64, "environment": (("NCCL_COLLNET_ENABLE", "1"),)}, 798),
    ],
)
def test_a_claims_ceiling_is_that_of_the_way_it_takes(change, busbw):
    """Shape and environment choose the form."""
    ceiling = ceiling_of(replace(SOUND, **change), SKUS)
    assert ceiling is not None
    assert round(ceiling.gb_per_s) == busbw


def test_every_finding_says_what_would_be_right():
    """And where a number is compared, the formula has it."""
    for finding in lint(load_claims(FIELD / "defects.yml"), SKUS).findings:
        assert finding.why
        assert finding.right
        assert finding.formula or finding.code in (Code.OFF_PATH, Code.VACUOUS)


def test_what_has_no_closed_form_is_named_and_never_called_clean():
    """Unknown SKU, unknown test, unit that is no rate: each is listed as unchecked."""
    claims = [
        replace(SOUND, sku="mi300x"),
        replace(SOUND, test="power", unit="W"),
        replace(SOUND, limit=None, guarded=True),
    ]
    found = lint(claims, SKUS)
    assert not found.findings
    assert [u.claim for u in found.unchecked] == claims


def test_a_share_above_one_and_a_share_of_nothing_are_flagged():
    """A coverage is a fraction, not a percentage."""
    share = replace(SOUND, test="hbm_coverage", unit="fraction", scope=Span.GPU)
    assert codes(replace(share, limit=95)) == {Code.IMPOSSIBLE}
    assert codes(replace(share, limit=0)) == {Code.VACUOUS}
    assert codes(replace(share, limit=0.95)) == set()


def test_a_count_with_slack_lets_a_part_be_missing():
    """Seven of eight GPUs pass a floor of seven."""
    count = replace(SOUND, test="gpu_count", unit="count", limit=7)
    assert codes(count) == {Code.VACUOUS}
    assert codes(replace(count, operator=Operator.EQUALS, limit=8)) == set()


BAD_FILES = [
    ("gates:\n  - {sku: h100}\n", 2, "is missing"),
    ("gates:\n  - {sku: h100, test: hbm, scope: rail, limit: 1, unit: GB/s}\n", 2, "not a known scope"),
    ("gates:\n  - {sku: h100, test: hbm, scope: gpu, limit: fast, unit: GB/s}\n", 2, "not a number"),
    ("gates:\n  - {sku: h100, test: hbm, scope: gpu, limit: 1, unit: GB/s, tolerance: 0}\n", 2, "out of range"),
    ("gates:\n  - {sku: h100, test: hbm, scope: gpu, limit: 1, unit: GB/s, message_bytes: big}\n", 2, "not a size"),
    ("gates:\n  - {sku: h100, tset: hbm, scope: gpu, limit: 1, unit: GB/s}\n", 2, "did you mean test?"),
    ("gates: []\n", 1, "is empty"),
    ("gates:\n  - *default_timeout\n", 2, "refers to no anchor"),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD_FILES)
def test_a_file_that_is_wrong_is_told_with_its_line(tmp_path, text, line, words):
    """An undefined alias too, which a peer ships in its only H100 configuration."""
    file = tmp_path / "gates.yml"
    file.write_text(text)
    with pytest.raises(InputError) as wrong:
        load_claims(file)
    assert any(p.line == line and words in f"{p.wrong} {p.right}" for p in wrong.value.problems), str(wrong.value)


def test_a_claim_knows_its_place_and_its_sizes(tmp_path):
    """File, line and column; sizes as nccl-tests takes them."""
    file = tmp_path / "gates.yml"
    file.write_text(
        "gates:\n  - {sku: h100, test: all_reduce, scope: node, limit: 440, unit: GB/s, message_bytes: 16G,\n"
        "     environment: {NCCL_NVLS_ENABLE: 0}}\n"
    )
    (claim,) = load_claims(file)
    assert claim.place == f"{file}:2:5"
    assert claim.message_bytes == 16 << 30
    assert claim.environment == (("NCCL_NVLS_ENABLE", "0"),)
    assert claim.source == ""


def test_an_inherited_gate_is_placed_in_the_file_that_has_it():
    """The virtual rack's gates are those of the DGX H100."""
    assert all("dgx-h100.yml" in claim.place for claim in ours("virtual-dgx-h100"))


@pytest.mark.parametrize("sku", [s for s in SKUS if s.host in ("PCIe Gen4 x16", "PCIe Gen5 x16")], ids=lambda s: s.name)
def test_a_slots_rate_is_that_of_the_closed_form(sku):
    """What stands in skus.yml is what lanes and encoding give."""
    assert sku.host_gb_per_s == pytest.approx(pcie(int(sku.host[8]), 16).gb_per_s, rel=1e-3)


@pytest.mark.parametrize("sku", [s for s in SKUS if s.nvlink_trained_gb_per_s > 0], ids=lambda s: s.name)
def test_a_gpus_payload_is_under_what_its_links_train_to(sku):
    """25 of 26.562 GB/s a link, 50 of 53.125."""
    assert sku.nvlink_gb_per_s <= sku.nvlinks * sku.nvlink_trained_gb_per_s


@pytest.mark.parametrize("sku", SKUS, ids=lambda s: s.name)
def test_no_reference_is_above_its_own_ceiling(sku):
    """A measurement that physics forbids would be a mistake of ours in the form or in the data."""
    for reference in sku.references:
        scope = {"nic": Span.FABRIC, "nvlink": Span.NODE if reference.nodes == 1 else Span.DOMAIN}
        environment = (("NCCL_MNNVL_ENABLE", "0"),) if reference.route == "nic" else ()
        claim = replace(
            SOUND,
            sku=sku.name,
            test=reference.test,
            nodes=reference.nodes,
            scope=scope.get(reference.route, Span.GPU),
            environment=environment,
        )
        ceiling = ceiling_of(claim, SKUS)
        assert ceiling is not None
        assert reference.gb_per_s < ceiling.gb_per_s


def test_two_skus_of_one_name_are_refused(tmp_path):
    """An alias would otherwise choose one of them in silence."""
    text = (INVENTORY / "skus.yml").read_text().replace("DGX H200", "DGX H100")
    (tmp_path / "skus.yml").write_text(text)
    with pytest.raises(InputError, match="also names h100"):
        load_skus(tmp_path)


@settings(max_examples=300, deadline=None)
@given(
    sku=st.sampled_from([s.name for s in SKUS] + ["unheard-of"]),
    test=st.sampled_from([*COLLECTIVES, "hbm", "h2d", "p2p", "nic", "gpu_count", "power"]),
    scope=st.sampled_from(Span),
    operator=st.sampled_from(Operator),
    limit=st.none() | st.floats(-1e6, 1e9, allow_nan=False),
    unit=st.sampled_from(["GB/s", "Gb/s", "MB/s", "TB/s", "count", "fraction", "W"]),
    ranks=st.integers(0, 20_000),
    nodes=st.integers(0, 5_000),
    nics=st.integers(0, 64),
    environment=st.sets(
        st.sampled_from(
            [("NCCL_MNNVL_ENABLE", "0"), ("NCCL_P2P_DISABLE", "1"), ("NCCL_ALGO", "Ring"), ("NCCL_COLLNET_ENABLE", "1")]
        )
    ),
)
def test_whatever_is_claimed_the_linter_answers(environment, **fields):
    """Nonsense from outside never ends in a trace, and an impossible floor is never silent."""
    claim = replace(SOUND, environment=tuple(sorted(environment)), **fields)
    found = lint([claim], SKUS)
    ceiling = ceiling_of(claim, SKUS)
    floor = claim.limit is not None and claim.operator is Operator.AT_LEAST
    if ceiling and floor and claim.limit * TO_GB_PER_S[claim.unit] > ceiling.gb_per_s * 1.01:
        assert {f.code for f in found.findings} & {Code.IMPOSSIBLE, Code.UNIT_SLIP}
