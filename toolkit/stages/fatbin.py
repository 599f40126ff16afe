"""Compiles the burn-in's kernels for GPUs: one fat binary a source, by the nvcc of its wheels. No GPU is needed.

The same sources and the same compiler give the same bytes, wherever they are built. What was built is kept under a
digest of both. A release carries its binaries with it (`prebuild`), and needs no compiler as long as its sources are
those they were built from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import burnin
from toolkit.durable import write_whole
from toolkit.errors import RackproofError, UsageError

_SUFFIX = ".fatbin"
_RECORD = "fatbin.sha256"  # beside prebuilt binaries: the digest of the sources they were built from
_TIMEOUT_S = 900
_OPTIONS = ("-std=c++17", "-O3", "-fatbin", "-Werror", "all-warnings", "--threads", "0")  # as many as processors
_WANTED = "13.0"  # PTX 9.0 and its cubins: driver 580, the oldest that knows every GPU below
_INSTALL = "pip install 'rackproof[kernels]', or install a release, which has the kernels in it"

# Machine code for each generation that the profiles know; PTX for those that are not born yet.
_EVERYWHERE = ("sm_80", "sm_90", "sm_100", "sm_103", "sm_120", "compute_100")
# Sources in one architecture's own instructions. Code for sm_90a runs on nothing but sm_90, and so on.
_OF_ONE_ARCHITECTURE = {"fp8_sm90": ("sm_90a",), "fp8_sm100": ("sm_100a", "sm_103a")}


def build_kernels(cache: Path) -> dict[str, bytes]:
    """Fat binaries of all kernels, by the file name they have in the archive.

    Taken from the installed package, else from `cache`, else built into it. Raises RackproofError where there is none
    and nothing to build it with, or a source does not compile.
    """
    folder = _sources_folder()
    sources = _digest(folder)
    record = folder / _RECORD
    if record.exists() and record.read_text().strip() == sources:
        return _read(folder)
    compiler = _compiler()
    version = _version(compiler)
    key = hashlib.sha256(f"{sources}\n{version}\n{_OPTIONS} {_EVERYWHERE} {_OF_ONE_ARCHITECTURE}".encode()).hexdigest()
    built = cache / f"kernels-{key[:16]}"
    if not built.exists():
        _build(compiler, folder, built)
    return _read(built)


def prebuild() -> None:
    """Build into the package itself, for a release. Raises RackproofError."""
    folder = _sources_folder()
    with tempfile.TemporaryDirectory() as work:
        built = Path(work) / "built"
        _build(_compiler(), folder, built)
        for name, image in _read(built).items():
            write_whole(folder / name, image, 0o644)
    write_whole(folder / _RECORD, f"{_digest(folder)}\n".encode(), 0o644)


def _sources_folder() -> Path:
    return Path(burnin.__file__).parent / "kernels"


def _digest(folder: Path) -> str:
    """Over the names and contents of all that is compiled."""
    seen = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".cu", ".h")):
        seen.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return seen.hexdigest()


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob(f"*{_SUFFIX}"))}


def _compiler() -> Path:
    """The nvcc of the wheel `nvidia-cuda-nvcc`; whatever else the machine has would make other bytes."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    found = next((path for root in roots for path in sorted(root.glob("*/bin/nvcc"))), None)
    if found is None:
        raise UsageError("building the burn-in's kernels: the CUDA compiler is not installed", _INSTALL)
    if shutil.which("g++") is None:
        raise UsageError("building the burn-in's kernels: nvcc needs g++", "apt-get install g++")
    return found


def _version(compiler: Path) -> str:
    answer = _run(str(compiler), "--version")
    if f"release {_WANTED}," not in answer:
        said = next((line for line in answer.splitlines() if "release" in line), answer[:200])
        raise UsageError(f"building the burn-in's kernels: nvcc {_WANTED} is needed, this is: {said}", _INSTALL)
    return answer.strip()


def _build(compiler: Path, sources: Path, target: Path) -> None:
    """Compile every source into a folder that is there whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kernels-") as work:
        built = Path(work) / "built"
        built.mkdir()
        for source in sorted(sources.glob("*.cu")):
            codes = _OF_ONE_ARCHITECTURE.get(source.stem, _EVERYWHERE)
            _run(
                str(compiler), *_OPTIONS, *(word for code in codes for word in _target(code)),
                str(source), "-o", str(built / f"{source.stem}{_SUFFIX}"),
            )  # fmt: skip
        try:
            built.rename(target)
        except OSError:  # another process was quicker, with the same contents
            if not target.exists():
                raise


def _target(code: str) -> tuple[str, str]:
    """nvcc's options for machine code (sm_90) or PTX (compute_90)."""
    return "-gencode", f"arch={code.replace('sm_', 'compute_')},code={code}"


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RackproofError(f"building the burn-in's kernels: {error}", "see the message above") from error
    if done.returncode:
        said = (done.stderr or done.stdout)[-2000:].strip()
        raise RackproofError(f"building the burn-in's kernels: {argv[-3]} does not compile: {said}", "see above")
    return done.stdout
