"""Pages in a browser: clicked through, watched while a rack is brought up, fed what a hostile node says."""

import threading
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from rehearsal import context_over, folder, in_process, now, open_ledger, without_rails
from serving import serving

from toolkit.bringup import bringup
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import EventKind, NewEvent
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.plan import make_plan
from toolkit.report.standing import status_of

RACK = "/racks/demo-small"
WAIT_MS = 60_000
HELD_S = 90.0
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
PAGES = ("/", RACK, f"{RACK}/nodes/node1", f"{RACK}/nodes/node2", "/certificates", "/queue", "/runbooks",
         "/runbooks/HBM_ECC_CORRECTED", "/find?q=node", "/login", "/racks/dgx-h100-su")  # fmt: skip
HOSTILE = (
    '"><script>document.title="owned"</script><img src=x onerror=alert(1)>{{7*7}}\x1b[2J\x1b]0;owned\x07\u202egnp.exe'
)


def test_from_the_fleet_to_the_gpu_that_failed(look, server, serial):
    """Fleet, rack, node, GPU, and what its code means: five clicks."""
    page = look(server.address)
    page.get_by_role("article").get_by_role("link", name="demo-small").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("demo-small")
    page.get_by_role("region", name="Nodes, the worst first").get_by_role("link", name="node2").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("node2")
    page.get_by_role("link", name=f"GPU 3 ! {serial}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"GPU {serial}")
    expect(page.get_by_role("region", name="Runs that blamed it").first).to_contain_text("certify")
    page.get_by_role("link", name="HBM_ECC_CORRECTED").first.click()
    expect(page.get_by_role("heading", name="Replace")).to_be_visible()
    page.get_by_role("link", name="Fleet").first.click()
    expect(page).to_have_url(server.address)


def test_a_bring_up_by_another_process_is_watched_while_it_runs(look, tmp_path):
    """Who drives, which stage, what it says of a node; then where the node came to. Nobody loads the page again."""
    with folder(tmp_path / "folder") as place:
        lab = without_rails(in_process(place, "demo-small"))
        held, go_on = threading.Event(), threading.Event()

        def hold(progress):
            """In the middle of the burn-in, until the page was looked at."""
            if progress.stage is Stage.BURNIN and progress.gpu is not None and not go_on.is_set():
                held.set()
                go_on.wait(HELD_S)

        with open_ledger(lab.settings) as ledger, serving(lab.settings) as running:
            page = look(running.address + RACK[1:])
            expect(page.get_by_text("live", exact=True)).to_be_visible()
            plan = make_plan(lab.rack, status_of(ledger, lab.rack))
            context = replace(context_over(lab, ledger), progress=hold)
            thread = threading.Thread(target=bringup, args=(context, plan))
            thread.start()
            try:
                now = page.get_by_role("region", name="Now")
                expect(now).to_contain_text("drives this rack", timeout=WAIT_MS)
                assert held.wait(WAIT_MS / 1000)
                expect(now.get_by_role("progressbar", name="burnin")).to_be_visible(timeout=WAIT_MS)
                expect(page.locator("#nodes .said").first).to_contain_text("GPU 0", timeout=WAIT_MS)
                expect(page.locator("#nodes")).to_contain_text("joined")
            finally:
                go_on.set()
                thread.join(WAIT_MS / 1000)
            nodes = page.get_by_role("region", name="Nodes, the worst first")
            expect(nodes.get_by_text("takes jobs")).to_have_count(2, timeout=WAIT_MS)
            expect(now).to_have_count(0)
            expect(page.get_by_text("driven now")).to_have_count(0)
            page.context.close()  # before the server: a page that is left alone complains


def test_pages_work_without_scripts(look, server):
    """All is in what the server sends."""
    page = look(server.address, java_script_enabled=False)
    page.get_by_role("article").get_by_role("link", name="demo-small").click()
    page.locator("#nodes").get_by_role("link", name="node2").first.click()
    expect(page.get_by_text("hardware technician")).to_be_visible()
    page.get_by_role("searchbox").fill("node1")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("node1")


def test_a_hostile_node_does_nothing(look, own_copy):
    """Markup, escapes, a megabyte, text that runs backwards: shown as text, cut, and nothing else."""
    with open_ledger(own_copy) as ledger:
        run = ledger.start_run("demo-small", "node2", Stage.BASE)
        flood = "A" * 300_000
        ledger.finish_run(
            run, Outcome.FAILED, code="GPU_LOST", part=HOSTILE + flood, message=HOSTILE + flood, next=HOSTILE
        )
        gpus = {"0": [HOSTILE + "9" * 500, HOSTILE], "1": ["../../etc/passwd", "x"], "2": ["", ""]}
        ledger.observed("demo-small", "node2", "burnin", {"gpus": gpus, "artifacts": {HOSTILE: HOSTILE}})
        ledger.append(NewEvent(EventKind.NOTE, "demo-small", "node2", {}, HOSTILE))
        said = Subject(Scope.NODE, "node2")
        told = [Measurement(m, "word", HOSTILE, said, now(), run.id, "ab" * 32) for m in ("product", "driver_version")]
        ledger.record_measurements(run, told)
    with serving(own_copy) as running:
        page = look(running.address)
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        for path in (
            "",
            "racks/demo-small",
            "racks/demo-small/nodes/node2",
            "queue",
            "certificates",
            "racks/demo-small/report",
        ):
            page.goto(running.address + path)
            text = page.content()
            assert "owned" not in page.title() and page.locator("img[src=x]").count() == 0
            assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text and "49" not in page.title()
            assert "A" * 700 not in text
        page.goto(running.address + "racks/demo-small/nodes/node2")
        expect(page.get_by_text("<script>").first).to_be_visible()
        page.locator("ul.gpus a").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("GPU")
        assert not dialogs
        page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_nothing_against_any_page(browser, server, serial, scheme):
    """WCAG 2.2 AA and its best practices, names and contrast among them; on a phone nothing is wider than it."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    axe, found = Axe(), []
    for path in (*PAGES, f"/parts/{serial}"):
        page.goto(server.address + path[1:])
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        results = axe.run(page, options={"runOnly": RULES["runOnly"], "resultTypes": ["violations"]})
        found += [(path, v["id"], v["nodes"][0]["html"][:160]) for v in results.response["violations"]]
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found += [(path, "wider than the phone", wider)] if wider > 0 else []
    context.close()
    assert not found, found


def test_the_reports_own_style_is_allowed_and_nothing_else(look, server):
    """The self-contained report looks as it does from a file, and nothing of it is refused."""
    page = look(server.address + "racks/demo-small/report")
    assert page.locator("header .verdict").evaluate("e => getComputedStyle(e).borderTopWidth") == "3px"


def test_a_browser_logs_in_by_the_form_and_keeps_no_token(browser, lab, tmp_path):
    """It goes on to where it was going; scripts see no cookie, addresses no token."""
    file = tmp_path / "token"
    with serving(lab.settings, "--with-token", "--token-file", str(file)) as running:
        token = file.read_text().strip()
        context = browser.new_context()
        page = context.new_page()
        page.goto(running.address + RACK[1:])
        assert urlsplit(page.url).path == "/login"
        page.get_by_label("Token").fill("not the token, but as long as one")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("demo-small")
        assert token not in page.url and page.evaluate("document.cookie") == ""
        (cookie,) = context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and token not in cookie["value"]
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        page.goto(running.address)
        assert urlsplit(page.url).path == "/login"
        context.close()
