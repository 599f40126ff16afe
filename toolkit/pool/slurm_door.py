"""The door of a Slurm pool, kept: nodes resumed by hand, forged, revoked or expired are drained (again).

slurmctld asks nobody before an administrator resumes a node. What jobs ask for is what stops him: the shipped
job_submit.lua has every job ask for a certified node. This is the second line, seconds later, and the one that knows
certificates; the third, without us, is the health check that is shipped beside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

from toolkit.errors import RackproofError, UndecidedError, UnreachableError
from toolkit.ledger import Ledger, LedgerError
from toolkit.pool import slurm_record
from toolkit.pool.door_record import DoorRecord
from toolkit.pool.lapsing import lapse
from toolkit.pool.slurm import SlurmPool
from toolkit.pool.slurm_record import Record, Standing
from toolkit.pool.slurm_text import SlurmNode, shown
from toolkit.pool.vouched import Known
from toolkit.rack.topology import value

_LEDGER_S = 0.5  # how old the ledger's word may be
_SINFO_S = 5.0  # and Slurm's, which costs slurmctld a message over all nodes
_SHORT = 12


class Deed(StrEnum):
    """What is to be done about a node."""

    NOTHING = "NOTHING"
    MEND = "MEND"  # its features are written anew, from its record
    SHUT = "SHUT"


def judged(node: SlurmNode, known: Known, now: datetime) -> tuple[Deed, str]:
    """What is wrong with a node, held against the ledger, and what to do about it. Pure."""
    record, stands = slurm_record.record_of(node), slurm_record.standing(node, now)
    if stands is Standing.STRANGER and node.name not in known.racks:
        return Deed.NOTHING, ""
    if record is not None and record.certificate:
        why = _worthless(node, record, known, now)
        if why:
            return Deed.SHUT, why
        if slurm_record.is_undrained(node) and not slurm_record.are_marked(node, record):
            return Deed.MEND, slurm_record.doubt(node, now)
        return Deed.NOTHING, ""
    if stands is Standing.EDITED:
        return Deed.SHUT, f"its features or its comment were edited by hand: {shown(','.join(node.active), 120)}"
    if slurm_record.is_undrained(node):
        return Deed.SHUT, slurm_record.doubt(node, now)
    return Deed.NOTHING, ""


def _worthless(node: SlurmNode, record: Record, known: Known, now: datetime) -> str:
    """Why the certificate on a node lets nobody in; empty if it does."""
    name = f"certificate {record.certificate[:_SHORT]}"
    vouched = known.issued.get((record.certificate, node.name))
    if vouched is None:
        return f"{name} is not on record for {node.name}: forged, of another node, or of another installation"
    if vouched.revoked:
        return f"{name} is revoked: {vouched.revoked}"
    if vouched.expires <= now:
        return f"{name} expired at {vouched.expires.isoformat()}"
    if (record.certificate, node.name) not in known.begun:
        return f"it names {name}, and no admission by it is on record"
    if node.name in known.barred:
        return f"it names {name}, but {known.barred[node.name]}"
    if record.expires != vouched.expires.replace(microsecond=0):
        return f"the time of {name} was edited by hand"
    if record.labels.get("rack", value(vouched.rack)) != value(vouched.rack):
        return f"{name} is of {vouched.rack}; its comment says {shown(record.labels['rack'], 63)}"
    return ""


class SlurmDoorkeeper:
    """One pool's. It lets nobody in; several may run side by side, as each shuts only what is wrong."""

    def __init__(
        self,
        pool: SlurmPool,
        ledger: Ledger,
        racks: Mapping[str, str],
        tell: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        """racks  rack of each node of the site, by the node's name
        tell   is told one line of whatever an operator should know
        """
        self._pool = pool
        self._ledger = ledger
        self._record = DoorRecord(ledger, racks)
        self._tell = tell
        self._clock = clock
        self._nodes: dict[str, SlurmNode] = {}
        self._lent: frozenset[str] = frozenset()
        self._out: dict[str, str] = {}  # shut, and why, while the ledger could not be told that they lapsed
        self._looked = float("-inf")
        self._told = ""

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. A slurmctld or a ledger that is away is told of and asked again."""
        while not stop.is_set():
            self.look()
            stop.wait(_LEDGER_S)

    def look(self) -> None:
        """Judges every node once, by Slurm's word of 5 s at most and the ledger's of now."""
        try:
            if time.monotonic() - self._looked >= _SINFO_S:
                self._lent = self._pool.lent()
                self._nodes = self._pool.commands.nodes()
                self._looked = time.monotonic()
            known = self._record.refresh()  # after the nodes: whoever opens one has written so before
            self._lapse(known)
            for node in tuple(self._nodes.values()):
                deed, why = judged(node, known, self._clock())
                if deed is not Deed.NOTHING and node.name not in self._lent:
                    self._see_to(node, deed, why, known)
        except RackproofError as away:
            if away.message != self._told:
                self._tell(f"{away.message}; {away.hint}")
            self._told, self._looked = away.message, time.monotonic()

    def _see_to(self, node: SlurmNode, deed: Deed, why: str, known: Known) -> None:
        """One that Slurm does not let be shut is told, and holds up nobody else; it is looked at again."""
        try:
            self._do(node, deed, why, known)
        except (UnreachableError, LedgerError):
            raise  # Slurm, or the ledger, is away: for all others too
        except UndecidedError as refused:
            self._nodes.pop(node.name)
            self._tell(f"{node.name} could not be shut ({why}): {refused.message}; {refused.hint}")

    def _do(self, node: SlurmNode, deed: Deed, why: str, known: Known) -> None:
        if not known.issued:
            self._tell(f"{node.name}: {why}; this ledger has no certificate at all, is it another installation's?")
            self._nodes.pop(node.name)
            return
        if deed is Deed.MEND:
            self._pool.mend(node.name)
            self._tell(f"{node.name} has its features again: {why}")
        else:
            self._pool.register(node.name, why)
            self._tell(f"{node.name} is shut: {why}")
            self._out[node.name] = why
            self._lapse(known)
        self._nodes.pop(node.name)  # until it is looked at again

    def _lapse(self, known: Known) -> None:
        """What is out of the pool is no longer admitted on record. What a LedgerError leaves is for the next look."""
        for node, why in tuple(self._out.items()):
            if node in known.racks:
                lapse(self._ledger, known.racks[node], (node,), why)
            del self._out[node]
