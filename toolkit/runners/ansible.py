"""Playbooks through ansible-runner. The only importer of it; nothing else knows that it exists.

A run is a folder of its own under `settings.runs(rack)`:

    inventory/hosts.json   exactly the nodes asked for; inventory/group_vars leads to the site's
    variables.json         what the caller passed; never a secret
    env/settings           of ansible-runner
    events.jsonl           one line a task and host: our own record, bounded and printable
    result.json            status and outcome of every host
    artifacts/             of ansible-runner: command line, environment (an allow-list), exit status
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from toolkit.errors import UsageError
from toolkit.rack.model import Unit
from toolkit.runners import inventory, lifeline
from toolkit.runners.play import HostOutcome, HostResult, PlayEvent, PlayRequest, PlayResult
from toolkit.runners.proof import Proof, printable
from toolkit.settings import Settings

# What the controller side of a play may see of our environment: ansible-runner writes all of it to disk.
_INHERITED = ("PATH", "HOME", "USER", "TZ", "SSH_AUTH_SOCK")
# What ansible-runner's callback needs to reach us.
_OF_RUNNER = ("AWX_ISOLATED_DATA_DIR", "ANSIBLE_STDOUT_CALLBACK", "RUNNER_OMIT_EVENTS", "RUNNER_ONLY_FAILED_EVENTS")
_IDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UUID = re.compile(r"[0-9a-f-]{36}(?:_[0-9]{1,6})?")
_LARGEST_ANSWER_CHARACTERS = 256 * 1024  # of one task on one host; ansible-runner's callback drops a larger one whole
_NOISE_LINES = 20
_POLL_SECONDS = 1  # how soon a request to stop is seen
_GRACE_SECONDS = 30  # past our own deadline, before ansible-runner's applies


@dataclass(frozen=True, slots=True)
class AnsibleRunner:
    """Implements `play.PlaybookRunner`.

    user       login on the nodes
    forks      hosts worked on at the same time, at most
    tolerated  names of tasks whose ignored failure does not make a host UNKNOWN
    arguments  further arguments of ansible-playbook, e.g. ("--diff",)
    stop       set by another thread to end the run; a host that is not done then is UNKNOWN
    """

    settings: Settings
    user: str = "root"
    forks: int = 50
    tolerated: frozenset[str] = frozenset()
    arguments: Sequence[str] = ()
    stop: threading.Event = field(default_factory=threading.Event)

    def play(self, request: PlayRequest, on_event: Callable[[PlayEvent], None]) -> PlayResult:
        """Blocks until the play ended or its time is over. Raises nothing for a host's failure.

        UsageError: `ident` is no file name.
        """
        folder = _fresh_folder(self.settings.runs(request.rack.name), request.ident)
        nodes = {n.name: n for n in request.rack.nodes if n.host is not None and n.name in request.nodes}
        proof = Proof(request.playbook, nodes, self.tolerated)
        if not (self.settings.playbooks / request.playbook).is_file():
            status, ended = "error", f"there is no {request.playbook} in {self.settings.playbooks}"
        elif not nodes:
            status, ended = "error", "no node to play on"
        else:
            self._write_inputs(folder, request, tuple(nodes.values()))
            status, ended = self._run(folder, request, len(nodes), proof, on_event)
        no_node = HostResult(HostOutcome.UNKNOWN, message=f"rack {request.rack.name} has no such node with a host")
        proven = proof.results(ended)
        result = PlayResult(status, {name: proven.get(name, no_node) for name in request.nodes}, folder)
        _write(folder / "result.json", {"status": status, "hosts": {k: asdict(v) for k, v in result.hosts.items()}})
        return result

    def _write_inputs(self, folder: Path, request: PlayRequest, nodes: Sequence[Unit]) -> None:
        place = folder / "inventory"
        place.mkdir(mode=0o700)
        _write(place / "hosts.json", inventory.static(self.settings, request.rack, nodes, self.user))
        group_vars = self.settings.inventory / "group_vars"
        if group_vars.is_dir():
            # A link, not a copy: a site's vault files are not multiplied with every run.
            (place / "group_vars").symlink_to(group_vars)
        _write(folder / "variables.json", request.variables)
        # As a file: ansible-runner 2.4.3 drops the settings it is handed when it finds none.
        (folder / "env").mkdir(mode=0o700)
        _write(folder / "env" / "settings", {"suppress_output_file": True, "pexpect_timeout": _POLL_SECONDS})

    def _run(
        self, folder: Path, request: PlayRequest, hosts: int, proof: Proof, on_event: Callable[[PlayEvent], None]
    ) -> tuple[str, str]:
        """Status of the run, and in words how it ended."""
        from ansible_runner.config.runner import RunnerConfig
        from ansible_runner.runner import Runner

        with _scratch_folder() as scratch, _Line(scratch / "lifeline") as line:
            config = RunnerConfig(
                private_data_dir=str(folder),
                ident=request.ident,
                playbook=str(self.settings.playbooks / request.playbook),
                inventory=str(folder / "inventory"),
                forks=min(self.forks, hosts),
                timeout=request.timeout_s + _GRACE_SECONDS,
                fact_cache_type="memory",
                quiet=True,
            )
            config.prepare()
            config.env = _environment(config.env, self.settings, scratch)
            argv = [sys.executable, "-P", "-m", "ansible", "playbook", *config.command[1:], *self.arguments]
            argv += ["-e", f"@{folder / 'variables.json'}", *(["--check", "--diff"] if request.check else [])]
            config.command = lifeline.command(line.fifo, os.getpid(), request.timeout_s, argv)
            runner = Runner(config, cancel_callback=lambda: line.let_go_if(self.stop.is_set()))
            with _Recorder(folder, Path(config.artifact_dir) / "job_events", proof, on_event) as recorder:
                # Replaced, because the original believes every event it finds in the output; nodes write there too.
                runner.event_callback = recorder.receive
                status, code = runner.run()
        if code == lifeline.TIME_OVER or status == "timeout":
            return "timeout", f"time over after {request.timeout_s:g} s"
        if code == lifeline.LET_GO:
            return "canceled", "stopped on request"
        return str(status), recorder.noise() or f"ansible-playbook ended with exit status {code}"


class _Recorder:
    """Turns ansible-runner's stream of events into proof, progress and our own record.

    An event counts when ansible-playbook left its file in `job_events`: what a node prints has none. The files are
    removed as they are read.
    """

    def __init__(self, folder: Path, job_events: Path, proof: Proof, on_event: Callable[[PlayEvent], None]) -> None:
        self._job_events = job_events
        self._proof = proof
        self._on_event = on_event
        self._noise: deque[str] = deque(maxlen=_NOISE_LINES)
        self._log = (folder / "events.jsonl").open("w", encoding="utf-8")

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def receive(self, found: Mapping[str, object]) -> None:
        """Takes what ansible-runner found in the output."""
        event = self._genuine(str(found.get("uuid", "")))
        kind = str(event.get("event", "verbose"))
        data = event.get("event_data")
        if kind in ("verbose", "error", "warning"):
            self._noise.append(printable(str(found.get("stdout", "")), 300))
        if not isinstance(data, dict):
            return
        shown = self._proof.add(kind, data)
        if shown is not None:
            line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **asdict(shown)}
            line |= {"seconds": data.get("duration"), "changed": _is_changed(data)}
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()
            self._on_event(shown)

    def noise(self) -> str:
        """What ansible-playbook said outside any task: the reason of a run that did nothing."""
        return printable(" ".join(line for line in self._noise if line), 600)

    def _genuine(self, uuid: str) -> Mapping[str, object]:
        if not _UUID.fullmatch(uuid):
            return {}
        file = self._job_events / f"{uuid}-partial.json"
        try:
            event = json.loads(file.read_bytes())
        except (OSError, ValueError):
            return {}
        file.unlink(missing_ok=True)
        return event if isinstance(event, dict) else {}


class _Line:
    """Our end of the lifeline: while it is held, ansible-playbook may live."""

    def __init__(self, fifo: Path) -> None:
        self.fifo = fifo
        self._end: int | None = None

    def __enter__(self) -> _Line:
        os.mkfifo(self.fifo, 0o600)
        self._end = os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go_if(True)

    def let_go_if(self, wanted: bool) -> bool:
        """Lets go. Always answers False: ansible-runner is not to cancel, its kill would spare Ansible's workers."""
        if wanted and self._end is not None:
            os.close(self._end)
            self._end = None
        return False


