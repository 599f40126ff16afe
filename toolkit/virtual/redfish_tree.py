"""The Redfish resources of a virtual BMC: fixed ones from redfish.json, and those that grow from its state.

In redfish.json a string that is `${name}` becomes the live value of that name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from toolkit.virtual.chassis import Event

Json = dict[str, object]

ROOT = "/redfish/v1"
SYSTEM = f"{ROOT}/Systems/DGX"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
LOG = f"{SYSTEM}/LogServices/EventLog"
ENTRIES = f"{LOG}/Entries"
CLEAR_LOG = f"{LOG}/Actions/LogService.ClearLog"
SESSIONS = f"{ROOT}/SessionService/Sessions"
FIRMWARE = f"{ROOT}/UpdateService/FirmwareInventory"
# What a client may read before it logs in (DSP0266, "Redfish Service requirements").
PUBLIC = frozenset({"/redfish", ROOT})

_VALUE = re.compile(r"\$\{(\w+)\}")


@lru_cache(maxsize=1)
def _data() -> tuple[Mapping[str, Json], Mapping[str, str]]:
    raw = json.loads(Path(__file__).with_name("redfish.json").read_text())
    return raw["resources"], raw["firmware"]


def firmware_version(component: str) -> str:
    """Version of a component of the firmware inventory."""
    return _data()[1][component]


def resource(path: str, values: Mapping[str, object]) -> Json | None:
    """A resource whose place is fixed, with live values in it; None if there is none at this path."""
    resources, firmware = _data()
    if path in resources:
        filled = _fill(resources[path], values)
        return filled if isinstance(filled, dict) else None
    if path == FIRMWARE:
        return collection(path, "SoftwareInventory", tuple(firmware))
    name = path.removeprefix(f"{FIRMWARE}/")
    return _component(name, firmware[name]) if name in firmware else None


def collection(path: str, kind: str, members: Sequence[str]) -> Json:
    """A collection of the resources with these names below `path`."""
    return {
        "@odata.id": path,
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        "Name": f"{kind} Collection",
        "Members@odata.count": len(members),
        "Members": [{"@odata.id": f"{path}/{name}"} for name in members],
    }


def log_entry(event: Event) -> Json:
    """An entry of the event log."""
    return {
        "@odata.id": f"{ENTRIES}/{event.number}",
        "@odata.type": "#LogEntry.v1_15_0.LogEntry",
        "Id": str(event.number),
        "Name": f"Log entry {event.number}",
        "EntryType": "Event",
        "Severity": event.severity,
        "Created": event.at.isoformat(timespec="seconds"),
        "Message": event.message,
    }


def log_entries(events: Sequence[Event]) -> Json:
    """The event log: entries are expanded in place, as BMCs do."""
    members = [log_entry(event) for event in events]
    return collection(ENTRIES, "LogEntry", ()) | {"Members@odata.count": len(members), "Members": members}


def session(identity: str, user: str) -> Json:
    """A login session."""
    return {
        "@odata.id": f"{SESSIONS}/{identity}",
        "@odata.type": "#Session.v1_6_0.Session",
        "Id": identity,
        "Name": "User Session",
        "UserName": user,
    }


def error(message_id: str, message: str) -> Json:
    """The body of an error answer (DSP0266, "Error responses")."""
    full = f"Base.1.16.0.{message_id}"
    entry = {"@odata.type": "#Message.v1_1_2.Message", "MessageId": full, "Message": message, "Severity": "Critical"}
    return {"error": {"code": full, "message": message, "@Message.ExtendedInfo": [entry]}}


def _component(name: str, version: str) -> Json:
    return {
        "@odata.id": f"{FIRMWARE}/{name}",
        "@odata.type": "#SoftwareInventory.v1_10_0.SoftwareInventory",
        "Id": name,
        "Name": name,
        "Version": version,
        "Updateable": False,
        "Status": {"State": "Enabled", "Health": "OK"},
    }


def _fill(template: object, values: Mapping[str, object]) -> object:
    match template:
        case dict():
            return {key: _fill(value, values) for key, value in template.items()}
        case list():
            return [_fill(value, values) for value in template]
        case str():
            whole = _VALUE.fullmatch(template)
            return values[whole[1]] if whole else template
        case _:
            return template
