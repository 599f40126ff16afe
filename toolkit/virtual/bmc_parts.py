"""What a virtual BMC can do beside power: BIOS settings, virtual media, leak detectors, its account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from toolkit.virtual import redfish_tree as tree
from toolkit.virtual.credentials import Login
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.redfish_tree import Json

FACTORY_PASSWORD = "0penBmc"  # noqa: S105 - what NVIDIA documents for its BMCs: toolkit/redfish/quirks.yml


class Refused(Exception):  # noqa: N818 - an answer, not a failure of ours
    """An error answer: HTTP status, Redfish message id, text."""

    def __init__(self, status: int, message_id: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = tree.error(message_id, message)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: HTTP status, headers, body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None


FaultLook = Callable[[FaultKind], Fault | None]
"""The fault of that kind that is set on the machine now; None for none."""


class Part(Protocol):
    """A part of the BMC. Each method answers None for a path that is not its own; writing raises Refused."""

    def get(self, path: str) -> Json | None:
        """A resource."""
        ...

    def post(self, path: str, body: Json) -> Reply | None:
        """An action."""
        ...

    def patch(self, path: str, body: Json) -> Reply | None:
        """A change."""
        ...

    def started(self) -> None:
        """The machine starts: what waited for that is in force."""
        ...


class Passive:
    """A part that only shows."""

    def get(self, path: str) -> Json | None:
        """See Part."""
        return None

    def post(self, path: str, body: Json) -> Reply | None:
        """See Part."""
        return None

    def patch(self, path: str, body: Json) -> Reply | None:
        """See Part."""
        return None

    def started(self) -> None:
        """See Part."""


class BiosPart(Passive):
    """BIOS attributes, and those that wait for the next start."""

    def __init__(self, system: str, attributes: Mapping[str, object], fault: FaultLook) -> None:
        self._path = f"{system}/Bios"
        self._settings = f"{system}/Bios/Settings"
        self._now = dict(attributes)
        self._staged: dict[str, object] = {}
        self._fault = fault

    def get(self, path: str) -> Json | None:
        """See Part."""
        if path == self._path:
            settings = {
                "@odata.type": "#Settings.v1_3_5.Settings",
                "SettingsObject": {"@odata.id": self._settings},
                "SupportedApplyTimes": ["OnReset"],
            }
            return self._document(path, "BIOS", self._now) | {"@Redfish.Settings": settings}
        if path == self._settings:
            return self._document(path, "BIOS at the next start", self._staged)
        if path == f"{tree.ROOT}/Registries/VirtualBios/VirtualBios.en.json":
            return self._registry(path)
        return None

    def patch(self, path: str, body: Json) -> Reply | None:
        """See Part."""
        if path != self._settings:
            return None
        wanted = body.get("Attributes")
        if not isinstance(wanted, dict) or not set(body) <= {"Attributes", "@Redfish.SettingsApplyTime"}:
            raise Refused(400, "PropertyNotWritable", "only Attributes can be written")
        for name, value in wanted.items():
            if name not in self._now:
                raise Refused(400, "PropertyUnknown", f"there is no BIOS attribute {name}")
            if type(value) is not type(self._now[name]):
                raise Refused(400, "PropertyValueTypeError", f"{name} is of another type")
        self._staged |= wanted
        return Reply(204)

    def started(self) -> None:
        """The firmware takes the settings over; with the fault it forgets them."""
        if self._fault(FaultKind.BIOS_NOT_STICKY) is None:
            self._now |= self._staged
        self._staged = {}

    def _document(self, path: str, name: str, attributes: Mapping[str, object]) -> Json:
        return {
            "@odata.id": path,
            "@odata.type": "#Bios.v1_2_1.Bios",
            "Id": path.rsplit("/", 1)[-1],
            "Name": name,
            "AttributeRegistry": "VirtualBios",
            "Attributes": dict(attributes),
        }

    def _registry(self, path: str) -> Json:
        kinds = {bool: "Boolean", int: "Integer"}
        listed = [
            {"AttributeName": name, "DisplayName": name, "ReadOnly": False, "Type": kinds.get(type(value), "String")}
            for name, value in self._now.items()
        ]
        return {
            "@odata.id": path,
            "@odata.type": "#AttributeRegistry.v1_3_8.AttributeRegistry",
            "Id": "VirtualBios",
            "Name": "BIOS attributes",
            "Language": "en",
            "OwningEntity": "rackproof",
            "RegistryVersion": "1.0.0",
            "RegistryEntries": {"Attributes": listed},
        }


class MediaPart(Passive):
    """One CD drive that takes an image by URL."""

    def __init__(self, system: str) -> None:
        self._path = f"{system}/VirtualMedia/CD1"
        self.image = ""

    def get(self, path: str) -> Json | None:
        """See Part."""
        if path != self._path:
            return None
        return {
            "@odata.id": path,
            "@odata.type": "#VirtualMedia.v1_6_0.VirtualMedia",
            "Id": "CD1",
            "Name": "Virtual CD",
            "MediaTypes": ["CD", "DVD"],
            "Image": self.image or None,
            "Inserted": bool(self.image),
            "ConnectedVia": "URI" if self.image else "NotConnected",
            "WriteProtected": True,
            "Actions": {
                "#VirtualMedia.InsertMedia": {"target": f"{path}/Actions/VirtualMedia.InsertMedia"},
                "#VirtualMedia.EjectMedia": {"target": f"{path}/Actions/VirtualMedia.EjectMedia"},
            },
        }

    def post(self, path: str, body: Json) -> Reply | None:
        """See Part."""
        if path == f"{self._path}/Actions/VirtualMedia.InsertMedia":
            image = body.get("Image")
            if not isinstance(image, str) or not image.startswith(("http://", "https://")):
                raise Refused(400, "ActionParameterMissing", "Image: an http:// or https:// URL")
            if self.image:
                raise Refused(400, "ResourceInUse", "there is an image in the drive")
            self.image = image
            return Reply(204)
        if path == f"{self._path}/Actions/VirtualMedia.EjectMedia":
            self.image = ""
            return Reply(204)
        return None


class LeakPart(Passive):
    """Leak detectors of a liquid-cooled machine."""

    def __init__(self, detectors: Mapping[str, int], fault: FaultLook) -> None:
        self._detectors = detectors
        self._fault = fault

    def get(self, path: str) -> Json | None:
        """See Part. The fault's value is the number of the detector: 1, where it has none."""
        for chassis, count in self._detectors.items():
            place = tree.detectors_path(chassis)
            there = [n for n in range(1, count + 1) if n != self._number(FaultKind.LEAK_DETECTOR_GONE)]
            if path == place:
                return tree.collection(path, "LeakDetector", [f"LeakDetector_{n}" for n in there])
            for number in there:
                if path == f"{place}/LeakDetector_{number}":
                    return tree.detector(chassis, number, wet=number == self._number(FaultKind.COOLANT_LEAK))
        return None

    def _number(self, kind: FaultKind) -> int:
        fault = self._fault(kind)
        return 0 if fault is None else int(fault.value or 1)


class AccountPart(Passive):
    """The one account: its password can be changed."""

    def __init__(self, login: Login, fault: FaultLook) -> None:
        self.login = login
        self._fault = fault

    def patch(self, path: str, body: Json) -> Reply | None:
        """See Part."""
        if path != tree.ACCOUNT:
            return None
        password = body.get("Password")
        if set(body) != {"Password"} or not isinstance(password, str):
            raise Refused(400, "PropertyNotWritable", "only Password can be written")
        if not 13 <= len(password) <= 20:
            raise Refused(400, "PropertyValueFormatError", "a password has 13 to 20 characters")
        self.login = Login(self.login.username, password)
        return Reply(204)

    def logins(self) -> tuple[Login, ...]:
        """What opens the BMC now: with the fault, the factory's too."""
        factory = self._fault(FaultKind.DEFAULT_PASSWORD) is not None
        return (self.login, Login("root", FACTORY_PASSWORD)) if factory else (self.login,)
