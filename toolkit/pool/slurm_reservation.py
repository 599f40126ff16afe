"""Maintenance reservations: a rack's nodes for burn-in jobs of ours alone, whoever else waits for them.

A node without a certificate is drained, and Slurm starts no job on a drained node, in a reservation neither. For a
burn-in it is therefore lent: undrained inside the reservation, where no user but ours is given it, and drained again as
soon as the job runs there, which a drain lets run. Killed in between, we leave a node that nobody else can use.
"""

from __future__ import annotations

import os
import pwd
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass

from toolkit.errors import UndecidedError
from toolkit.pool.slurm_command import SlurmCommands
from toolkit.pool.slurm_text import shown

PREFIX = "rackproof_"
_FIELDS = re.compile(r"(\w+)=(\S*)")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reservation:
    """One of Slurm's. `nodes`: unfolded."""

    name: str
    nodes: frozenset[str]
    users: str
    flags: frozenset[str]


def name_of(rack: str) -> str:
    """Of a rack's reservation."""
    return PREFIX + re.sub(r"[^A-Za-z0-9_]", "_", rack)


class Reservations:
    """Makes, finds and removes them."""

    def __init__(self, commands: SlurmCommands) -> None:
        self._commands = commands
        self._changes = threading.Lock()  # of our own threads: a list of nodes is read and written as a whole

    def hold(self, rack: str, node: str) -> str:
        """Sees that the rack's reservation has the node, beside those it has; its name.

        UndecidedError where one of that name is somebody else's, or Slurm refuses: another reservation has the node.
        """
        name, user = name_of(rack), _user()
        with self._changes:
            known = self.find(name)
            if known is None:
                self._commands.ask(
                    "scontrol", "create", "reservation", f"ReservationName={name}", "StartTime=now",
                    "Duration=UNLIMITED", f"Users={user}", f"Nodes={node}", "Flags=MAINT,IGNORE_JOBS",
                )  # fmt: skip
            elif known.users != user or "MAINT" not in known.flags:
                flags = ",".join(sorted(known.flags))
                raise UndecidedError(
                    f"the reservation {name} is of {shown(known.users)} with flags {flags}: it is not ours",
                    f"whoever made it removes it: scontrol delete ReservationName={name}",
                )
            elif node not in known.nodes:
                self._become(name, known.nodes | {node})
        return name

    def let_go(self, rack: str, node: str) -> None:
        """Takes the node out of the rack's reservation; with its last node it goes."""
        name = name_of(rack)
        with self._changes:
            known = self.find(name)
            if known is not None and known.nodes <= {node}:
                self._commands.ask("scontrol", "delete", f"ReservationName={name}")
            elif known is not None and node in known.nodes:
                self._become(name, known.nodes - {node})

    def has(self, name: str, node: str) -> bool:
        """Whether slurmctld has the node in it now."""
        known = self.find(name)
        return known is not None and node in known.nodes

    def _become(self, name: str, nodes: Collection[str]) -> None:
        self._commands.ask("scontrol", "update", f"ReservationName={name}", f"Nodes={','.join(sorted(nodes))}")

    def find(self, name: str) -> Reservation | None:
        """A reservation by its name, as slurmctld has it now."""
        return next((one for one in self.all() if one.name == name), None)

    def all(self) -> tuple[Reservation, ...]:
        """All there are."""
        said = self._commands.ask("scontrol", "--oneliner", "show", "reservation")
        return tuple(self._read(line) for line in said.splitlines() if line.startswith("ReservationName="))

    def ours(self) -> frozenset[str]:
        """Nodes of all racks' reservations."""
        return frozenset().union(*(one.nodes for one in self.all() if one.name.startswith(PREFIX)))

    def _read(self, line: str) -> Reservation:
        fields = dict(_FIELDS.findall(line))
        folded = fields.get("Nodes", "")
        nodes = self._unfolded(folded) if folded and folded != "(null)" else frozenset()
        flags = frozenset(fields.get("Flags", "").split(","))
        return Reservation(fields["ReservationName"], nodes, fields.get("Users", ""), flags)

    def _unfolded(self, folded: str) -> frozenset[str]:
        hosts = self._commands.ask("scontrol", "show", "hostnames", folded).split()
        if not all(_HOST.fullmatch(host) for host in hosts):
            raise UndecidedError(f"scontrol unfolds {shown(folded)} to {shown(' '.join(hosts))}")
        return frozenset(hosts)


def _user() -> str:
    """Whoever runs us: his jobs are burn-ins."""
    return pwd.getpwuid(os.geteuid()).pw_name
