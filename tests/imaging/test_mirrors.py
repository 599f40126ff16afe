"""Which of a machine's apt sources the node image is built from."""

from __future__ import annotations

import pytest

from toolkit.errors import UsageError
from toolkit.image.mirrors import debian_mirrors, parse_lines, parse_stanzas

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://packages.example/cloud
Suites: cloud-sdk-bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


def test_stanzas_keep_their_key_and_lose_what_is_not_debians():
    """Backports, contrib, sources, third parties and disabled entries stay out; an inline key stays whole."""
    (stanza,) = parse_stanzas(DEB822)
    lines = stanza.splitlines()
    assert lines[:4] == [
        "Types: deb", "URIs: http://mirror.example/debian".replace("URIs", "Uris"),
        "Suites: bookworm bookworm-updates", "Components: main",
    ]  # fmt: skip
    assert lines[4:] == [
        "Signed-By: ", " -----BEGIN PGP PUBLIC KEY BLOCK-----", " .", " abc", " -----END PGP PUBLIC KEY BLOCK-----",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("deb http://m/debian bookworm main contrib non-free", ["deb http://m/debian bookworm main"]),
        (
            "deb [signed-by=/k.gpg arch=amd64] http://m/debian bookworm-security/ main # inside",
            ["deb [signed-by=/k.gpg arch=amd64] http://m/debian bookworm-security/ main"],
        ),
        ("# deb http://m/debian bookworm main", []),
        ("deb-src http://m/debian bookworm main", []),
        ("deb http://docker.example/debian bookworm stable", []),
        ("deb http://m/debian trixie main", []),
        ("deb http://m/debian", []),
        ("", []),
    ],
)
def test_one_line_entries(line, kept):
    """Debian 12's own, with their options."""
    assert list(parse_lines(line)) == kept


def test_a_machine_without_a_debian_mirror_is_told_what_to_write(tmp_path):
    """Nothing is guessed: no mirror of ours is built in."""
    (tmp_path / "sources.list").write_text("deb http://archive.example/ubuntu noble main\n")
    with pytest.raises(UsageError, match="no mirror of Debian bookworm"):
        debian_mirrors(tmp_path)


def test_both_formats_are_read(tmp_path):
    """sources.list, *.list and *.sources; other files are not apt's."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a/debian bookworm main\n")
    (tmp_path / "sources.list.d/b.list").write_text("deb http://b/debian bookworm-updates main\n")
    (tmp_path / "sources.list.d/c.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/d.list.disabled").write_text("deb http://d/debian bookworm main\n")
    found = debian_mirrors(tmp_path)
    assert found.lines == ("deb http://a/debian bookworm main", "deb http://b/debian bookworm-updates main")
    assert len(found.stanzas) == 1
