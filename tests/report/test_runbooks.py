"""Runbooks: every code has a page, and what a page names is there."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from click.testing import CliRunner
from documented import blocks, parse_line, prose, spans

from toolkit import settings
from toolkit.cli import VERBS, rackproof
from toolkit.errors import RackproofError
from toolkit.judge.ladder import BY_ACTION, BY_EVENTS, HELPS
from toolkit.judge.part import EVIDENCE, SOFTWARE, SYMPTOM
from toolkit.rack.claims import profile_claims
from toolkit.rack.loading import list_profiles
from toolkit.report.codes import ERROR_CODES
from toolkit.report.runbook import SECTIONS, html_of, read_page, runbook, runbook_codes


@pytest.fixture(scope="module")
def gates():
    """Every gate of every profile, by code."""
    inventory = settings.load({}).inventory
    found = {}
    for profile in list_profiles(inventory):
        for gate, _ in profile_claims(profile, inventory):
            found.setdefault(gate.code, []).append(gate)
    return found


def test_every_code_has_a_page(gates):
    """Of every profile's gates and of our own: who is to pull a part or change a setting makes sure first."""
    assert len(gates) > 80
    assert len(ERROR_CODES) > 190
    assert set(gates) | set(ERROR_CODES) <= set(runbook_codes())


def test_a_gate_that_blames_nobody_has_nothing_replaced_at_once(gates):
    """A setting is corrected and what was not measured is measured: only findings about parts may say `Now`."""
    for code, of in gates.items():
        if all(gate.part in (SOFTWARE, SYMPTOM, EVIDENCE) for gate in of):
            assert not dict(runbook(code).sections)["Replace"].startswith("Now"), code


def test_no_page_is_of_no_code(gates):
    """A code that went takes its page with it."""
    assert set(runbook_codes()) <= set(gates) | set(ERROR_CODES)


@pytest.mark.parametrize("code", runbook_codes())
def test_a_page_has_every_section_and_names_only_what_is_there(code, gates):
    """Its commands are verbs of ours, its codes are codes; nothing in it is left to fill in."""
    page = runbook(code)
    text = "\n\n".join(body for _, body in page.sections)
    written = [*spans(text), *(line for block in blocks(code, text) for line in block.text.splitlines())]
    for command in (line for line in written if line.startswith("rackproof ")):
        parse_line(command)
    assert tuple(name for name, _ in page.sections) == SECTIONS
    assert not re.search(rf"\brackproof (?:{'|'.join(VERBS)})\b", prose(text)), "a command outside of code"
    named = set(re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b", text)) - KNOWN_WORDS
    assert named <= set(gates) | set(ERROR_CODES), named - set(gates) - set(ERROR_CODES)
    assert not re.search(r"TODO|TBD|FIXME|\?\?", text)
    assert len(dict(page.sections)["Means"]) > 60


# Words of vendors that look like codes of ours.
KNOWN_WORDS = {
    "CUDA_VISIBLE_DEVICES", "CONTACT_SUPPORT", "NVLINK5_ERR", "NVML_ERROR_CORRUPTED_INFOROM", "RESTART_BM",
    "RUN_FIELDDIAG", "NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW", "NV_ERR_IN_USE", "NV_WARN_NOTHING_TO_DO",
    "NCCL_DEBUG", "NCCL_DEBUG_FILE", "NCCL_IB_DISABLE", "NCCL_IB_HCA", "NCCL_MNNVL_ENABLE", "NCCL_NET",
    "NCCL_P2P_DISABLE", "NCCL_TOPO_FILE", "BMC_ADDRESS", "RACKPROOF_HOME", "SW_MNG", "SMINFO_MASTER", "ROW_REMAPPER",
    "NODE_FAIL", "BOOT_FAIL", "CONDITION_GPU_XID_ERROR", "EVENT_XID", "NVML_GPU_FABRIC_STATE_NOT_STARTED",
    "NVML_GPU_FABRIC_STATE_IN_PROGRESS", "NVML_GPU_FABRIC_HEALTH_MASK_ROUTE_UNHEALTHY",
    "NVML_GPU_FABRIC_HEALTH_MASK_ROUTE_RECOVERY", "NVML_GPU_FABRIC_HEALTH_MASK_ACCESS_TIMEOUT_RECOVERY",
    "NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION",
}  # fmt: skip


def test_pages_and_the_ladder_agree(gates):
    """Where no restart helps, no page says `rackproof recover`; where one does, it is what the page says."""
    for code in runbook_codes():
        fix = dict(runbook(code).sections)["Fix"]
        helps = code in BY_EVENTS | BY_ACTION or bool(HELPS.get(code) and HELPS[code].rungs)
        assert ("rackproof recover" in fix) == helps, code


def test_no_page_says_what_another_says(gates):
    """Each means something of its own, and no two pages are one text: codes that share a cause differ in what to do."""
    means = Counter(dict(runbook(code).sections)["Means"] for code in runbook_codes())
    assert not [text for text, pages in means.items() if pages > 1]
    whole = Counter(tuple(body for name, body in runbook(code).sections if name != "Means") for code in runbook_codes())
    twice = {bodies for bodies, pages in whole.items() if pages > 1}
    alike = [code for code in runbook_codes() if tuple(b for n, b in runbook(code).sections if n != "Means") in twice]
    assert not set(alike) & set(ERROR_CODES), alike


def test_what_a_cluster_names_is_explained_as_its_family():
    """CONDITION_* and EVENT_* are others' words: one page says what to do about any of them."""
    assert runbook("CONDITION_GPU_XID_ERROR") == runbook("CONDITION")
    assert runbook("EVENT_REBOOTED") == runbook("EVENT")
    done = CliRunner().invoke(rackproof, ["explain", "condition_memory_pressure"])
    assert done.exit_code == 0
    assert "takes its word for a reason to wait" in done.output.replace("\n", " ")
    assert CliRunner().invoke(rackproof, ["explain", "NO_SUCH_CODE"]).exception is not None


def test_a_page_as_html_runs_nothing():
    """Its Markdown is HTML where it is shown in a page; HTML in it is text."""
    assert html_of("a `b` <script>c</script>") == "<p>a <code>b</code> &lt;script&gt;c&lt;/script&gt;</p>\n"


def test_explain_shows_gate_restart_and_page():
    """One command has all of it."""
    text = CliRunner().invoke(rackproof, ["explain", "gpu_lost"]).output
    assert "source: NVIDIA Xid catalog" in text.replace("\n", " ")
    assert "after a failure: reboot, power_cycle." in text
    for heading in SECTIONS:
        assert f"\n{heading}\n" in text
    told = json.loads(CliRunner().invoke(rackproof, ["explain", "GPU_LOST", "--json"]).stdout)
    assert list(told["runbook"]) == sorted(SECTIONS)
    ours = CliRunner().invoke(rackproof, ["explain", "BMC_UNREACHABLE"])
    assert ours.exit_code == 0
    assert "\nReplace\n" in ours.output


def test_a_page_that_is_not_whole_is_a_defect():
    """A section that is missing, empty or twice, or the title of another code."""
    good = "# A_B\n\n" + "\n\n".join(f"## {name}\n\nwords" for name in SECTIONS)
    assert read_page("A_B", good).code == "A_B"
    for bad in (good.replace("A_B", "B_A"), good.replace("## Fix\n\nwords", "## Fix\n"), good.replace("Fix", "Means")):
        with pytest.raises(RackproofError):
            read_page("A_B", bad)


def test_a_code_is_never_a_path():
    """Nothing outside of the folder is read."""
    assert runbook("../codes") is None
    assert runbook("") is None
