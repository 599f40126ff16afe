"""Virtual media: an image that the BMC shows its host as a CD, for sites without DHCP (VirtualMedia, DSP0268)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolkit.errors import UndecidedError, UsageError
from toolkit.redfish.bios import system_path
from toolkit.redfish.text import printable
from toolkit.redfish.wire import ROOT, Document, Wire, each, is_board, is_path, link

_INSERT, _EJECT = "#VirtualMedia.InsertMedia", "#VirtualMedia.EjectMedia"
_MAX_URI = 512


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive that a CD image goes into. `image`: what is in it, empty for nothing."""

    path: str
    image: str
    inserted: bool
    insert: str
    eject: str


def cd_drive(wire: Wire) -> Drive:
    """The first drive that takes a CD: below the system, where newer BMCs have it, else below a manager."""
    doing = "looking for virtual media"
    for collection in _collections(wire, doing):
        for path, document in each(wire, collection, doing):
            drive = _drive(path, document)
            if drive is not None:
                return drive
    raise UndecidedError(f"BMC {wire.url}: {doing}: it has no CD drive", "boot this machine from the network")


def insert(wire: Wire, uri: str) -> Drive:
    """Puts the image in, and reads that it is in. Nothing is done where it is in already.

    Raises UsageError where another image is in the drive: somebody else may boot from it.
    """
    if not uri.startswith(("http://", "https://")) or "@" in uri.split("/", 3)[2] or len(uri) > _MAX_URI:
        raise UsageError(f"{uri!a} is no address of an image", "http:// or https://, without a login in it")
    drive = cd_drive(wire)
    if drive.inserted and drive.image != uri:
        raise UsageError(
            f"BMC {wire.url}: {drive.path} holds another image: {printable(drive.image)}",
            "eject it, if nobody boots from it",
        )
    if not drive.inserted:
        wire.post(drive.insert, {"Image": uri, "Inserted": True, "WriteProtected": True}, "inserting an image")
        drive = cd_drive(wire)
    if not drive.inserted or drive.image != uri:
        raise UndecidedError(
            f"BMC {wire.url}: it accepted the image and does not show it in {drive.path}",
            "can the BMC reach that address? look at its log",
        )
    return drive


def eject(wire: Wire) -> Drive:
    """Takes out what is in the drive, and reads that it is out. Safe to say twice."""
    drive = cd_drive(wire)
    if drive.inserted:
        wire.post(drive.eject, {}, "ejecting an image")
        drive = cd_drive(wire)
    if drive.inserted:
        raise UndecidedError(f"BMC {wire.url}: {drive.path} still holds {printable(drive.image)}", "look at its log")
    return drive


def _collections(wire: Wire, doing: str) -> Iterator[str]:
    own = link(wire.get(system_path(wire), doing), "VirtualMedia")
    if own:
        yield own
    managers = link(wire.get(ROOT, doing), "Managers")
    for path, document in each(wire, managers, doing) if managers else ():
        found = link(document, "VirtualMedia")
        if found and not is_board(path):
            yield found


def _drive(path: str, document: Document) -> Drive | None:
    types, actions = document.get("MediaTypes"), document.get("Actions")
    if not isinstance(types, list) or not {"CD", "DVD"} & {str(kind) for kind in types}:
        return None
    insert, eject = _target(actions, _INSERT), _target(actions, _EJECT)
    if not insert or not eject:
        return None
    image = document.get("Image")
    return Drive(path, str(image)[:_MAX_URI] if image else "", document.get("Inserted") is True, insert, eject)


def _target(actions: object, name: str) -> str:
    action = actions.get(name) if isinstance(actions, Mapping) else None
    target = action.get("target") if isinstance(action, Mapping) else None
    return str(target) if is_path(target) else ""
