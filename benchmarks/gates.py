"""What `rackproof gates lint` makes of gates in the field: flagged of the wrong ones, flagged of the sane ones.

    .venv/bin/python benchmarks/gates.py [--json]

Goals: every wrong one flagged, no sane one. A warning is not a flag. Rows and their sources: field_gates/*.yml.
Exit 0 when both goals are met.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from toolkit import settings as installed
from toolkit.judge.lint import lint
from toolkit.rack.claims import load_claims, load_skus

FIELD_GATES = Path(__file__).with_name("field_gates")


@dataclass(frozen=True, slots=True)
class Score:
    """One list: its rows, which were flagged with which codes, how many only warned, how many had no closed form."""

    rows: int
    flagged: dict[str, list[str]]
    silent: list[str]
    warnings: int
    unchecked: int


def score(name: str) -> Score:
    """Lints one list."""
    claims = load_claims(FIELD_GATES / name)
    found = lint(claims, load_skus(installed.load().inventory))
    flagged: dict[str, list[str]] = {}
    for finding in found.defects:
        flagged.setdefault(finding.claim.code, []).append(finding.code)
    silent = [claim.code for claim in claims if claim.code not in flagged]
    return Score(len(claims), flagged, silent, len(found.findings) - len(found.defects), len(found.unchecked))


def main() -> int:
    """Prints both lists and says by the exit status whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    as_json = parser.parse_args().json
    defects, sane = score("defects.yml"), score("sane.yml")
    if as_json:
        figures = {
            name: {"rows": s.rows, "flagged": len(s.flagged), "warnings": s.warnings, "unchecked": s.unchecked}
            for name, s in (("defects", defects), ("sane", sane))
        }
        print(json.dumps(figures, indent=2, sort_keys=True))
    else:
        for code, found in defects.flagged.items():
            print(f"  {code:28} {', '.join(found)}")
        print(f"defects flagged: {len(defects.flagged)}/{defects.rows} ({len(defects.flagged) / defects.rows:.0%})")
        print(f"sane flagged:    {len(sane.flagged)}/{sane.rows}; warnings {sane.warnings}; unchecked {sane.unchecked}")
        for code in defects.silent:
            print(f"  missed: {code}")
        for code, found in sane.flagged.items():
            print(f"  false alarm: {code} {', '.join(found)}")
    return 1 if defects.silent or sane.flagged else 0


if __name__ == "__main__":
    sys.exit(main())
