"""Killed with SIGKILL after every ledger append in turn, then run again: nobody is forgotten, nothing is done twice."""

import os
from collections import Counter

import pytest
from rehearsal import folder, in_process

from tests.bringup.test_kill import MortalStore, small
from tests.recertify.conftest import copied
from tests.recertify.service import Service
from toolkit.bringup import admit_certified
from toolkit.ledger import EventKind
from toolkit.stages import aside


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """Two admitted nodes of one GPU and one rail."""
    with folder(tmp_path_factory.mktemp("little") / "little") as place:
        yield Service(small(in_process(place, "demo-small"))).bring_up()


def child(service, dies_after, tasks):
    """One run in a process of its own. Answers whether it lived, and its commits if it did."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            MortalStore.commits, MortalStore.dies_after = 0, dies_after
            whole = service.ledger

            def mortal():
                opened = whole()
                opened._store.__class__ = MortalStore
                return opened

            service.ledger = mortal
            tasks() if callable(tasks) else service.run(tasks)
            (service.lab.folder / "commits").write_text(str(MortalStore.commits))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run raised; run it in this process to see"
    return os.WIFEXITED(status)


def end_of(service):
    """What must not depend on how often we were killed."""
    with service.ledger() as ledger:
        context = service.context(ledger)
        left = aside.open_ones(context)
        open_runs = [r.id for r in ledger.runs(service.rack.name) if r.outcome is None]
        issued = ledger.events(service.rack.name, kind=EventKind.CERTIFICATE_ISSUED, limit=1000)
    digests = {name: member.certificate for name, member in service.pool().items()}
    return {
        "nodes": {name: (s.state, s.code) for name, s in service.standing().items()},
        "open runs": open_runs,
        "aside": left,
        "admitted by its newest": {
            name: digest == next(e.what for e in reversed(issued) if name in e.body["nodes"]) or name == "node2"
            for name, digest in digests.items()
        },
        "pool": {name: member.admitted for name, member in service.pool().items()},
        "burn-ins": {n.name: len(service.lab.burnins(n.name)) for n in service.rack.nodes},
    }


def test_killed_after_every_append_in_turn_the_next_run_ends_the_same(little, tmp_path):
    """Every append is a place to die; each node is in the pool again, measured once more and not twice."""
    undisturbed = copied(little, tmp_path / "undisturbed")
    assert child(undisturbed, None, undisturbed.tasks("node1"))
    expected, commits = end_of(undisturbed), int((undisturbed.lab.folder / "commits").read_text())
    assert expected["burn-ins"] == {"node1": 2, "node2": 1}
    assert all(expected["pool"].values()) and commits > 30
    deaths = Counter()
    for dies_after in range(1, commits + 1):
        service = copied(little, tmp_path / str(dies_after))
        deaths[child(service, dies_after, service.tasks("node1"))] += 1
        shut = not service.pool()["node1"].admitted
        # The next one may have nothing of its own to do: what the first one left is reason enough.
        begun = any(e.node == "node1" for e in service.events(kind=EventKind.INTENT, what="aside"))
        assert begun or not shut, f"killed after append {dies_after}: its door is shut, and nothing on record says why"
        assert child(service, None, [] if begun else service.tasks("node1")), f"after append {dies_after}"
        assert end_of(service) == expected, f"killed after append {dies_after} of {commits}"
    assert deaths[False] >= commits - 2  # threads take turns: the last few may fall together


@pytest.mark.parametrize("moved", [True, False])
def test_what_a_killed_run_left_is_safe_in_the_hands_of_an_admission_too(little, tmp_path, moved):
    """`rackproof admit` lets the node in by the certificate that stands, wherever the run was cut off."""
    service = copied(little, tmp_path / "copy")
    with service.ledger() as ledger:
        context = service.context(ledger)
        if moved:
            aside.take(context, "node1", "a test", {"role": "test", "suite": "rehearsal"})
        else:  # the door is shut, and then it dies
            ledger.intent(service.rack.name, "node1", aside.ASIDE, {"role": "test", "suite": "rehearsal"})
            service.lab.pool.register("node1", "a test")
        assert not service.pool()["node1"].admitted
        admit_certified(context)
        assert not aside.open_ones(context)
    assert service.pool()["node1"].admitted
    assert service.standing()["node1"].state == "ADMITTED"


def test_killed_after_a_change_the_same_command_goes_on(little, tmp_path):
    """Here and there of its appends: the partner is in the pool again, and the changed node is in it by nothing old."""
    change = "swap cable node1:mlx5_0"
    undisturbed = copied(little, tmp_path / "undisturbed")
    assert child(undisturbed, None, lambda: undisturbed.run_after(change))
    commits = int((undisturbed.lab.folder / "commits").read_text())
    assert all(member.admitted for member in undisturbed.pool().values())
    for dies_after in range(2, commits, 9):
        service = copied(little, tmp_path / str(dies_after))
        before = service.pool()["node1"].certificate
        child(service, dies_after, lambda service=service: service.run_after(change))
        assert child(service, None, lambda service=service: service.run_after(change)), f"after append {dies_after}"
        end = end_of(service)
        assert (end["open runs"], end["aside"], end["pool"]["node2"]) == ([], (), True), f"after append {dies_after}"
        assert end["nodes"]["node1"][0] in ("CERTIFIED", "ADMITTED"), f"after append {dies_after}"
        (newest, *_) = reversed(service.events(kind=EventKind.CERTIFICATE_ISSUED))
        assert newest.what != before
        assert "node1" in newest.body["nodes"]
        assert service.pool()["node1"].certificate in ("", newest.what), f"after append {dies_after}"
