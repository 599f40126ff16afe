"""Kernel arguments come from the site's own variables, ranked as Ansible ranks them; a user's own tests run beside."""

import shutil

import pytest

from tests.infra.sessions import run
from toolkit.errors import UndecidedError, UsageError
from toolkit.infra.role_variables import role_variable

ROLE, NAME = "kernel_settings", "kernel_settings_arguments"
MODULE = ("toolkit.infra.test_kernel_arguments",)


@pytest.fixture
def site(lab, tmp_path):
    """A copy of the inventory, to write variables to."""
    inventory = tmp_path / "inventory"
    shutil.copytree(lab.settings.inventory, inventory)

    def write(group, text):
        (inventory / "group_vars" / f"{group}.yml").write_text(text)
        return inventory

    return write


def told(lab, inventory):
    """The value for node1 and the name of the file it is from."""
    from dataclasses import replace

    value, source = role_variable(replace(lab.settings, inventory=inventory), lab.rack, "node1", ROLE, NAME)
    return value, source.name


def test_the_last_group_by_name_counts_and_the_sites_file_before_all(lab, site):
    """Defaults, all, groups by name, then what bringup gives with -e."""
    site("virtual", "{}\n")
    inventory = site("mode_nvswitch_gen3", "{}\n")
    assert told(lab, inventory) == ([], "main.yml")
    assert told(lab, site("all", f"{NAME}: [a]\n")) == (["a"], "all.yml")
    assert told(lab, site("nodes", f"{NAME}: [b]\n")) == (["b"], "nodes.yml")
    assert told(lab, site("rack_demo_small", f"{NAME}: [c]\n")) == (["c"], "rack_demo_small.yml")
    own = lab.settings.site_variables(lab.rack.site)
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(f"{NAME}: [d]\n")
    try:
        assert told(lab, inventory) == (["d"], own.name)
    finally:
        own.unlink()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (f"{NAME}: ['iommu={{{{ mode }}}}']\n", UndecidedError, "is a template"),
        (f"{NAME}: !vault abc\n", UndecidedError, "is a template"),
        ("a: [1\n", UsageError, r"virtual\.yml cannot be read"),
        ("- a\n", UsageError, r"virtual\.yml is no table of variables"),
    ],
)
def test_what_only_ansible_can_work_out_is_not_guessed(lab, site, text, error, words):
    """Neither is a file that cannot be read taken for an empty one."""
    with pytest.raises(error, match=words):
        told(lab, site("virtual", text))


def test_an_argument_that_is_asked_for_and_not_in_force_fails(lab, site):
    """One question an argument; the words name the file that asks for it and the play that sets it."""
    seen = run(lab, what=MODULE, inventory=site("virtual", f"{NAME}: [iommu=pt, numa_balancing=disable]\n"))
    missing = [f"kernel_arguments::test_argument[node{n}-numa_balancing=disable]" for n in (1, 2)]
    assert seen.red() == dict.fromkeys(missing, "F")
    assert seen.letters["kernel_arguments::test_argument[node1-iommu=pt]"] == "."
    assert "asked: " in seen.words[missing[0]]
    assert "ansible-playbook -i hosts playbooks/base.yml --limit node1" in seen.words[missing[0]]


def test_a_variable_that_cannot_be_told_is_an_error_of_every_node(lab, site):
    """Not a usage error of the whole session: the other checks go on."""
    seen = run(lab, what=MODULE, inventory=site("virtual", f"{NAME}: iommu=pt\n"))
    assert seen.red() == {f"kernel_arguments::test_argument[node{n}]": "E" for n in (1, 2)}


def test_a_users_own_tests_reach_the_same_nodes_the_same_way(lab, tmp_path):
    """testinfra's `host` is each node of the rack, over rackproof's own connection."""
    own = tmp_path / "test_own.py"
    own.write_text("def test_mine(host):\n    assert 'iommu=pt' in host.check_output('cat /proc/cmdline')\n")
    seen = run(lab, str(own), what=MODULE)
    mine = {name.rpartition("::")[2]: letter for name, letter in seen.letters.items() if "mine" in name}
    assert mine == {f"test_mine[rackproof://node{n}]": "." for n in (1, 2)}
