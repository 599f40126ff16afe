"""The site: it builds without a warning, asks nobody outside for anything, and has a page for every code."""

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from toolkit.cli import VERBS
from toolkit.rack.schema import GateFile, ProfileFile, RackFile, UnitFile
from toolkit.report.runbook import runbook_codes

ROOT = Path(__file__).parents[2]
RULES = ROOT / "toolkit/report/prometheus/rackproof.rules.yml"
# What a browser fetches by itself. A link that a reader may follow is none.
FETCHED = {
    ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("audio", "src"),
    ("embed", "src"), ("object", "data"), ("input", "src"),
}  # fmt: skip
FETCHED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


class Fetched(HTMLParser):
    """Addresses that a page makes its browser fetch, and the ids that it has."""

    def __init__(self):
        super().__init__()
        self.addresses, self.styles = [], []
        self._style = False

    def handle_starttag(self, tag, attrs):
        """Of every tag that fetches."""
        told = dict(attrs)
        self.addresses += [told[name] for of, name in FETCHED if of == tag and told.get(name)]
        if tag == "link" and FETCHED_LINKS & set((told.get("rel") or "").split()):
            self.addresses.append(told.get("href") or "")
        self._style = tag == "style"

    def handle_data(self, data):
        """Text of style elements."""
        if self._style:
            self.styles.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `mkdocs build --strict` builds it, and what was said about it."""
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("mkdocs").addHandler(handler)
    folder = tmp_path_factory.mktemp("site")
    try:
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    assert not said, said
    return folder


def test_it_fetches_nothing_from_outside(site):
    """No font, script, picture or style of another host: it works in a data hall without a way out."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(runbook_codes())
    for page in pages:
        read = Fetched()
        read.feed(page.read_text())
        outside = [a for a in read.addresses if re.match(r"(https?:)?//", a)]
        outside += [style for style in read.styles if re.search(r"url\(\s*['\"]?(https?:)?//|@import", style)]
        assert not outside, f"{page.relative_to(site)}: {outside}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s", style.read_text()), style


def test_every_code_has_its_page(site):
    """By the address that alerts and reports name, and the index leads there."""
    index = (site / "runbooks/index.html").read_text()
    for code in runbook_codes():
        assert (site / f"runbooks/{code}/index.html").exists(), code
        assert f'href="{code}/"' in index, code


def test_every_alert_leads_to_a_heading(site):
    """The address in an alert is a place on a page, not only a page."""
    text = (site / "reference/metrics/index.html").read_text()
    for address in re.findall(r'runbook_url: "(.+)"', RULES.read_text()):
        page, _, anchor = address.partition("#")
        assert page == "reference/metrics/"
        assert f'id="{anchor}"' in text, address


def test_every_key_of_a_file_is_told_and_no_other(site):
    """A key of the schema that nobody described ends the build; one that went must not stay on the page."""
    text = (site / "reference/files/index.html").read_text()
    told = set(re.findall(r"<tr>\s*<td><code>(\w+)</code></td>", text))
    assert told == {name for model in (RackFile, UnitFile, ProfileFile, GateFile) for name in model.model_fields}


def test_what_is_generated_is_of_this_code(site):
    """Every verb, the lifecycle and the README's figures are there: a page that was filled from nothing is none."""
    verbs = (site / "reference/verbs/index.html").read_text()
    assert all(f"rackproof {verb}" in verbs for verb in VERBS)
    assert "QUARANTINED" in (site / "architecture/index.html").read_text()
    assert "<svg" in (site / "architecture/index.html").read_text()
    assert "benchmarks/locate.py" in (site / "how-good-is-it/index.html").read_text()
    assert "rackproof_node_state" in (site / "reference/metrics/index.html").read_text()
    for page in site.rglob("*.html"):
        assert "<!-- generated" not in page.read_text(), page
