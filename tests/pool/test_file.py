"""The file-backed pool: readable, whole at every moment, and strict about what it reads."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import BusyError, InputError, UndecidedError
from toolkit.pool.file import FilePool
from toolkit.pool.lead import lead
from toolkit.pool.model import NODE_GONE, NODE_SHUT, DrainEnd, Pool, PoolNode, SmokeEnd

EXPIRES = datetime(2026, 12, 23, 8, 0, tzinfo=UTC)
DIGEST = "ab" * 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pool" / "demo.yml"


@pytest.fixture
def pool(file: Path) -> Pool:
    return FilePool(file)


def test_a_pool_that_is_not_there_is_empty(pool: Pool) -> None:
    """Reading makes no file."""
    assert pool.nodes() == {}


def test_a_node_joins_tainted_is_admitted_and_evicted(pool: Pool, file: Path) -> None:
    """Each step is in the file, for people too."""
    pool.register("node1", "no certificate yet")
    assert pool.nodes() == {"node1": PoolNode(False, reason="no certificate yet")}
    pool.admit("node1", DIGEST, EXPIRES, {"rail": "0"})
    member = pool.nodes()["node1"]
    assert (member.admitted, member.certificate, member.expires, member.labels) == (
        True,
        DIGEST,
        EXPIRES,
        {"rail": "0"},
    )
    text = file.read_text()
    assert "state: admitted" in text
    assert text.startswith("# The training pool.")
    pool.evict("node1", "HBM_ERRORS GPU 3")
    assert pool.nodes() == {"node1": PoolNode(False, reason="HBM_ERRORS GPU 3", labels={"rail": "0"})}


def test_half_a_surrogate_pair_does_not_stop_an_eviction(pool: Pool) -> None:
    """A reason that quotes a broken node is written as well as it can be."""
    pool.register("node1", "joined")
    pool.evict("node1", "said \ud800")
    assert pool.nodes()["node1"].reason == "said ?"


def test_every_step_can_be_repeated(pool: Pool) -> None:
    """A retry after a kill finds the same end."""
    for _ in range(2):
        pool.register("node1", "joined")
    for _ in range(2):
        pool.admit("node1", DIGEST, EXPIRES, {})
    for _ in range(2):
        pool.evict("node1", "gone bad")
    assert pool.nodes() == {"node1": PoolNode(False, reason="gone bad")}


def test_a_node_that_joins_again_is_tainted_again(pool: Pool) -> None:
    """It was imaged anew: what was proven is not there any more."""
    pool.register("node1", "joined")
    pool.admit("node1", DIGEST, EXPIRES, {})
    pool.register("node1", "joined again")
    assert not pool.nodes()["node1"].admitted


def test_a_stranger_is_not_admitted_and_need_not_be_evicted(pool: Pool) -> None:
    """Admission is of members; a node that is not there takes no jobs."""
    with pytest.raises(UndecidedError, match="node9 is not a member"):
        pool.admit("node9", DIGEST, EXPIRES, {})
    pool.evict("node9", "never joined")
    assert pool.nodes() == {}


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(reason=st.text(max_size=60), label=st.text(max_size=20))
def test_any_text_survives_the_file(pool: Pool, reason: str, label: str) -> None:
    """A reason may quote a node; YAML's `no`, `~`, `1.10` and `10:20` stay text."""
    for odd in (reason, "no", "~", "1.10", "10:20:30", "- x: {", "\x1b[2J", "null", ""):
        pool.register("node1", odd)
        pool.admit("node1", DIGEST, EXPIRES, {"label": label})
        pool.evict("node1", odd)
        assert pool.nodes()["node1"] == PoolNode(False, reason=odd, labels={"label": label})


