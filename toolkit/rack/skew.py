"""Versions that do not go together: pure rules with their sources, for a version lock and for installed versions.

A version is compared as its vendor counts it: without Debian's epoch and revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolkit.rack.model import MNNVL, Mode

_DRIVER = re.compile(r"nvidia-driver-(\d{3,4})(-server)?(-open)?")
_NVLINK_IN_THE_NODE = frozenset({Mode.NVSWITCH_GEN3, Mode.NVLINK5_SINGLE})
_BLACKWELL = MNNVL | {Mode.NVLINK5_SINGLE}

_FABRIC_GUIDE = "NVIDIA Fabric Manager user guide, Fabric Manager versus driver version"
_IMEX_GUIDE = "NVIDIA IMEX service guide, driver compatibility"
_DGX_OS = "DGX OS 7 package lists, as in NVIDIA/deepops roles/nvidia-dgx"
_MUST_BE_THE_DRIVERS = {
    "nvidia-fabricmanager": ("the fabric never completes (CUDA error 802)", _FABRIC_GUIDE),
    "nvidia-imex": ("IMEX ends by itself on a driver of another version", _IMEX_GUIDE),
    "libnvidia-nscq": ("its calls into the driver fail, DCGM sees no NVSwitch", "DCGM user guide, NVSwitch support"),
    "libnvsdm": ("from driver 580 on it is versioned with the driver", _DGX_OS),
}
_LIBNVSDM_JOINED = 580
# What manages NVLink 5 inside a node; on an NVL72 rack the same services run on a switch tray.
_LOCAL_MANAGERS = ("nvidia-fabricmanager", "nvlsm", "libnvsdm")
_NEEDED = {
    Mode.NVLINK5_SINGLE: ("nvlsm", "libnvsdm"),
}
# Major version of CUDA in a package's name, and the oldest driver branch that runs it.
_CUDA_DRIVER = {"13": 580, "12": 525}
_CUDA_NOTES = "CUDA Toolkit release notes, table of CUDA Toolkit and minimum driver versions"
# DOCA release by major and minor, and the second number of the adapter firmware it comes with. A release that is
# missing here has no published pair that we know of, and is not judged.
_DOCA_FIRMWARE = {
    "2.9": ("43", "docs.nvidia.com/doca/archive/2-9-0, General Support: ConnectX-7 28.43.1014"),
    "2.10": ("44", "docs.nvidia.com/doca/archive/2-10-0, General Support: ConnectX-7 28.44.1036"),
    "3.0": ("45", "docs.nvidia.com/doca/archive/3-0-0, General Support: ConnectX-8 40.45.1020"),
    "3.1": ("46", "docs.nvidia.com/doca/archive/3-1-0, General Support: ConnectX-8 40.46.1006"),
    "3.2": ("47", "DGX GB300 release 1.0.6 (DOCA 3.2.1, MFT 4.34.1); MFT 4.34.1, supported firmware: 28.47.1088"),
}
_ADAPTERS = {"mt4129": "ConnectX-7", "mt4131": "ConnectX-8"}


@dataclass(frozen=True, slots=True)
class Skew:
    """Two versions that do not go together: the pin to correct, what is wrong, what would be right, who says so."""

    pin: str
    wrong: str
    right: str
    source: str


def upstream(version: str) -> str:
    """A Debian version as its vendor counts it: `1:580.95.05-0ubuntu1` is 580.95.05."""
    return version.partition(":")[2].partition("-")[0] if ":" in version else version.partition("-")[0]


def driver_packages(versions: Mapping[str, str]) -> tuple[str, ...]:
    """Names of driver packages among `versions`, sorted."""
    return tuple(sorted(name for name in versions if _DRIVER.fullmatch(name)))


def skews(versions: Mapping[str, str], mode: Mode, firmware: Mapping[str, str] | None = None) -> tuple[Skew, ...]:
    """Every pair that does not go together.

    versions   by package name: a lock, or what a node has installed
    firmware   of adapters, by device type in lower case as ibstat prints it (`mt4129`)
    """
    found = [*_drivers(versions, mode), *_managers(versions, mode), *_cuda(versions)]
    return (*found, *_adapters(versions, firmware or {}))


def _drivers(versions: Mapping[str, str], mode: Mode) -> Iterator[Skew]:
    """One driver, of the branch its name says, and open where the GPU asks for it."""
    names = driver_packages(versions)
    for name in names[1:]:
        yield Skew(name, f"{name} beside {names[0]}", "one driver", "apt: the two conflict")
    for name in names:
        found = _DRIVER.fullmatch(name)
        if found is None:
            continue
        branch, version = found[1], upstream(versions[name])
        if version.partition(".")[0] != branch:
            yield Skew(name, f"{version} is not of branch {branch}", f"{name}: {branch}.x", "the package's name")
        if mode in _BLACKWELL and not found[3]:
            source = "NVIDIA driver installation guide: Blackwell and later need the open kernel modules"
            yield Skew(name, f"{name} in mode {mode}", f"nvidia-driver-{branch}-open", source)


def _managers(versions: Mapping[str, str], mode: Mode) -> Iterator[Skew]:
    """What manages NVLink is of the driver's version, there where it must run, and absent where it must not."""
    drivers = driver_packages(versions)
    for name, (why, source) in _MUST_BE_THE_DRIVERS.items():
        for driver in drivers if name in versions else ():
            mine, its = upstream(versions[name]), upstream(versions[driver])
            judged = name != "libnvsdm" or _major(its) >= _LIBNVSDM_JOINED
            if judged and mine != its:
                yield Skew(name, f"{name} {mine} and {driver} {its}: {why}", f"{name}: {its}", source)
    if mode not in _NVLINK_IN_THE_NODE:
        for name in _LOCAL_MANAGERS:
            if name in versions:
                wrong = f"{name} must not run in mode {mode}"
                yield Skew(name, wrong, "remove it: nothing in this node is to manage NVLink", _DGX_OS)
    if "nvidia-fabricmanager" in versions:
        for name in _NEEDED.get(mode, ()):
            if name not in versions:
                wrong = f"nvidia-fabricmanager without {name} in mode {mode}"
                yield Skew("nvidia-fabricmanager", wrong, f"add {name}", _DGX_OS)


def _cuda(versions: Mapping[str, str]) -> Iterator[Skew]:
    """A package built for a CUDA that its driver does not run."""
    for name in sorted(versions):
        found = re.search(r"-cuda(\d\d)$", name)
        least = _CUDA_DRIVER.get(found[1]) if found else None
        for driver in driver_packages(versions) if least else ():
            its = upstream(versions[driver])
            if least and _major(its) < least:
                yield Skew(name, f"{name} needs driver {least} or newer, {driver} is {its}", "", _CUDA_NOTES)


def _adapters(versions: Mapping[str, str], firmware: Mapping[str, str]) -> Iterator[Skew]:
    """Adapter firmware is of the release that came with the host's DOCA."""
    doca = upstream(versions.get("doca-ofed", ""))
    pair = _DOCA_FIRMWARE.get(".".join(doca.split(".")[:2]))
    for device, adapter in _ADAPTERS.items() if pair else ():
        version = firmware.get(device)
        if pair and version and version.split(".")[1:2] != [pair[0]]:
            series = version.split(".", maxsplit=1)[0]
            wrong = f"{adapter} firmware {version} with DOCA {doca}, which comes with {series}.{pair[0]}"
            yield Skew(device, wrong, f"{device}: {series}.{pair[0]}.x, or another doca-ofed", pair[1])


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() else 0
