"""The Redfish resources of a virtual BMC: fixed ones from redfish.json, and those that grow from its state.

In redfish.json a string that is `${name}` becomes the live value of that name. Its ids are a DGX H100's; of another
machine they are that machine's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from toolkit.virtual.bmc_shapes import BoardShape
from toolkit.virtual.chassis import Event

Json = dict[str, object]

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
UPDATE = f"{ROOT}/UpdateService"
FIRMWARE = f"{UPDATE}/FirmwareInventory"
TASKS = f"{ROOT}/TaskService/Tasks"
ACCOUNT = f"{ROOT}/AccountService/Accounts/1"
# What a client may read before it logs in (DSP0266, "Redfish Service requirements").
PUBLIC = frozenset({"/redfish", ROOT})

_VALUE = re.compile(r"\$\{(\w+)\}")


class Tree:
    """The fixed resources of a machine of one shape."""

    def __init__(self, shape: BoardShape) -> None:
        self.shape = shape
        self.system = f"{ROOT}/Systems/{shape.system}"
        self.reset = f"{self.system}/Actions/ComputerSystem.Reset"
        self.log = f"{self.system}/LogServices/EventLog"
        self.entries = f"{self.log}/Entries"
        self.clear_log = f"{self.log}/Actions/LogService.ClearLog"
        self.manager = f"{ROOT}/Managers/{shape.manager}"
        self._resources = _resources(shape)

    def resource(self, path: str, values: Mapping[str, object]) -> Json | None:
        """A resource whose place is fixed, with live values in it; None if there is none at this path."""
        found = self._resources.get(path)
        filled = _fill(found, values) if found is not None else None
        return filled if isinstance(filled, dict) else None

    def log_entry(self, event: Event) -> Json:
        """An entry of the event log."""
        return {
            "@odata.id": f"{self.entries}/{event.number}",
            "@odata.type": "#LogEntry.v1_15_0.LogEntry",
            "Id": str(event.number),
            "Name": f"Log entry {event.number}",
            "EntryType": "Event",
            "Severity": event.severity,
            "Created": event.at.isoformat(timespec="seconds"),
            "Message": event.message,
        }

    def log_entries(self, events: Sequence[Event]) -> Json:
        """The event log: entries are expanded in place, as BMCs do."""
        members = [self.log_entry(event) for event in events]
        counted = {"Members@odata.count": len(members), "Members": members}
        return collection(self.entries, "LogEntry", ()) | counted


def collection(path: str, kind: str, members: Sequence[str]) -> Json:
    """A collection of the resources with these names below `path`."""
    return {
        "@odata.id": path,
        "@odata.type": f"#{kind}Collection.{kind}Collection",
        "Name": f"{kind} Collection",
        "Members@odata.count": len(members),
        "Members": [{"@odata.id": f"{path}/{name}"} for name in members],
    }


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


def component(name: str, version: str) -> Json:
    """A component of the firmware inventory."""
    return {
        "@odata.id": f"{FIRMWARE}/{name}",
        "@odata.type": "#SoftwareInventory.v1_10_0.SoftwareInventory",
        "Id": name,
        "Name": name,
        "Version": version,
        "Updateable": True,
        "Status": {"State": "Enabled", "Health": "OK"},
    }


@lru_cache(maxsize=8)
def _resources(shape: BoardShape) -> Mapping[str, Json]:
    text = Path(__file__).with_name("redfish.json").read_text()
    own = shape.chassis[0]
    for kind, name, other in (
        ("Systems", "DGX", shape.system), ("Managers", "BMC", shape.manager), ("Chassis", "DGX", own),
    ):  # fmt: skip
        text = re.sub(rf'/{kind}/{name}(?=["/])', f"/{kind}/{other}", text)
    found: dict[str, Json] = json.loads(text)["resources"]
    for path, name in (("Systems", shape.system), ("Managers", shape.manager), ("Chassis", own)):
        found[f"{ROOT}/{path}/{name}"]["Id"] = name
    nic = found[f"{ROOT}/Systems/{shape.system}/EthernetInterfaces/eth0"]
    if shape.spelling != "MACAddress":
        nic[shape.spelling] = nic.pop("MACAddress")
    for name in shape.chassis[1:]:
        found[f"{ROOT}/Chassis/{name}"] = _module(name)
    found[f"{ROOT}/Chassis"] |= collection(f"{ROOT}/Chassis", "Chassis", shape.chassis)
    if shape.boards:
        found[f"{ROOT}/Systems/HGX_Baseboard_0"] = _baseboard()
        found[f"{ROOT}/Systems"] |= collection(f"{ROOT}/Systems", "ComputerSystem", (shape.system, "HGX_Baseboard_0"))
    for name, count in shape.detectors:
        _add_detectors(found, name, count)
    return found


def _module(name: str) -> Json:
    return {
        "@odata.id": f"{ROOT}/Chassis/{name}",
        "@odata.type": "#Chassis.v1_23_0.Chassis",
        "Id": name,
        "Name": name,
        "ChassisType": "Module",
        "Status": {"State": "Enabled", "Health": "OK"},
    }


def _baseboard() -> Json:
    return {
        "@odata.id": f"{ROOT}/Systems/HGX_Baseboard_0",
        "@odata.type": "#ComputerSystem.v1_20_1.ComputerSystem",
        "Id": "HGX_Baseboard_0",
        "Name": "HGX_Baseboard_0",
        "SystemType": "Physical",
        "SerialNumber": "",
        "PowerState": "${power}",
        "Status": {"State": "Enabled", "Health": "OK"},
    }


def _add_detectors(found: dict[str, Json], chassis: str, count: int) -> None:
    base = f"{ROOT}/Chassis/{chassis}"
    thermal, detection = f"{base}/ThermalSubsystem", f"{base}/ThermalSubsystem/LeakDetection"
    found[base]["ThermalSubsystem"] = {"@odata.id": thermal}
    healthy = {"State": "Enabled", "Health": "OK"}
    found[thermal] = {
        "@odata.id": thermal, "@odata.type": "#ThermalSubsystem.v1_3_0.ThermalSubsystem", "Id": "ThermalSubsystem",
        "Name": "Thermal Subsystem", "Status": healthy, "LeakDetection": {"@odata.id": detection},
    }  # fmt: skip
    found[detection] = {
        "@odata.id": detection, "@odata.type": "#LeakDetection.v1_0_1.LeakDetection", "Id": "LeakDetection",
        "Name": "Leak Detection", "Status": healthy, "LeakDetectors": {"@odata.id": f"{detection}/LeakDetectors"},
    }  # fmt: skip


def detectors_path(chassis: str) -> str:
    """The collection of a chassis' leak detectors."""
    return f"{ROOT}/Chassis/{chassis}/ThermalSubsystem/LeakDetection/LeakDetectors"


def detector(chassis: str, number: int, *, wet: bool) -> Json:
    """One leak detector."""
    name = f"LeakDetector_{number}"
    return {
        "@odata.id": f"{detectors_path(chassis)}/{name}",
        "@odata.type": "#LeakDetector.v1_1_0.LeakDetector",
        "Id": name,
        "Name": name,
        "LeakDetectorType": "Moisture",
        "DetectorState": "Critical" if wet else "OK",
        "Status": {"State": "Enabled", "Health": "Critical" if wet else "OK"},
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
