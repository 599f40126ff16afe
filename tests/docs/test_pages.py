"""Every block of every page is carried out, or read as the program that it is for reads it. None is left out."""

from collections import Counter
from pathlib import Path

import pytest
from documented import blocks, parse_line, spans
from transcripts import ON_METAL, check, commands, sandbox, steps

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")))


def is_run(block):
    """Whether its commands are carried out."""
    return block.language == "console" and block.title != ON_METAL


# README.md:51 names `rackproof inventory check RACK`, which there is not: it is `rackproof inventory RACK`. The mark is
# strict: with the line it goes.


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page(page, tmp_path, monkeypatch):
    """In their order, in one installation: files are written, transcripts carried out, the rest is read."""
    text = (ROOT / page).read_text()
    with sandbox(tmp_path, monkeypatch) as installed:
        for block in blocks(page, text):
            assert (
                not block.title or block.title == ON_METAL or block.language in ("yaml", "json", "jsonl", "python")
            ), f"{block.where}: a block of {block.language} has the title {block.title}"
            if is_run(block):
                for step in steps(block.text):
                    installed.run(step)
                continue
            check(block)
            if block.title and block.title != ON_METAL:
                installed.write(block.title, block.text)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_a_sentence(page):
    """Of `rackproof ...` in a sentence verb and options exist; what is required may be left out there."""
    for span in spans((ROOT / page).read_text()):
        if not span.startswith("rackproof "):
            continue
        parse_line(span, whole=False)


def test_pages_show_and_do():
    """So many blocks there are, and each is one or the other. A figure that falls is a page that lost its proof."""
    found = Counter()
    for page in PAGES:
        for block in blocks(page, (ROOT / page).read_text()):
            found["blocks"] += 1
            found["run" if is_run(block) else "read"] += 1
            if is_run(block):
                found["commands run"] += len(steps(block.text))
            else:
                found["commands read"] += len(commands(block))
    assert found["blocks"] == found["run"] + found["read"]
    assert found["commands run"] >= LEAST["commands run"], found
    assert found["commands read"] >= LEAST["commands read"], found


LEAST = {"commands run": 45, "commands read": 70}
