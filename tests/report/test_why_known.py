"""`why` and `explain` know what stands behind the words of a tool."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.report.standing import Standing
from toolkit.report.terminal import why_view
from toolkit.report.why import why

RACKPROOF = Path(sys.executable).parent / "rackproof"


def standing(message: str) -> Standing:
    return Standing("node1", NodeState.CONFIGURED, Outcome.ERROR, Stage.NVLINK, code="PLAYBOOK_FAILED", message=message)


def test_why_shows_the_cause_behind_a_playbooks_message():
    """The message stays as it is; the cause and the next act stand below it."""
    answer = why("pair", standing("TASK [fabric_manager : start] rc 1: Detected Pre-NVL5 system"), ())
    assert len(answer.known) == 1
    out = io.StringIO()
    Console(file=out, width=80).print(why_view(answer))
    assert "known cause" in out.getvalue()
    assert "load ib_umad and mlx5_ib" in " ".join(out.getvalue().split())


def test_why_claims_nothing_of_words_it_does_not_know():
    """No cause is better than a wrong one."""
    assert why("pair", standing("TASK [base : sysctl] rc 1: permission denied"), ()).known == ()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("error 802", "CUDA_SYSTEM_NOT_READY"),
        ("ib_polling", "IB_POLLING"),
        ("FABRIC_CABLES_SWAPPED", "each other's port"),
    ],
)
def test_explain_takes_a_code_or_a_tools_words(tmp_path, words, found):
    """Exit 0, on the terminal and as JSON."""
    env = {"RACKPROOF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    shown = subprocess.run([RACKPROOF, "explain", words], capture_output=True, text=True, check=False, env=env)
    assert shown.returncode == 0, shown.stderr
    assert found in shown.stdout
    told = subprocess.run([RACKPROOF, "explain", words, "--json"], capture_output=True, text=True, check=False, env=env)
    assert found in json.dumps(json.loads(told.stdout))


def test_explain_refuses_words_that_mean_nothing_to_it(tmp_path):
    """Exit 2, and says where codes come from."""
    env = {"RACKPROOF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([RACKPROOF, "explain", "abracadabra"], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert "nothing is known of such words" in done.stderr
