"""What NVUE answers, checked, as values. Always the operational state: the configured one says nothing of the fabric.

Collections answer `rev=applied` where nobody asks for more, and a proxy or an older release may drop the question:
data without state is recognised by its shape and refused. Shapes: NVIDIA NVOS User Manual for NVLink Switches v25.02.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from toolkit.judge.nvlink.seen import (
    AppSeen,
    ClusterSeen,
    ClusterState,
    LocationSeen,
    PartitionSeen,
    PortSeen,
)

MAX_ENTRIES, MAX_TEXT = 1024, 256
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/:-]{0,63}")


class NotNvueError(ValueError):
    """The answer is JSON of another shape than NVUE's. The text says what is wrong, in one line."""


class AppliedDataError(NotNvueError):
    """The answer is what was configured, not what is."""


def _text(value: object) -> str:
    """Text of the switch, bounded and printable; empty for null."""
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise ValueError("not a text")
    return "".join(c if c.isprintable() else " " for c in str(value)[: 4 * MAX_TEXT]).strip()[:MAX_TEXT]


def _number(value: object) -> int | None:
    """A count, which some releases write as text; None for null."""
    if value is None:
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)):
        raise ValueError("not a whole number")
    return int(str(value))


def _nested(value: object) -> object:
    """`nmxc-conn` is documented as a word, and some releases nest it: `{"state": "up"}`."""
    return value.get("state") if isinstance(value, dict) else value


Text = Annotated[str, BeforeValidator(_text)]
Count = Annotated[int | None, BeforeValidator(_number)]


class _Answer(BaseModel):
    # fields we don't read come and go with releases
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class _Cluster(_Answer):
    state: Text = ""
    connection: Annotated[Text, BeforeValidator(_nested)] = Field("", alias="nmxc-conn")


class _App(_Answer):
    status: Text = ""
    reason: Text = ""
    # The field's name has the vendor's spelling, and in some releases ours.
    info: Text = Field("", validation_alias=AliasChoices("addition-info", "additional-info"))
    versions: Text = Field("", alias="components-ver")


class _Partition(_Answer):
    name: Text = ""
    gpus: Count = Field(None, alias="num-gpus")
    health: Text = ""
    resiliency: Text = Field("", alias="resiliency-mode")
    kind: Text = Field("", alias="partition-type")
    multicast: Count = Field(None, alias="mcast-limit")


class _Issue(_Answer):
    issue: Text = ""


class _Health(_Answer):
    status: Text = ""
    issues: dict[str, _Issue | None] | None = None


class _Status(_Answer):
    status: Text = ""


class _Link(_Answer):
    diagnostics: dict[str, _Status] | None = None


class _Interface(_Answer):
    kind: Text = Field("", alias="type")
    link: _Link | None = None


class _Firmware(_Answer):
    actual: Text = Field("", validation_alias=AliasChoices("actual-firmware", "fw-version", "version"))


class _Location(_Answer):
    chassis_serial: Text = Field("", alias="chassis-sn")
    slot: Text = Field("", alias="slot-number")
    tray_index: Text = Field("", alias="tray-index")
    topology: Text = Field("", alias="topology-id")


T = TypeVar("T")


def _checked(kind: type[T] | Any, data: object) -> T:
    """The data in its schema. Raises NotNvueError with the first thing that is wrong."""
    if isinstance(data, Mapping) and len(data) > MAX_ENTRIES:
        raise NotNvueError(f"{len(data):,} entries, more than {MAX_ENTRIES:,}")
    try:
        checked: T = TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = _text("/".join(str(step) for step in first["loc"])) or "the answer"
        raise NotNvueError(f"{where}: {_text(first['msg'])}") from None
    return checked


def _collection(kind: type[T], data: object) -> dict[str, T]:
    """A collection by name; entries that are null are left out, names that are none of NVUE's refused."""
    checked: dict[str, T | None] = _checked(dict[str, kind | None], data)  # type: ignore[valid-type]
    strange = [name for name in checked if not _KEY.fullmatch(name)]
    if strange:
        raise NotNvueError(f"an entry is named {_text(strange[0])!r}")
    return {name: entry for name, entry in checked.items() if entry is not None}


def health(data: object) -> tuple[bool, tuple[tuple[str, str], ...]]:
    """`system/health`: whether its summary is OK, and the issues."""
    found: _Health = _checked(_Health, data)
    if not found.status:
        raise AppliedDataError("no `status` in it")
    issues = tuple((_text(what), issue.issue if issue else "") for what, issue in (found.issues or {}).items())
    return found.status.lower() == "ok", issues[:64]


