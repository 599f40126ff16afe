"""The GPUs of a virtual GB200 compute tray, as far as they differ from the virtual H100's.

Source: nvidia-smi -q -x of a GB200 tray, NVIDIA/k8s-test-infra qx-gb200.xml. Memory and SMs are as small as the virtual
H100's, and for the same reason.
"""

from __future__ import annotations

BOARD = (
    ("name", "NVIDIA GB200"),
    ("vbios", "97.00.B9.00.73"),
    ("inforom", "G548.0201.00.06"),
    ("board_part", "699-2G548-0201-800"),
    ("part_number", "2941-886-A1"),
    ("pci_device_id", str(0x294110DE)),
    ("pci_subsystem_id", str(0x204610DE)),
    ("memory_bus_bits", "8192"),
    ("compute_capability", "100"),
    ("sm_clock_mhz", "2062"),
    ("memory_clock_mhz", "3996"),
    ("power_limit_mw", "1200000"),
    ("nvlink_version", "7"),
    # Read back from the fabric's control plane where one is modelled.
    ("fabric_clique", "32766"),
    ("fabric_cluster", "7d5c1d0e-4a52-4f3c-9d5e-0b6f2f1a9c11"),
)
# Two GPUs to a Grace CPU, each in a PCI domain of its own.
PCI = ("00000008:01:00.0", "00000009:01:00.0", "00000018:01:00.0", "00000019:01:00.0")
