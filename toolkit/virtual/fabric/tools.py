"""The real opensm and infiniband-diags, from Debian, over a fabric of ours: fetched once, unpacked, never installed.

    <cache>/infiniband-<digest>/   files of the packages (usr/sbin/opensm, usr/lib/<multiarch>/...), `versions`

The packages come from this machine's own apt sources, into lists and archives of their own: its apt is not touched.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError
from toolkit.image import mirrors
from toolkit.virtual.programs import environment

Say = Callable[[str], None]

# What a Debian with openssh-server has not: its other dependencies (libwrap0, libc6) are there.
PACKAGES = (
    "infiniband-diags", "opensm", "libumad2sim0", "libibmad5", "libibumad3", "libibnetdisc5", "libopensm9",
    "libosmcomp5", "libosmvendor5",
)  # fmt: skip
_VERSIONS = "versions"
_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Tools:
    """The unpacked packages. `libraries` is the folder of their shared libraries."""

    folder: Path

    @property
    def programs(self) -> Path:
        """Where ibnetdiscover, opensm and the others are."""
        return self.folder / "usr/sbin"

    @property
    def libraries(self) -> Path:
        """Where their shared libraries are."""
        return next(path for path in sorted((self.folder / "usr/lib").glob("*-linux-*")) if path.is_dir())

    @property
    def preload(self) -> Path:
        """The library that takes a program's management datagrams to a fabric of ours."""
        return self.libraries / "umad2sim/libumad2sim.so"

    @property
    def versions(self) -> str:
        """`package version` a line: what there is."""
        return (self.folder / _VERSIONS).read_text()

    def environment(self, name: str, adapter: str) -> Mapping[str, str]:
        """For a program that runs as that adapter or switch of the fabric behind the UNIX sockets `name`."""
        return environment(
            LD_PRELOAD=str(self.preload), LD_LIBRARY_PATH=str(self.libraries), IBSIM_SOCKNAME=name, SIM_HOST=adapter
        )


def fetch(cache: Path, say: Say, packages: Sequence[str] = PACKAGES, release: str = mirrors.RELEASE) -> Tools:
    """The tools, downloaded if they are not there yet. `release` is one that the machine's own mirrors carry.

    Raises UsageError where this is no Debian or has no mirror of it, UndecidedError where the mirror failed.
    """
    lines = _sources(release)
    digest = hashlib.sha256(repr((lines, tuple(packages))).encode()).hexdigest()[:16]
    target = cache / f"infiniband-{digest}"
    if (target / _VERSIONS).exists():
        return Tools(target)
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if missing:
        raise UsageError(f"fetching opensm and infiniband-diags: {', '.join(missing)} not found", "use Debian 12")
    cache.mkdir(parents=True, exist_ok=True)
    say("InfiniBand tools: downloading Debian packages")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".infiniband-") as folder:
        work = Path(folder)
        _download(work, lines, packages)
        root = work / "root"
        names = []
        for archive in sorted((work / "debs").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(root)], work)
            names.append(_run(["dpkg-deb", "-W", str(archive)], work).replace("\t", " "))
        (root / _VERSIONS).write_text("".join(names))
        try:
            root.rename(target)
        except OSError:  # another process was quicker, with the same contents
            if not (target / _VERSIONS).exists():
                raise
    return Tools(target)


def _sources(release: str) -> str:
    """The machine's own Debian sources, for another release if that is asked for."""
    found = mirrors.debian_mirrors()
    blocks = [*found.lines, *found.stanzas]
    if release != mirrors.RELEASE:
        # updates and security of another release need not exist: its main suite has what is asked for
        blocks = [_main_suite(block, release) for block in blocks if "security" not in block]
    return "\n\n".join(blocks) + "\n"


def _main_suite(block: str, release: str) -> str:
    lines = [
        f"Suites: {release}" if line.lower().startswith("suites:") else line.replace(mirrors.RELEASE, release)
        for line in block.splitlines()
    ]
    return "\n".join(lines)


def _download(work: Path, sources: str, packages: Sequence[str]) -> None:
    stanzas = "\n\n".join(block for block in sources.split("\n\n") if not block.lstrip().startswith("deb "))
    lines = "\n".join(block for block in sources.split("\n\n") if block.lstrip().startswith("deb "))
    parts = work / "sources.list.d"
    for folder in (parts, work / "lists/partial", work / "archives/partial", work / "debs"):
        folder.mkdir(parents=True)
    (parts / "debian.sources").write_text(stanzas + "\n")
    (parts / "debian.list").write_text(lines + "\n")
    access = work / "access.conf"
    access.touch(mode=0o600)
    access.write_text(mirrors.access_options())
    options = [
        f"Dir::Etc::sourceparts={parts}", "Dir::Etc::sourcelist=/dev/null", f"Dir::State::lists={work / 'lists'}",
        "Dir::State::status=/dev/null", f"Dir::Cache={work}", "APT::Sandbox::User=root", "Acquire::Languages=none",
    ]  # fmt: skip
    settings = [word for option in options for word in ("-o", option)]
    config = {"APT_CONFIG": str(access)}
    _run(["apt-get", "-q", *settings, "update"], work, config)
    _run(["apt-get", "-q", *settings, "download", *packages], work / "debs", config)


def _run(argv: Sequence[str], cwd: Path, extra: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=environment(**(extra or {})), capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UndecidedError(f"fetching InfiniBand tools: {argv[0]} took over {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise UndecidedError(
            f"fetching InfiniBand tools: {argv[0]} exited with {done.returncode}: {done.stderr.strip()[-500:]}",
            "check that `apt-get update` works on this machine, then again",
        )
    return done.stdout