def cluster(data: object) -> ClusterSeen:
    """`cluster`. Enabled and no word of the connection is the configuration, not the state."""
    found: _Cluster = _checked(_Cluster, data)
    if found.state not in tuple(ClusterState):
        raise (NotNvueError(f"cluster state {found.state!r}") if found.state else AppliedDataError("no `state` in it"))
    if found.state == ClusterState.ENABLED and not found.connection:
        raise AppliedDataError("the cluster is enabled, and no `nmxc-conn` is shown")
    return ClusterSeen(ClusterState(found.state), found.connection or None)


def apps(data: object) -> tuple[AppSeen, ...]:
    """`cluster/apps`, by name. Every entry has a status in the operational state."""
    found = _collection(_App, data)
    bare = [name for name, app in found.items() if not app.status]
    if bare:
        raise AppliedDataError(f"{bare[0]} has no `status`")
    return tuple(AppSeen(n, a.status.lower(), a.reason, a.info, a.versions) for n, a in sorted(found.items()))


def partitions(data: object) -> tuple[PartitionSeen, ...]:
    """`sdn/partition`, by number. Every entry has health and a number of GPUs in the operational state."""
    seen = []
    for number, entry in sorted(_collection(_Partition, data).items()):
        if not entry.health or entry.gpus is None:
            raise AppliedDataError(f"partition {number} has no {'`health`' if not entry.health else '`num-gpus`'}")
        seen.append(
            PartitionSeen(
                number, entry.name, entry.gpus, entry.health.lower(), entry.resiliency, entry.kind, entry.multicast
            )
        )
    return tuple(seen)


def ports(data: object) -> tuple[PortSeen, ...]:
    """NVLink ports of `interface` with their link diagnostics. No port with any is the configuration."""
    seen = []
    for name, entry in sorted(_collection(_Interface, data).items()):
        if entry.kind not in ("nvl", ""):
            continue
        codes = (entry.link.diagnostics if entry.link else None) or {}
        if any(not re.fullmatch(r"\d{1,6}", code) for code in codes):
            raise NotNvueError(f"{name}: a diagnostic code that is no number")
        seen.append(PortSeen(name, tuple((int(code), told.status) for code, told in codes.items())))
    if not any(port.codes for port in seen):
        raise AppliedDataError(f"none of its {len(seen)} NVLink ports has link diagnostics")
    return tuple(seen)


def firmware(data: object) -> tuple[tuple[str, str], ...]:
    """`platform/firmware`: version by component."""
    found = tuple((name, entry.actual) for name, entry in sorted(_collection(_Firmware, data).items()))
    if not any(version for _, version in found):
        raise AppliedDataError("no component has a version")
    return tuple((name, version) for name, version in found if version and version != "N/A")


def location(data: object) -> LocationSeen:
    """`platform/chassis-location`."""
    found: _Location = _checked(_Location, data)
    if not found.chassis_serial:
        raise AppliedDataError("no `chassis-sn` in it")
    return LocationSeen(found.chassis_serial, found.slot, found.tray_index, found.topology)


class _Revision(_Answer):
    state: Text = ""
    transition: Any = None


def revision_made(data: object) -> str:
    """The id of a revision just made: the one key of the answer."""
    if not isinstance(data, dict) or len(data) != 1:
        raise NotNvueError("a new revision is one entry by its id")
    (identity,) = data
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}", str(identity)):
        raise NotNvueError(f"a revision named {_text(identity)!r}")
    return str(identity)


def revision_state(data: object) -> tuple[str, str]:
    """State of a revision, and its issues in one line."""
    found: _Revision = _checked(_Revision, data)
    if not found.state:
        raise NotNvueError("a revision without `state`")
    transition = found.transition if isinstance(found.transition, dict) else {}
    return found.state, _issues(transition.get("issue"))


def action_started(data: object) -> str:
    """The id of an action just started: a number, alone or as text."""
    if isinstance(data, bool) or not isinstance(data, int | str) or not re.fullmatch(r"[\w-]{1,64}", str(data)):
        raise NotNvueError("an action's answer is its id")
    return str(data)


class _Action(_Answer):
    state: Text = ""
    status: Text = ""
    issue: Any = None


def action_state(data: object) -> tuple[str, str]:
    """State of an action, and what it said, in one line."""
    found: _Action = _checked(_Action, data)
    if not found.state:
        raise NotNvueError("an action without `state`")
    return found.state, " ".join(word for word in (found.status, _issues(found.issue)) if word)


def _issues(raw: object) -> str:
    entries = list(raw.values()) if isinstance(raw, dict) else raw if isinstance(raw, list) else []
    words = [entry.get("message") if isinstance(entry, dict) else entry for entry in entries[:8]]
    return "; ".join(_text(word) for word in words if isinstance(word, str))[:MAX_TEXT]
