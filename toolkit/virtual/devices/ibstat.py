"""Stand-in of `ibstat` (infiniband-diags): ports of the node's host channel adapters.

ibstat [-l] [-p] [-s] [CA [PORT]]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
    guid = state.values[f"hca.{name}.guid"]
    if flags & {"-l", "--list_of_cas"}:
        return f"{name}\n"
    if flags & {"-p", "--port_list"}:
        return f"{guid}\n"
    adapter = (
        f"CA '{name}'\n"
        "\tCA type: MT4129\n"
        "\tNumber of ports: 1\n"
        "\tFirmware version: 28.43.1014\n"
        "\tHardware version: 0\n"
        f"\tNode GUID: {guid}\n"
        f"\tSystem image GUID: {guid}\n"
    )
    return adapter if flags & {"-s", "--short"} else adapter + _port(state, name, guid)


def _port(state: State, name: str, guid: str) -> str:
    rate = int(state.values[f"hca.{name}.rate_gbit"])
    up = rate > 0
    return (
        "\tPort 1:\n"
        f"\t\tState: {'Active' if up else 'Down'}\n"
        f"\t\tPhysical state: {'LinkUp' if up else 'Polling'}\n"
        f"\t\tRate: {rate if up else 10}\n"
        f"\t\tBase lid: {state.values[f'hca.{name}.lid'] if up else 65535}\n"
        "\t\tLMC: 0\n"
        "\t\tSM lid: 1\n"
        "\t\tCapability mask: 0xa751e848\n"
        f"\t\tPort GUID: {guid}\n"
        "\t\tLink layer: InfiniBand\n"
    )
