"""The browser that pages are looked at with: Debian's, headless, without a network."""

import re
import shutil
import subprocess

import pytest

PROGRAM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="needs Debian's chromium")
_SECONDS = 60
A4_POINTS = (595, 842)


def _run(folder, *options):
    """One start of the browser, with a profile of its own that is gone with the test."""
    told = subprocess.run(
        [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
         f"--user-data-dir={folder / 'profile'}", *options],
        capture_output=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr.decode()[-2000:]
    return told.stdout.decode()


def printed(page, folder):
    """(pages, width, height in points) of the page as it is printed."""
    file = folder / "page.html"
    file.write_text(page)
    _run(folder, "--no-pdf-header-footer", f"--print-to-pdf={folder / 'page.pdf'}", file.as_uri())
    content = (folder / "page.pdf").read_bytes()
    (box,) = {m.groups() for m in re.finditer(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content)}
    return len(re.findall(rb"/Type /Page\b(?!s)", content)), *(round(float(side)) for side in box)


def looked_at(page, folder):
    """The document's elements after the browser has read it: what a script would have changed, it has changed."""
    file = folder / "page.html"
    file.write_text(page)
    return _run(folder, "--dump-dom", file.as_uri())
