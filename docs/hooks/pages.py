"""What mkdocs calls: adds the generated pages, and fills in what a page says is generated.

`<!-- generated: NAME -->` in a page stands for what the function of that name in `reference` answers.
"""

from __future__ import annotations

import re

import reference
import runbook_pages
from json_pages import json_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_MARK = re.compile(r"<!-- generated: (\w+) -->")
_GENERATED = {"lifecycle_svg": reference.lifecycle_svg, "moves": reference.moves, "figures": reference.figures}


def generated() -> dict[str, str]:
    """Path in the site's sources and text of every page that is made from code."""
    found = runbook_pages.catalogue()
    return {
        "reference/verbs.md": reference.verbs(),
        "reference/files.md": reference.files(),
        "reference/exit-codes.md": reference.exit_codes(),
        "reference/metrics.md": reference.metrics(),
        "reference/json.md": json_page(),
        "runbooks/index.md": runbook_pages.index_of(found),
        **{f"runbooks/{code}.md": runbook_pages.page_of(found, code) for code in found.codes},
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them beside the pages that are written by hand."""
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in; KeyError for a name that nothing makes, which ends the build."""
    return _MARK.sub(lambda match: _GENERATED[match[1]](), markdown)
