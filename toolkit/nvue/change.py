"""Changes that take the NVLink control plane of a rack down. Nothing of bring-up calls them.

Each asks for the target typed out in full and for the names of nodes that still work on the rack.
"""

from __future__ import annotations

from collections.abc import Collection

from toolkit.errors import UsageError
from toolkit.nvue.client import NvueClient


def stop_app(client: NvueClient, tray: str, app: str, *, typed: str, working: Collection[str]) -> None:
    """Stops a cluster application: GPUs that are in the fabric lose its manager. UsageError unless confirmed."""
    _confirmed(f"{tray}/{app}", typed, working)
    client.stop_app(app)


def reset_sdn(client: NvueClient, tray: str, *, typed: str, working: Collection[str]) -> None:
    """SDN to factory default: every partition is lost. UsageError unless confirmed."""
    _confirmed(f"{tray}/factory-default", typed, working)
    client.reset_sdn()


def _confirmed(target: str, typed: str, working: Collection[str]) -> None:
    if working:
        some = ", ".join(sorted(working)[:4])
        raise UsageError(f"{len(working)} nodes of the rack are in use: {some}", "drain them first")
    if typed != target:
        raise UsageError(f"{target} was not typed out: {typed!r}", f"type {target} to take the control plane down")
