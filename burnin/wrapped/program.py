"""A program of the node as a workload: own deadline, clean environment, output kept. Nothing is concluded from it here.

Where the program is not installed the workload is recorded as unavailable: what a site does not have is not tested by
it, and no gate asks for it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace

from burnin.child import workload_end
from burnin.nccl.collective import OutputSink
from burnin.record import GpuIdentity, Outcome, WorkloadEnded, clean
from burnin.supervise import Ended, How, Job, Sink
from burnin.workload import Bench, UnavailableError

# Where packages and the usual builds put programs, after PATH.
FOLDERS = ("/usr/bin", "/usr/local/bin", "/usr/local/cuda/bin", "/opt/nvidia/bin", "/opt/nvbandwidth")


@dataclass(frozen=True)
class Program:
    """`program options...` on the node.

    ends_with_json   a whole JSON object proves that the test came to its end, whatever the exit status: dcgmi's is the
                     result's. Otherwise the exit status must be 0.
    """

    name: str
    program: str
    options: tuple[str, ...]
    deadline_s: float
    suffix: str
    package: str  # what the operator would install
    ends_with_json: bool = False
    per_gpu: bool = False

    def prepare(self, bench: Bench, gpu: GpuIdentity | None) -> tuple[Job, Sink]:
        """See Workload."""
        if not bench.gpus:
            raise UnavailableError("no GPU was found")
        environment = bench.environment()
        found = shutil.which(self.program, path=":".join((environment.get("PATH", ""), *FOLDERS)))
        if found is None:
            where = ", ".join(FOLDERS)
            raise UnavailableError(f"not installed: {self.program} ({self.package}) is neither on PATH nor in {where}")
        return Job(self.name, (found, *self.options), environment, self.deadline_s), OutputSink()

    def conclude(self, bench: Bench, job: Job, sink: Sink, ended: Ended) -> WorkloadEnded:
        """See Workload. Completed means: it ended by itself and said something, not that it found nothing."""
        output = bytes(sink.data) if isinstance(sink, OutputSink) else b""
        self._keep(bench, self.suffix, output)
        self._keep(bench, "stderr.txt", ended.stderr.encode())
        self._keep(bench, "command.json", json.dumps({"argv": job.argv, "status": ended.status}, indent=1).encode())
        end = workload_end(self.name, None, ended, None)
        if ended.how is not How.EXITED:
            return end
        if _has_json(output) if self.ends_with_json else ended.status == 0 and bool(output.strip()):
            return replace(end, outcome=Outcome.COMPLETED, detail=f"exit status {ended.status}")
        lines = [line.strip() for line in (*ended.stderr.splitlines(), *_lines(output)) if line.strip()]
        said = lines[-1] if lines else "no output"
        return replace(end, outcome=Outcome.CRASHED, detail=clean(f"exit status {ended.status}: {said}"))

    def _keep(self, bench: Bench, suffix: str, content: bytes) -> None:
        if content:
            path = bench.journal.artifact_path(f"{self.name}.{suffix}")
            path.write_bytes(content)
            bench.artifact(self.name, path)


def _has_json(output: bytes) -> bool:
    """Whether there is a whole JSON object in the output, with anything around it."""
    text = output.decode("utf-8", "replace")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(0, text.find("{")))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _lines(output: bytes) -> list[str]:
    return output[-4096:].decode("utf-8", "replace").splitlines()