def _fresh_folder(parent: Path, ident: str) -> Path:
    """A new folder `ident`, or `ident.2` and so on: a run never writes into the record of another."""
    if not _IDENT.fullmatch(ident):
        raise UsageError(f"a run cannot be named {ident!r}", "use letters, digits, dot, dash and underscore")
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(1, 10_000):
        folder = parent / (ident if number == 1 else f"{ident}.{number}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return folder
    raise UsageError(f"{parent / ident} has been run 10,000 times", "move old runs away")


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    # Not in the run's folder: the path of a control socket may have 108 characters, and it is no part of the record.
    folder = Path(tempfile.mkdtemp(prefix="rackproof-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(prepared: Mapping[str, str], settings: Settings, scratch: Path) -> dict[str, str]:
    """An allow-list of ours, what ansible-runner's callback needs, and this run's own settings."""
    kept = {key: prepared[key] for key in (*_INHERITED, *_OF_RUNNER) if key in prepared}
    return kept | {
        # the last entry is ansible-runner's; the others came from the operator's shell
        "ANSIBLE_CALLBACK_PLUGINS": prepared["ANSIBLE_CALLBACK_PLUGINS"].rpartition(":")[2],
        "ANSIBLE_CONFIG": str(settings.playbooks / "ansible.cfg"),
        "ANSIBLE_HOME": str(scratch),
        "ANSIBLE_INVENTORY_ENABLED": "yaml",
        "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(scratch / "ssh"),
        "LC_ALL": "C.UTF-8",
        "MAX_EVENT_RES": str(_LARGEST_ANSWER_CHARACTERS),
    }


def _is_changed(data: Mapping[str, object]) -> bool:
    answer = data.get("res")
    return isinstance(answer, dict) and answer.get("changed") is True


def _write(file: Path, value: object) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(value, out, indent=1)
