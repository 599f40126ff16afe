"""A certificate that is not good turns its own test red, and says nothing of any node."""

import re
import shutil
from datetime import timedelta

import pytest
from rehearsal import now

from tests.infra.sessions import run
from toolkit.certificate.sign import load_or_create
from toolkit.infra import test_certificate as checks

MODULE = ("toolkit.infra.test_certificate",)
NODES = ("node1", "node2")
IN_FORCE = "certificate::test_in_force[demo-small]"
OF_NODES = {
    f"certificate::{test}[{node}]" for test in ("test_names_the_node", "test_facts", "test_board_firmware")
    for node in NODES
}  # fmt: skip
REFUSED = {IN_FORCE: "F", **dict.fromkeys(OF_NODES, "E")}
UNDECIDED = dict.fromkeys((IN_FORCE, *OF_NODES), "E")


def other_key(folder):
    """A key that is not the installation's."""
    load_or_create(folder / "others", None)
    return folder / "others/certificate.pub"


def trust_file(folder, key, **more):
    """A trust file with this key."""
    shutil.copy(key, folder / "some.pub")
    path = folder / "trust.yml"
    told = "".join(f", {name}: {value!r}" for name, value in more.items())
    path.write_text(f"keys: [{{file: some.pub, name: site{told}}}]\n")
    return path


def test_a_flipped_bit_is_refused(lab, tmp_path):
    """`test_in_force` fails; what is asked of nodes is undecided, not failed."""
    spoilt = bytearray(lab.settings.certificate("demo-small").read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    (tmp_path / "spoilt").write_bytes(spoilt)
    seen = run(lab, f"--certificate={tmp_path / 'spoilt'}", what=MODULE)
    assert seen.red() == REFUSED
    assert re.match(r"CERTIFICATE_(ALTERED|UNTRUSTED|NOT_JSON|MALFORMED): ", seen.words[IN_FORCE])
    assert "so it says nothing of a node" in seen.words["certificate::test_facts[node1]"]


def test_an_expired_one_is_refused(lab, monkeypatch):
    """Forty days later."""
    monkeypatch.setattr(checks, "now", lambda: now() + timedelta(days=40))
    seen = run(lab, what=MODULE)
    assert seen.red() == REFUSED
    assert seen.words[IN_FORCE].startswith("CERTIFICATE_EXPIRED: it expired at ")


def test_a_trust_file_decides_whose_word_counts(lab, tmp_path):
    """The signer's key: good. Another one, or the signer's only until last year: refused."""
    own = lab.settings.keys / "certificate.pub"
    assert run(lab, f"--trust={trust_file(tmp_path, own)}", what=MODULE).red() == {}
    assert run(lab, f"--trust={trust_file(tmp_path, other_key(tmp_path))}", what=MODULE).red() == REFUSED
    ended = trust_file(tmp_path, own, until="2025-01-01T00:00:00Z")
    assert run(lab, f"--trust={ended}", what=MODULE).red() == REFUSED


@pytest.mark.parametrize("option", ["--certificate", "--trust"])
def test_a_file_that_is_not_there_is_undecided(lab, tmp_path, option):
    """No certificate is no pass."""
    seen = run(lab, f"{option}={tmp_path / 'nowhere'}", what=MODULE)
    assert seen.red() == UNDECIDED
    assert "nowhere" in seen.words[IN_FORCE]


def test_a_certificate_of_another_version_of_the_rack_file_says_which_unit_differs(lab, tmp_path):
    """The rack file here has another serial for a leaf than the one that was certified."""
    inventory = tmp_path / "inventory"
    shutil.copytree(lab.settings.inventory, inventory)
    file = inventory / "racks/demo-small.yml"
    file.write_text(file.read_text().replace("VL00000003", "VL99999999"))
    seen = run(lab, what=MODULE, inventory=inventory)
    assert seen.red() == dict.fromkeys((f"certificate::test_names_the_node[{node}]" for node in NODES), "F")
    assert "unit leaf3 VL00000003 is now VL99999999" in seen.words["certificate::test_names_the_node[node1]"]
