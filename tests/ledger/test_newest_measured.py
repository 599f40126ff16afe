"""What was measured last of each part, on both databases: the reading that counts, whatever was measured before."""

from __future__ import annotations

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Ledger, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Stage


def measured(run: Run, clock, gpu: int, value: float | str, metric: str = "gpu_celsius_max") -> Measurement:
    """A reading of a GPU of the run's node."""
    return Measurement(metric, "celsius", value, Subject(Scope.GPU, run.node, gpu=gpu), clock(), run.id, "ab" * 32)


def test_each_part_has_the_reading_that_was_recorded_last(ledger: Ledger, clock) -> None:
    """Also where a later run measured some parts alone, and where one event has two of a part."""
    first = ledger.start_run("demo", "node1", Stage.BURNIN)
    ledger.record_measurements(first, [measured(first, clock, gpu, 60.0 + gpu) for gpu in range(3)])
    clock.advance(60)
    second = ledger.start_run("demo", "node1", Stage.BURNIN)
    ledger.record_measurements(second, [measured(second, clock, 1, 70.0), measured(second, clock, 1, 71.0)])
    found = ledger.newest_measurements("demo", "node1", ["gpu_celsius_max"])
    assert [(m.subject.gpu, m.value, m.run) for m in found] == [
        (0, 60.0, first.id),
        (1, 71.0, second.id),
        (2, 62.0, first.id),
    ]
    assert found[1] == measured(second, clock, 1, 71.0)


def test_other_nodes_racks_and_metrics_are_not_among_them(ledger: Ledger, clock) -> None:
    """Only what was asked for; of nothing asked, nothing."""
    for rack, node in (("demo", "node1"), ("demo", "node2"), ("other", "node1")):
        run = ledger.start_run(rack, node, Stage.BURNIN)
        told = [measured(run, clock, 0, 50.0), measured(run, clock, 0, "none", "throttle_reasons")]
        ledger.record_measurements(run, told)
    found = ledger.newest_measurements("demo", "node2", ["throttle_reasons", "gpu_watts_max"])
    assert [(m.subject.node, m.metric, m.value) for m in found] == [("node2", "throttle_reasons", "none")]
    assert ledger.newest_measurements("demo", "node2", []) == ()
    assert ledger.newest_measurements("demo", "node9", ["throttle_reasons"]) == ()
