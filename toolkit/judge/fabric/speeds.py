"""InfiniBand speeds: names, and Gbit/s of one lane.

Signalling rates as `iblinkinfo` prints them. IBTA Architecture Specification, volume 1 release 1.7 (PortInfo
LinkSpeedActive and LinkSpeedExtActive), XDR: release 1.8.
"""

from __future__ import annotations

LANES = 4  # every InfiniBand cable a rack is built with: 1X, 2X of it is a cable or a connector with dead lanes
GBIT_PER_LANE = {
    "SDR": 2.5,
    "DDR": 5.0,
    "QDR": 10.0,
    "FDR10": 10.3125,
    "FDR": 14.0625,
    "EDR": 25.78125,
    "HDR": 53.125,
    "NDR": 106.25,
    "XDR": 212.5,
}


def planned_speed(gbit: float) -> tuple[str, float]:
    """The slowest speed whose four lanes carry `gbit`, with its signalling rate a lane.

    Empty and a quarter of `gbit` where none does: it is then judged by the rate alone.
    """
    for name, lane in GBIT_PER_LANE.items():
        if LANES * lane >= gbit:
            return name, lane
    return "", gbit / LANES


def speed_name(gbit_per_lane: float) -> str:
    """`NDR` of 106.25; the number itself where it is no known speed."""
    for name, lane in GBIT_PER_LANE.items():
        if abs(lane - gbit_per_lane) < 0.01 * lane:
            return name
    return f"{gbit_per_lane:g} Gbit/s a lane"
