"""Burn-in by Kubernetes Jobs at a real API server, scheduler and controllers: what comes, and every way it may not."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rehearsal import BUILT
from runners.job_bench import Bench, Door, Recorded, followed, small, task, unit

from burnin.record import Measured, Start, load
from tests.kubernetes.plane import api, control_plane  # noqa: F401 - fixtures
from tests.virtual.agents import MakeAgent, agent, until  # noqa: F401 - fixtures
from toolkit.errors import UndecidedError, UnreachableError
from toolkit.kubernetes.client import ApiServer
from toolkit.runners.carrier import RECORDS, Task
from toolkit.runners.job_manifest import job_name
from toolkit.runners.job_output import ForgedError
from toolkit.stages.archive import build_archive
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.virtual.device_libraries import CUDA, NVML, compile_library

pytestmark = pytest.mark.root

HALF = "lines = records.splitlines(True); write(lines[0]); wait({port}); write(b''.join(lines[1:]))"


@pytest.fixture
def bench(api: ApiServer, control_plane: ControlPlane, tmp_path: Path) -> Bench:  # noqa: F811
    """A namespace of its own."""
    return Bench(api, control_plane, tmp_path)


@pytest.fixture
def door() -> Iterator[Door]:
    """A door that a program waits at."""
    made = Door()
    yield made
    made.close()


def test_what_a_job_wrote_comes_back_byte_for_byte(bench: Bench, agent: MakeAgent):  # noqa: F811
    """Program in parts, tainted and cordoned node, records, artifacts; afterwards nothing of it is left."""
    agent("carries")
    node, run = unit("carries"), small("demo-carries-1", {"kernel_log.txt": b"6,1;NVRM\n" * 3000, "empty": b""})
    bench.api.patch("v1", "Node", node.name, {"spec": {"unschedulable": True}}, how="merge")
    carrier = bench.shipped(node, run)
    assert not carrier.is_active(node, "demo-carries-1")
    carrier.start(node, task("demo-carries-1"))
    assert followed(carrier, node, "demo-carries-1") == run.records
    kept = {n: carrier.read(node, "demo-carries-1", n, 0, 1 << 20) for n in run.artifacts}
    assert kept == run.artifacts
    with pytest.raises(FileNotFoundError):
        carrier.read(node, "demo-carries-1", "other.txt", 0, 10)
    assert carrier.doubt(node, "demo-carries-1") == ""
    pod = bench.api.list("v1", "Pod", bench.namespace)[0]["spec"]
    assert pod["priority"] == -1_000_000 and "serviceAccountToken" not in str(pod["volumes"])
    carrier.forget(node, "demo-carries-1")
    assert bench.jobs() == []


def test_a_controller_that_was_killed_goes_on_with_its_job(bench: Bench, agent: MakeAgent, door: Door):  # noqa: F811
    """In the middle, and after the end: the same pod, the same bytes, nothing begun a second time."""
    agent("resumes")
    node, run = unit("resumes"), small("demo-resumes-1")
    script = HALF.format(port=door.port)
    first = bench.shipped(node, run, script)
    first.start(node, task("demo-resumes-1"))
    with door.held():
        assert followed(first, node, "demo-resumes-1", enough=10)
        second = bench.carrier()
        assert second.is_active(node, "demo-resumes-1")
        assert second.others(node, "demo-resumes-2") == (f"Job {job_name('demo-resumes-1')}",)
        bench.ship(second, node, run, script)
        second.start(node, task("demo-resumes-1"))
    assert followed(second, node, "demo-resumes-1") == run.records
    until(lambda: bench.phases() == ["Succeeded"], "it ends")
    third = bench.shipped(node, run, script)
    third.start(node, task("demo-resumes-1"))
    assert followed(third, node, "demo-resumes-1") == run.records and third.doubt(node, "demo-resumes-1") == ""
    assert len(bench.api.list("v1", "Pod", bench.namespace)) == 1
    assert third.others(node, "demo-resumes-2") == ()


def test_two_controllers_at_once_make_one_job(bench: Bench, agent: MakeAgent):  # noqa: F811
    """Both start the same run in the same moment; both read the same evidence."""
    agent("twice")
    node, run = unit("twice"), small("demo-twice-1")
    both = [bench.shipped(node, run) for _ in range(2)]
    threads = [threading.Thread(target=c.start, args=(node, task("demo-twice-1"))) for c in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [followed(c, node, "demo-twice-1") for c in both] == [run.records] * 2
    assert len(bench.api.list("v1", "Pod", bench.namespace)) == 1


def test_a_busy_node_is_waited_for_and_then_left_alone(bench: Bench, agent: MakeAgent):  # noqa: F811
    """Somebody's pod has two of the GPUs: nothing is preempted, the wait has words, and the Job is taken back."""
    agent("busy")
    node = unit("busy")
    train = {"name": "train", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    meta = {"name": "train-3", "namespace": "default"}
    spec = {"nodeName": "busy", "containers": [train], "terminationGracePeriodSeconds": 0}
    bench.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    carrier = bench.carrier(start_s=4.0)
    bench.ship(carrier, node, small("demo-busy-1"))
    carrier.start(node, task("demo-busy-1"))
    assert carrier.is_active(node, "demo-busy-1")
    until(lambda: carrier.is_active(node, "demo-busy-1") and "Insufficient" in carrier.waits_for(node, "demo-busy-1"),
          "the scheduler's words")  # fmt: skip
    with pytest.raises(UndecidedError, match="busy is busy with pod default/train-3"):
        followed(carrier, node, "demo-busy-1")
    assert bench.jobs() == []
    assert bench.api.get("v1", "Pod", "train-3", "default")["status"]["phase"] == "Running"
    bench.api.delete("v1", "Pod", "train-3", "default")


def test_a_pod_evicted_in_the_middle_is_no_evidence_and_not_replaced(bench: Bench, agent: MakeAgent, door: Door):  # noqa: F811
    """What came before stands as that, nothing follows it, and it may be run again under another name."""
    agent("evicted")
    node, run = unit("evicted"), small("demo-evicted-1")
    carrier = bench.shipped(node, run, HALF.format(port=door.port))
    carrier.start(node, task("demo-evicted-1"))
    with door.held():
        assert followed(carrier, node, "demo-evicted-1", enough=10)
        (pod,) = bench.api.list("v1", "Pod", bench.namespace)
        meta = {"name": pod["metadata"]["name"], "namespace": bench.namespace}
        body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": meta}
        bench.api.create(body if not bench.api.serves("policy/v1", "Eviction") else body | {"apiVersion": "policy/v1"})
        until(lambda: not carrier.is_active(node, "demo-evicted-1"), "it is seen to be over")
    assert followed(carrier, node, "demo-evicted-1") == run.records.splitlines(keepends=True)[0]
    doubt = carrier.doubt(node, "demo-evicted-1")
    assert re.search("its pod is gone|its pod was deleted|status -15", doubt)
    until(lambda: bench.jobs() == [], "no Job is left to make another pod")


def test_a_node_that_is_lost_is_waited_for_and_then_unreachable(bench: Bench, agent: MakeAgent, door: Door):  # noqa: F811
    """The machine loses power: no verdict, the Job stays, and the same command goes on with it or finds it cut."""
    machine = agent("lost")
    node = unit("lost")
    carrier = bench.carrier(outage=4.0)
    bench.ship(carrier, node, small("demo-lost-1"), HALF.format(port=door.port))
    carrier.start(node, task("demo-lost-1"))
    with door.held():
        assert followed(carrier, node, "demo-lost-1", enough=10)
        machine.power_off()
        with pytest.raises(UnreachableError, match="demo-lost-1 on lost: its log cannot be read"):
            followed(carrier, node, "demo-lost-1")
    assert bench.jobs() == [job_name("demo-lost-1")]


def test_an_api_server_that_is_away_in_the_middle_costs_nothing(
    bench: Bench, agent: MakeAgent, door: Door, control_plane: ControlPlane  # noqa: F811
):  # fmt: skip
    """The pod goes on, the log waits, and the records are whole when the server is back."""
    agent("outage")
    node, run = unit("outage"), small("demo-outage-1")
    carrier = bench.carrier(outage=180.0)
    bench.ship(carrier, node, run, HALF.format(port=door.port))
    carrier.start(node, task("demo-outage-1"))
    with door.held():
        assert followed(carrier, node, "demo-outage-1", enough=10)
        control_plane.stop_api()
        assert carrier.read(node, "demo-outage-1", "records.jsonl", 100_000, 10) == b""
        assert carrier.is_active(node, "demo-outage-1")
    with ThreadPoolExecutor(1) as pool:
        came = pool.submit(followed, carrier, node, "demo-outage-1")
        time.sleep(2.0)
        control_plane.start_api()  # here: it dies with the thread that starts it
        assert came.result() == run.records
    assert carrier.doubt(node, "demo-outage-1") == ""


def test_a_log_that_was_rotated_before_it_was_read_is_not_whole(bench: Bench, agent: MakeAgent, door: Door):  # noqa: F811
    """22 MiB of somebody's words between: a controller that comes late has only the end, and says so."""
    agent("rotated")
    node, run = unit("rotated"), small("demo-rotated-1")
    noise = "sys.stderr.write(('w' * 15999 + chr(10)) * 1400); sys.stderr.flush(); time.sleep(0.5); "
    carrier = bench.shipped(node, run, HALF.format(port=door.port).replace("wait(", noise + "wait("))
    carrier.start(node, task("demo-rotated-1"))
    with door.held():
        pass
    until(lambda: bench.phases() == ["Succeeded"], "it ends unread")
    assert carrier.is_active(node, "demo-rotated-1"), "what it wrote has not been read"
    late = bench.carrier()
    assert followed(late, node, "demo-rotated-1") == b""
    assert late.doubt(node, "demo-rotated-1").startswith("the beginning of its log is gone")


_PUT_BETWEEN = "b'@rackproof1 2 records records.jsonl 2 ' + b'0' * 64 + b' eJwz5AIAAG4APA==\\n'"
LIES = (
    ("a record put between", f"os.write(2, {_PUT_BETWEEN}); time.sleep(1); write(records)", "", "line 2 of the log"),
    ("another node's name", "write(records)", "import os; os.environ['RACKPROOF_NODE'] = 'b'", "machine of node b"),
    ("another pod's log", "write(records)", "import os; os.environ['RACKPROOF_CARRIER'] = 'x'", "does not continue"),
    ("another machine", "write(records)", "import burnin.emit, pathlib\np = pathlib.Path('/rackproof/work/serial')\n"
     "p.write_text('VR9')\nburnin.emit._SERIAL = p", "a machine of serial VR9, and lies has VR1"),
)  # fmt: skip


@pytest.fixture(scope="module")
def liar(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:  # noqa: F811
    """One machine for all of them."""
    from tests.kubernetes.plane import free_ports
    from toolkit.virtual.node_agent import AgentOptions, NodeAgent

    (port,) = free_ports("127.0.0.1", 1)
    with NodeAgent(control_plane, "lies", tmp_path_factory.mktemp("lies"), AgentOptions(port=port)):
        yield


@pytest.mark.parametrize(("script", "emit", "words"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_output_that_lies_is_refused(bench: Bench, liar: None, script: str, emit: str, words: str):
    """Whoever wrote it: nothing of it is used, now or when it is read again."""
    identity = f"demo-{bench.namespace}-1"
    node = unit("lies", "VR1")
    carrier = bench.shipped(node, small(identity), script, emit)
    carrier.start(node, task(identity))
    with pytest.raises(ForgedError, match=words):
        followed(carrier, node, identity)
    with pytest.raises(ForgedError, match=words):
        carrier.read(node, identity, "records.jsonl", 100_000, 10)


def test_a_machine_that_tells_nothing_of_itself_is_no_evidence(bench: Bench, liar: None):
    """Neither serial nor boot id: that the pod was told the node's name proves no machine."""
    emit = "import burnin.emit, pathlib\nburnin.emit._SERIAL = burnin.emit._BOOT = pathlib.Path('/nonexistent')"
    node, identity = unit("lies"), f"demo-{bench.namespace}-2"
    run = small(identity)
    carrier = bench.shipped(node, run, emit=emit)
    carrier.start(node, task(identity))
    assert followed(carrier, node, identity) == run.records
    assert carrier.doubt(node, identity) == "neither serial nor boot id says that its machine was lies"


def test_a_program_that_is_not_the_one_ordered_does_not_run(bench: Bench, liar: None):
    """Somebody put another part in the place of ours: the pod sees it before anything runs, and so does a ship."""
    node, identity = unit("lies"), "demo-tampered-1"
    carrier = bench.carrier()
    digest = bench.ship(carrier, node, small(identity))
    name = f"rackproof-burnin-{digest[:20]}-1"
    part = bench.api.get("v1", "ConfigMap", name, bench.namespace)
    bench.api.delete("v1", "ConfigMap", name, bench.namespace)
    part["metadata"] = {"name": name, "namespace": bench.namespace}
    bench.api.create(part | {"binaryData": {"part": "AAAA"}})
    carrier.start(node, task(identity))
    assert followed(carrier, node, identity) == b""
    assert "the parts in /rackproof/program are not the program that was ordered" in carrier.doubt(node, identity)
    with pytest.raises(UndecidedError, match=f"ConfigMap {bench.namespace}/{name} is not what we put there"):
        bench.ship(bench.carrier(), node, small(identity))


@pytest.mark.parametrize(("hard", "when"), [({"pods": "0"}, "later"), ({"count/jobs.batch": "0"}, "at once")],
                         ids=["pods", "jobs"])  # fmt: skip
def test_a_quota_that_refuses_is_told_in_its_words(bench: Bench, hard: dict[str, str], when: str):
    """Of pods: seen in the Job's events while it waits. Of Jobs: at once. Neither says anything of the node."""
    node, identity = unit("nowhere"), f"demo-quota-{when[:2]}"
    meta = {"name": "full", "namespace": bench.namespace}
    bench.api.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})
    until(
        lambda: (bench.api.get("v1", "ResourceQuota", "full", bench.namespace)["status"] or {}).get("hard"), "it holds"
    )
    carrier = bench.carrier(start_s=3.0)
    bench.ship(carrier, node, small(identity))

    def tried() -> None:
        carrier.start(node, task(identity))
        followed(carrier, node, identity)

    with pytest.raises(UndecidedError, match="exceeded quota: full"):
        tried()
    assert bench.jobs() == []


def test_an_image_that_cannot_be_pulled_is_told_and_given_up(bench: Bench):
    """The kubelet's word, posted as a kubelet does it, for a node without one."""
    node, identity = unit("imageless"), "demo-imageless-1"
    ready = {"conditions": [{"type": "Ready", "status": "True"}],
             "capacity": (room := {"nvidia.com/gpu": "8", "cpu": "8", "memory": "64Gi", "pods": "10"}),
             "allocatable": room}  # fmt: skip
    bench.api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "imageless"}, "status": ready})
    carrier = bench.carrier(start_s=6.0)
    bench.ship(carrier, node, small(identity))
    carrier.start(node, task(identity))
    pods = until(
        lambda: [p for p in bench.api.list("v1", "Pod", bench.namespace) if p["spec"].get("nodeName")], "bound"
    )
    waiting = {"reason": "ErrImagePull", "message": 'rpc error: failed to resolve reference "none": not found'}
    container = {"name": "burnin", "image": "none", "imageID": "", "ready": False, "restartCount": 0}
    told = {"containerStatuses": [container | {"state": {"waiting": waiting}}]}
    bench.api.patch("v1", "Pod", pods[0]["metadata"]["name"], {"status": told}, namespace=bench.namespace,
                    how="strategic", subresource="status")  # fmt: skip
    with pytest.raises(UndecidedError, match=r"did not begin within \d+ s: .* ErrImagePull: .* failed to resolve"):
        followed(carrier, node, identity)
    assert bench.jobs() == []


