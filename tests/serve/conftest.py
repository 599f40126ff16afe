"""A server over a rack's ledger, and one browser for all that is looked at."""

import shutil
from dataclasses import replace

import pytest
from on_record import brought_up
from rehearsal import folder, open_ledger
from serving import serving

from toolkit.ledger import EventKind
from toolkit.serve.seats import gpus_of

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A rack of two nodes: node1 is admitted, node2 in quarantine for its GPU 3. Tests only read it."""
    with folder(tmp_path_factory.mktemp("serve") / "racks") as place:
        yield brought_up(place)


@pytest.fixture(scope="session")
def server(lab):
    """Over that rack."""
    with serving(lab.settings) as running:
        yield running


@pytest.fixture(scope="session")
def serial(lab):
    """Of the GPU that failed."""
    with open_ledger(lab.settings) as ledger:
        event = ledger.find(lab.rack.name, "node2", EventKind.OBSERVED, "burnin")
    return {gpu: serial for gpu, serial, _ in gpus_of(event)}[3]


@pytest.fixture
def own_copy(lab, tmp_path):
    """A copy of the installation that a test may write to."""
    with folder(tmp_path / "folder") as place:
        home = place / "home"
        shutil.copytree(lab.settings.home, home)
        yield replace(lab.settings, home=home, ledger_url=f"sqlite:///{home}/ledger.db")


@pytest.fixture(scope="session")
def browser():
    """Debian's, started once."""
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(_FLAGS))
        yield started
        started.close()


@pytest.fixture
def look(browser):
    """Opens pages. What the browser has against one fails the test: scripts, styles, whatever was refused."""
    contexts, said = [], []

    def open_page(address, **how):
        context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | how))
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not said, said
