"""A Node as an API server gave it, read: the fields that a decision at the door needs, and no others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from toolkit.kubernetes.errors import printable

GPUS = "nvidia.com/gpu"  # the extended resource of NVIDIA's device plugin
READY = "Ready"


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint by what makes it one of its kind: two with the same key and effect cannot stand on a node."""

    key: str
    effect: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What somebody says of the node. `status` is `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class NodeObject:
    """A Node at one version.

    uid      another one under the same name is another object
    machine  the system UUID that its kubelet reports; empty where it reports none
    gpus     (capacity, allocatable) of GPUs; the device plugin takes a GPU it holds for bad out of the second
    """

    name: str
    uid: str = ""
    version: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    taints: tuple[Taint, ...] = ()
    conditions: tuple[Condition, ...] = ()
    unschedulable: bool = False
    machine: str = ""
    gpus: tuple[int, int] = (0, 0)

    def label(self, key: str) -> str:
        """The label's value; empty where the node has none of that key."""
        return (self.labels or {}).get(key, "")

    def annotation(self, key: str) -> str:
        """The annotation's value; empty where the node has none of that key."""
        return (self.annotations or {}).get(key, "")

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def ready(self) -> bool:
        """Whether its kubelet says that it is; silence is no."""
        found = self.condition(READY)
        return found is not None and found.status == "True"


def read_node(node: Mapping[str, Any]) -> NodeObject:
    """Never raises: a field of the wrong shape reads as absent, and absent never opens the door."""
    meta, spec, status = (_mapping(node.get(key)) for key in ("metadata", "spec", "status"))
    gpus = [_count(_mapping(status.get(kind)).get(GPUS)) for kind in ("capacity", "allocatable")]
    return NodeObject(
        name=_text(meta.get("name")),
        uid=_text(meta.get("uid")),
        version=_text(meta.get("resourceVersion")),
        labels=_texts(meta.get("labels")),
        annotations=_texts(meta.get("annotations")),
        taints=tuple(Taint(_text(t.get("key")), _text(t.get("effect"))) for t in _mappings(spec.get("taints"))),
        conditions=tuple(_condition(c) for c in _mappings(status.get("conditions"))),
        unschedulable=spec.get("unschedulable") is True,
        machine=_text(_mapping(status.get("nodeInfo")).get("systemUUID")),
        gpus=(gpus[0], gpus[1]),
    )


def moment(text: str) -> datetime | None:
    """An RFC 3339 time with its zone, as an API server or an annotation writes it; None for anything else."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def shown(text: str, most: int = 200) -> str:
    """What somebody wrote on a node, fit for a reason that an operator reads: one line, no escapes, cut."""
    return printable(text, most)


def _condition(raw: Mapping[str, Any]) -> Condition:
    return Condition(*(_text(raw.get(key)) for key in ("type", "status", "reason", "message", "lastTransitionTime")))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    return {key: item for key, item in _mapping(value).items() if isinstance(item, str)}


def _count(value: object) -> int:
    """An extended resource is a whole number; with a suffix (`1k`) it is none that GPUs come in."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
