"""Stand-in of `ibstat` (infiniband-diags): ports of the node's host channel adapters.

ibstat [-l] [-p] [-s] [CA [PORT]]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .ibv_devinfo import FIRMWARE
from .ports import PortStatus
from .state import NoDriverError, State, packed_version, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tool; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = {word for word in given if word.startswith("-")}
    names = [word for word in given if not word.startswith("-")]
    if flags & {"-V", "--version"}:
        sys.stdout.write(f"ibstat BUILD VERSION: {packed_version('infiniband-diags')}\n")
        return 0
    try:
        state = read()
    except NoDriverError:
        sys.stderr.write("ibpanic: [1] main: can't list IB device names: (No such file or directory)\n")
        return 255
    chosen = [name for name in state.hcas if not names or name == names[0]]
    if names and not chosen:
        sys.stderr.write(f"ibpanic: [1] main: '{names[0]}' IB device can't be found: (No such device)\n")
        return 255
    for name in chosen:
        sys.stdout.write(_shown(state, name, flags))
    return 0


def _shown(state: State, name: str, flags: set[str]) -> str:
    port = state.port(name)
    if flags & {"-l", "--list_of_cas"}:
        return f"{name}\n"
    if flags & {"-p", "--port_list"}:
        return f"{port.guid}\n"
    adapter = (
        f"CA '{name}'\n"
        "\tCA type: MT4129\n"
        "\tNumber of ports: 1\n"
        f"\tFirmware version: {FIRMWARE}\n"
        "\tHardware version: 0\n"
        f"\tNode GUID: {port.guid}\n"
        f"\tSystem image GUID: {port.guid}\n"
    )
    return adapter if flags & {"-s", "--short"} else adapter + _port(port)


def _port(port: PortStatus) -> str:
    return (
        "\tPort 1:\n"
        f"\t\tState: {port.state_name}\n"
        f"\t\tPhysical state: {port.physical}\n"
        f"\t\tRate: {port.rate_gbit}\n"
        f"\t\tBase lid: {port.lid}\n"
        "\t\tLMC: 0\n"
        f"\t\tSM lid: {port.sm_lid}\n"
        "\t\tCapability mask: 0xa751e848\n"
        f"\t\tPort GUID: {port.guid}\n"
        "\t\tLink layer: InfiniBand\n"
    )
