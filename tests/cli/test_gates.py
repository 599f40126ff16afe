"""`rackproof gates` as an operator and a pipeline use it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RACKPROOF = Path(sys.executable).parent / "rackproof"
FIELD = ROOT / "benchmarks" / "field_gates"


@pytest.fixture
def rackproof(tmp_path):
    """Runs the command with a home of its own."""

    def run(*arguments):
        return subprocess.run(
            [RACKPROOF, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={"RACKPROOF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )

    return run


def test_the_shipped_profiles_lint_clean(rackproof):
    """Exit 0, and the last line counts what was compared and what only has a source."""
    done = rackproof("gates", "lint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 defects" in done.stdout
    assert "compared with a ceiling or a count" in done.stdout


def test_defects_end_with_status_one_and_say_where(rackproof):
    """File, line, code, formula and what would be right."""
    done = rackproof("gates", "lint", FIELD / "defects.yml")
    assert done.returncode == 1
    assert f"{FIELD}/defects.yml:15:5: GATE_IMPOSSIBLE" in done.stdout
    assert "400 x 2/1 x 15/16 = 750 GB/s" in done.stdout
    assert "right: a floor from" in done.stdout


def test_warnings_do_not_fail(rackproof):
    """An H200 floor under the H100's is shown and the status stays 0."""
    done = rackproof("gates", "lint", "--json", FIELD / "sane.yml")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["defects"] == 0
    assert {f["code"] for f in found["findings"]} == {"GATE_CONTRADICTS_NEIGHBOUR"}
    assert all(f["warning"] for f in found["findings"])


def test_a_profile_is_linted_by_name_and_by_path(rackproof):
    """Both mean the same gates."""
    by_name = json.loads(rackproof("gates", "lint", "--json", "dgx-h100").stdout)
    by_path = json.loads(rackproof("gates", "lint", "--json", ROOT / "inventory/profiles/dgx-h100.yml").stdout)
    assert by_name == by_path
    assert by_name["claims"] > 0


def test_a_file_that_is_not_there_is_a_usage_error(rackproof):
    """Status 2, and no stack trace."""
    done = rackproof("gates", "lint", "nowhere.yml")
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_show_puts_every_gate_under_its_ceiling(rackproof):
    """440 of 700 by NVLS."""
    table = rackproof("gates", "show", "dgx-h100").stdout
    assert "450 x 2 x 7/9 = 700 GB/s" in table
    shown = json.loads(rackproof("gates", "show", "dgx-h100", "--json").stdout)
    (busbw,) = [row for row in shown["gates"] if row["gate"]["code"] == "NCCL_BUSBW_LOW"]
    assert busbw["ceiling"]["gb_per_s"] == 700
    assert busbw["share"] == pytest.approx(440 / 700)


def test_a_gate_without_a_limit_is_shown_as_such(rackproof):
    """INCONCLUSIVE, with its ceiling and no share."""
    shown = json.loads(rackproof("gates", "show", "gb200-nvl72", "--json").stdout)
    (busbw,) = [row for row in shown["gates"] if row["gate"]["code"] == "NCCL_BUSBW_LOW"]
    assert busbw["share"] is None or busbw["gate"]["limit"] is not None
    assert busbw["ceiling"]["gb_per_s"] == 1080


def test_a_gate_relative_to_peers_is_shown_in_words_and_explained_with_its_numbers(rackproof):
    """No ceiling stands over a share; `explain` has the rule, the test and what few peers come to."""
    shown = json.loads(rackproof("gates", "show", "dgx-h100", "--json").stdout)
    (row,) = [r for r in shown["gates"] if r["gate"]["code"] == "HBM_BANDWIDTH_BELOW_PEERS"]
    assert (row["ceiling"], row["share"]) == (None, None)
    assert (row["gate"]["limit"], row["gate"]["without_peers"]) == (0.04, "not_asked")
    table = " ".join(rackproof("gates", "show", "dgx-h100").stdout.split())
    assert "at most 4 % below its" in table
    words = " ".join(rackproof("explain", "HBM_BANDWIDTH_BELOW_PEERS").stdout.split())
    assert "dgx-h100: hbm_sweep_gb_per_s_median must be at most 4 % below its siblings' median" in words
    assert "FAIL from a sum of 9.20 on, PASS from -4.61 down, INCONCLUSIVE after 24 readings" in words
    assert "fewer than 5 siblings: not asked" in words


def test_the_benchmark_meets_its_goals():
    """Every defect flagged, no sane gate."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gates.py", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["defects"]["flagged"] == figures["defects"]["rows"] > 20
    assert figures["sane"]["flagged"] == 0
    assert figures["sane"]["rows"] > 50
