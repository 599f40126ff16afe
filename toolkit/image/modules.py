"""The kernel's modules that the deploy ramdisk takes along: those a machine may need to reach its network and disks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

# Tables that modprobe reads whole: modules of other kinds in them are asked for by nobody.
_WHOLE = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
_SUFFIX = re.compile(r"\.ko(\.(xz|zst|gz))?$")


def parse_dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """modules.dep: path of a module -> paths of those it needs, all of them."""
    found = {}
    for line in text.splitlines():
        path, colon, needed = line.partition(":")
        if colon:
            found[path.strip()] = tuple(needed.split())
    return found


def name_of(path: str) -> str:
    """A module's name as modprobe and modules.alias have it: `_` and `-` are the same to both."""
    return _SUFFIX.sub("", PurePosixPath(path).name).replace("-", "_")


def closure(dependencies: Mapping[str, tuple[str, ...]], wanted: Iterable[str]) -> tuple[str, ...]:
    """Paths of the wanted modules and of all that they need, sorted. A name that the kernel has not is left out:
    it is built in, or another kernel's.
    """
    names = {name.replace("-", "_") for name in wanted}
    found = {path for path in dependencies if name_of(path) in names}
    return tuple(sorted(found.union(*(dependencies[path] for path in found))))


def only(text: str, names: frozenset[str]) -> str:
    """The lines of modules.alias or modules.symbols that lead to one of these modules."""
    kept = [line for line in text.splitlines() if line.startswith("#") or line.rpartition(" ")[2] in names]
    return "".join(f"{line}\n" for line in kept)


def lay_out(root: Path, release: str, wanted: Iterable[str], tree: Path) -> tuple[str, ...]:
    """Puts the modules of the image in `root` into the ramdisk's `tree`, where modprobe finds them. Their names."""
    source, target = root / "lib/modules" / release, tree / "lib/modules" / release
    dependencies = parse_dependencies((source / "modules.dep").read_text())
    paths = closure(dependencies, wanted)
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
    target.mkdir(parents=True, exist_ok=True)
    (target / "modules.dep").write_text("".join(f"{path}: {' '.join(dependencies[path])}\n" for path in paths))
    names = frozenset(name_of(path) for path in paths)
    for table in ("modules.alias", "modules.symbols", "modules.softdep"):
        if (source / table).is_file():
            text = (source / table).read_text()
            (target / table).write_text(text if table == "modules.softdep" else only(text, names))
    for table in _WHOLE:
        if (source / table).is_file():
            shutil.copyfile(source / table, target / table)
    return tuple(sorted(names))
