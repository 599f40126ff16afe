"""`recover`, `release`, `lemons`, `rma` and `why` as an operator types them."""

import json
import subprocess
import tarfile

import pytest
from click.testing import CliRunner
from rehearsal import context_over, folder, in_process, open_ledger, without_rails

from tests.bringup.test_kill import small
from toolkit.bringup import bringup
from toolkit.cli import rackproof
from toolkit.errors import RackproofError
from toolkit.rack.plan import make_plan
from toolkit.repair import Order, recover, release
from toolkit.report.standing import status_of
from toolkit.virtual.faults import Fault, FaultKind


@pytest.fixture(scope="module")
def lemon(tmp_path_factory):
    """An installation in which GPU 0 of node2 was lost, brought back by a reboot, and lost again."""
    with folder(tmp_path_factory.mktemp("cli") / "rack") as place:
        lab = small(without_rails(in_process(place, "demo-small", Fault(FaultKind.XID_79, "node2", gpu=0, times=2))))
        with open_ledger(lab.settings) as ledger:
            context = context_over(lab, ledger)
            bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
            recover(context, "node2", Order(confirmed=True))
            release(ledger, lab.rack, lab.rack.unit("node2"), "recovered")
            bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
        yield lab


@pytest.fixture
def run(lemon, tmp_path, monkeypatch):
    """Gives the command in it: exit code, stdout, and the words of what was refused."""
    monkeypatch.chdir(tmp_path)

    def start(*words):
        done = CliRunner().invoke(rackproof, words, env={"RACKPROOF_HOME": str(lemon.settings.home)})
        if isinstance(done.exception, RackproofError):
            return done.exception.exit_code, done.stdout, str(done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, ""

    return start


def test_a_lemon_is_listed_with_its_removals_and_told_by_why(run):
    """Twice the same GPU: by serial, as a table and as JSON, for its rack and not for another."""
    found = json.loads(run("lemons", "demo-small", "--json")[1])
    (one,) = found["lemons"]
    assert (one["kind"], one["serial"], len(one["removals"])) == ("gpu", "16500000200", 2)
    assert {r["code"] for r in one["removals"]} == {"GPU_LOST"}
    assert found["thresholds"]["gpu"]["source"]
    assert run("lemons", "demo") == (0, "no lemons in demo: 2 removals of nodes on record\n", "")
    assert "16500000200" in run("lemons")[1]
    (answer,) = json.loads(run("why", "node2", "--json")[1])["nodes"]
    assert answer["warnings"][0].startswith(
        "lemon: gpu 16500000200 was taken out 2 times (GPU_LOST; in demo-small/node2)"
    )


def test_the_ladder_is_shown_without_a_hand_on_the_node(run):
    """The same board a second time: no rung, why, and the way to its maker."""
    code, shown, _ = run("recover", "node2", "--plan", "--json")
    told = json.loads(shown)
    assert code == 1
    assert told["recovered"]["left"]["rungs"] == []
    assert "it is back: a matter for its maker" in told["recovered"]["left"]["why"]
    assert told["next"].startswith("rackproof rma node2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recover", "node2", "--confirm", "node1"), "--confirm 'node1' does not repeat the node's name"),
        (("recover", "node1", "--plan"), "no failure is on record"),
        (("rma", "node1"), "never failed on evidence"),
        (("rma", "node2", "-o", "out.rar"), "neither a tar.gz nor a zip"),
        (("rma", "node2", "-o", "/proc/none/out.zip"), "could not be written"),
        (("release", "node1"), "there is nothing to repair"),
    ],
)
def test_a_request_that_cannot_be_carried_out_exits_2(run, words, said):
    """Usage: nothing on stdout."""
    code, shown, refused = run(*words)
    assert (code, shown) == (2, "")
    assert said in refused


def test_the_archive_is_written_whole_and_named_by_the_serial(run, tmp_path):
    """By default in the folder one is in; its mode keeps others out; sha256sum agrees."""
    assert run("rma", "node2")[0] == 0
    path = tmp_path / "rma-16500000200.tar.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as packed:
        packed.extractall(tmp_path, filter="data")
    summed = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "rma-16500000200", check=False)
    assert summed.returncode == 0
    told = json.loads(run("rma", "node2", "-o", "again.zip", "--json")[1])
    assert told["unknown"]
    assert set(told["files"]) >= {"README.txt", "SHA256SUMS", "manifest.json", "questions.json"}


def test_a_threshold_file_with_a_typo_is_told_by_its_line(run, lemon):
    """One removal is no repetition."""
    own = lemon.settings.home / "lemons.yml"
    own.write_text((lemon.settings.inventory / "lemons.yml").read_text().replace("removals: 2", "removals: 1", 1))
    try:
        code, _, refused = run("lemons")
    finally:
        own.unlink()
    assert code == 2
    assert f"{own}:5:" in refused
