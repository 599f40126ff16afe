"""`NvueClient` over REST: what is asked where. Changes wait until the switch says what became of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from toolkit.errors import UndecidedError, UsageError
from toolkit.judge.nvlink.seen import AppSeen, ClusterSeen, LocationSeen, PartitionSeen, PortSeen
from toolkit.nvue.client import Requests, understood

T = TypeVar("T")
# Policy, no vendor figure: applying takes seconds; starting an application of the cluster up to a minute.
DONE_S, POLL_S = 120.0, 1.0
_APP = re.compile(r"[a-z][a-z0-9-]{0,62}")
_YES = {"ays": "ays_yes"}
_APPLIED = ("applied", "applied_and_saved")
_WORKING = ("pending", "apply", "verifying", "readying", "ready", "reloading", "checking", "inactive", "save", "saving")


@dataclass(frozen=True, slots=True)
class RestNvue:
    """One switch tray's NVUE."""

    https: Requests

    def health(self) -> tuple[bool, tuple[tuple[str, str], ...]]:
        """Whether the tray is OK by its own word, and its issues."""
        from toolkit.nvue import wire

        return self._read("/system/health", wire.health)

    def cluster(self) -> ClusterSeen:
        """Whether the cluster is enabled here, and its connection to NMX-C."""
        from toolkit.nvue import wire

        return self._read("/cluster", wire.cluster)

    def apps(self) -> tuple[AppSeen, ...]:
        """The cluster's applications."""
        from toolkit.nvue import wire

        return self._read("/cluster/apps", wire.apps)

    def partitions(self) -> tuple[PartitionSeen, ...]:
        """The partitions of the NVLink domain."""
        from toolkit.nvue import wire

        return self._read("/sdn/partition", wire.partitions)

    def ports(self) -> tuple[PortSeen, ...]:
        """Link diagnostics of every NVLink port."""
        from toolkit.nvue import wire

        asked = (("filter_", "type=nvl"), ("include", "/*/type"), ("include", "/*/link/diagnostics"))
        return self._read("/interface", wire.ports, asked)

    def firmware(self) -> tuple[tuple[str, str], ...]:
        """Versions by component."""
        from toolkit.nvue import wire

        return self._read("/platform/firmware", wire.firmware)

    def location(self) -> LocationSeen:
        """Where the tray believes it is."""
        from toolkit.nvue import wire

        return self._read("/platform/chassis-location", wire.location)

    def enable_cluster(self) -> None:
        """`nv set cluster state enabled`, `nv config apply`, `nv config save`."""
        from toolkit.nvue import wire

        made = self._change("POST", "/revision", None, wire.revision_made)
        path = f"/revision/{quote(made, safe='')}"
        self.https.send("PATCH", "/cluster", {"state": "enabled"}, (("rev", made),))
        self.https.send("PATCH", path, {"state": "apply", "auto-prompt": _YES})
        self._until(path, wire.revision_state, _APPLIED, _WORKING)
        # An applied configuration is gone after a reboot of the switch; a saved one is not (NVOS, `nv config apply`).
        self.https.send("PATCH", "/revision/applied", {"state": "save", "auto-prompt": _YES})

    def set_chassis_id(self, number: int) -> None:
        """`nv action update cluster chassis-id N`."""
        self._act("/cluster", "@update", {"chassis-id": number})

    def start_app(self, name: str) -> None:
        """`nv action start cluster apps NAME`."""
        self._act(_app(name), "@start", {})

    def stop_app(self, name: str) -> None:
        """`nv action stop cluster apps NAME`."""
        self._act(_app(name), "@stop", {})

    def reset_sdn(self) -> None:
        """`nv action reset sdn factory-default force`."""
        self._act("/sdn/factory-default", "@reset", {"force": True})

    def _read(self, path: str, as_value: Callable[[Any], T], query: tuple[tuple[str, str], ...] = ()) -> T:
        return understood(self._at("GET", path), as_value, self.https.get(path, query))

    def _change(self, method: str, path: str, body: Mapping[str, object] | None, as_value: Callable[[Any], T]) -> T:
        return understood(self._at(method, path), as_value, self.https.send(method, path, body))

    def _act(self, path: str, action: str, parameters: Mapping[str, object]) -> None:
        from toolkit.nvue import wire

        body = {action: {"state": "start", "parameters": dict(parameters)}}
        identity = self._change("POST", path, body, wire.action_started)
        self._until(f"/action/{quote(identity, safe='')}", wire.action_state, ("action_success",), ("start", "running"))

    def _until(
        self, path: str, state_of: Callable[[Any], tuple[str, str]], done: tuple[str, ...], working: tuple[str, ...]
    ) -> None:
        """Waits for one of the states. Raises UndecidedError for another, and when time is up."""
        until = time.monotonic() + DONE_S
        while True:
            state, told = understood(self._at("GET", path), state_of, self.https.get(path, operational=False))
            if state in done:
                return
            if state not in working or time.monotonic() > until:
                ended = "it still says" if state in working else "it ended as"
                words = f"{self._at('GET', path)}: {ended} {state!r}{f': {told}' if told else ''}"
                raise UndecidedError(words, "read the switch's state before anything is tried again")
            time.sleep(POLL_S)

    def _at(self, method: str, path: str) -> str:
        return f"NVUE of {self.https.unit} ({self.https.url}): {method} {path}"


def _app(name: str) -> str:
    if not _APP.fullmatch(name):
        raise UsageError(f"{name!r} is no cluster application", "nmx-controller or nmx-telemetry")
    return f"/cluster/apps/{name}"