def test_a_job_of_that_name_that_is_not_ours_is_refused(bench: Bench, liar: None):
    """Made by somebody for another run, or pinned elsewhere: its output is never taken for this run's."""
    node, identity = unit("lies"), "demo-stranger-1"
    carrier = bench.shipped(node, small(identity))
    carrier.start(node, task(identity))
    elsewhere = unit("elsewhere")
    other = bench.shipped(elsewhere, small(identity))
    with pytest.raises(UndecidedError, match="is not of burn-in demo-stranger-1 on elsewhere"):
        other.start(elsewhere, task(identity))
    with pytest.raises(ForgedError, match="its pod ran on lies, not on elsewhere"):
        followed(other, elsewhere, identity)


def test_a_run_of_real_size_costs_few_requests(bench: Bench, liar: None):
    """Requests do not grow with the records; a megabyte of them comes in one or two readings."""
    lines = b"".join(b'{"record":"progress","at":"%s","workload":"hbm","done":0.5,"text":"%d","gpu":1}\n' % (b"x", n)
                     for n in range(12_000))  # fmt: skip
    whole = small("demo-size-1")
    first, *rest = whole.records.splitlines(keepends=True)
    run, node = Recorded(first + lines + b"".join(rest)), unit("lies")
    carrier = bench.shipped(node, run)
    before, began = bench.login.requests, time.monotonic()
    carrier.start(node, task("demo-size-1"))
    assert followed(carrier, node, "demo-size-1") == run.records
    assert carrier.doubt(node, "demo-size-1") == ""
    looks = (time.monotonic() - began) / 0.1
    assert bench.login.requests - before < 4 * looks + 20


