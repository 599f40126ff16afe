"""How the machines of a rack show themselves over Redfish: ids, chassis, detectors and firmware of each kind.

Ids and counts are those of NVIDIA infra-controller's bmc-mock (DGX H100, GB200 tray, NVLink switch tray, power shelf);
the versions are examples.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.rack.model import Profile, Unit, UnitKind


@dataclass(frozen=True, slots=True)
class BoardShape:
    """A kind of machine.

    boards     a GPU baseboard stands beside the host as a system of its own
    chassis    the ids of its chassis; the first is the machine's own
    detectors  leak detectors by chassis
    firmware   component and version; one with `BMC` in its name is in force at once, others from the next start on
    spelling   how its NICs call their MAC
    targets    what a boot override may name
    """

    system: str
    manager: str
    chassis: tuple[str, ...]
    firmware: tuple[tuple[str, str], ...]
    product: str = "Virtual BMC"
    boards: bool = False
    detectors: tuple[tuple[str, int], ...] = ()
    spelling: str = "MACAddress"
    bios: tuple[tuple[str, object], ...] = ()
    targets: tuple[str, ...] = ("None", "Pxe", "Hdd")


_DGX_BIOS: tuple[tuple[str, object], ...] = (
    ("SriovSupport", "Enabled"),
    ("VTdSupport", "Enable"),
    ("Ipv4Http", "Disabled"),
    ("Ipv4Pxe", "Enabled"),
    ("AcpiSpcrConsoleRedirectionEnable", True),
    ("AcpiSpcrBaudRate", 115200),
)

DGX_H100 = BoardShape(
    "DGX", "BMC", ("DGX",),
    (
        ("HostBMC_0", "24.09.17"), ("HostBIOS_0", "1.05.03"), ("CPLDMB_0", "0.2.1.9"),
        ("HGX_FW_BMC_0", "HGX-22.10-1-rc80"), ("HGX_FW_FPGA_0", "2.53"), ("HGX_FW_NVSwitch_0", "96.10.57.00.01"),
        ("HGX_FW_NVSwitch_1", "96.10.57.00.01"), ("HGX_FW_NVSwitch_2", "96.10.57.00.01"),
        ("HGX_FW_NVSwitch_3", "96.10.57.00.01"),
    ),
    bios=_DGX_BIOS,
)  # fmt: skip
GB200_TRAY = BoardShape(
    "System_0", "BMC_0", ("Chassis_0", "CBC_0", "CBC_1", "CBC_2", "CBC_3", "HGX_GPU_0"),
    (("FW_BMC_0", "25.06-1"), ("FW_CPLD_0", "0.1C"), ("UEFI", "2.04.12"), ("HGX_FW_BMC_0", "25.06-A")),
    product="GB NVL", boards=True, detectors=(("Chassis_0", 4),), spelling="MacAddress",
    targets=("None", "Pxe", "Hdd", "UefiHttp", "Cd"),
)  # fmt: skip
NVLINK_SWITCH_TRAY = BoardShape(
    "System_0", "BMC_0", ("MGX_NVSwitch_0", "MGX_NVSwitch_1", "MGX_BMC_0"),
    (("BMC_0", "88.0002.1301"), ("CPLD_0", "0.3"), ("BIOS_0", "0.9")),
    detectors=(("MGX_BMC_0", 8),),
)  # fmt: skip
POWER_SHELF = BoardShape("system", "bmc", ("powershelf",), (("bmc", "1.0.4"),))


def shape_of(unit: Unit, profile: Profile) -> BoardShape:
    """What stands in the unit's slot."""
    if unit.kind is UnitKind.NVLINK_SWITCH:
        return NVLINK_SWITCH_TRAY
    if unit.kind is UnitKind.POWER_SHELF:
        return POWER_SHELF
    return GB200_TRAY if "NVL72" in profile.sku else DGX_H100
