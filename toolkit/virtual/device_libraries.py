"""The device libraries of a virtual node, compiled: NVML, and a CUDA driver that runs the burn-in's own kernels."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError

DEVICES = Path(__file__).parent / "devices"
COMPILERS = ("gcc", "g++")

_TIMEOUT_S = 300
_WARNINGS = ("-O2", "-fPIC", "-Wall", "-Wextra", "-Werror")
_C = (
    "gcc", "-std=gnu11", *_WARNINGS, "-D_GNU_SOURCE",
    # functions that NVML 13 deprecates are those that older clients still ask for
    "-Wno-deprecated-declarations",
)  # fmt: skip
_CPP = (
    "g++", "-std=c++17", *_WARNINGS, "-fno-exceptions", "-fno-rtti",
    "-Wno-unknown-pragmas",  # `#pragma unroll` is nvcc's
    # a GPU contracts only where the source says so, and neither may the host: results are compared bit by bit
    "-ffp-contract=off",
)  # fmt: skip
# Kernels in the instructions of one architecture: fp8_sm90.cu. Only its GPUs have them.
_ARCHITECTURE = re.compile(r"_sm(\d+)\.cu$")
# What host_kernels.h makes of KERNEL, as the preprocessor prints it.
_KERNEL = re.compile(r'extern "C" __attribute__\(\(noinline\)\) void\s+(\w+)\s*\(')


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library of C sources in devices/; `exports` is its linker version script.

    `runs_kernels`: it has the burn-in's kernels in it, built for the host.
    """

    soname: str
    sources: tuple[str, ...]
    exports: str
    runs_kernels: bool = False


_HARDWARE = ("hardware.c", "hardware_load.c", "hardware_events.c")
NVML = Library(
    "libnvidia-ml.so.1",
    ("nvml.c", "nvml_memory.c", "nvml_health.c", "nvml_links.c", "nvml_fields.c", *_HARDWARE),
    "nvml.map",
)
CUDA = Library(
    "libcuda.so.1",
    (
        "cuda_device.c", "cuda_context.c", "cuda_memory.c", "cuda_modules.c", "cuda_streams.c", "memory_model.c",
        "compute_faults.c", *_HARDWARE,
    ),
    "cuda.map",
    runs_kernels=True,
)  # fmt: skip


def compile_library(
    library: Library, into: Path, header: Path | None = None, kernels: Sequence[Path] | None = None
) -> Path:
    """Builds one device library into a folder; returns its path. NVML's header comes from its wheel.

    `kernels` are the sources of the kernels it runs, by default the burn-in's. Raises UsageError where a compiler or
    the header is missing, UndecidedError where a source does not compile.
    """
    missing = [name for name in COMPILERS if shutil.which(name) is None]
    if missing:
        raise UsageError(f"building {library.soname}: {', '.join(missing)} not found", "apt-get install gcc g++")
    target = into / library.soname
    sources = [DEVICES / source for source in library.sources]
    with tempfile.TemporaryDirectory() as folder:
        objects = [_compile(source, Path(folder), header or nvml_header()) for source in sources]
        if library.runs_kernels:
            chosen = kernel_sources() if kernels is None else kernels
            objects += [_compile_kernels(source, Path(folder)) for source in chosen]
        _run(
            "g++", "-shared", "-static-libgcc", "-static-libstdc++", f"-Wl,-soname,{library.soname}",
            f"-Wl,--version-script={DEVICES / library.exports}", "-Wl,--no-undefined", *map(str, objects),
            "-lm", "-lpthread", "-o", str(target),
        )  # fmt: skip
    return target


def kernel_sources() -> tuple[Path, ...]:
    """The burn-in's kernels, in order of name."""
    return tuple(sorted(kernels_folder().glob("*.cu")))


def kernels_folder() -> Path:
    """Where the installed burn-in has its kernels. Raises UsageError where it has none."""
    spec = importlib.util.find_spec("burnin")
    found = [Path(root) / "kernels" for root in (spec.submodule_search_locations or ())] if spec else []
    for folder in found:
        if (folder / "device.h").exists():
            return folder
    raise UsageError("building the device libraries: burnin/kernels/device.h is missing", "install rackproof whole")


def nvml_header() -> Path:
    """Folder of NVIDIA's nvml.h in the `nvidia-nvml-dev` wheel."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    found = next((path for root in roots for path in sorted(root.glob("*/include/nvml.h"))), None)
    if found is None:
        raise UsageError("building the device libraries: nvml.h is missing", "pip install 'rackproof[virtual]'")
    return found.parent


def sources(header: Path) -> Iterator[Path]:
    """Every file that a compiled library depends on."""
    yield from sorted(path for path in DEVICES.iterdir() if path.suffix in (".c", ".cpp", ".h", ".map"))
    yield from sorted(path for path in kernels_folder().iterdir() if path.suffix in (".cu", ".h"))
    yield header / "nvml.h"


def _compile(source: Path, into: Path, header: Path) -> Path:
    target = into / f"{source.stem}.o"
    _run(*_C, "-I", str(header), "-c", str(source), "-o", str(target))
    return target


def _compile_kernels(source: Path, into: Path) -> Path:
    """One source's kernels with a table of their names, which the preprocessor tells: no list to keep in step."""
    target = into / f"{source.stem}_kernels.o"
    includes = ("-I", str(DEVICES), "-I", str(kernels_folder()), f'-DKERNEL_SOURCE="{source}"')
    wrapper = str(DEVICES / "host_kernels.cpp")
    names = _KERNEL.findall(_run(*_CPP, *includes, "-DKERNELS(K)=", "-E", "-P", wrapper))
    if not names:
        raise UndecidedError(f"building {CUDA.soname}: {source} has no kernel", "a kernel is declared by KERNEL")
    table = " ".join(f"K({name})" for name in dict.fromkeys(names))
    only = _ARCHITECTURE.search(source.name)
    architecture = f"-DKERNEL_ARCHITECTURE={only[1] if only else 0}"
    _run(*_CPP, *includes, architecture, f"-DKERNELS(K)={table}", "-c", wrapper, "-o", str(target))
    return target


def _run(*argv: str) -> str:
    """A compiler's output. Raises UndecidedError with the end of what it complained of."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise UndecidedError(f"{argv[0]} failed: {done.stderr[-2000:].strip()}", "see the message above")
    return done.stdout
