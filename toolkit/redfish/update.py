"""Firmware onto a machine through its BMC: UpdateService, by multipart push or SimpleUpdate (DSP0268, DSP2062).

What is asked here is asked once. Whether it was asked before is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError
from toolkit.redfish.tasks import task_path
from toolkit.redfish.wire import ROOT, Wire, is_path, link

_SIMPLE = "#UpdateService.SimpleUpdate"
_SCHEMES = {"http": "HTTP", "https": "HTTPS", "nfs": "NFS", "tftp": "TFTP"}


@dataclass(frozen=True, slots=True)
class UpdateService:
    """What a BMC takes firmware by: paths, empty where it does not have it. `largest_bytes` is 0 where not told."""

    simple: str
    multipart: str
    largest_bytes: int = 0


def update_service(wire: Wire) -> UpdateService:
    """What is offered. UndecidedError where the service is absent or switched off."""
    doing = "looking for its update service"
    path = link(wire.get(ROOT, doing), "UpdateService")
    document = wire.get_or_none(path, doing) if path else None
    if document is None or document.get("ServiceEnabled") is False:
        raise UndecidedError(f"BMC {wire.url}: {doing}: none is enabled", "update this unit by its maker's own tool")
    actions = document.get("Actions")
    simple = actions.get(_SIMPLE) if isinstance(actions, Mapping) else None
    target = simple.get("target") if isinstance(simple, Mapping) else None
    push, largest = document.get("MultipartHttpPushUri"), document.get("MaxImageSizeBytes")
    return UpdateService(
        str(target) if is_path(target) else "",
        str(push) if is_path(push) else "",
        largest if isinstance(largest, int) and largest > 0 else 0,
    )


def push(wire: Wire, service: UpdateService, file: Path, targets: Sequence[str]) -> str:
    """Sends the file for these components (inventory paths; none: whatever the file is for); answers the task's path.

    Raises UsageError before anything is sent where the BMC takes no push, or not of that size.
    """
    size = file.stat().st_size
    if not service.multipart:
        raise UsageError(f"BMC {wire.url} takes no multipart push", "serve the file by HTTP and give --uri")
    if service.largest_bytes and size > service.largest_bytes:
        raise UsageError(f"{file} has {size} bytes; BMC {wire.url} takes {service.largest_bytes}", "give --uri")
    answer = wire.upload(service.multipart, {"Targets": list(targets)}, file, "sending firmware")
    return _begun(wire, task_path(answer))


def simple_update(wire: Wire, service: UpdateService, uri: str, targets: Sequence[str]) -> str:
    """The BMC fetches the file itself; answers the task's path. No password may be in the URI."""
    scheme = uri.split("://", 1)[0].lower()
    if scheme not in _SCHEMES or "@" in uri:
        raise UsageError(f"{uri!a} is no address of a firmware file", "http://, https://, nfs:// or tftp://, no login")
    if not service.simple:
        raise UsageError(f"BMC {wire.url} has no SimpleUpdate", "give --file")
    body = {"ImageURI": uri, "TransferProtocol": _SCHEMES[scheme], "Targets": list(targets)}
    return _begun(wire, task_path(wire.post(service.simple, body, "asking for an update")))


def _begun(wire: Wire, path: str) -> str:
    if not path:
        raise UndecidedError(
            f"BMC {wire.url}: it took the update and names no task: nobody can follow it",
            "wait until its log says that it ended, then run the same command again: it reads the inventory first",
        )
    return path
