"""Every folder of cases/<kind>/<case> is a test: input.txt, parsed as that kind, is expected.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.facts.parse import KINDS

CASES = Path(__file__).parent / "cases"


def _cases() -> list[Path]:
    return sorted(folder for folder in CASES.glob("*/*") if folder.is_dir())


@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"{case.parent.name}/{case.name}")
def test_what_a_tool_printed_is_read_as_the_case_says(case: Path) -> None:
    """The parser's answer on the input is the expected one, key for key."""
    # read as bytes: universal newlines would hide what a parser must cope with
    text = (case / "input.txt").read_bytes().decode("utf-8", "replace")
    found = json.loads(json.dumps(KINDS[case.parent.name](text).as_json(), allow_nan=False))
    assert found == json.loads((case / "expected.json").read_text())


def test_every_kind_has_cases() -> None:
    """A kind that can be asked for and is not tested is a promise nobody keeps."""
    assert {folder.name for folder in CASES.iterdir()} == set(KINDS)
