"""What a node has installed, asked whether it goes together, before a playbook builds on it.

The lock itself is asked when its profile is loaded (`toolkit.rack.checks`); both use the rules of `toolkit.rack.skew`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.judge.verdict import Answer
from toolkit.rack.model import Profile
from toolkit.rack.skew import Skew, driver_packages, skews, upstream

# What the driver's own packages must agree with, and what a later stage builds on; the rest is drift, and no skew.
_JUDGED = frozenset({
    "nvidia-fabricmanager", "nvidia-imex", "libnvidia-nscq", "libnvsdm", "nvlsm", "doca-ofed",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Installed:
    """What one node said. None: it was not asked or could not be read, which is never taken for "as it should be".

    packages   versions by name, of `dpkg-query`
    driver     version of the loaded GPU driver, which after an upgrade is not the installed one until it is loaded anew
    firmware   version by device type in lower case (`mt4129`), where all adapters of the type have it
    """

    packages: Mapping[str, str] | None
    driver: str | None = None
    firmware: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SkewFinding:
    """PASS: go on. FAIL: `skews` must not be built on. INCONCLUSIVE: `doubt` says what is not known."""

    answer: Answer
    skews: tuple[Skew, ...] = ()
    doubt: str = ""

    def __str__(self) -> str:
        if self.answer is Answer.INCONCLUSIVE:
            return self.doubt
        return "; ".join(f"{s.wrong} ({'; '.join(filter(None, (s.right, f'source: {s.source}')))})" for s in self.skews)


def judge_installed(installed: Installed, profile: Profile) -> SkewFinding:
    """Whether what is installed on a node goes together in the profile's mode, and with the driver that is loaded.

    A skew's `right` names the pin to correct where the lock asks for the skew, and else the playbook that installs it.
    """
    if installed.packages is None:
        return SkewFinding(Answer.INCONCLUSIVE, doubt="the node's packages were not read: dpkg-query gave no answer")
    if not driver_packages(installed.packages):
        return SkewFinding(Answer.INCONCLUSIVE, doubt="no GPU driver is installed: base.yml has not been played here")
    if installed.driver is None:
        return SkewFinding(Answer.INCONCLUSIVE, doubt="the loaded driver was not read: nvidia-smi gave no answer")
    watched = {k: v for k, v in installed.packages.items() if k in _JUDGED or k in driver_packages(installed.packages)}
    # Firmware of types that the lock does not name is nobody's claim: adapters run with older firmware than DOCA's own.
    pinned = {kind: v for kind, v in (installed.firmware or {}).items() if kind in dict(profile.firmware)}
    found = [*_loaded(installed), *skews(watched, profile.mode, pinned)]
    if not found:
        return SkewFinding(Answer.PASS)
    lock = dict(profile.versions) | dict(profile.firmware)
    return SkewFinding(Answer.FAIL, tuple(_with_way(skew, lock, watched | pinned) for skew in found))


def _loaded(installed: Installed) -> tuple[Skew, ...]:
    """The loaded driver is the installed one."""
    packages = installed.packages or {}
    found = []
    for name in driver_packages(packages):
        its = upstream(packages[name])
        if installed.driver is not None and installed.driver != its:
            wrong = f"driver {installed.driver} is loaded and {name} {its} is installed"
            found.append(Skew(name, wrong, "reboot the node, or load the modules anew", "NVML: version mismatch"))
    return tuple(found)


def _with_way(skew: Skew, lock: Mapping[str, str], installed: Mapping[str, str]) -> Skew:
    """What to do: the node is not as locked, or the lock itself asks for it."""
    locked, has = lock.get(skew.pin), installed.get(skew.pin)
    if locked is not None and has is not None and upstream(has) != upstream(locked):
        right = f"the lock has {skew.pin} {locked}: play the stage that installs it again; {skew.right}"
        return Skew(skew.pin, skew.wrong, right, skew.source)
    return skew