class ReadTooEarly:
    """An API server whose first answer with records ends behind the first line that has some."""

    def __init__(self, real: ApiServer) -> None:
        self._real = real
        self.cut = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def logs(self, *where: str, **how: Any) -> bytes:
        """As much as a node had when it was asked."""
        lines = self._real.logs(*where, **how).splitlines(keepends=True)
        if self.cut or len(lines) < 3:
            return b"".join(lines)
        self.cut = True
        return b"".join(lines[:2])


def test_a_log_read_between_two_of_its_lines_is_read_again(bench: Bench, liar: None):
    """A record lies across them: whoever takes whole lines asks from there again, and gets the rest."""
    line = b'{"record":"progress","at":"x","workload":"hbm","done":0.5,"text":"%s","gpu":1}\n' % (b"-" * 900)
    first, *rest = small("demo-early-1").records.splitlines(keepends=True)
    run, node = Recorded(first + 20 * line + b"".join(rest)), unit("lies")
    bench.login = early = ReadTooEarly(bench.login)
    carrier = bench.shipped(node, run)
    carrier.start(node, task("demo-early-1"))
    until(lambda: carrier.read(node, "demo-early-1", RECORDS, 0, 1 << 20), "the first records")
    seen = carrier.read(node, "demo-early-1", RECORDS, 0, 1 << 20)
    whole = seen.rfind(b"\n") + 1
    assert early.cut and 0 < whole < len(seen) < len(run.records)
    assert carrier.read(node, "demo-early-1", RECORDS, whole, 1 << 20) == run.records[whole:]