def test_writers_do_not_lose_each_others_nodes(file: Path) -> None:
    """Threads and processes take turns."""
    script = (
        "import sys; from pathlib import Path; from toolkit.pool.file import FilePool\n"
        "for i in range(10): FilePool(Path(sys.argv[1])).register(f'{sys.argv[2]}-{i}', 'joined')\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(file), name]) for name in "ab"]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: FilePool(file).register(f"c-{i}", "joined"), range(10)))
    assert [child.wait(60) for child in children] == [0, 0]
    assert len(FilePool(file).nodes()) == 30
    assert sorted(p.name for p in file.parent.iterdir()) == [".demo.yml.lock", "demo.yml"]


BAD: dict[str, tuple[str, str]] = {
    "no YAML": ("nodes:\n  node1: {state: tainted\n", "demo.yml:3:1: not YAML"),
    "a list": ("- node1\n", "demo.yml:1:1: .*one key 'nodes'"),
    "another key": ("nodes: {}\npool: x\n", "one key 'nodes'"),
    "no members": ("nodes: [node1]\n", "one key 'nodes'"),
    "a member of text": ("nodes:\n  node1: admitted\n", r"demo.yml:2:10: nodes.node1: a member is a mapping"),
    "unknown field": (
        "nodes:\n  node1:\n    state: tainted\n    sate: x\n", r"demo.yml:4:5: nodes.node1.sate: unknown field"
    ),
    "unknown state": ("nodes:\n  node1: {state: fine}\n", r"demo.yml:2:18: nodes.node1.state: 'fine' is no state"),
    "no state": ("nodes:\n  node1: {reason: x}\n", "None is no state"),
    "no certificate": (
        'nodes:\n  node1: {state: admitted, expires: "2026-12-23T08:00:00+00:00"}\n', "names its certificate"
    ),
    "no expiry": ("nodes:\n  node1: {state: admitted, certificate: ab}\n", "time of expiry"),
    "a naive expiry": (
        "nodes:\n  node1: {state: admitted, certificate: ab, expires: '2026-12-23T08:00:00'}\n", "time of expiry"
    ),
    "labels of lists": ("nodes:\n  node1: {state: tainted, labels: [a]}\n", "mapping of names to texts"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_line(name: str, file: Path) -> None:
    """And is not overwritten by the next change."""
    text, message = BAD[name]
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        FilePool(file).nodes()
    with pytest.raises(InputError):
        FilePool(file).register("node2", "joined")
    assert file.read_text() == text


def test_a_pool_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Its folder is a file, or there is no room."""
    (tmp_path / "file").touch()
    with pytest.raises(UndecidedError, match="nothing was changed"):
        FilePool(tmp_path / "file" / "demo.yml").register("node1", "joined")


@pytest.mark.root
def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """The members stay as they were, and nothing is left aside."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        pool = FilePool(disk / "demo.yml")
        pool.register("node1", "joined")
        (disk / "ballast").write_bytes(b"x" * (48 << 10))
        with pytest.raises(UndecidedError, match="No space left"):
            for number in range(100):
                pool.register(f"long{number}", "x" * 1000)
        before = pool.nodes()
        assert "node1" in before
        with pytest.raises(UndecidedError):
            for number in range(100):
                pool.register(f"more{number}", "x" * 1000)
        assert pool.nodes().keys() >= before.keys()
        assert sorted(p.name for p in disk.iterdir()) == [".demo.yml.lock", "ballast", "demo.yml"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_knows_no_jobs_and_says_so(pool: Pool) -> None:
    """A drain shuts the member and leaves what runs undecided; a smoke collective is not asked."""
    pool.register("node1", "joined")
    pool.admit("node1", DIGEST, EXPIRES, {})
    drained = pool.drain("node1", "repair", 60)
    assert (drained.end, drained.left) == (DrainEnd.UNDECIDED, ())
    assert "ask the scheduler" in drained.why
    assert not pool.nodes()["node1"].admitted
    assert pool.smoke(["node1"], 60).end is SmokeEnd.NOT_ASKED


def test_many_are_shut_in_one_change_and_a_broken_file_shuts_none(pool: Pool, file: Path) -> None:
    """Each for its own reason; strangers stay strangers; who may still take jobs is told."""
    for node in ("node1", "node2", "node3"):
        pool.register(node, "joined", {"leaf": "l1"})
        pool.admit(node, DIGEST, EXPIRES, {"leaf": "l1"})
    assert pool.evict_all({"node1": "recall", "node2": "fan", "node9": "recall"}) == {}
    assert pool.evict_all({}) == {}
    assert {name: (m.admitted, m.reason) for name, m in pool.nodes().items()} == {
        "node1": (False, "recall"),
        "node2": (False, "fan"),
        "node3": (True, f"certificate {DIGEST[:12]} in force until {EXPIRES.isoformat()}"),
    }
    assert pool.nodes()["node1"].labels == {"leaf": "l1"}
    file.write_text("nodes: [broken]\n")
    failed = pool.evict_all({"node3": "recall"})
    assert "one key 'nodes'" in failed["node3"].message


def test_members_that_went_or_were_taken_out_by_hand_are_signs(pool: Pool, file: Path) -> None:
    """Those that take jobs are none, and neither are members that nobody asked about."""
    for node in ("node1", "node2", "node3"):
        pool.register(node, "joined")
        pool.admit(node, DIGEST, EXPIRES, {})
    pool.evict("node2", "smells of smoke")
    pool.evict("node3", "not asked about")
    found = {s.node: s for s in pool.signs(["node1", "node2", "node9"], EXPIRES)}
    assert {node: s.code for node, s in found.items()} == {"node2": NODE_SHUT, "node9": NODE_GONE}
    assert found["node2"].detail == "smells of smoke"
    assert found["node2"].source == f"pool file {file}"


def test_labels_of_a_member_are_kept_until_new_ones_are_given(pool: Pool) -> None:
    """None is not the same as no labels."""
    pool.register("node1", "joined", {"leaf": "l1"})
    pool.register("node1", "again")
    assert pool.nodes()["node1"].labels == {"leaf": "l1"}
    pool.register("node1", "again", {})
    assert pool.nodes()["node1"].labels == {}


def test_one_regulator_leads_and_the_next_is_told_who(pool: Pool, file: Path) -> None:
    """A process that is killed gives the lead back by dying."""
    with (
        pool.leading("ada@deploy1 pid 7"),
        pytest.raises(BusyError, match="ada@deploy1 pid 7 admits nodes to"),
        FilePool(file).leading("bob"),
    ):
        raise AssertionError("two lead")
    script = (
        "import sys, time; from pathlib import Path; from toolkit.pool.file import FilePool\n"
        "with FilePool(Path(sys.argv[1])).leading('eve'):\n    print('leads', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"leads\n"
        with pytest.raises(BusyError, match="eve"), pool.leading("ada"):
            raise AssertionError("two lead")
        other.kill()
    with pool.leading("ada"):
        assert file.with_name(f".{file.name}.regulator").read_text() == "ada\n"


def test_what_goes_wrong_under_the_lead_is_not_taken_for_a_lead_that_is_not_there(pool: Pool, tmp_path: Path) -> None:
    """An error of the block comes out as it is; a lock that cannot be written is undecided, and names its file."""
    with pytest.raises(FileNotFoundError, match="its own"), pool.leading("ada"):
        raise FileNotFoundError("its own")
    (tmp_path / "file").touch()
    with pytest.raises(UndecidedError, match="take turns, cannot be written"), lead(tmp_path / "file/l", "ada", "x"):
        raise AssertionError("nobody leads")
