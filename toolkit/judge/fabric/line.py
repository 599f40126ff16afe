"""What comes out of the comparison: lines of work, each with both ends, the evidence and what proves it mended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.judge.verdict import Answer


class Action(StrEnum):
    """What a line asks for, in the order a rack is put right: configuration before hardware."""

    CONFIGURE = "configure"  # nobody walks: a setting, a service, the rack file
    SWAP = "swap"  # exchange two ends
    MOVE = "move"  # one end to another port
    RESEAT = "reseat"
    REPLACE = "replace"
    INSPECT = "inspect"  # look, or measure again: which part it is cannot be told from here


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a technician stands: the rack, the slot (0: not in the plan), the unit there."""

    rack: str
    slot: int
    unit: str


@dataclass(frozen=True, slots=True)
class WorkEnd:
    """One end of a cable. `port` is the switch's port number or the HCA's name; `guid` is empty where unknown."""

    unit: str
    port: str
    rack: str
    slot: int
    guid: str = ""

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.rack, self.slot, self.unit)


@dataclass(frozen=True, slots=True)
class WorkLine:
    """One thing to do, or one thing that could not be told.

    answer    FAIL: seen to be wrong; INCONCLUSIVE: could not be told
    text      the instruction, one line: `swap leaf-1 port 5 and leaf-2 port 5 (dgx-005 mlx5_0/mlx5_1)`
    ends      every port it is about, both ends of each cable; the ports to touch first
    place     where to go; None where nobody needs to
    evidence  what was seen, one fact each
    proof     what to run after, and what it must show
    instead   the same work at the other end, where that does as well
    part      what is suspected, in the words of `toolkit.rack.schema.PARTS`
    job, step   lines of one job are done in the order of their steps (a rotation of three is two swaps); job 0: alone
    """

    code: str
    action: Action
    answer: Answer
    text: str
    ends: tuple[WorkEnd, ...]
    place: Place | None
    evidence: tuple[str, ...]
    proof: str
    part: str
    instead: str = ""
    job: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True)
class FabricReport:
    """Plan against reality, of one rack.

    answer   PASS only where everything needed was looked at, all of it is known and none of it is wrong
    lines    work and open questions, in the order to take them up: settings first, then by rack position
    doubts   why this cannot be a PASS whatever the lines say: what was not looked at, what was cut off
    notes    said for information; they change nothing
    links_as_designed   planned cables found between their two planned ends
    links_sound         of those, trained at the planned rate and Active
    """

    rack: str
    answer: Answer
    lines: tuple[WorkLine, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]
    links_designed: int
    links_as_designed: int
    links_sound: int
    hcas_designed: int
    hcas_seen: int
    switches_designed: int
    switches_seen: int
    seconds_counted: float
