"""What a script sees: exit codes, JSON on stdout, words on stderr; nothing half-done after bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rehearsal import context_over, in_process, open_ledger

from toolkit.bringup import bringup
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.plan import make_plan

PROGRAM = Path(sys.executable).parent / "rackproof"


@pytest.fixture
def run(tmp_path):
    """Runs the command in an installation of its own."""

    def start(*words, home=tmp_path / "home", **environment):
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RACKPROOF_HOME": str(home), **environment}
        return subprocess.run([PROGRAM, *map(str, words)], env=env, capture_output=True, text=True, check=False)

    return start


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command"),
        (["plan"], "Missing argument"),
        (["plan", "nowhere"], "nowhere"),
        (["why", "node99"], "no rack on record has a node node99"),
        (["explain", "NO_SUCH_CODE"], "no profile and no stage has a code NO_SUCH_CODE"),
        (["parse", "no-such-kind", "/dev/null"], "no-such-kind"),
        (["parse", "kernel-log", "/no/such/file"], "/no/such/file"),
        (["verify", "/no/such/certificate"], "/no/such/certificate"),
        (["bringup", "dgx-h100-su"], "this erases the disks of"),
        (["bringup", "dgx-h100-su", "--confirm", "dgx"], "--confirm dgx-h100-su"),
        (["inventory", "demo", "--host", "node99"], "has no node node99"),
        (["virtual", "up", "dgx-h100-su"], "is a rack of real machines"),
        (["virtual", "fault", "demo", "ecc_drip", "node99"], "has no node node99"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_cannot_be_carried_out_exits_2_and_says_why(run, words, said):
    """Usage and input: exit 2, nothing on stdout, no traceback."""
    done = run(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rack_file_with_faults_exits_2_and_names_every_line(run, tmp_path):
    """All problems at once, each with file, line and field."""
    rack = (Path(__file__).parents[2] / "inventory/racks/demo.yml").read_text()
    broken = tmp_path / "demo.yml"
    broken.write_text(
        rack.replace("serial: VR00000002", "serial: VR00000001").replace("site: virtual", "sight: virtual")
    )
    done = run("inventory", broken)
    assert done.returncode == 2
    assert f"{broken}:" in done.stderr
    assert "sight" in done.stderr
    assert "VR00000001" in done.stderr


def test_a_certificate_that_does_not_verify_exits_1(run, tmp_path):
    """Evidence that says no is exit 1; the reason has a stable name."""
    lab = in_process(tmp_path, "demo-small")
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}))
    certificate = lab.settings.certificate("demo-small")
    assert run("verify", certificate).returncode == 0
    spoilt = bytearray(certificate.read_bytes())
    spoilt[200] ^= 1
    (tmp_path / "spoilt").write_bytes(spoilt)
    done = run("verify", tmp_path / "spoilt")
    assert done.returncode == 1
    assert "CERTIFICATE_" in done.stderr
    stranger = in_process(tmp_path / "other", "demo-small")
    with open_ledger(stranger.settings) as ledger:
        bringup(context_over(stranger, ledger), make_plan(stranger.rack, {}))
    other = run("verify", certificate, "--key", stranger.settings.keys / "certificate.pub")
    assert (other.returncode, "CERTIFICATE_UNTRUSTED" in other.stderr) == (1, True)


def test_status_and_why_read_what_a_bringup_left(run, tmp_path):
    """JSON on stdout for a script; the same facts for a person."""
    lab = in_process(tmp_path, "demo-small")
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}))
    status = run("status", "demo-small", "--json")
    assert status.returncode == 0
    assert {n["node"]: n["state"] for n in json.loads(status.stdout)["racks"]["demo-small"]["nodes"]} == {
        "node1": "ADMITTED",
        "node2": "ADMITTED",
    }
    assert "nothing: it is admitted" in run("why", "node1").stdout
    assert json.loads(run("plan", "demo-small", "--json").stdout)["steps"] == []


def test_a_node_whose_very_first_stage_ended_in_an_error_is_explained(run, tmp_path):
    """It is still PLANNED: nothing but its run is on record."""
    lab = in_process(tmp_path, "demo-small")
    with open_ledger(lab.settings) as ledger:
        image = ledger.start_run("demo-small", "node1", Stage.IMAGE)
        ledger.finish_run(image, Outcome.ERROR, code="DEPLOY_SILENT")
    assert "DEPLOY_SILENT" in run("why", "node1").stdout


def test_a_ledger_that_is_none_exits_3_and_is_left_alone(run, tmp_path):
    """A file that is not a database is refused and not overwritten."""
    file = tmp_path / "ledger.db"
    file.write_text("these are my notes, not a database\n" * 100)
    done = run("status", "demo", RACKPROOF_LEDGER=f"sqlite:///{file}")
    assert done.returncode in (2, 3)
    assert str(file) in done.stderr
    assert file.read_text().startswith("these are my notes")


def test_a_defect_of_ours_exits_4_and_never_1(run, tmp_path):
    """Python's own status for an uncaught exception is 1, which means "failed on evidence" here."""
    (tmp_path / "sitecustomize.py").write_text("import toolkit.cli.output as o\ndel o.emit\n")
    done = run("status", "demo", PYTHONPATH=str(tmp_path))
    assert done.returncode == 4
    assert "defect of rackproof" in done.stderr


def test_the_explanation_of_a_code_names_limit_and_source(run):
    """Every number has a source."""
    done = run("explain", "NCCL_BUSBW_LOW")
    assert done.returncode == 0
    assert "at least 440" in done.stdout
    assert "source:" in done.stdout
