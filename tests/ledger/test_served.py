"""Pages over either database, of the program itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from serving import serving, words

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Change, EventKind, Ledger, NewEvent
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.settings import load


def test_every_page_answers_over_either_database(
    url: str, opened: Callable[[], Ledger], clock: Callable[[], object], tmp_path: Path
) -> None:
    """And what is put on record while it runs is on the next page."""
    settings = replace(load({"RACKPROOF_HOME": str(tmp_path)}), ledger_url=url)
    ledger = opened()
    ledger.enter("demo-small", {"node1": NodeState.JOINED, "node2": NodeState.JOINED}, "rented")
    run = ledger.start_run("demo-small", "node1", Stage.BURNIN)
    ledger.observed("demo-small", "node1", "burnin", {"gpus": {"3": ["S-3", "00000000:61:00.0"]}})
    subject = Subject(Scope.GPU, "node1", gpu=3)
    told = [Measurement("gpu_celsius_max", "celsius", 71, subject, run.started, run.id, "ab" * 32)]
    ledger.record_measurements(run, told)
    ledger.finish_run(run, Outcome.FAILED, code="GPU_HOT", part="GPU 3 (S-3 at 00000000:61:00.0)", message="it is hot",
                      change=Change(NodeState.JOINED, Move.QUARANTINE))  # fmt: skip
    issued = {"nodes": ["node2"], "left_out": ["node1"], "expires": "2027-01-01T00:00:00+00:00"}
    ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, "demo-small", "", issued, "cd" * 32))
    with serving(settings) as server:
        assert "1 quarantined" in words(server.page("/")) and "GPU_HOT" in server.page("/racks/demo-small")
        assert "it is hot" in server.page("/racks/demo-small/nodes/node1")
        assert "there by the last burn-in" in server.page("/parts/S-3") and "71 celsius" in server.page("/parts/S-3")
        assert "cd" * 32 in server.page("/certificates")
        assert "does not verify here" in server.page(f"/certificates/{'cd' * 32}")
        assert "GPU_HOT" in server.page("/queue") and 'code="GPU_HOT"' in server.ask("/metrics")[2]
        ledger.move("demo-small", "node1", Change(NodeState.QUARANTINED, Move.REPAIR), "a new board")
        assert "1 planned" in words(server.page("/racks/demo-small"))
