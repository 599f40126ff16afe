"""The process that is a virtual rack's fabric, and how the rack's daemon talks to it.

The daemon writes what is wrong and which nodes are off as a line of JSON to its standard input, always all of it; it
answers with a line. It ends with its input.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.durable import write_whole
from toolkit.errors import RackproofError
from toolkit.rack.model import Rack
from toolkit.virtual import description
from toolkit.virtual.devices import infiniband_tools
from toolkit.virtual.fabric.faults import faulty
from toolkit.virtual.fabric.model import FabricModel
from toolkit.virtual.fabric.publishing import Publisher
from toolkit.virtual.fabric.server import UDP_PORT, FabricServer
from toolkit.virtual.fabric.wiring import Wiring, planned, without_power
from toolkit.virtual.faults import Fault
from toolkit.virtual.layout import Layout
from toolkit.virtual.network import CONTROLLER_IN_BAND, NAMESPACES
from toolkit.virtual.programs import environment

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TRAINING_S = 0.5  # how long a link takes to come up
_LOST_AFTER_S = 0.2  # opensm's transaction time-out; what asks a silent port again and again must not fill the fabric
_LINE_MAX_BYTES = 1 << 20
_READY = "ready"


@dataclass(frozen=True, slots=True)
class Situation:
    """What is wrong in a fabric, and which units have no power."""

    faults: tuple[Fault, ...]
    off: tuple[str, ...]


class FabricProcess:
    """A running one, as the daemon holds it. Safe between threads."""

    def __init__(self, layout: Layout) -> None:
        """Starts it in the controller's network; returns when it serves. RackproofError when it does not come up."""
        self._log = layout.folder / "fabric.log"
        argv = [
            "nsenter", f"--net={NAMESPACES / layout.controller}", "--", sys.executable, "-m",
            "toolkit.virtual.fabric.process", "--rack", str(layout.description),
        ]  # fmt: skip
        inherited = {name: os.environ[name] for name in ("PYTHONPATH", "PYTHONSAFEPATH") if name in os.environ}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment(**inherited), text=True
            )
        self._lock = threading.Lock()
        self._hear(_READY)

    def tell(self, faults: Iterable[Fault], off: Iterable[str]) -> None:
        """How things are now. RackproofError when the process is gone."""
        situation = Situation(tuple(faults), tuple(off))
        line = json.dumps(_adapter().dump_python(situation, mode="json"))
        with self._lock:
            self._write(line)
            self._hear("ok")

    def _write(self, line: str) -> None:
        wire = self._process.stdin
        if wire is None:
            raise RackproofError("the fabric's process has no input")
        try:
            wire.write(f"{line}\n")
            wire.flush()
        except OSError as error:
            raise self._gone() from error

    def _hear(self, wanted: str) -> None:
        wire = self._process.stdout
        if wire is None or wire.readline().strip() != wanted:
            raise self._gone()

    def _gone(self) -> RackproofError:
        return RackproofError("the rack's fabric has ended", f"see {self._log}; `rackproof virtual down`, then up")


class _Serving:
    """The fabric and its server in the process itself."""

    def __init__(self, layout: Layout, rack: Rack) -> None:
        self._rack = rack
        self._plan = planned(rack)
        self._layout = layout
        off = tuple(unit.name for unit in rack.nodes)
        fabric = FabricModel(without_power(self._plan, off), TRAINING_S)
        folders = {unit.name: layout.node(unit.name).hardware for unit in rack.nodes}
        fabric.changed = Publisher(fabric, folders).changed
        self.server = FabricServer(fabric, _LOST_AFTER_S)
        self._fabric = fabric
        self._rest = b""

    def open(self) -> None:
        """Its sockets: by name for what runs beside it, by UDP for the nodes, whose hardware tells the address."""
        self.server.listen_unix(self._layout.tag)
        self.server.listen_udp(str(CONTROLLER_IN_BAND), UDP_PORT)
        for node in self._rack.nodes:
            home = self._layout.node(node.name).hardware
            write_whole(home / infiniband_tools.FABRIC, f"{CONTROLLER_IN_BAND} {UDP_PORT}\n".encode(), 0o644)
        self.server.watch(sys.stdin.fileno(), self._read)

    def _read(self) -> None:
        read = os.read(sys.stdin.fileno(), _LINE_MAX_BYTES)
        if not read:
            self.server.stop()
            return
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            situation = _adapter().validate_json(line)
            self._fabric.become(_reality(self._plan, situation))
            sys.stdout.write("ok\n")
            sys.stdout.flush()


def _reality(plan: Wiring, situation: Situation) -> Wiring:
    return without_power(faulty(plan, situation.faults), situation.off)


def _adapter() -> TypeAdapter[Situation]:
    from pydantic import TypeAdapter

    return TypeAdapter(Situation)


def main(argv: list[str] | None = None) -> int:
    """Serves the fabric of the rack in the description file until its input ends."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.virtual.fabric.process", description=__doc__)
    parser.add_argument("--rack", type=Path, required=True, help="description file, written by `rackproof virtual up`")
    told = description.read(parser.parse_args(argv).rack)
    serving = _Serving(Layout(told.home, told.rack.name), told.rack)
    serving.open()
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    serving.server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
