"""Builds burnin.pyz: burn-in, kernels and pynvml in one file that runs on any python3 from 3.10, on any processor.

The same sources give the same bytes, so the file's digest names what measured.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import burnin
from toolkit.durable import write_whole
from toolkit.errors import RackproofError
from toolkit.stages.fatbin import build_kernels

_INTERPRETER = b"#!/usr/bin/env python3\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of the zip format
_MODE = 0o100644 << 16

_MAIN = b"""import sys

if sys.version_info < (3, 10):
    sys.exit("burnin needs python3 3.10 or newer; this is " + sys.version.split()[0])
from burnin.__main__ import main

sys.exit(main())
"""


def build_archive(target: Path, cache: Path | None = None) -> str:
    """Write the archive to `target`, whole or not at all; returns its sha256.

    Kernels that had to be compiled are kept in `cache`, by default beside it. Raises RackproofError without pynvml, and
    where the kernels are neither there nor can be built.
    """
    content = _archive(build_kernels(cache or target.parent))
    write_whole(target, content, 0o755)
    return hashlib.sha256(content).hexdigest()


def _archive(kernels: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO(_INTERPRETER)
    packed.seek(0, os.SEEK_END)
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in sorted(_members(kernels)):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.compress_type = zipfile.ZIP_STORED  # compressors differ between Python builds
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = _MODE
            archive.writestr(entry, content)
    return packed.getvalue()


def _members(kernels: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _MAIN
    package = Path(burnin.__file__).parent
    for path in package.rglob("*.py"):
        yield f"burnin/{path.relative_to(package).as_posix()}", path.read_bytes()
    for name, image in kernels.items():
        yield f"burnin/kernels/{name}", image
    found = importlib.util.find_spec("pynvml")
    if found is None or found.origin is None:
        raise RackproofError("cannot build burnin.pyz: pynvml is not installed", "pip install nvidia-ml-py")
    bindings = Path(found.origin).read_bytes()
    yield "pynvml.py", bindings
    yield "LICENSE.pynvml", _licence(bindings)


def _licence(bindings: bytes) -> bytes:
    """The licence at the head of pynvml.py, with the release it came from: BSD asks that it goes along."""
    head = bindings.split(b"#####\n")[1].decode()
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in head.splitlines())
    version = importlib.metadata.version("nvidia-ml-py")
    return f"pynvml.py of nvidia-ml-py {version}, unchanged.\n\n{text}\n".encode()
