"""Kubernetes' control plane from Debian's own source package: no registry, no download page, no Go module proxy.

    python -m toolkit.virtual.control_plane.build          what `make kubernetes-binaries` runs
    <cache>/kubernetes-build/    the source, Go's cache and the log: an interrupted build goes on from there
    <cache>/kubernetes/          the programs

Debian 12 is the last release whose `kubernetes` package has the servers' whole source; later ones have kubectl's only.
A quarter of an hour of two cores, 4 GB of disk and 1.4 GB of memory, at the lowest priority.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RackproofError, UndecidedError, UsageError
from toolkit.image import mirrors
from toolkit.settings import load
from toolkit.virtual.control_plane.binaries import MAKE
from toolkit.virtual.programs import environment

Say = Callable[[str], None]

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
GO = Path("/usr/lib/go-1.19/bin")
# The vendored 1.0.1 reads Go's maps as they were before 1.18: the server dies at its first custom resource with
# "unexpected fault address" in runtime.mapiternext. Debian's package has 1.0.2.
REFLECT2 = Path("/usr/share/gocode/src/github.com/modern-go/reflect2")
_NEEDED = {
    "dpkg-source": "dpkg-dev",
    "gcc": "gcc",
    "jq": "jq",
    "make": "make",
    "nice": "coreutils",
    "rsync": "rsync",
}
_FREE_BYTES = 5 << 30
_TIMEOUT_S = 2 * 3600
_VERSION = re.compile(r"kubernetes_(?:\S+really)?(?P<version>\d+\.\d+\.\d+)[^\s/]*\.dsc")
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Workshop:
    """Folders of a build."""

    cache: Path

    @property
    def folder(self) -> Path:
        """Everything that is thrown away once the programs are there."""
        return self.cache / "kubernetes-build"

    @property
    def source(self) -> Path:
        """The unpacked source package."""
        return self.folder / "src"

    @property
    def tree(self) -> Path:
        """The source where its own build scripts want to find themselves: below GOPATH."""
        return self.source / ".go/src/k8s.io/kubernetes"

    @property
    def log(self) -> Path:
        """What the compilers and scripts said."""
        return self.folder / "build.log"

    @property
    def programs(self) -> Path:
        """Where `binaries.find` looks."""
        return self.cache / "kubernetes"


def build(cache: Path, say: Say) -> Path:
    """The folder with the programs; those that are there already are not built again.

    Raises UsageError where something to build with is missing, UndecidedError where the mirror or a compiler failed.
    """
    shop = Workshop(cache.absolute())
    missing = [name for name in PROGRAMS if not _version(shop.programs / name)]
    if not missing:
        say(f"kubernetes: {', '.join(PROGRAMS)} are in {shop.programs}")
        return shop.programs
    _require(shop)
    version = _fetch(shop, say)
    _unpack(shop, say)
    shop.programs.mkdir(parents=True, exist_ok=True)
    for name in missing:
        say(f"kubernetes: compiling {name} {version}; the log is {shop.log}")
        _compile(shop, name, version)
        _take(shop, name, version)
    sums = [f"{hashlib.sha256((shop.programs / name).read_bytes()).hexdigest()}  {name}\n" for name in PROGRAMS]
    (shop.programs / "SHA256SUMS").write_text("".join(sums))
    shutil.rmtree(shop.folder)
    say(f"kubernetes: {version} is in {shop.programs}")
    return shop.programs


def _require(shop: Workshop) -> None:
    packages = [package for program, package in _NEEDED.items() if shutil.which(program) is None]
    packages += [] if (GO / "go").exists() else ["golang-1.19-go"]
    packages += [] if REFLECT2.is_dir() else ["golang-github-modern-go-reflect2-dev"]
    if packages:
        raise UsageError(f"building Kubernetes: missing Debian packages: {' '.join(packages)}", f"`{MAKE}` as root")
    shop.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(shop.folder).free
    if free < _FREE_BYTES:
        raise UsageError(f"building Kubernetes: {shop.folder} has {free >> 30} GiB free, 5 are needed", "free some")


def _fetch(shop: Workshop, say: Say) -> str:
    """Downloads the source package, whose checksums apt verifies against the signed archive; its Kubernetes version."""
    found = sorted(shop.folder.glob("kubernetes_*.dsc"))
    if not found:
        say("kubernetes: downloading Debian's source package (34 MB)")
        _download(shop)
        found = sorted(shop.folder.glob("kubernetes_*.dsc"))
    match = _VERSION.fullmatch(found[-1].name) if found else None
    if match is None:
        raise UndecidedError(
            f"building Kubernetes: the source package is not one of ours to know: {[path.name for path in found]}",
            f"remove {shop.folder}, then again",
        )
    return match["version"]


def _download(shop: Workshop) -> None:
    sources = mirrors.debian_mirrors()
    apt = shop.folder / "apt"
    for folder in (apt / "parts", apt / "lists/partial", apt / "archives/partial", shop.folder / "down"):
        folder.mkdir(parents=True, exist_ok=True)
    lines = [re.sub(r"^deb\b", "deb-src", line) for line in sources.lines]
    stanzas = [re.sub(r"(?m)^Types: deb$", "Types: deb-src", stanza) for stanza in sources.stanzas]
    (apt / "parts/debian.list").write_text("\n".join(lines) + "\n")
    (apt / "parts/debian.sources").write_text("\n".join(stanzas))
    access = apt / "access.conf"
    access.touch(mode=0o600)
    access.write_text(mirrors.access_options())
    options = [
        f"Dir::Etc::sourceparts={apt / 'parts'}", "Dir::Etc::sourcelist=/dev/null", f"Dir::State::lists={apt}/lists",
        f"Dir::Cache={apt}", "APT::Sandbox::User=root", "Acquire::Languages=none",
    ]  # fmt: skip
    settings = [word for option in options for word in ("-o", option)]
    config = {"APT_CONFIG": str(access)}
    _run(shop, ["apt-get", "-q", *settings, "update"], shop.folder, config)
    _run(shop, ["apt-get", "-q", *settings, "source", "--download-only", "kubernetes"], shop.folder / "down", config)
    # The .dsc is the mark that all is there: it comes last.
    for path in sorted((shop.folder / "down").iterdir(), key=lambda path: path.suffix == ".dsc"):
        path.replace(shop.folder / path.name)


def _unpack(shop: Workshop, say: Say) -> None:
    """The patched source tree with the reflect2 that works; whole, or not there."""
    if shop.source.exists():
        return
    say("kubernetes: unpacking")
    aside = shop.folder / "src.new"
    shutil.rmtree(aside, ignore_errors=True)
    (description,) = shop.folder.glob("kubernetes_*.dsc")
    _run(shop, ["dpkg-source", "-x", str(description), str(aside)], shop.folder)
    vendored = aside / "vendor/github.com/modern-go/reflect2"
    if not vendored.is_dir():
        raise UndecidedError(f"building Kubernetes: {vendored} is not there: another source than Debian 12's?")
    shutil.rmtree(vendored)
    shutil.copytree(REFLECT2, vendored, ignore=shutil.ignore_patterns("go.mod"))
    inside = aside / ".go/src/k8s.io"
    inside.mkdir(parents=True, exist_ok=True)
    link = inside / "kubernetes"
    if not link.exists():
        link.symlink_to("../../..")
    aside.rename(shop.source)


def _compile(shop: Workshop, name: str, version: str) -> None:
    major, minor, _ = version.split(".")
    home = shop.folder / "home"
    home.mkdir(exist_ok=True)
    variables = {
        "PATH": f"{GO}:{os.environ.get('PATH', '')}",
        "HOME": str(home),
        "GOPATH": str(shop.source / ".go"),
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "KUBE_GIT_TREE_STATE": "archive",
        "KUBE_GIT_VERSION": f"v{version}",
        "KUBE_GIT_MAJOR": major,
        "KUBE_GIT_MINOR": minor,
        "KUBE_GIT_COMMIT": "debian",
    }
    _run(shop, ["nice", "-n", "19", "make", f"WHAT=cmd/{name}", "GOLDFLAGS=-s -w"], shop.tree, variables)


def _take(shop: Workshop, name: str, version: str) -> None:
    """Into the cache, once it says that it is what was to be built."""
    built = next(iter(sorted((shop.source / "_output").rglob(f"bin/**/{name}"))), None)
    if built is None or _version(built) != f"Kubernetes v{version}":
        raise UndecidedError(f"building Kubernetes: {name} {version} did not come out of it", f"see {shop.log}")
    aside = shop.programs / f".{name}.new"
    shutil.copy2(built, aside)
    aside.replace(shop.programs / name)


def _version(program: Path) -> str:
    """What the program says it is; empty where it is not there or does not run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(shop: Workshop, argv: Sequence[str], cwd: Path, extra: Mapping[str, str] | None = None) -> None:
    with shop.log.open("ab") as log:
        try:
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=environment(**(extra or {})),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UndecidedError(f"building Kubernetes: `{argv[0]}` did not run to its end: {error}") from error
    if done.returncode != 0:
        said = shop.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        raise UndecidedError(
            f"building Kubernetes: `{argv[0]}` ended with {done.returncode}:\n  " + "\n  ".join(said),
            f"the whole log is {shop.log}; the same command goes on where it stopped",
        )


def _say(text: str) -> None:
    sys.stderr.write(f"== {text}\n")


def main() -> int:
    """Builds into the cache of this installation."""
    try:
        build(load().cache, _say)
    except RackproofError as error:
        sys.stderr.write(f"make: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
