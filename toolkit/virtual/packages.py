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
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError
from toolkit.virtual import device_libraries
from toolkit.virtual.device_libraries import CUDA, DEVICES, NVML, Library, compile_library, nvml_header

Say = Callable[[str], None]

_HOME = "usr/lib/rackproof-virtual"
_RUNTIME = "rackproof-virtual-devices"
_NCCL_PROGRAMS = (
    "all_reduce_perf", "all_gather_perf", "reduce_scatter_perf", "alltoall_perf", "sendrecv_perf", "broadcast_perf",
)  # fmt: skip
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Package:
    """One .deb: programs as (path on the node, module:function), units as (name, text), configuration as (path, text).

    `version` is what it has where the rack's lock does not name it; `depends` comes on top of the runtime.
    """

    name: str
    version: str
    summary: str
    programs: tuple[tuple[str, str], ...] = ()
    libraries: tuple[Library, ...] = ()
    units: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    depends: tuple[str, ...] = field(default=())


def _unit(description: str, command: str, extra: str = "") -> str:
    """A systemd unit whose service says itself when it is up."""
    return (
        f"[Unit]\nDescription={description}\nAfter=network.target\n\n"
        f"[Service]\nType=notify\nExecStart={command}\n{extra}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


_FABRIC_CONFIG = """# NVIDIA Fabric Manager configuration
LOG_LEVEL=4
LOG_FILE_NAME=/var/log/fabricmanager.log
DAEMONIZE=1
BIND_INTERFACE_IP=127.0.0.1
STARTING_TCP_PORT=16000
FABRIC_MODE=0
FM_STAY_RESIDENT_ON_FAILURES=0
ABORT_CUDA_JOBS_ON_FM_EXIT=1
"""
_IMEX_CONFIG = """LOG_LEVEL=4
LOG_FILE_NAME=/var/log/nvidia-imex.log
SERVER_PORT=50000
IMEX_CMD_PORT=50005
IMEX_CMD_ENABLED=1
IMEX_NODE_CONFIG_FILE=/etc/nvidia-imex/nodes_config.cfg
IMEX_WAIT_FOR_QUORUM=RECOVERY
"""

PACKAGES = (
    Package(
        "nvidia-driver-580-open", "580.95.05", "NVML, CUDA driver, nvidia-smi, persistence daemon",
        programs=(
            ("usr/bin/nvidia-smi", "nvidia_smi:main"),
            ("usr/bin/nvidia-persistenced", "services:persistenced"),
        ),
        libraries=(NVML, CUDA),
        units=(
            ("nvidia-persistenced.service",
             _unit("NVIDIA Persistence Daemon", "/usr/bin/nvidia-persistenced --verbose")),
        ),
    ),
    Package("libnvidia-nscq", "580.95.05", "NVSwitch queries"),
    Package("nvidia-modprobe", "580.95.05", "loads the driver's modules"),
    Package("nv-persistence-mode", "1.0", "persistence mode at boot", depends=("nvidia-driver-580-open",)),
    Package(
        "nvidia-fabricmanager", "580.95.05", "programs the NVSwitches",
        programs=(("usr/bin/nv-fabricmanager", "services:fabric_manager"),),
        units=(
            ("nvidia-fabricmanager.service",
             _unit("NVIDIA fabric manager service",
                   "/usr/bin/nv-fabricmanager -c /usr/share/nvidia/nvswitch/fabricmanager.cfg")),
        ),
        files=(("usr/share/nvidia/nvswitch/fabricmanager.cfg", _FABRIC_CONFIG),),
    ),
    Package(
        "nvidia-imex", "580.95.05", "memory sharing between nodes of an NVLink domain",
        programs=(("usr/bin/nvidia-imex", "imex:daemon"), ("usr/bin/nvidia-imex-ctl", "imex:control")),
        units=(
            ("nvidia-imex.service",
             _unit("NVIDIA IMEX service", "/usr/bin/nvidia-imex -c /etc/nvidia-imex/config.cfg")),
        ),
        files=(("etc/nvidia-imex/config.cfg", _IMEX_CONFIG), ("etc/nvidia-imex/nodes_config.cfg", "")),
    ),
    Package(
        "datacenter-gpu-manager-4-cuda13", "4.6.0", "DCGM's daemon",
        programs=(("usr/bin/nv-hostengine", "services:host_engine"),),
        units=(("nvidia-dcgm.service", _unit("NVIDIA DCGM service", "/usr/bin/nv-hostengine -n")),),
    ),
    Package("nccl-tests", "2.17.9", "collectives of one node",
            programs=tuple((f"usr/bin/{name}", "nccl_tests:main") for name in _NCCL_PROGRAMS)),
    Package("infiniband-diags", "3.2.1", "ibstat", programs=(("usr/sbin/ibstat", "ibstat:main"),)),
    Package("doca-ofed", "3.2.1", "InfiniBand drivers and tools", depends=("infiniband-diags",)),
    Package(
        "containerd.io", "2.1.5", "container runtime's daemon",
        programs=(("usr/bin/containerd", "services:containerd"),),
        units=(("containerd.service", _unit("containerd container runtime", "/usr/bin/containerd")),),
    ),
    Package(
        "kubelet", "1.34.3", "Kubernetes node agent",
        programs=(("usr/bin/kubelet", "services:kubelet"),),
        units=(
            ("kubelet.service",
             _unit("kubelet: The Kubernetes Node Agent",
                   "/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_EXTRA_ARGS",
                   "EnvironmentFile=-/etc/default/kubelet\nRestart=always\nRestartSec=10\n")),
        ),
    ),
)  # fmt: skip


def build_repository(cache: Path, versions: Mapping[str, str] | Iterable[tuple[str, str]], say: Say) -> Path:
    """The repository's folder under `cache`, built if its contents are not there yet.

    `versions` is the rack's lock (`Profile.versions`): a package it names gets exactly that version.
    Raises UsageError where a program or the NVML header is missing, UndecidedError where one of them failed.
    """
    locked = dict(versions)
    header = nvml_header()
    _require("dpkg")
    digest = _digest(locked, header)
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
            _build(package, locked.get(package.name, package.version), work, repository, header, runtime)
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


def _digest(locked: Mapping[str, str], header: Path) -> str:
    """Sixteen digits of the sha256 over everything that goes into the repository."""
    seen = hashlib.sha256()
    for path in (*_modules(), *device_libraries.sources(header), Path(device_libraries.__file__), Path(__file__)):
        seen.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    for package in PACKAGES:
        seen.update(f"{package.name}={locked.get(package.name, package.version)}\n".encode())
    seen.update(_architecture().encode())
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


def _build(package: Package, version: str, work: Path, repository: Path, header: Path, runtime: str) -> None:
    root = work / package.name
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
