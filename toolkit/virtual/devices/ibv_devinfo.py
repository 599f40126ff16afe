"""Stand-in of `ibv_devinfo` (ibverbs-utils): firmware, GUID and board of the node's host channel adapters.

ibv_devinfo [-d DEVICE] [-l]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .state import NoDriverError, State, read

FIRMWARE, BOARD = "28.43.1014", "MT_0000000838"
_STATES = {1: "PORT_DOWN", 2: "PORT_INIT", 3: "PORT_ARMED", 4: "PORT_ACTIVE"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tool; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    named = given[given.index("-d") + 1] if "-d" in given[:-1] else ""
    try:
        state = read()
    except NoDriverError:
        sys.stderr.write("Failed to get IB devices list: Function not implemented\n")
        return 255
    chosen = [name for name in state.hcas if not named or name == named]
    if not chosen:
        sys.stderr.write("No IB devices found\n")
        return 255
    if "-l" in given:
        sys.stdout.write(f"{len(chosen)} HCAs found:\n" + "".join(f"\t{name}\n" for name in chosen) + "\n")
        return 0
    sys.stdout.write("\n".join(_shown(state, name) for name in chosen) + "\n")
    return 0


def _shown(state: State, name: str) -> str:
    port = state.port(name)
    digits = port.guid.removeprefix("0x")
    guid = ":".join(digits[at : at + 4] for at in range(0, 16, 4))
    return (
        f"hca_id:\t{name}\n"
        "\ttransport:\t\t\tInfiniBand (0)\n"
        f"\tfw_ver:\t\t\t\t{FIRMWARE}\n"
        f"\tnode_guid:\t\t\t{guid}\n"
        f"\tsys_image_guid:\t\t\t{guid}\n"
        "\tvendor_id:\t\t\t0x02c9\n"
        "\tvendor_part_id:\t\t\t4129\n"
        "\thw_ver:\t\t\t\t0x0\n"
        f"\tboard_id:\t\t\t{BOARD}\n"
        "\tphys_port_cnt:\t\t\t1\n"
        "\t\tport:\t1\n"
        f"\t\t\tstate:\t\t\t{_STATES.get(port.state, 'invalid state')} ({port.state})\n"
        f"\t\t\tsm_lid:\t\t\t{port.sm_lid}\n"
        f"\t\t\tport_lid:\t\t{port.lid}\n"
        "\t\t\tlink_layer:\t\tInfiniBand\n"
    )
