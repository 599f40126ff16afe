"""A cluster's namespace for burn-ins, and programs that replay a recorded run the way a test wants it."""

from __future__ import annotations

import secrets
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from burnin.record import Artifact, End, Start, dump
from toolkit.errors import RackproofError
from toolkit.kubernetes.client import ApiServer
from toolkit.pool.door_rule import doormen
from toolkit.pool.manifests import manifests
from toolkit.rack.model import Unit, UnitKind
from toolkit.runners.carrier import RECORDS, Task
from toolkit.runners.job_manifest import JobSite
from toolkit.runners.job_run import Patience
from toolkit.runners.jobs import JobCarrier
from toolkit.virtual.control_plane.plane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
_INSTALLED = ("Namespace", "ServiceAccount", "PriorityClass", "ClusterRole", "Role", "RoleBinding")
AT = "2026-11-23T00:00:00Z"
# `emit` is the real one; `run` unpacks the recorded files and does with the records what the test says.
_MAIN = """import sys
if sys.argv[1] == "emit":
    from burnin.__main__ import main
    exec(__import__("zipfile").ZipFile(sys.argv[0]).read("emit.py").decode())
    sys.exit(main())
import os, pathlib, socket, time, zipfile
archive, out = zipfile.ZipFile(sys.argv[0]), pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir()
files = {name[7:]: archive.read(name) for name in archive.namelist() if name.startswith("replay/")}
records = files.pop("records.jsonl")
for name, content in files.items():
    (out / name).write_bytes(content)
def write(content):
    with (out / "records.jsonl").open("ab") as file:
        file.write(content)
def wait(port):
    socket.create_connection(("127.0.0.1", port)).recv(1)
exec(archive.read("run.py").decode())
"""


@dataclass(frozen=True)
class Recorded:
    """A run as it stands on a node."""

    records: bytes
    artifacts: Mapping[str, bytes] = field(default_factory=dict)


def small(identity: str, artifacts: Mapping[str, bytes] | None = None) -> Recorded:
    """A run that measured nothing, with these files."""
    kept = dict(artifacts or {})
    told = [dump(Start(identity, AT, "quick", "0.1", ()))]
    told += [dump(Artifact(AT, "hbm", name, sha256(c).hexdigest(), len(c))) for name, c in kept.items()]
    told.append(dump(End(AT, ("hbm",), ("hbm",))))
    return Recorded("".join(told).encode(), kept)


def program(path: Path, run: Recorded, script: str = "write(records)", emit: str = "") -> str:
    """Writes it; its sha256. Over a megabyte, so that it takes more than one part."""
    members = {"__main__.py": _MAIN, "run.py": script, "emit.py": emit, "padding": b"\0" * 1_000_000}
    members |= {f"replay/{RECORDS}": run.records} | {f"replay/{name}": c for name, c in run.artifacts.items()}
    members |= {f"burnin/{file.name}": file.read_bytes() for file in (ROOT / "burnin").glob("*.py")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name), content)  # without a time: the same bytes every time
    return sha256(path.read_bytes()).hexdigest()


class Door:
    """Where a program on the node waits until the test lets it go on."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(DEADLINE_S)
        self.port: int = self._server.getsockname()[1]

    @contextmanager
    def held(self) -> Iterator[None]:
        """The program has come, and goes on at the end of the block."""
        waiting, _ = self._server.accept()
        try:
            yield
        finally:
            waiting.close()

    def close(self) -> None:
        """Nobody waits any more."""
        self._server.close()


def unit(name: str, serial: str = "") -> Unit:
    """A node that only the cluster reaches."""
    return Unit(name=name, kind=UnitKind.NODE, serial=serial, slot=1)


@dataclass
class Bench:
    """A namespace of its own with what `rackproof door install` puts there; carriers log in as the door does.

    `api` is the administrator, who does what other people do to a cluster.
    """

    api: ApiServer
    plane: ControlPlane
    folder: Path
    namespace: str = field(default_factory=lambda: f"b-{secrets.token_hex(4)}")
    login: ApiServer = field(init=False)

    def __post_init__(self) -> None:
        for body in manifests(self.namespace, doormen(self.namespace), None):
            if body["kind"] in _INSTALLED:
                self.api.apply(body, force=True)
            elif body["kind"] == "ClusterRoleBinding":  # of this namespace, beside those of other tests
                body["metadata"]["name"] += f"-{self.namespace}"
                self.api.apply(body)
        user = f"system:serviceaccount:{self.namespace}:rackproof-door"
        self.login = ApiServer.connect(self.plane.kubeconfig(user))

    def carrier(self, *, start_s: float = 60.0, outage: float = 30.0, **options: bool) -> JobCarrier:
        """A controller's, with less patience than for real clusters."""
        site = JobSite(self.namespace, "none", start_s=start_s)
        return JobCarrier(self.login, site, patience=Patience(outage, 15.0, 0.2), **options)

    def shipped(self, node: Unit, run: Recorded, script: str = "write(records)", emit: str = "") -> JobCarrier:
        """A carrier with this program."""
        carrier = self.carrier()
        self.ship(carrier, node, run, script, emit)
        return carrier

    def ship(
        self, carrier: JobCarrier, node: Unit, run: Recorded, script: str = "write(records)", emit: str = ""
    ) -> str:
        """The program's digest."""
        archive = self.folder / "burnin.pyz"
        digest = program(archive, run, script, emit)
        carrier.ship(node, archive, digest)
        return digest

    def phases(self) -> list[str]:
        """Of the namespace's pods."""
        return [str(p["status"].get("phase")) for p in self.api.list("v1", "Pod", self.namespace)]

    def jobs(self) -> list[str]:
        """Names of the namespace's Jobs that are not going."""
        jobs = self.api.list("batch/v1", "Job", self.namespace)
        return [str(j["metadata"]["name"]) for j in jobs if not j["metadata"].get("deletionTimestamp")]


def task(identity: str, gpus: int = 8, longest_s: float = 120.0) -> Task:
    """A run's."""
    return Task(identity, gpus, ("--suite", "quick", "--gpus", str(gpus)), longest_s)


def followed(carrier: JobCarrier, node: Unit, identity: str, enough: int = 1 << 30) -> bytes:
    """Records until the end record, a run that is over, or `enough` bytes; as `burnin_run.follow` reads them."""
    data, silent, end = b"", 0, time.monotonic() + DEADLINE_S
    while b'"record":"end"' not in data and len(data) < enough and silent < 3:
        if time.monotonic() > end:
            raise RackproofError(f"no end within {DEADLINE_S:g} s; it has {data[-200:]!r}")
        more = carrier.read(node, identity, RECORDS, len(data), 1 << 20)
        data += more
        if not more:
            silent = 0 if carrier.is_active(node, identity) else silent + 1
            time.sleep(0.1)
    return data
