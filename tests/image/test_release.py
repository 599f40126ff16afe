"""A release is taken whole and as it was signed, or not at all; and each reason why not has its name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from toolkit.certificate.envelope import sealed
from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.purpose import Purpose
from toolkit.certificate.sign import PAYLOAD_TYPE, load_or_create
from toolkit.certificate.trust import Trust, TrustedKey
from toolkit.errors import UsageError
from toolkit.image.manifest import Role
from toolkit.image.refusal import ImageRefusal, ImageRefusedError
from toolkit.image.release import publish, published, read_signed, sign_release, verify
from toolkit.report.image_codes import IMAGE_CODES


def cut(folder: Path) -> None:
    """One byte is missing."""
    os.truncate(folder / "disk.img.zst", 5)


def grown(folder: Path) -> None:
    """One byte too many."""
    with (folder / "disk.img.zst").open("ab") as file:
        file.write(b"!")


def flipped(folder: Path) -> None:
    """Another byte, the same size."""
    content = (folder / "vmlinuz").read_bytes()
    (folder / "vmlinuz").write_bytes(b"K" + content[1:])


def gone(folder: Path) -> None:
    """A part is not there."""
    (folder / "deploy.cpio.zst").unlink()


def extra(folder: Path) -> None:
    """A file that nobody signed."""
    (folder / "deploy2.cpio.zst").write_bytes(b"mine")


def linked(folder: Path) -> None:
    """A link to the very same bytes: whoever holds the other end may change them."""
    (folder / "vmlinuz").rename(folder.parent / "elsewhere")
    (folder / "vmlinuz").symlink_to(folder.parent / "elsewhere")


def unsigned(folder: Path) -> None:
    """The signed manifest is gone, the readable one lies there."""
    (folder / "manifest.dsse.json").unlink()


def rewritten(folder: Path) -> None:
    """The readable manifest says something else than the signed one."""
    told = json.loads((folder / "manifest.json").read_bytes())
    told["predicate"]["kernelRelease"] = "6.6.6"
    (folder / "manifest.json").write_text(json.dumps(told))


def forged(folder: Path) -> None:
    """The signature is of another payload."""
    envelope = json.loads((folder / "manifest.dsse.json").read_text())
    envelope["signatures"][0]["sig"] = "A" * 86 + "=="
    (folder / "manifest.dsse.json").write_text(json.dumps(envelope))


def garbage(folder: Path) -> None:
    """No JSON at all."""
    (folder / "manifest.dsse.json").write_bytes(b"\0" * 100)


DAMAGE = {
    cut: (ImageRefusal.PART_TRUNCATED, "disk.img.zst"),
    grown: (ImageRefusal.PART_ALTERED, "disk.img.zst"),
    flipped: (ImageRefusal.PART_ALTERED, "vmlinuz"),
    gone: (ImageRefusal.PART_MISSING, "deploy.cpio.zst"),
    extra: (ImageRefusal.PART_EXTRA, "deploy2.cpio.zst"),
    linked: (ImageRefusal.PART_ALTERED, "vmlinuz"),
    unsigned: (ImageRefusal.UNSIGNED, ""),
    rewritten: (ImageRefusal.ALTERED, "manifest.json"),
    forged: (ImageRefusal.ALTERED, "manifest.dsse.json"),
    garbage: (ImageRefusal.MALFORMED, "manifest.dsse.json"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_is_not_as_it_was_signed_is_neither_verified_nor_published(bench, tmp_path, damage):
    """The refusal names the part; nothing of it reaches the provisioning root."""
    folder = bench.release()
    damage(folder)
    refusal, part = DAMAGE[damage]
    with pytest.raises(ImageRefusedError) as told:
        verify(folder, bench.trust)
    assert (told.value.refusal, told.value.part) == (refusal, part)
    assert part in told.value.message and told.value.hint
    with pytest.raises(ImageRefusedError):
        publish(folder, tmp_path / "provision", bench.trust)
    assert not (tmp_path / "provision").exists()


def test_a_good_release_verifies_and_says_what_it_is(bench):
    """The manifest that comes back is the one that was signed."""
    folder = bench.release()
    assert verify(folder, bench.trust) == bench.manifest(folder)


def test_a_key_of_nobody_is_refused(bench, tmp_path):
    """Signed well, by somebody whom this site does not trust."""
    stranger = load_or_create(tmp_path / "theirs", purpose=Purpose.IMAGE)
    with pytest.raises(ImageRefusedError, match="IMAGE_UNTRUSTED") as told:
        verify(bench.release(), Trust.of((trusted_key(stranger.public_pem),)))
    assert "image-trust.yml" in told.value.hint


def test_the_key_of_certificates_signs_no_image(bench, tmp_path):
    """One installation, two keys: who may admit racks may not say what they run."""
    certificates = load_or_create(tmp_path / "keys")
    assert certificates.keyid != bench.key.keyid
    assert (tmp_path / "keys/image.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ImageRefusedError, match="IMAGE_UNTRUSTED"):
        verify(bench.release(), Trust.of((trusted_key(certificates.public_pem),)))


def test_what_a_retired_key_signed_after_its_time_is_refused(bench):
    """And what it signed before stays good."""
    folder = bench.release()
    known = trusted_key(bench.key.public_pem)
    before, after = bench.built_at - timedelta(hours=1), bench.built_at + timedelta(hours=1)
    with pytest.raises(ImageRefusedError, match=r"IMAGE_KEY_EXPIRED: .*trusted until") as told:
        verify(folder, Trust((TrustedKey(known, "old", before),)))
    assert "in use" in told.value.hint
    assert verify(folder, Trust((TrustedKey(known, "old", after),))).created_at == bench.built_at


def test_another_kind_of_signed_statement_is_no_image(bench, tmp_path):
    """A certificate signed with the image key by mistake is not taken for an image."""
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://x", "subject": []}
    file = tmp_path / "other.dsse.json"
    file.write_bytes(sealed(statement, PAYLOAD_TYPE, bench.key))
    with pytest.raises(ImageRefusedError, match=r"IMAGE_MALFORMED: .*not of an image"):
        read_signed(file, bench.trust)


def test_nothing_is_signed_that_is_not_as_it_was_built(bench):
    """A part that changed between build and signature stays unsigned."""
    folder = bench.release()
    flipped(folder)
    with pytest.raises(ImageRefusedError, match="IMAGE_PART_ALTERED"):
        sign_release(folder, bench.key)


def test_what_is_published_is_found_with_its_parts(bench, tmp_path):
    """Under the digest of its manifest, as hard links: the image is large."""
    folder = bench.release()
    offered = publish(folder, tmp_path / "provision", bench.trust)
    found = published(tmp_path / "provision", "debian-12-node", bench.trust)
    assert found == offered
    disk = tmp_path / "provision" / found.path(found.manifest.part(Role.DISK))
    assert disk.samefile(folder / "disk.img.zst")
    assert read_signed(tmp_path / "provision" / found.signed_manifest, bench.trust) == found.manifest


def test_publishing_the_same_again_changes_nothing(bench, tmp_path):
    """Twice is once."""
    folder = bench.release()
    publish(folder, tmp_path / "p", bench.trust)
    before = sorted(path for path in (tmp_path / "p").rglob("*"))
    publish(folder, tmp_path / "p", bench.trust)
    assert sorted(path for path in (tmp_path / "p").rglob("*")) == before


def test_a_node_in_the_middle_of_a_release_is_not_disturbed_by_the_next(bench, tmp_path):
    """The one before stays; the one before that goes."""
    releases = [bench.release(f"r{n}", b"disk %d" % n, later=timedelta(days=n)) for n in range(3)]
    first, second, third = (publish(folder, tmp_path / "p", bench.trust) for folder in releases)
    assert (tmp_path / "p" / second.path(second.manifest.parts[0])).read_bytes() == b"disk 1"
    assert not (tmp_path / "p" / first.location).exists()
    assert published(tmp_path / "p", "debian-12-node", bench.trust) == third


def test_an_older_release_does_not_come_back_by_mistake(bench, tmp_path):
    """However well it is signed; on purpose it does."""
    old, new = bench.release("old"), bench.release("new", b"newer", later=timedelta(days=1))
    publish(new, tmp_path / "p", bench.trust)
    with pytest.raises(ImageRefusedError, match=r"IMAGE_OLDER: .*2026-11-24") as told:
        publish(old, tmp_path / "p", bench.trust)
    assert "--allow-older" in told.value.hint
    assert published(tmp_path / "p", "debian-12-node", bench.trust).manifest.created_at == bench.built_at + timedelta(
        days=1
    )
    publish(old, tmp_path / "p", bench.trust, allow_older=True)
    assert published(tmp_path / "p", "debian-12-node", bench.trust).manifest.created_at == bench.built_at


def test_what_lies_in_the_provisioning_root_is_verified_each_time(bench, tmp_path):
    """A manifest put there by hand, a part cut short there, another name's manifest: each is refused."""
    offered = publish(bench.release(), tmp_path / "p", bench.trust)
    images = tmp_path / "p/images"
    (images / "other").mkdir()
    (images / "other/manifest.dsse.json").write_bytes((images / "debian-12-node/manifest.dsse.json").read_bytes())
    with pytest.raises(ImageRefusedError, match="IMAGE_OTHER_NAME"):
        published(tmp_path / "p", "other", bench.trust)
    cut(tmp_path / "p" / offered.location)
    with pytest.raises(ImageRefusedError, match="IMAGE_PART_TRUNCATED"):
        published(tmp_path / "p", "debian-12-node", bench.trust)
    forged(images / "debian-12-node")
    with pytest.raises(ImageRefusedError, match="IMAGE_ALTERED"):
        published(tmp_path / "p", "debian-12-node", bench.trust)


