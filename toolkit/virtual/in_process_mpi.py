"""mpirun between nodes of files: what the launching node, its ranks and their HCAs would leave behind of a collective.

It reads the job, hosts and environment that mpirun would, and reckons with the stand-in's model. A run is over when it
returns: a hang is told as the deadline it would have run into. Nothing is started, so nothing can be left over.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.rack.model import Rack, Unit
from toolkit.virtual.devices.nccl_model import (
    COLLECTIVES,
    CROWD,
    Collective,
    between_nodes,
    channel_lines,
    choose_path,
    seconds,
    start_lines,
)
from toolkit.virtual.devices.nccl_model import Path as Route
from toolkit.virtual.devices.state import Gpu, State

MPIRUN = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "B" * 43 + " rackproof\n"
_MODULE = re.compile(r"from burnin\.nccl import (\w+);")
_UNIT = "--unit=rackproof-collective-"
_COUNTING = threading.Lock()  # collectives on other rails of a node run side by side


@dataclass(frozen=True, slots=True)
class Mpi:
    """Over the nodes whose files lie under `folder`. `states` are of the nodes that are up, as they are now."""

    rack: Rack
    folder: Path
    states: Mapping[str, State]

    def answer(self, node: Unit, argv: Sequence[str]) -> tuple[int, str] | None:
        """Status and output of a command of ours; None for one that is no part of a collective."""
        match list(argv):
            case [program, "--version"] if program.endswith("/mpirun"):
                return 0, MPIRUN
            case ["ssh-keygen", *_] | ["rm", "-f", *_]:
                return 0, ""
            case ["cat", path] if path.endswith("/key.pub"):
                return 0, KEY
            case ["systemctl", "stop", unit] if unit.startswith("rackproof-collective-"):
                return 5, ""
            case ["systemd-run", unit, *_] if unit.startswith(_UNIT):
                return self._launch(node, argv[-1])
            case [_, "-S", "-c", code, *arguments] if found := _MODULE.search(code):
                return self._ours(node, found[1], arguments)
        return None

    def _ours(self, node: Unit, module: str, arguments: Sequence[str]) -> tuple[int, str]:
        if module == "counters":
            return 0, json.dumps(self._counters(node, nvlinks="hcas" not in arguments))
        if arguments[0] == "stop":
            return 0, json.dumps({"found": 0, "alive": []})
        if arguments[0] == "logs":
            log = self._file(node.name, arguments[1]) / "nccl.log"
            return 0, log.read_text() if log.exists() else ""
        return 0, ""

    def _file(self, node: str, path: str) -> Path:
        return self.folder / node / "files" / path.lstrip("/")

    # counters

    def _carried(self, node: str) -> dict[str, dict[str, int]]:
        path = self.folder / node / "carried.json"
        told: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {"gpus": {}, "hcas": {}}
        return told

    def _counters(self, node: Unit, *, nvlinks: bool) -> dict[str, object]:
        told = self._carried(node.name)
        gpus = range(self.rack.profile.gpus_per_node if nvlinks else 0)
        one = {str(gpu): told["gpus"].get(str(gpu), 0) for gpu in gpus}
        return {
            "gpus": [{"gpu": int(g), "links": [{"link": 0, "sent": b, "received": b}]} for g, b in one.items()],
            "hcas": [{"hca": h.name, "port": 1, "sent": told["hcas"].get(h.name, 0), "errors": {}} for h in node.hcas],
        }

    def _count(self, node: str, gpus: Mapping[str, int], hcas: Mapping[str, int]) -> None:
        with _COUNTING:
            told = self._carried(node)
            for kind, moved in (("gpus", gpus), ("hcas", hcas)):
                for name, count in moved.items():
                    told[kind][name] = told[kind].get(name, 0) + count
            write_whole(self.folder / node / "carried.json", json.dumps(told).encode())

    # the collective

    def _launch(self, first: Unit, folder: str) -> tuple[int, str]:
        job = json.loads((self._file(first.name, folder) / "job.json").read_text())
        asked = _Asked.of(job["argv"], job["env"])
        hosts = (self._file(first.name, folder) / "hostfile").read_text().split()[::2]
        by_address = {n.host.address: n.name for n in self.rack.nodes if n.host is not None}
        names = [by_address[address] for address in hosts]
        away = [name for name in names if name not in self.states]
        if away:
            output, how, status = f"ssh: connect to host {away[0]}: No route to host\n", "exited", 1
        else:
            output, how, status = self._run(asked, names, folder)
        place = self._file(first.name, folder)
        write_whole(place / "output.txt", output.encode())
        write_whole(place / "end.json", json.dumps({"how": how, "status": status, "seconds": 2.0}).encode())
        return 0, ""

    def _run(self, asked: _Asked, names: Sequence[str], folder: str) -> tuple[str, str, int]:
        """Its output, and how it ended. Leaves the logs and counts of every node."""
        seats = [(name, gpu) for name in names for gpu in asked.gpus(self.states[name])]
        route = self._route(asked, names)
        head = [
            f"# nccl-tests version 2.17.9\n# Collective test starting: {asked.collective.program}\n# Using devices",
            *(
                f"#  Rank {rank:2d} Group  0 Pid {4711 + rank:6d} on {name:>10} device {gpu.index:2d} "
                f"[{gpu.need('pci').lower()[4:11]}:00] {gpu.need('name')}"
                for rank, (name, gpu) in enumerate(seats)
            ),
            "#\n#  size count type redop root time algbw busbw #wrong time algbw busbw #wrong",
        ]
        hosts = [name for name, _ in seats]
        absent = [name for name in names if self.states[name].values["nccl.absent"] == "1"]
        for name in names:
            mine = [rank for rank, host in enumerate(hosts) if host == name]
            hcas = self.states[name].chosen_hcas(asked.environment.get("NCCL_IB_HCA", ""))
            lines = (line for rank in mine for line in channel_lines(hcas, hosts, [rank], route, asked.environment))
            started = start_lines(hosts, mine) if name not in absent else ()
            told = started if absent else chain(started, lines)
            write_whole(self._file(name, folder) / "nccl.log", "".join(f"{line}\n" for line in told).encode())
        if absent or any(self.states[name].values["nccl.hang"] == "1" for name in names):
            return "\n".join([*head, ""]), "deadline", -15
        self._move(asked, names, route, len(seats))
        return "\n".join([*head, *asked.rows(route, len(seats)), ""]), "exited", 0

    def _route(self, asked: _Asked, names: Sequence[str]) -> Route:
        inside, nics = [], []
        for name in names:
            state = self.states[name]
            alone = asked.per_node == 1
            gpus = asked.gpus(state)
            inside.append(choose_path(state, gpus, asked.collective, asked.environment, alone=alone))
            hcas = state.chosen_hcas(asked.environment.get("NCCL_IB_HCA", ""))
            nics.append([state.carried_gb_per_s(hca, crowded=len(names) > CROWD) for hca in hcas])
        return between_nodes(inside, nics, asked.collective, len(names) * asked.per_node)

    def _move(self, asked: _Asked, names: Sequence[str], route: Route, ranks: int) -> None:
        times = 2 * (asked.iterations + 1)
        out = sum(route.nic_bytes(asked.collective, size, len(names), ranks) for size in asked.sizes) * times
        over = sum(route.nvlink_bytes(asked.collective, size, ranks) for size in asked.sizes) * times
        for name in names:
            hcas = self.states[name].chosen_hcas(asked.environment.get("NCCL_IB_HCA", ""))
            gpus = {str(gpu.index): over for gpu in asked.gpus(self.states[name])}
            self._count(name, gpus, {hca: out // len(hcas) for hca in hcas})


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line and its environment ask for."""

    collective: Collective
    per_node: int
    sizes: tuple[int, ...]
    iterations: int
    environment: Mapping[str, str]

    @classmethod
    def of(cls, argv: Sequence[str], environment: Mapping[str, str]) -> _Asked:
        program = next(word for word in argv if word.endswith("_perf"))
        options = dict(pairwise(argv))
        size, sizes = int(options["-b"]), []
        while size <= int(options["-e"]):
            sizes.append(size)
            size *= int(options["-f"])
        per_node = int(options["--map-by"].split(":")[1])
        name = program.rpartition("/")[2]
        return cls(COLLECTIVES[name], per_node, tuple(sizes), int(options["-n"]), environment)

    def gpus(self, state: State) -> tuple[Gpu, ...]:
        """Those of a node, in rank order."""
        wanted = self.environment.get("CUDA_VISIBLE_DEVICES")
        visible = state.gpus if wanted is None else tuple(state.gpus[int(index)] for index in wanted.split(","))
        return visible[: self.per_node]

    def rows(self, route: Route, ranks: int) -> list[str]:
        """The table, and its two footers."""
        lines, rates = [], []
        for size in self.sizes:
            took = seconds(route, self.collective, size, ranks)
            algbw = size / took / 1e9
            rates.append(algbw * self.collective.bus_share(ranks))
            half = f"{took * 1e6:9.1f} {algbw:7.2f} {rates[-1]:7.2f} "
            unchecked = "N/A" if self.collective.program in ("alltoall_perf", "sendrecv_perf") else "0"
            lines.append(f"{size:12d} {size // 4:12d} float {self.collective.redop} -1 {half} 0 {half} {unchecked}")
        average = sum(rates) / max(1, len(rates))
        return [*lines, "# Out of bounds values : 0 OK", f"# Avg bus bandwidth    : {average:g}", "#"]
