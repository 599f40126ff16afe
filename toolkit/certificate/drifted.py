"""What is no longer what was certified, fact by fact. Pure.

A fact that could not be read has not drifted: nobody knows what it is. It is UNREAD, and then nothing is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from toolkit.certificate.fingerprint import Cable, Fingerprint, NodeFacts, design
from toolkit.rack.model import Rack

GPU, HCA = "GPU", "HCA"
_ABSENT, _UNNAMED = "not in the rack file", "without a name"


@dataclass(frozen=True, slots=True)
class Drifted:
    """One bound fact that is another now.

    node   whose; empty for what the rack file says of the whole rack
    field  `serial`, `driver`, `firmware gpu3 vbios`, `GPU` and `HCA` (by serial and GUID), `topology`, `unit leaf1`
    was    as it was certified; empty: the part is new
    now    as it was read; empty: it is not there any more, or, of a fact that is no part, it was not read
    """

    node: str
    field: str
    was: str
    now: str

    def __str__(self) -> str:
        if self.field in (GPU, HCA):
            return f"{self.field} {self.was} is gone" if self.was else f"{self.field} {self.now or 'unknown'} is new"
        return f"{self.field} {self.was or 'none'} is now {self.now or 'unknown'}"

    @property
    def unread(self) -> bool:
        """Whether nothing was read where something should be: no drift, and no sameness either."""
        return not self.now and (self.field not in (GPU, HCA) or not self.was)


def drift(then: NodeFacts, now: NodeFacts) -> tuple[str, ...]:
    """Every fact that is no longer what was certified, in words; empty if the node is the one certified."""
    return tuple(str(one) for one in drifted(then, now))


def drifted(then: NodeFacts, now: NodeFacts) -> tuple[Drifted, ...]:
    """Every fact that is no longer what was certified, and every one that was not read; empty: the very same node."""
    return tuple(_drifted(then, now))


def _drifted(then: NodeFacts, now: NodeFacts) -> Iterator[Drifted]:
    for field, before, after in (
        ("node", then.node, now.node),
        ("serial", then.serial, now.serial),
        ("driver", then.driver, now.driver),
    ):
        if before != after:
            yield Drifted(then.node, field, before, after)
    yield from _parts(then.node, GPU, Counter(then.gpus), Counter(now.gpus))
    yield from _parts(then.node, HCA, Counter(then.hcas), Counter(now.hcas))
    before_, after_ = dict(then.firmware), dict(now.firmware)
    for component in sorted(before_.keys() | after_.keys()):
        was, found = before_.get(component, ""), after_.get(component, "")
        if was != found:
            yield Drifted(then.node, f"firmware {component}", was, found)


def _parts(node: str, kind: str, then: Counter[str], now: Counter[str]) -> Iterator[Drifted]:
    """A part that is there and did not tell its serial may be any of those that are missed: none of them is gone."""
    missed, fresh = sorted((then - now).elements()), sorted((now - then).elements())
    silent = fresh.count("")
    yield from (Drifted(node, kind, "", "") for _ in range(silent))
    if not silent:
        yield from (Drifted(node, kind, serial, "") for serial in missed)
    elif then.total() != now.total():
        yield Drifted(node, f"number of {kind}s", str(then.total()), str(now.total()))
    yield from (Drifted(node, kind, "", serial) for serial in fresh if serial)


def drifted_design(then: Fingerprint, rack: Rack) -> tuple[Drifted, ...]:
    """What the rack file says otherwise than the certificate: units without an OS, cables, and all the rest of it.

    The rack's name is not looked at: a certificate of another rack is not one that drifted.
    """
    nodes = {facts.node for facts in then.nodes}
    others, cables = design(rack, nodes)
    gone = sorted(nodes - {unit.name for unit in rack.nodes})
    return (
        *(Drifted("", f"node {name}", "in the rack file", _ABSENT) for name in gone),
        *_named("unit", dict(then.switches), dict(others)),
        *_named("cable", _by_ends(then.cables), _by_ends(cables)),
        *([Drifted("", "topology", then.topology, rack.digest)] if then.topology != rack.digest else []),
    )


def _by_ends(cables: Iterable[Cable]) -> dict[str, str]:
    return {" - ".join(sorted(cable.ends)): cable.part for cable in cables}


def _named(kind: str, then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Drifted]:
    for name in sorted(then.keys() | now.keys()):
        was, found = then.get(name, _ABSENT), now.get(name, _ABSENT)
        if was != found:
            yield Drifted("", f"{kind} {name}", was or _UNNAMED, found or _UNNAMED)
