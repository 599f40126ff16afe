"""Where the control plane's programs are: the KUBEBUILDER_ASSETS convention, else our cache, else nowhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.virtual.requirements import SEARCH_PATH

ASSETS = "KUBEBUILDER_ASSETS"
MAKE = "make kubernetes-binaries"
_OURS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The four programs."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    scheduler: Path


class NoBinariesError(UsageError):
    """A program of the control plane is nowhere to be found."""


def find(cache: Path, env: Mapping[str, str] = os.environ, path: str = SEARCH_PATH) -> Binaries:
    """The programs; etcd may also be the distribution's. Raises NoBinariesError that says where it looked.

    A folder that KUBEBUILDER_ASSETS names and that lacks one is an error: another version's is not what was asked for.
    envtest's archives have no controller-manager and no scheduler; a release's server tarball has.
    """
    named = env.get(ASSETS, "")
    folder = Path(named) if named else cache / "kubernetes"
    lacking = [name for name in _OURS if not _runs(folder / name)]
    if lacking:
        where = f"{ASSETS}={folder}" if named else f"{folder} ({ASSETS} is not set)"
        raise NoBinariesError(
            f"no Kubernetes control plane: {', '.join(lacking)} not in {where}",
            f"`{MAKE}` builds them from Debian's source package; or set {ASSETS} to a folder that has all",
        )
    etcd = folder / "etcd" if _runs(folder / "etcd") else shutil.which("etcd", path=path)
    if etcd is None:
        raise NoBinariesError(f"no etcd in {folder} and none on the path", "apt-get install etcd-server")
    return Binaries(Path(etcd), *(folder / name for name in _OURS))


def _runs(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)
