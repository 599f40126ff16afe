"""Where nodes are not what the rack's one version lock says: packages and adapter firmware, node by node. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.judge.skew import Installed
from toolkit.judge.verdict import Answer
from toolkit.rack.model import MNNVL, Mode, Profile

ABSENT = "not installed"
UNREAD = "not read"


def optional_pins(mode: Mode) -> frozenset[str]:
    """Pins that a node may lack: the subnet manager runs on one host, and IMEX only where NVLink spans trays."""
    return frozenset({"opensm"} if mode in MNNVL else {"opensm", "nvidia-imex"})


@dataclass(frozen=True, slots=True)
class Drift:
    """One pin that some nodes do not keep.

    pin      package name, or device type of an adapter (`mt4129`)
    locked   what the lock says
    found    nodes by what they have instead: a version, `not installed` or `not read`
    """

    pin: str
    locked: str
    found: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def unread(self) -> bool:
        """Whether all that is said of this pin is that it could not be read."""
        return all(version == UNREAD for version, _ in self.found)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """PASS: every node has every pin. FAIL: some have not. INCONCLUSIVE: no other version seen, not all read."""

    answer: Answer
    nodes: int
    pins: int
    drifts: tuple[Drift, ...]


def drift(profile: Profile, nodes: Mapping[str, Installed], optional: frozenset[str] = frozenset()) -> DriftReport:
    """Compares every planned node with the lock.

    nodes      all planned nodes by name; one that was not asked is Installed(None)
    optional   pins that a node may lack: packages that its mode keeps out, or that another host runs (opensm)
    """
    lock = (*profile.versions, *profile.firmware)
    firmware = {pin for pin, _ in profile.firmware}
    drifts = []
    for pin, locked in lock:
        found: dict[str, list[str]] = {}
        for name, node in sorted(nodes.items()):
            has = _has(node.firmware if pin in firmware else node.packages, pin)
            if not is_locked(has, locked) and not (has == ABSENT and pin in optional):
                found.setdefault(has, []).append(name)
        if found:
            drifts.append(Drift(pin, locked, tuple((version, tuple(found[version])) for version in sorted(found))))
    drifted = any(not d.unread for d in drifts)
    answer = Answer.FAIL if drifted else Answer.INCONCLUSIVE if drifts or not nodes or not lock else Answer.PASS
    return DriftReport(answer, len(nodes), len(lock), tuple(drifts))


def _has(versions: Mapping[str, str] | None, pin: str) -> str:
    return UNREAD if versions is None else versions.get(pin, ABSENT)


def is_locked(has: str, locked: str) -> bool:
    """Whether a version is the locked one as the pins and playbooks mean it (`580.95.05*`): with whatever comes after.

    A digit is another number, though: 580.95.051 is not 580.95.05.
    """
    return has.startswith(locked) and not has[len(locked) : len(locked) + 1].isdigit()