def test_the_real_program_measures_a_gpu_in_a_pod(bench: Bench, agent: MakeAgent, tmp_path: Path):  # noqa: F811
    """burnin.pyz as it is shipped, over the virtual GPU that the pod was given: numbers, seats, and an end."""
    machine = agent("measures", gpus=1)
    libraries = tmp_path / "lib"
    libraries.mkdir()
    for library in (NVML, CUDA):
        compile_library(library, libraries)
    archive = tmp_path / "burnin.pyz"
    digest = build_archive(archive, BUILT)
    node, carrier = unit("measures"), bench.carrier()
    carrier.ship(node, archive, digest)
    environment = (f"LD_LIBRARY_PATH={libraries}", f"RACKPROOF_HARDWARE={machine.hardware}")
    asked = ("--suite", "again_pcie", "--gpus", "1", *(word for pair in environment for word in ("--env", pair)))
    carrier.start(node, Task("demo-measures-1", 1, asked, 120.0))
    records = list(load(followed(carrier, node, "demo-measures-1").decode().splitlines()))
    assert carrier.doubt(node, "demo-measures-1") == ""
    measured = {r.metric: r.value for r in records if isinstance(r, Measured) and r.gpu == 0}
    assert isinstance(records[0], Start) and records[0].gpus[0].serial
    assert float(measured["h2d_gb_per_s"]) > 0 and measured["pcie_miscompares"] == 0
