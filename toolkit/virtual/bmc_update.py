"""A virtual BMC's update service: firmware that takes its time, tasks, and what can go wrong with both.

A firmware file of the virtual rack is one JSON object: {"component": "HostBIOS_0", "version": "1.06.07"}.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

from toolkit.virtual import redfish_tree as tree
from toolkit.virtual.bmc_parts import FaultLook, Passive, Refused, Reply
from toolkit.virtual.faults import FaultKind
from toolkit.virtual.redfish_tree import Json

PUSH = f"{tree.UPDATE}/update-multipart"
SIMPLE = f"{tree.UPDATE}/Actions/UpdateService.SimpleUpdate"
MAX_IMAGE_BYTES = 16 * 1024 * 1024
_FETCH_TIMEOUT_S = 10.0
_FAILS_AT = 60.0


@dataclass(slots=True)
class _Task:
    """An update under way: it ends by itself as time passes."""

    number: int
    component: str
    version: str
    began: float
    ended: str = ""


class UpdatePart(Passive):
    """Inventory, update and tasks. `whole_s`: how long an update takes."""

    def __init__(
        self, firmware: Mapping[str, str], fault: FaultLook, whole_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._versions = dict(firmware)
        self._waiting: dict[str, str] = {}
        self._tasks: dict[int, _Task] = {}
        self._numbers = 0
        self._fault = fault
        self._whole_s = whole_s
        self._clock = clock
        self._lock = threading.Lock()
        self.applied: list[tuple[str, str]] = []

    def version(self, component: str) -> str:
        """What is in force."""
        return self._versions.get(component, "")

    def get(self, path: str) -> Json | None:
        """See Part."""
        with self._lock:
            self._go_on()
            if path == tree.FIRMWARE:
                return tree.collection(path, "SoftwareInventory", tuple(self._versions))
            if path == tree.TASKS:
                return tree.collection(path, "Task", tuple(str(n) for n in self._tasks))
            folder, _, name = path.rpartition("/")
            if folder == tree.FIRMWARE and name in self._versions:
                return tree.component(name, self._versions[name])
            if folder == tree.TASKS and name.isdecimal() and int(name) in self._tasks:
                return self._document(self._tasks[int(name)])
        return None

    def post(self, path: str, body: Json) -> Reply | None:
        """SimpleUpdate: the BMC fetches the file."""
        if path != SIMPLE:
            return None
        uri = body.get("ImageURI")
        if not isinstance(uri, str) or not uri.startswith("http://"):
            raise Refused(400, "ActionParameterMissing", "ImageURI: an http:// URL")
        try:
            with urllib.request.urlopen(uri, timeout=_FETCH_TIMEOUT_S) as answer:  # noqa: S310 - checked above
                content = answer.read(MAX_IMAGE_BYTES + 1)
        except (OSError, urllib.error.URLError) as error:
            raise Refused(400, "ActionParameterValueError", f"ImageURI cannot be fetched: {error}") from error
        return self._begin(content, body.get("Targets"))

    def push(self, content_type: str, body: bytes) -> Reply:
        """A multipart push: UpdateParameters and UpdateFile."""
        head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
        told = BytesParser(policy=HTTP).parsebytes(head + body)
        parts = {str(p.get_param("name", header="content-disposition")): p for p in _parts(told)}
        if not {"UpdateParameters", "UpdateFile"} <= parts.keys():
            raise Refused(400, "MissingOrMalformedPart", "a push has UpdateParameters and UpdateFile")
        parameters = _json(_bytes(parts["UpdateParameters"]))
        return self._begin(_bytes(parts["UpdateFile"]), parameters.get("Targets"))

    def started(self) -> None:
        """What waited for a start is in force."""
        with self._lock:
            self._go_on()
            self._versions |= self._waiting
            self._waiting = {}

    def _begin(self, content: bytes, targets: object) -> Reply:
        told = _json(content)
        component, version = told.get("component"), told.get("version")
        if not isinstance(component, str) or component not in self._versions or not isinstance(version, str):
            raise Refused(400, "ActionParameterValueError", "the file is for none of this machine's components")
        if isinstance(targets, list) and targets and f"{tree.FIRMWARE}/{component}" not in targets:
            raise Refused(400, "ActionParameterValueError", "the file is for none of the targets")
        with self._lock:
            self._go_on()
            if any(not task.ended for task in self._tasks.values()):
                raise Refused(503, "ServiceTemporarilyUnavailable", "an update is under way")
            self._numbers += 1
            task = self._tasks[self._numbers] = _Task(self._numbers, component, version, self._clock())
            self.applied.append((component, version))
            where = f"{tree.TASKS}/{task.number}"
            return Reply(202, {"Location": where}, self._document(task))

    def _percent(self, task: _Task) -> float:
        if task.ended:
            return 100.0
        return min(100.0, 100.0 * (self._clock() - task.began) / self._whole_s)

    def _go_on(self) -> None:
        """What time has brought: ends of tasks, a BMC that restarts itself. The caller holds the lock."""
        for task in [task for task in self._tasks.values() if not task.ended]:
            percent = self._percent(task)
            fails, lost = self._fault(FaultKind.UPDATE_FAILS), self._fault(FaultKind.TASK_LOST)
            if fails is not None and percent >= (fails.value or _FAILS_AT):
                task.ended = "Exception"
            elif lost is not None and percent >= (lost.value or _FAILS_AT):
                self._settle(task)  # the flash went on while the BMC's web server came up again
                del self._tasks[task.number]
            elif percent >= 100.0:
                task.ended = "Completed"
                if self._fault(FaultKind.UPDATE_LIES) is None:
                    self._settle(task)

    def _settle(self, task: _Task) -> None:
        at_once = "BMC" in task.component.upper()
        (self._versions if at_once else self._waiting)[task.component] = task.version

    def _document(self, task: _Task) -> Json:
        fails = self._fault(FaultKind.UPDATE_FAILS)
        failed = task.ended == "Exception"
        percent = int((fails.value if fails else None) or _FAILS_AT) if failed else int(self._percent(task))
        said = f"the update of {task.component} to {task.version} "
        said += {"": "is under way", "Completed": "has ended", "Exception": f"failed at {percent} %"}[task.ended]
        severity = "Critical" if failed else "OK"
        return {
            "@odata.id": f"{tree.TASKS}/{task.number}",
            "@odata.type": "#Task.v1_7_3.Task",
            "Id": str(task.number),
            "Name": f"Task {task.number}",
            "TaskState": task.ended or "Running",
            "TaskStatus": severity,
            "PercentComplete": percent,
            "Messages": [
                {"@odata.type": "#Message.v1_1_2.Message", "MessageId": "Update.1.0.0.UpdateInProgress",
                 "Message": said, "Severity": severity}
            ],
        }  # fmt: skip


def _parts(told: Message) -> list[Message]:
    found = told.get_payload()
    return [part for part in found if isinstance(part, Message)] if isinstance(found, list) else []


def _bytes(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _json(content: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "MalformedJSON", "not a JSON object")
    return found
