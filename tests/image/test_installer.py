"""A vendor's installer becomes a signed release like any other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from toolkit.errors import UsageError
from toolkit.image.installer import import_installer
from toolkit.image.manifest import Architecture, Role
from toolkit.image.release import publish, sign_release, verify

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ISO = b"\0" * 0x8000 + b"\x01CD001\x01" + b"\0" * 4096


@pytest.fixture
def files(tmp_path):
    """Kernel, initial ramdisk and ISO as a vendor's."""
    for name, content in (("vmlinuz", b"MZ kernel"), ("initrd.gz", b"\x1f\x8b"), ("dgx.iso", ISO)):
        (tmp_path / name).write_bytes(content)
    return tmp_path / "vmlinuz", tmp_path / "initrd.gz", tmp_path / "dgx.iso"


def test_what_was_taken_in_is_signed_published_and_nobody_elses_to_change(bench, files, tmp_path):
    """Copies, not links: the vendor's folder may change afterwards."""
    folder = tmp_path / "dgx-os-7"
    import_installer("dgx-os-7", Architecture.AMD64, *files, folder, NOW)
    sign_release(folder, bench.key)
    files[2].write_bytes(b"changed")
    manifest = verify(folder, bench.trust)
    assert [part.role for part in manifest.parts] == [Role.KERNEL, Role.INITRD, Role.ISO]
    offered = publish(folder, tmp_path / "p", bench.trust)
    assert (tmp_path / "p" / offered.path(manifest.part(Role.ISO))).read_bytes() == ISO


def test_what_is_no_iso_or_has_no_name_is_refused(files, tmp_path):
    """Before anything is copied; nothing is left behind."""
    kernel, initrd, iso = files
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match="is no ISO image"):
        import_installer("x", Architecture.AMD64, kernel, initrd, kernel, tmp_path / "out", NOW)
    with pytest.raises(UsageError, match="is no name"):
        import_installer("../x", Architecture.AMD64, kernel, initrd, iso, tmp_path / "out", NOW)
    with pytest.raises(UsageError, match="cannot be taken in"):
        import_installer("x", Architecture.AMD64, tmp_path / "gone", initrd, iso, tmp_path / "out", NOW)
    assert sorted(tmp_path.iterdir()) == before
