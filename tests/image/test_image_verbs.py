"""`rackproof image`: what an operator types from a vendor's ISO to an image that nodes are offered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from toolkit.cli import rackproof
from toolkit.errors import InputError, UsageError
from toolkit.image.refusal import ImageRefusedError

ISO = b"\0" * 0x8000 + b"\x01CD001\x01" + b"\0" * 4096


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A new installation, and a vendor's files."""
    monkeypatch.setenv("RACKPROOF_HOME", str(tmp_path / "home"))
    for name, content in (("vmlinuz", b"MZ"), ("initrd", b"\x1f\x8b"), ("dgx.iso", ISO)):
        (tmp_path / name).write_bytes(content)
    return tmp_path


def image(*words: str) -> Result:
    """The verb's answer; its error is raised."""
    return CliRunner().invoke(rackproof, ["image", *words], catch_exceptions=False, standalone_mode=False)


def take_in(home: Path, epoch: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release of the vendor's installer, dated."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    folder = home / f"dgx-{epoch}"
    files = ("--kernel", str(home / "vmlinuz"), "--initrd", str(home / "initrd"), "--iso", str(home / "dgx.iso"))
    assert image("import", "dgx-os-7", *files, "--output", str(folder)).exit_code == 0
    return folder


def told(result: Result) -> dict[str, Any]:
    """Its JSON."""
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_installer_is_taken_in_verified_published_and_shown(home, monkeypatch):
    """With the key that was made on the way; the digest is the same everywhere."""
    folder = take_in(home, "1790000000", monkeypatch)
    verified = told(image("verify", str(folder), "--json"))
    assert [part["role"] for part in verified["predicate"]["parts"]] == ["kernel", "initrd", "iso"]
    offered = told(image("publish", str(folder), "--json"))
    assert offered["digest"] == verified["digest"]
    assert (home / "home/provision" / offered["location"] / "installer.iso").read_bytes() == ISO
    assert told(image("show", "dgx-os-7", "--json"))["digest"] == verified["digest"]
    table = image("show", str(folder)).stdout
    assert "installer.iso" in table and verified["digest"] in table
    assert (home / "home/keys/image.key").is_file() and not (home / "home/keys/certificate.key").exists()


def test_what_does_not_verify_is_refused_with_its_name(home, monkeypatch):
    """Exit 2, the part, and what to do next."""
    folder = take_in(home, "1790000000", monkeypatch)
    (folder / "initrd").write_bytes(b"\x1f\x8c")
    for verb in ("verify", "publish"):
        with pytest.raises(ImageRefusedError, match=r"IMAGE_PART_ALTERED: initrd .*initrd has sha256") as refused:
            image(verb, str(folder))
        assert refused.value.exit_code == 2 and "do not use it" in refused.value.hint
    assert not (home / "home/provision").exists()


def test_another_sites_key_is_given_by_hand(home, monkeypatch):
    """Whoever trusts it says so; the default is this site's own."""
    folder = take_in(home, "1790000000", monkeypatch)
    theirs = home / "home/keys/image.pub"
    theirs.rename(home / "theirs.pub")
    (home / "home/keys/image.key").rename(home / "theirs.key")
    take_in(home, "1790000001", monkeypatch)
    with pytest.raises(ImageRefusedError, match="IMAGE_UNTRUSTED"):
        image("verify", str(folder))
    assert image("verify", str(folder), "--key", str(home / "theirs.pub")).exit_code == 0


def test_going_back_is_asked_for(home, monkeypatch):
    """An older release is as well signed as a newer one."""
    old, new = take_in(home, "1790000000", monkeypatch), take_in(home, "1790000100", monkeypatch)
    image("publish", str(new))
    with pytest.raises(ImageRefusedError, match="IMAGE_OLDER"):
        image("publish", str(old))
    assert image("publish", str(old), "--allow-older").exit_code == 0


def test_the_installers_files_of_a_node_are_printed(home):
    """For a node of a rack that ships with us; a node that is not there is told with those that are."""
    printed = image("autoinstall", "dgx-h100-su", "dgx01").stdout
    assert printed.startswith("#cloud-config\n# dgx01 (EX166042400001)")
    arguments = image("autoinstall", "dgx-h100-su", "dgx01", "--show", "kernel-arguments").stdout
    assert "ds=nocloud-net;s=http://" in arguments
    assert set(told(image("autoinstall", "dgx-h100-su", "dgx01", "--json"))) >= {
        "user-data", "meta-data", "kernel-arguments",
    }  # fmt: skip
    with pytest.raises(UsageError, match="has no node dgx99"):
        image("autoinstall", "dgx-h100-su", "dgx99")


def test_a_recipe_that_is_wrong_is_told_before_anything_is_built(home):
    """With its line; and no key is made for it."""
    (home / "recipe.yml").write_text("image: x\nrelease: bookworm\n")
    with pytest.raises(InputError, match=r"recipe\.yml:1:1"):
        image("build", "--recipe", str(home / "recipe.yml"), "--output", str(home / "out"))
    assert not (home / "home/keys").exists() and not (home / "out").exists()


def test_the_image_key_is_rotated_apart_from_that_of_certificates(home, monkeypatch):
    """What the old one signed stays good, what it would sign from now on is not; certificates do not notice."""
    folder = take_in(home, "1700000000", monkeypatch)
    words = ["keys", "rotate", "--purpose", "image"]
    with pytest.raises(UsageError, match="this ends key") as refused:
        CliRunner().invoke(rackproof, words, catch_exceptions=False, standalone_mode=False)
    assert "--purpose image --confirm" in refused.value.hint
    confirm = refused.value.hint.split()[-1]
    CliRunner().invoke(rackproof, [*words, "--confirm", confirm], catch_exceptions=False, standalone_mode=False)
    assert image("verify", str(folder)).exit_code == 0
    listed = CliRunner().invoke(rackproof, ["keys", "list", "--purpose", "image", "--json"], standalone_mode=False)
    assert [(key["signs"], bool(key["until"])) for key in told(listed)["keys"]] == [(True, False), (False, True)]
    assert not (home / "home/keys/trust.yml").exists() and (home / "home/keys/image-trust.yml").exists()
