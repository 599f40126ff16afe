"""The vendors' packages of a virtual node: .debs of the metal's names and versions, in a signed flat apt repository.

    <cache>/apt-<digest>/   Packages, Packages.gz, Release, InRelease, archive-key.asc, archive-key.gpg, *.deb

The digest is of everything that goes in (our sources, versions, architecture), so a second call only looks.
On a node:  deb [signed-by=/etc/apt/keyrings/rackproof-virtual.asc] http://10.66.255.1/apt/ ./
Programs of one repository ask for its modules or newer ones: a module's version grows with the time it was packed. A
package of the same version as the installed one is not installed again, whatever has changed in it: a node gets new
device libraries with its next image.
The signing key is made for the one repository and thrown away with its secret half: whoever wants to add a package
builds another. It takes gpg and gpg-agent; apt on the node verifies with the gpgv it always has.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError
from toolkit.virtual import device_libraries, package_table
from toolkit.virtual.device_libraries import DEVICES, compile_library, nvml_header
from toolkit.virtual.fabric.tools import Tools, fetch
from toolkit.virtual.package_table import PACKAGES, Package

Say = Callable[[str], None]

_HOME = "usr/lib/rackproof-virtual"
_RUNTIME = "rackproof-virtual-devices"
_TIMEOUT_S = 120
_OURS = (Path(__file__), Path(package_table.__file__))


def build_repository(
    cache: Path, versions: Mapping[str, str] | Iterable[tuple[str, str]], say: Say, infiniband: Tools | None = None
) -> Path:
    """The repository's folder under `cache`, built if its contents are not there yet.

    `versions` is the rack's lock (`Profile.versions`): a package it names gets exactly that version. `infiniband`: the
    real tools; fetched into the cache where they are not given.
    Raises UsageError where a program or the NVML header is missing, UndecidedError where one of them failed.
    """
    locked = dict(versions)
    header = nvml_header()
    _require("dpkg")
    tools = infiniband or fetch(cache, say)
    digest = _digest(locked, header, tools)
    target = cache / f"apt-{digest}"
    if (target / "InRelease").exists():
        return target
    _require(*device_libraries.COMPILERS, "dpkg-deb", "dpkg-architecture", "apt-ftparchive", "gpg", "gpg-agent")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".apt-") as folder:
        work = Path(folder)
        repository = work / "repository"
        repository.mkdir()
        say(f"packages: building {len(PACKAGES) + 1} .debs")
        runtime = f"1.0.{int(time.time())}+{digest}"
        _build_runtime(work, repository, runtime)
        for package in PACKAGES:
            _build(package, locked.get(package.name, package.version), work, repository, header, runtime, tools)
        _index(repository)
        say("packages: signing the repository")
        _sign(repository)
        repository.chmod(0o755)
        try:
            repository.rename(target)
        except OSError:  # another process was quicker, with the same contents
            if not (target / "InRelease").exists():
                raise
    return target


def _require(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        raise UsageError(
            f"building the packages of virtual nodes: {', '.join(missing)} not found",
            "apt-get install gcc g++ libc6-dev dpkg-dev apt-utils gpg gpg-agent",
        )


def _modules() -> list[Path]:
    """The stand-ins' Python."""
    return sorted(DEVICES.glob("*.py"))


def _digest(locked: Mapping[str, str], header: Path, infiniband: Tools) -> str:
    """Sixteen digits of the sha256 over everything that goes into the repository."""
    seen = hashlib.sha256()
    for path in (*_modules(), *device_libraries.sources(header), Path(device_libraries.__file__), *_OURS):
        seen.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    for package in PACKAGES:
        seen.update(f"{package.name}={locked.get(package.name, package.version)}\n".encode())
    seen.update(_architecture().encode() + infiniband.versions.encode())
    return seen.hexdigest()[:16]


def _architecture() -> str:
    return _run("dpkg", "--print-architecture").strip()


def _build_runtime(work: Path, repository: Path, version: str) -> None:
    """The package all others depend on: the stand-ins' modules."""
    root = work / _RUNTIME
    home = root / _HOME / "devices"
    home.mkdir(parents=True)
    for source in _modules():
        shutil.copyfile(source, home / source.name)
    _control(root, _RUNTIME, version, "device stand-ins of a rackproof virtual node", ("python3",))
    script = root / "DEBIAN/prerm"
    script.write_text(f"#!/bin/sh\nrm -rf /{_HOME}/devices/__pycache__\n")
    script.chmod(0o755)
    _pack(root, repository)


def _upstream(version: str) -> str:
    """A Debian version without epoch and revision: what the program itself reports."""
    return version.partition(":")[2].partition("-")[0] if ":" in version else version.partition("-")[0]


