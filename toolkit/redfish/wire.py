"""Requests to one BMC, as Redfish has them (DSP0266): JSON objects in and out, errors in our words.

sushy stands behind what `BmcClient` does; everything deeper (sessions, tasks, BIOS, firmware, logs, sensors) is asked
over this, because its answers differ by maker and sushy refuses those that leave a field out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.rack.model import Bmc
from toolkit.redfish.credentials import Credentials
from toolkit.redfish.failures import BmcAnswerError, answered, translated
from toolkit.redfish.model import BmcRefusedError
from toolkit.redfish.transport import ANSWER_S, CONNECT_S, PAUSE_S, Trust, secure, trust_of, url_of

ROOT = "/redfish/v1"
MAX_MEMBERS = 512
# A bundle of some hundred MB over a BMC's 100 Mbit/s port takes minutes, and its own check of it before it answers too.
UPLOAD_S = 1800.0
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a BMC answered that was not an error. `location`: path of what was made, or of a task's monitor."""

    status: int
    location: str
    document: Document
    etag: str = ""
    token: str = field(default="", repr=False)


class Wire:
    """One BMC. Raises UnreachableError, BmcRefusedError, BmcAnswerError, and UndecidedError for what is no Redfish."""

    def __init__(self, bmc: Bmc, credentials: Credentials, ca: Path) -> None:
        """Basic authentication, until `log_in` is given a session. Nothing is sent before the first call."""
        self.url = url_of(bmc)
        self.credentials = credentials
        self.trust: Trust = trust_of(bmc, ca)
        self._token = ""
        self._accepted = False

    def log_in(self, sessions: str) -> str:
        """Opens a session and uses it from now on; answers its path. BmcAnswerError where the BMC opens none."""
        doing = "opening a session"
        body = {"UserName": self.credentials.username, "Password": self.credentials.password}
        made = self._ask("POST", sessions, doing, body, anonymous=True)
        path = made.location if is_path(made.location) else link(made.document)
        if not made.token or not path:
            raise BmcAnswerError(f"BMC {self.url}: {doing}: it gives no token", "its log may say why", made.status)
        self._token = made.token
        return path

    def use_token(self, token: str) -> None:
        """From now on the session's token instead of the password; empty: the password again."""
        self._token = token

    def get(self, path: str, doing: str = "reading") -> Document:
        """A resource. What got no answer is asked once more: BMCs drop connections."""
        began = time.monotonic()
        try:
            return self._ask("GET", path, doing).document
        except UnreachableError:
            if time.monotonic() - began > 2 * CONNECT_S:
                raise
        time.sleep(PAUSE_S)
        return self._ask("GET", path, doing).document

    def public_root(self) -> Document:
        """The service root, which is readable without a login (DSP0266): no password is sent."""
        return self._ask("GET", ROOT, "looking whose it is", anonymous=True).document

    def get_or_none(self, path: str, doing: str = "reading") -> Document | None:
        """A resource, or None where the BMC says that it has none there (404)."""
        try:
            return self.get(path, doing)
        except BmcAnswerError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: Document, doing: str) -> Answer:
        """Asked once, never again by itself."""
        return self._ask("POST", path, doing, body)

    def patch(self, path: str, body: Document, doing: str) -> Answer:
        """With the resource's ETag, where it has one: some BMCs demand it (DSP0266, "ETags")."""
        etag = self._ask("GET", path, doing).etag
        return self._ask("PATCH", path, doing, body, headers={"If-Match": etag} if etag else {})

    def delete(self, path: str, doing: str) -> Answer:
        """Asked once."""
        return self._ask("DELETE", path, doing)

    def upload(self, path: str, parameters: Document, file: Path, doing: str) -> Answer:
        """A multipart push of a firmware file (DSP0266, "Software update HTTP push"). Asked once."""
        with file.open("rb") as content:
            parts = {
                "UpdateParameters": (None, json.dumps(parameters), "application/json"),
                "UpdateFile": (file.name, content, "application/octet-stream"),
            }
            return self._ask("POST", path, doing, parts=parts)

    def members(self, path: str, doing: str = "reading") -> tuple[str, ...]:
        """Paths of a collection's members over all its pages, bounded; () where the BMC has no such collection."""
        found: list[str] = []
        while path and len(found) < MAX_MEMBERS:
            document = self.get_or_none(path, doing)
            if document is None:
                break
            listed = links(document.get("Members"))
            found += listed
            following = document.get("Members@odata.nextLink")
            path = following if listed and is_path(following) and isinstance(following, str) else ""
        return tuple(dict.fromkeys(found))[:MAX_MEMBERS]

    def _ask(
        self, method: str, path: str, doing: str, body: Document | None = None, *,
        headers: Mapping[str, str] | None = None, parts: Mapping[str, Any] | None = None, anonymous: bool = False,
    ) -> Answer:  # fmt: skip
        """Once; and once more by password where a login that was good a moment ago is refused.

        A session ends when the BMC's web server restarts, and while that starts its password check may not answer. A
        request that is refused with 401 was not carried out, so that asking again does nothing twice.
        """
        try:
            answer = self._send(method, path, doing, body, headers or {}, parts, anonymous)
        except BmcRefusedError:
            if anonymous or parts or not (self._token or self._accepted):
                raise
            self._token, self._accepted = "", False  # no third time: wrong passwords lock an account
            time.sleep(PAUSE_S)
            answer = self._send(method, path, doing, body, headers or {}, parts, anonymous)
        self._accepted = self._accepted or not anonymous
        return answer

    def _send(
        self, method: str, path: str, doing: str, body: Document | None, headers: Mapping[str, str],
        parts: Mapping[str, Any] | None, anonymous: bool,
    ) -> Answer:  # fmt: skip
        import requests

        at = f"BMC {self.url}: {doing}"
        if not is_path(path):
            raise UndecidedError(f"{at}: it leads to another place than its own", "look at /redfish/v1 of this BMC")
        sent = {"OData-Version": "4.0", "Accept": "application/json", "Connection": "close", **headers}
        if self._token:
            sent["X-Auth-Token"] = self._token
        login = None if self._token or anonymous else (self.credentials.username, self.credentials.password)
        answer_s = UPLOAD_S if parts else ANSWER_S
        with translated(at, self.trust), requests.Session() as session:
            secure(session, self.trust)
            response = session.request(
                method, f"{self.url}{path}", json=body, files=parts, headers=sent, auth=login,
                timeout=(CONNECT_S, answer_s), allow_redirects=False,
            )  # fmt: skip
            document = json.loads(response.content) if response.content.strip() else {}
            if response.status_code >= 300:
                raise answered(at, self.credentials, response.status_code, document)
            if not isinstance(document, dict):
                raise TypeError("a Redfish answer is an object")
            got = response.headers
            where = urlsplit(got.get("Location", "")).path
            return Answer(
                response.status_code, where, document, got.get("ETag", ""), got.get("X-Auth-Token", "")[:4096]
            )


def is_path(path: object) -> bool:
    """Whether it is a path of a Redfish service: a BMC may be made to say anything in @odata.id."""
    return isinstance(path, str) and (path.rstrip("/") == ROOT or path.startswith(f"{ROOT}/"))


def link(document: object, *names: str) -> str:
    """The path under `names`, one inside the other, ending in @odata.id; empty where there is none."""
    found = document
    for name in (*names, "@odata.id"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) and is_path(found) else ""


def links(listed: object) -> tuple[str, ...]:
    """Paths of a list of references, bounded, each once."""
    found = (link(one) for one in listed[:MAX_MEMBERS]) if isinstance(listed, list) else ()
    return tuple(dict.fromkeys(path for path in found if path))


def last(path: str) -> str:
    """The last word of a path: the Id, as BMCs make paths."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def is_board(path: str) -> bool:
    """Resources of an HGX baseboard stand beside those of the machine it sits in."""
    return last(path).startswith("HGX_")


def each(wire: Wire, path: str, doing: str = "reading") -> Iterator[tuple[str, Document]]:
    """(path, resource) of a collection's members; one that is gone since the list was read is passed over."""
    for member in wire.members(path, doing):
        document = wire.get_or_none(member, doing)
        if document is not None:
            yield member, document
