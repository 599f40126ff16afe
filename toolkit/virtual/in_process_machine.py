"""What a node of files remembers while nobody looks: power, image, boots, and what waits for a reset or a boot."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.redfish import Power
from toolkit.virtual.faults import Fault, FaultKind


@dataclass(slots=True)
class Machine:
    """Written in one piece, as real hardware goes on when its driver is killed.

    disk_writes  how often an image was written
    boots        how often it came up; ac_cycles: how often its standby power was away
    resets       how often its GPUs were reset
    waiting      GPUs with a faulty row that a reset or a boot replaces
    replaced     how often it did
    fallen       GPUs that fell off the bus, until a boot that helps brings them back
    revived      how often one did
    reports      what ramdisk and first boot said, by token: posted as soon as anybody looks
    """

    power: str = Power.OFF.value
    boot_once: bool = False
    boot_always: bool = False
    image: str = ""
    disk_writes: int = 0
    boots: int = 0
    ac_cycles: int = 0
    played: list[str] = field(default_factory=list)
    resets: int = 0
    replaced: int = 0
    waiting: list[int] = field(default_factory=list)
    fallen: list[int] = field(default_factory=list)
    revived: int = 0
    reports: dict[str, str] = field(default_factory=dict)

    def replace_rows(self) -> None:
        """What a GPU does with its faulty rows when it begins anew."""
        self.replaced += bool(self.waiting)
        self.waiting = []

    def boot(self, *, cold: bool) -> None:
        """The machine comes up. `cold`: in a way that brings lost GPUs back."""
        self.boots += 1
        self.replace_rows()
        if cold:
            self.revived += bool(self.fallen)
            self.fallen = []

    def has_outlived(self, fault: Fault) -> bool:
        """Whether an `xid_79` that says how many `times` it strikes has done so: a boot in between each."""
        return fault.kind is FaultKind.XID_79 and fault.times is not None and self.revived >= fault.times