def _build(
    package: Package, version: str, work: Path, repository: Path, header: Path, runtime: str, infiniband: Tools
) -> None:
    root = work / package.name
    _wrap(package, root, infiniband)
    for path, entry in package.programs:
        _write(root / path, _launcher(entry), 0o755)
    for library in package.libraries:
        folder = root / "usr/lib" / _multiarch()
        folder.mkdir(parents=True, exist_ok=True)
        compile_library(library, folder, header)
    for name, text in package.units:
        _write(root / "lib/systemd/system" / name, text, 0o644)
    for path, text in package.files:
        _write(root / path, text, 0o644)
    # What a program reports as its version is what dpkg installed it as.
    _write(root / _HOME / "devices/versions" / package.name, f"{_upstream(version)}\n", 0o644)
    _control(root, package.name, version, package.summary, (f"{_RUNTIME} (>= {runtime})", *package.depends))
    configuration = [f"/{path}\n" for path, _ in package.files if path.startswith("etc/")]
    if configuration:
        _write(root / "DEBIAN/conffiles", "".join(configuration), 0o644)
    if package.libraries:
        _write(root / "DEBIAN/triggers", "activate-noawait ldconfig\n", 0o644)
    _pack(root, repository)


def _wrap(package: Package, root: Path, infiniband: Tools) -> None:
    """Real InfiniBand programs, out of the way, and what starts them in their place. Scripts only call those.

    opensm's libraries come with opensm, the others with the diagnostics.
    """
    home = root / _HOME / "infiniband"
    for name in package.tools:
        real = infiniband.programs / name
        with real.open("rb") as program:
            is_script = program.read(2) == b"#!"
        if is_script:
            _copy(real, root / "usr/sbin" / name)
        else:
            _write(root / "usr/sbin" / name, _launcher("infiniband_tools:main"), 0o755)
            _copy(real, home / "bin" / name)
    for library in infiniband.libraries.glob("lib*.so.[0-9]") if package.tools else ():
        if library.name.startswith(("libosm", "libopensm")) == (package.name == "opensm"):
            _copy(library, home / "lib" / library.name)
    if package.name == "infiniband-diags":
        _copy(infiniband.preload, home / "lib/umad2sim" / infiniband.preload.name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _launcher(entry: str) -> str:
    module, function = entry.split(":")
    return (
        "#!/usr/bin/python3\n"
        f'import sys\n\nsys.path.insert(0, "/{_HOME}")\n\nfrom devices.{module} import {function}  # noqa: E402\n\n'
        f"sys.exit({function}())\n"
    )


def _multiarch() -> str:
    return _run("dpkg-architecture", "-qDEB_HOST_MULTIARCH").strip()


def _control(root: Path, name: str, version: str, summary: str, depends: Iterable[str]) -> None:
    text = (
        f"Package: {name}\nVersion: {version}\nArchitecture: {_architecture()}\n"
        "Maintainer: rackproof <root@localhost>\n"
        f"Depends: {', '.join(depends)}\nSection: misc\nPriority: optional\n"
        f"Description: {summary} (virtual)\n Stand-in of the package of this name, for nodes of a virtual rack.\n"
    )
    _write(root / "DEBIAN/control", text, 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _pack(root: Path, repository: Path) -> None:
    _run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(repository))


def _index(repository: Path) -> None:
    packages = _run("apt-ftparchive", "packages", ".", cwd=repository)
    (repository / "Packages").write_text(packages)
    with gzip.GzipFile(repository / "Packages.gz", "wb", mtime=0) as packed:
        packed.write(packages.encode())
    options = {
        "Origin": "rackproof",
        "Label": "rackproof-virtual",
        "Suite": "virtual",
        "Architectures": _architecture(),
    }
    settings = [word for key, value in options.items() for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")]
    (repository / "Release").write_text(_run("apt-ftparchive", *settings, "release", ".", cwd=repository))


def _sign(repository: Path) -> None:
    """InRelease with a key made for it. A short path for gpg's home: its agent's socket must fit in 107 characters."""
    with tempfile.TemporaryDirectory(prefix="rp-", dir="/tmp") as home:
        gpg = (
            "gpg",
            "--homedir",
            home,
            "--batch",
            "--quiet",
            "--yes",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        )
        try:
            _run(*gpg, "--quick-generate-key", "rackproof virtual repository", "ed25519", "sign", "never")
            _run(*gpg, "--clearsign", "-o", str(repository / "InRelease"), str(repository / "Release"))
            _run(*gpg, "--armor", "--export", "-o", str(repository / "archive-key.asc"))
            _run(*gpg, "--export", "-o", str(repository / "archive-key.gpg"))
        finally:
            _run("gpgconf", "--homedir", home, "--kill", "all")


def _run(*command: str, cwd: Path | None = None) -> str:
    doing = f"building the packages of virtual nodes: {command[0]}"
    try:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UndecidedError(f"{doing} did not end within {_TIMEOUT_S} s", "look at the machine's load") from error
    if done.returncode:
        raise UndecidedError(f"{doing} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout
