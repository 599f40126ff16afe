"""opensm as the site runs it beside the racks: one process, as a managed switch of the fabric has it on board."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from toolkit.virtual.fabric.tools import Tools

_STOP_S = 5.0
# A duplicate GUID is fatal to opensm, which would end and take the evidence of everything else with it. One in waiting
# asks every second whether its master lives: a handover that comes while it still discovers is lost, and this mends it.
_SETTINGS = "exit_on_fatal FALSE\nsminfo_polling_timeout 1000\npolling_retry_number 3\n"
_FLUSH_EVERY_LINE = "0x2"  # opensm -d: what it logs is there at once


@dataclass(frozen=True, slots=True)
class ManagerSpec:
    """What to run.

    place       adapter or switch of the fabric that it runs on
    sockets     name of the fabric's UNIX sockets
    namespace   network namespace that has them; None: this one
    folder      for its log and files; made if it is not there
    sweep_s     seconds between two looks for changes that no trap told; 0: none
    key         managers of different keys do not recognise each other (SM_Key)
    partitions  file with its partitions; None: the default one, all members full
    """

    tools: Tools
    place: str
    sockets: str
    folder: Path
    namespace: Path | None = None
    sweep_s: int = 10
    key: int = 1
    partitions: Path | None = None
    options: tuple[str, ...] = ()


class SubnetManager:
    """A running opensm; `stop` ends it."""

    def __init__(self, spec: ManagerSpec) -> None:
        self._spec = spec
        spec.folder.mkdir(parents=True, exist_ok=True)
        settings = spec.folder / "opensm.conf"
        settings.write_text(f"sm_key 0x{spec.key:016x}\nsa_key 0x{spec.key:016x}\n{_SETTINGS}")
        self.log.unlink(missing_ok=True)
        inside = ["nsenter", f"--net={spec.namespace}", "--"] if spec.namespace else []
        partitions = ["-P", str(spec.partitions)] if spec.partitions else []
        argv = [
            str(spec.tools.programs / "opensm"), "-F", str(settings), "-f", str(self.log), "-s", str(spec.sweep_s),
            "-d", _FLUSH_EVERY_LINE, *partitions, *spec.options,
        ]  # fmt: skip
        given = {
            **spec.tools.environment(spec.sockets, spec.place),
            "OSM_TMP_DIR": str(spec.folder),
            "OSM_CACHE_DIR": str(spec.folder),
        }
        # only opensm itself may have the library preloaded, not the program that enters the namespace
        handed = [f"{name}={given.pop(name)}" for name in ("LD_PRELOAD", "LD_LIBRARY_PATH")]
        with (spec.folder / "opensm.out").open("wb") as said:
            self._process = subprocess.Popen(
                [*inside, "env", *handed, *argv], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=given,
                cwd=spec.folder, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        """What it logs."""
        return self._spec.folder / "opensm.log"

    @property
    def pid(self) -> int:
        """Of its process: SIGHUP makes it sweep."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it still is."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends it, by force if it takes its time."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
            return
        self._process.kill()
        self._process.wait()
