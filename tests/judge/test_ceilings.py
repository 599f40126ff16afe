"""The closed forms give the published values, cell by cell."""

import pytest

from toolkit.judge import ceilings

NIC_TABLE = [
    # node NIC rate, GPUs a node, {nodes: busbw}
    (400, 8, {2: 750, 4: 517, 8: 450, 16: 423, 64: 406}),
    (50, 8, {2: 94, 4: 65, 8: 56, 16: 53, 64: 51}),
    (200, 4, {2: 350, 4: 250, 8: 221, 16: 210, 64: 202}),
    (400, 4, {2: 700, 4: 500, 8: 443, 16: 420, 64: 405}),
]


@pytest.mark.parametrize(
    ("rate", "gpus", "nodes", "busbw"),
    [(rate, gpus, nodes, busbw) for rate, gpus, row in NIC_TABLE for nodes, busbw in row.items()],
)
def test_nic_bound_busbw_is_the_published_cell(rate, gpus, nodes, busbw):
    """Every cell of the table of NIC-bound ceilings, rounded as it is there."""
    assert round(ceilings.nic_bound(rate, nodes, gpus).gb_per_s) == busbw


@pytest.mark.parametrize(("link", "ranks", "busbw"), [(450, 8, 700), (900, 8, 1400), (900, 4, 1080), (900, 72, 1751)])
def test_nvls_busbw_is_the_published_value(link, ranks, busbw):
    """HGX H100, HGX B200, a GB200 tray, an NVL72."""
    assert round(ceilings.nvls(link, ranks).gb_per_s) == busbw


@pytest.mark.parametrize("link", [300, 450, 900])
def test_a_ring_is_bound_by_one_gpus_links(link):
    """A100, Hopper, Blackwell."""
    assert ceilings.ring(link).gb_per_s == link


def test_nvls_over_several_domains_comes_to_the_same_for_one():
    """The form for a group is the plain one where the group is everybody, and tends to 2B g/(g+1)."""
    assert ceilings.nvls(450, 8, 8) == ceilings.nvls(450, 8)
    assert ceilings.nvls(450, 8000, 8).gb_per_s == pytest.approx(800, rel=1e-3)


def test_a_pairs_busbw_is_its_algbw():
    """2(n-1)/n is 1: a wrong factor would not show."""
    assert ceilings.pair(450).gb_per_s == 450
    assert "2 x 1/2" in ceilings.pair(450).formula


def test_alltoall_over_nics_is_above_what_healthy_nodes_measured():
    """79 GB/s on two H100 nodes, under 93.75."""
    assert ceilings.nic_bound_alltoall(400, 2, 8).gb_per_s == 93.75


def test_in_network_reduction_doubles_what_many_nodes_can_do():
    """With SHARP 2R(n-1)/n, which two nodes reach without."""
    assert ceilings.sharp(400, 512).gb_per_s == pytest.approx(798.4, abs=0.1)
    assert ceilings.sharp(400, 16).gb_per_s == ceilings.nic_bound(400, 2, 8).gb_per_s


@pytest.mark.parametrize(("generation", "gb_per_s"), [(3, 15.8), (4, 31.5), (5, 63.0)])
def test_pcie_is_lanes_times_rate_less_encoding(generation, gb_per_s):
    """x16 of each generation, one way."""
    assert ceilings.pcie(generation, 16).gb_per_s == pytest.approx(gb_per_s, abs=0.05)


def test_hbm_is_the_data_sheets_peak_and_a_share_is_of_it():
    """2,602 GB/s is a third of a GB200's memory."""
    assert ceilings.hbm(8000).share(2602) == pytest.approx(0.325, abs=1e-3)


def test_a_formula_has_its_numbers_in_it():
    """An operator can check it on paper."""
    assert ceilings.nic_bound(400, 2, 8).formula == "R x N/(N-1) x (n-1)/n = 400 x 2/1 x 15/16 = 750 GB/s"
    assert ceilings.nvls(450, 8).formula == "B x 2(n-1)/(n+1) = 450 x 2 x 7/9 = 700 GB/s"
    assert ceilings.rate("one NIC port", 50, 2).formula == "2 x 50 = 100 GB/s"
