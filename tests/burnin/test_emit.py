"""A run in a container: what goes out is what stands in its folder, as far as a log has room for it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from burnin.emit import Carried, Emitter
from burnin.record import Artifact, Start, dump
from toolkit.runners.job_output import Output

ROOT = Path(__file__).resolve().parents[2]
RUN, POD, PROGRAM = "r1", "uid-1", "a" * 64


def emitted(folder: Path, most_bytes: int = 9 << 20) -> tuple[Output, bytes]:
    """What a controller has of the folder, and the log."""
    log = bytearray()
    emitter = Emitter(Carried(RUN, POD, "node1", PROGRAM), folder, log.extend, most_bytes)
    emitter.hello()
    emitter.records()
    emitter.artifacts()
    emitter.end(0)
    told = Output(RUN, POD, PROGRAM)
    told.feed(bytes(log))
    return told, bytes(log)


def keep(folder: Path, files: dict[str, bytes]) -> bytes:
    """A folder of a run with these artifacts; its records."""
    records = dump(Start(RUN, "2026-11-23T00:00:00Z", "quick", "0.1", ()))
    for name, content in files.items():
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        records += dump(Artifact("2026-11-23T00:00:00Z", "hbm", name, digest, len(content)))
    (folder / "records.jsonl").write_text(records + '{"record":"cut')
    return records.encode()


def test_records_and_artifacts_go_out_as_they_stand(tmp_path):
    """Whole lines only: the one that is being written is not a record yet."""
    files = {
        "kernel_log.txt": b"6,1,2,-;NVRM\n" * 1000,
        "samples.json": b"",
        "raw.bin": random.Random(1).randbytes(9000),
    }
    records = keep(tmp_path, files)
    told, _ = emitted(tmp_path)
    assert bytes(told.records) == records
    assert {name: bytes(content) for name, content in told.artifacts.items()} == files
    assert told.doubt() == ""
    assert told.hello is not None and told.hello["node"] == "node1"
    assert told.hello["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_what_a_log_has_no_room_for_is_left_out_and_said_to_be(tmp_path):
    """Small artifacts first; never half of one; never longer than asked."""
    big = random.Random(1).randbytes(100_000)
    records = keep(tmp_path, {"big.bin": big, "small.txt": b"small"})
    told, log = emitted(tmp_path, 100_000)
    assert bytes(told.records) == records and set(told.artifacts) == {"small.txt"}
    assert told.end is not None and told.end["left_out"] == {"big.bin": "no room for 100000 bytes in the log"}
    assert len(log) < 100_000 and told.doubt() == ""


def test_records_without_room_are_a_doubt(tmp_path):
    """They are never cut in silence."""
    keep(tmp_path, {})
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b"\n" + random.Random(1).randbytes(50_000).hex().encode() + b"\n")
    told, _ = emitted(tmp_path, 40_000)
    assert told.doubt().startswith("its log had no room for all records")


def test_an_artifact_that_is_gone_is_left_out(tmp_path):
    """And said to be."""
    keep(tmp_path, {"a.txt": b"a"})
    (tmp_path / "a.txt").unlink()
    told, _ = emitted(tmp_path)
    assert told.end is not None and told.end["left_out"] == {"a.txt": "No such file or directory"}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The real `emit`, over a suite that writes a record a moment until it is stopped."""
    path = tmp_path / "burnin.pyz"
    main = (
        "import sys\n"
        "if sys.argv[1] == 'emit':\n    from burnin.__main__ import main\n    sys.exit(main())\n"
        "import pathlib, time\nprint('a word of its own')\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); out.mkdir(exist_ok=True)\n"
        "with (out / 'records.jsonl').open('a') as file:\n"
        "    for n in range(int(sys.argv[-1])):\n"
        "        print('{\"n\":%d}' % n, file=file, flush=True); time.sleep(0.05)\n"
        "sys.exit(4)\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", main)
        for file in (ROOT / "burnin").rglob("*.py"):
            archive.write(file, f"burnin/{file.relative_to(ROOT / 'burnin')}")
    return path


def start(program: Path, folder: Path, count: int) -> subprocess.Popen[bytes]:
    """`emit` as a pod runs it."""
    argv = [sys.executable, str(program), "emit", "--run", RUN, "--out", str(folder), "--program", PROGRAM, "--"]
    return subprocess.Popen(
        [*argv, "--suite", "quick", str(count)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "RACKPROOF_CARRIER": POD, "RACKPROOF_NODE": "node1"},
    )  # fmt: skip


def test_a_run_goes_out_while_it_runs_and_ends_as_its_suite_did(program, tmp_path):
    """The suite's own words stay away from the frames."""
    run = start(program, tmp_path / "out", 30)
    assert run.stdout is not None
    early = run.stdout.readline() + run.stdout.readline()
    assert run.poll() is None, "the first records came before the end"
    log, words = run.communicate(timeout=30)
    told = Output(RUN, POD, PROGRAM)
    told.feed(early + log)
    assert (run.returncode, words) == (4, b"a word of its own\n")
    assert bytes(told.records) == b"".join(b'{"n":%d}\n' % n for n in range(30))
    assert told.doubt() == "its program ended with status 4"


def test_a_run_that_is_stopped_tells_what_it_has(program, tmp_path):
    """SIGTERM, as on eviction: the suite ends, and what it wrote goes out with an end that says how."""
    run = start(program, tmp_path / "out", 10_000)
    assert run.stdout is not None
    early = run.stdout.readline() + run.stdout.readline()
    run.send_signal(signal.SIGTERM)
    log, _ = run.communicate(timeout=30)
    told = Output(RUN, POD, PROGRAM)
    told.feed(early + log)
    assert told.doubt() == "its program ended with status -15" and run.returncode == 143
    assert bytes(told.records).startswith(b'{"n":0}\n')
