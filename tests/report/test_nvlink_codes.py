"""Every code of the NVLink verdict can be explained."""

import re
from pathlib import Path

from toolkit.rack.loading import list_profiles, load_profile
from toolkit.report.codes import ERROR_CODES
from toolkit.report.nvlink_codes import NVLINK_CODES

ROOT = Path(__file__).parents[2]
# Read from a log, and no error: the parser names them, the verdict does not.
SILENT = {"FM_NOTHING_TO_DO", "FM_NVSWITCH_NON_FATAL"}
CODE = re.compile(r'"([A-Z]{2,}_[A-Z0-9_]*[A-Z0-9])"')


def test_every_code_of_the_verdict_is_explained_or_is_a_gates() -> None:
    """`rackproof explain CODE` never answers that there is no such code."""
    files = ROOT.glob("toolkit/judge/nvlink/*.py")
    used = {code for file in files for code in CODE.findall(file.read_text())}
    states = {"STARTING_AUTH_SERVER", "WAITING_FOR_PEERS", "WAITING_FOR_RECOVERY", "INIT_GPU"}  # of IMEX daemons
    inventory = ROOT / "inventory"
    gates = {gate.code for name in list_profiles(inventory) for gate in load_profile(name, inventory).gates}
    assert used - states - gates - ERROR_CODES.keys() == set()
    assert len(used) > 50


def test_no_explanation_is_of_a_code_that_nobody_gives() -> None:
    """A code that was renamed leaves no text behind."""
    files = ROOT.glob("toolkit/judge/nvlink/*.py")
    used = {code for file in files for code in CODE.findall(file.read_text())}
    assert NVLINK_CODES.keys() - used == set()
    assert not NVLINK_CODES.keys() & SILENT