@pytest.mark.parametrize("name", ["nothing", "../keys", "", "a/b"])
def test_a_name_that_is_not_published_is_told(bench, tmp_path, name):
    """And no name leads out of the folder of images."""
    publish(bench.release(), tmp_path / "p", bench.trust)
    with pytest.raises(UsageError, match="is published"):
        published(tmp_path / "p", name, bench.trust)


def test_a_release_takes_the_place_of_a_single_file(bench, tmp_path):
    """Before releases an image was a file with its sum beside it, under the same name."""
    images = tmp_path / "p/images"
    images.mkdir(parents=True)
    (images / "debian-12-node").write_bytes(b"old")
    (images / "debian-12-node.sha256").write_text("x")
    publish(bench.release(), tmp_path / "p", bench.trust)
    assert sorted(path.name for path in images.iterdir()) == ["debian-12-node"]


def test_a_manifest_that_signs_too_much_is_never_written(bench):
    """The clock of the builder has microseconds; the manifest has seconds, and says the same when read again."""
    folder = bench.release()
    manifest = replace(bench.manifest(folder), created_at=datetime(2026, 11, 23, 18, 0, 1, 999, UTC))
    assert b"18:00:01Z" in manifest.payload()


def test_every_refusal_is_explained():
    """`rackproof explain CODE` knows each of them."""
    assert IMAGE_CODES.keys() == {refusal.value for refusal in ImageRefusal}
