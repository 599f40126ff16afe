"""File systems inside a disk's image, made without a mount: this works where loop devices do not, and never differs.

mke2fs 1.47.0 fills a file system in the order of names, and takes the time of its own records from
E2FSPROGS_FAKE_TIME. What a file's inode says of change, access and birth it copies from the tree, whose change times
nobody can set: they are set afterwards, by debugfs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from toolkit.errors import UndecidedError
from toolkit.image.programs import Workshop

MIB = 1024 * 1024
_NAMESPACE = UUID(
    "6f1d3c5e-6f0b-4a5c-9a35-6f0e3f7b2d10"
)  # ours: every identifier of an image is derived from its recipe
_INODES = re.compile(r"^(Inode count|First inode|Inodes per group):\s+(\d+)$", re.MULTILINE)


def identifier(recipe_sha256: str, what: str) -> UUID:
    """A UUID that is the same for the same recipe: of a partition, of a file system, of a directory's hash."""
    return uuid5(_NAMESPACE, f"{recipe_sha256}/{what}")


@dataclass(frozen=True, slots=True)
class Area:
    """A stretch of a disk in bytes; whole MiB."""

    start_bytes: int
    size_bytes: int


def make_ext4(raw: Path, area: Area, tree: Path, recipe_sha256: str, shop: Workshop) -> None:
    """An ext4 file system with the tree's files in this area of the file `raw`."""
    uuid = identifier(recipe_sha256, "root")
    # Nothing lazy: a node's first mount would otherwise fill its sparse disk in the background.
    extended = (
        f"offset={area.start_bytes},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard,"
        f"hash_seed={identifier(recipe_sha256, 'hash')}"
    )
    argv = [
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", str(uuid), "-E", extended, "-J", "size=16",
        "-d", str(tree), str(raw), f"{area.size_bytes // 1024}k",
    ]  # fmt: skip
    shop.run(argv, "making the node's file system")
    _set_times(raw, area, shop)


def _set_times(raw: Path, area: Area, shop: Workshop) -> None:
    """Every inode in use was made, changed and read at the epoch; when its content changed is the tree's to say."""
    device = f"{raw}?offset={area.start_bytes}"
    used = _used_inodes(device, shop)
    at = f"@{shop.seconds}"
    lines = [f"set_current_time {at}"]
    for inode in used:
        for name in ("ctime", "atime", "crtime"):
            lines += [f"set_inode_field <{inode}> {name} {at}", f"set_inode_field <{inode}> {name}_extra 0"]
        lines.append(f"set_inode_field <{inode}> mtime_extra 0")
    done = shop.run(["debugfs", "-w", "-f", "-", device], "setting the times of files", text="\n".join(lines) + "\n")
    # debugfs answers 0 whatever happens; each command is echoed on its standard output, complaints on the other.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if complaints:
        raise UndecidedError(f"setting the times of files: debugfs said: {complaints[0][:200]}", "build it again")


def _used_inodes(device: str, shop: Workshop) -> list[int]:
    """Numbers of the inodes that hold something."""
    told = shop.run(["dumpe2fs", device], "reading the new file system").stdout
    head = {name: int(value) for name, value in _INODES.findall(told)}
    free: set[int] = set()
    for line in re.findall(r"^  Free inodes: (.*)$", told, re.MULTILINE):
        for part in filter(None, line.replace(" ", "").split(",")):
            first, _, last = part.partition("-")
            free.update(range(int(first), int(last or first) + 1))
    first_inode = head.get("First inode", 11)
    # 2 is the root directory, 8 the journal; the others below the first are reserved and empty.
    return [2, 8, *(n for n in range(first_inode, head["Inode count"] + 1) if n not in free)]


def make_fat(raw: Path, area: Area, tree: Path, recipe_sha256: str, shop: Workshop) -> str:
    """A FAT file system with the tree's files. Returns its serial number as fstab and udev write it."""
    number = identifier(recipe_sha256, "esp").hex[:8]
    aside = raw.with_name("esp.img")
    aside.unlink(missing_ok=True)
    with aside.open("wb") as file:
        file.truncate(area.size_bytes)
    shop.run(["mkfs.vfat", "--invariant", "-i", number, "-n", "ESP", str(aside)], "making the boot file system")
    entries = sorted(tree.rglob("*"))
    for path in entries:
        inside = f"::/{path.relative_to(tree)}"
        if path.is_dir():
            shop.run(["mmd", "-i", str(aside), inside], "making the boot file system")
        else:
            shop.run(["mcopy", "-m", "-i", str(aside), str(path), inside], "filling the boot file system")
    with raw.open("r+b") as disk, aside.open("rb") as file:
        disk.seek(area.start_bytes)
        while block := file.read(MIB):
            disk.seek(len(block), 1) if not block.strip(b"\0") else disk.write(block)
    aside.unlink()
    return f"{number[:4]}-{number[4:]}".upper()
