"""The ledger as metrics: what is on record has a sample, what is not has none, and Prometheus' own tool reads it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest
from click.testing import CliRunner
from on_record import brought_up
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read
from rehearsal import folder, now, open_ledger

from toolkit import __version__
from toolkit.cli import rackproof
from toolkit.errors import RackproofError
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Change, EventKind, NewEvent
from toolkit.pool.wave_log import Halt, WaveLog
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.report import metrics
from toolkit.report.metrics import HELP, MAX_GATE_VALUES, MAX_NODES, exposition, families
from toolkit.report.metrics_snapshot import GateValue, NodeNow, RackNow, Reader, Snapshot

HOSTILE = 'n"1\\\n\x1b[2J</script>\u202e'


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """After a bringup in which node2 failed."""
    with folder(tmp_path_factory.mktemp("metrics") / "folder") as made:
        yield brought_up(made)


@pytest.fixture
def ledger(lab, tmp_path):
    """A copy of its ledger, to write on."""
    shutil.copytree(lab.settings.home, tmp_path / "home")
    url = f"sqlite:///{tmp_path}/home/ledger.db"
    with open_ledger(replace(lab.settings, home=tmp_path / "home", ledger_url=url)) as opened:
        yield opened


def reader(ledger, rack, most=MAX_GATE_VALUES):
    return Reader(ledger, lambda name: rack if rack and name == rack.name else None, now, most)


def samples(snapshot):
    """Every sample of the text that is printed: (name, labels) -> value."""
    text = exposition(families(snapshot, __version__)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read(text)
        for sample in family.samples
    }


def of(found, name, **labels):
    """The values of a metric's samples that have these labels."""
    return [value for (n, has), value in found.items() if n == name and labels.items() <= dict(has).items()]


def check_metrics(text):
    """promtool's complaints about names, units and format."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("needs promtool of the Debian package prometheus")
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, check=False)
    return done.returncode, done.stdout.decode() + done.stderr.decode()


def test_promtool_has_nothing_against_the_text(ledger, lab):
    """Names, units, types and help are as the field writes them."""
    text = exposition(families(reader(ledger, lab.rack).snapshot(), __version__))
    assert len(text.splitlines()) > 100
    assert check_metrics(text) == (0, "")


def test_states_outcomes_and_troubles_are_the_ledgers(ledger, lab):
    """One node is admitted, the other in quarantine, each with the outcome of every stage it came to."""
    found = samples(reader(ledger, lab.rack).snapshot())
    for node, state in (("node1", "ADMITTED"), ("node2", "QUARANTINED")):
        states = {s: of(found, "rackproof_node_state", node=node, state=s) for s in NodeState}
        assert {s: values for s, values in states.items() if values} == {state: [1]}
    assert of(found, "rackproof_node_trouble", node="node2", code="HBM_ECC_CORRECTED") == [1]
    assert of(found, "rackproof_node_trouble", node="node1") == []
    last, finished = (
        "rackproof_run_last_timestamp_seconds",
        ledger.last_run(lab.rack.name, "node1", Stage.ADMIT).finished,
    )
    assert of(found, last, node="node1", stage="admit", outcome="PASSED") == [pytest.approx(finished.timestamp())]
    assert len(of(found, last, node="node2", outcome="FAILED")) == 1
    assert of(found, last, node="node2", stage="admit") == []
    assert of(found, "rackproof_runs_total", stage="burnin", outcome="PASSED") == [2]
    assert set(of(found, "rackproof_exporter_left_out")) == {0}


def test_only_the_node_that_a_certificate_names_has_an_expiry(ledger, lab):
    """It is the certificate's own; the other node has no sample, and that is not 0."""
    found = samples(reader(ledger, lab.rack).snapshot())
    (issued,) = ledger.events(lab.rack.name, kind=EventKind.CERTIFICATE_ISSUED)
    (expiry,) = of(found, "rackproof_certificate_expiry_timestamp_seconds")
    assert of(found, "rackproof_certificate_expiry_timestamp_seconds", node="node1") == [expiry]
    assert expiry == pytest.approx((issued.at + lab.rack.profile.certificate_lifetime).timestamp(), abs=5)
    assert of(found, "rackproof_certificates_issued_total") == [1]


def test_a_revoked_certificate_has_no_expiry_and_is_counted(ledger, lab):
    """Revoked for node1 alone: a certificate is revoked for nodes."""
    (issued,) = ledger.events(lab.rack.name, kind=EventKind.CERTIFICATE_ISSUED)
    body = {"certificate": issued.what, "nodes": ["node1"], "reason": "recall"}
    ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, lab.rack.name, body=body, what=issued.what))
    found = samples(reader(ledger, lab.rack).snapshot())
    assert of(found, "rackproof_certificate_expiry_timestamp_seconds") == []
    assert of(found, "rackproof_certificate_revocations_total") == [1]


def test_gates_have_the_worst_value_of_their_node_and_the_limit(ledger, lab):
    """GPU 3 of node2 counted errors, its seven siblings none: the node's value is that of GPU 3."""
    found = samples(reader(ledger, lab.rack).snapshot())
    gate = {"gate": "HBM_ECC_CORRECTED", "metric": "hbm_corrected_errors_delta", "unit": "count"}
    measured = ledger.measurements(lab.rack.name, "node2", metric=gate["metric"])
    assert of(found, "rackproof_gate_value", node="node1", **gate) == [0]
    assert of(found, "rackproof_gate_value", node="node2", **gate) == [max(m.value for m in measured)]
    assert max(m.value for m in measured) > 0
    assert of(found, "rackproof_gate_limit", operator="at_most", **gate) == [0]
    floor = of(found, "rackproof_gate_value", node="node1", gate="NCCL_BUSBW_LOW")
    assert floor >= of(found, "rackproof_gate_limit", gate="NCCL_BUSBW_LOW", operator="at_least")


def test_what_took_the_wrong_way_is_no_gates_value(ledger, lab):
    """A bandwidth of another fabric has no sample, though it was measured."""
    run = ledger.start_run(lab.rack.name, "node1", Stage.BURNIN)
    node = Subject(Scope.NODE, "node1")
    told = [("nccl_path", "word", "wrong"), ("nccl_busbw_gb_per_s", "GB/s", 471.0), ("gpus_lost", "count", 0)]
    ledger.record_measurements(run, [Measurement(m, u, v, node, now(), run.id, "a" * 64) for m, u, v in told])
    ledger.finish_run(run, Outcome.ERROR, code="WRONG_FABRIC")
    found = samples(reader(ledger, lab.rack).snapshot())
    assert of(found, "rackproof_gate_value", node="node1", gate="NCCL_BUSBW_LOW") == []
    assert of(found, "rackproof_gate_value", node="node1", gate="GPU_LOST") == [0]
    assert of(found, "rackproof_node_trouble", node="node1", code="WRONG_FABRIC") == [1]


def test_a_run_that_goes_on_is_open_since_it_began(ledger, lab):
    """Neither passed nor failed; its evidence is still that of the last pass."""
    before = samples(reader(ledger, lab.rack).snapshot())
    run = ledger.start_run(lab.rack.name, "node1", Stage.BURNIN)
    found = samples(reader(ledger, lab.rack).snapshot())
    mine = {"node": "node1", "stage": "burnin"}
    last = "rackproof_run_last_timestamp_seconds"
    assert of(found, last, **mine) == of(found, last, outcome="OPEN", **mine)
    assert of(found, last, **mine) == [pytest.approx(run.started.timestamp())]
    assert of(found, "rackproof_node_trouble", node="node1") == []
    evidence = "rackproof_evidence_timestamp_seconds"
    assert of(found, evidence, **mine) == of(before, evidence, **mine) != []


def test_waves_are_counted_by_how_they_ended(ledger, lab):
    """The bringup's wave counted; one that is halted is taken out, and until then it is open."""
    before = samples(reader(ledger, lab.rack).snapshot())
    assert of(before, "rackproof_admission_waves_total", end="counted") == [1]
    assert of(before, "rackproof_admission_halts_total") == of(before, "rackproof_admission_wave_open") == [0]
    log = WaveLog(ledger, lab.rack.name)
    wave = log.begin(1, ["node1"], frozenset(), 60.0)
    log.halts(wave, Halt("NODE_NOT_READY", "the kubelet says nothing"))
    halted = samples(reader(ledger, lab.rack).snapshot())
    assert of(halted, "rackproof_admission_halts_total") == of(halted, "rackproof_admission_wave_open") == [1]
    log.taken_out(wave, Halt("NODE_NOT_READY", "the kubelet says nothing"))
    after = samples(reader(ledger, lab.rack).snapshot())
    assert of(after, "rackproof_admission_waves_total", end="taken_out") == [1]
    assert of(after, "rackproof_admission_wave_open") == [0]


def test_a_repaired_node_has_no_evidence_and_an_operator_is_a_code(ledger, lab):
    """What passed before the repair was measured on another machine."""
    rack = lab.rack.name
    ledger.move(rack, "node1", Change(NodeState.ADMITTED, Move.QUARANTINE), "smoke")
    set_aside = samples(reader(ledger, lab.rack).snapshot())
    assert of(set_aside, "rackproof_node_trouble", node="node1", code="OPERATOR") == [1]
    ledger.move(rack, "node1", Change(NodeState.QUARANTINED, Move.REPAIR), "new board")
    found = samples(reader(ledger, lab.rack).snapshot())
    assert of(found, "rackproof_evidence_timestamp_seconds", node="node1") == []
    assert of(found, "rackproof_evidence_timestamp_seconds", node="node2") != []


def test_without_its_rack_file_a_rack_keeps_what_the_ledger_has(ledger, lab):
    """Limits and gates go, states and certificates stay, and one metric says so."""
    found = samples(reader(ledger, None).snapshot())
    assert of(found, "rackproof_rack_design_readable", rack="demo-small") == [0]
    assert of(found, "rackproof_gate_limit") == of(found, "rackproof_gate_value") == []
    assert len(of(found, "rackproof_certificate_expiry_timestamp_seconds")) == 1
    assert of(found, "rackproof_node_state") == [1, 1]


def test_too_many_gate_values_leave_gates_out_whole(ledger, lab):
    """Those that stay are of every node, rates first; how many went is a metric."""
    everything = {g.code + g.metric for g in reader(ledger, lab.rack).snapshot().racks[0].limits}
    few = reader(ledger, lab.rack, most=9).snapshot()
    assert [(g.code, g.unit) for g in few.racks[0].limits][:2] == [("NVLINK_SLOW", "GB/s"), ("HCA_RATE_LOW", "GB/s")]
    assert len(few.racks[0].limits) == 4  # of two nodes, nine values at most
    assert few.gates_left_out > 10
    assert len(everything) > 30
    assert of(samples(few), "rackproof_exporter_left_out", kind="gate") == [few.gates_left_out]


def test_a_second_reading_asks_only_for_what_ended_since(ledger, lab):
    """What a finished run measured never changes: the same reader answers the same, and sees a new run."""
    held = reader(ledger, lab.rack)
    first = held.snapshot()
    run = ledger.start_run(lab.rack.name, "node1", Stage.INFINIBAND)
    hca = Subject(Scope.HCA, "node1", hca="mlx5_0")
    ledger.record_measurements(run, [Measurement("hca_rate_gb_per_s", "GB/s", 25.0, hca, now(), run.id, "b" * 64)])
    ledger.finish_run(run, Outcome.FAILED, code="HCA_RATE_LOW")
    second = held.snapshot()
    assert [n.values for n in first.racks[0].nodes[1:]] == [n.values for n in second.racks[0].nodes[1:]]
    assert GateValue("HCA_RATE_LOW", "hca_rate_gb_per_s", "GB/s", 25.0) in second.racks[0].nodes[0].values


def empty_rack(name, *nodes):
    from toolkit.pool.wave_log import Tally

    made = tuple(NodeNow(n, NodeState.PLANNED, None, "", None, (), {}, ()) for n in nodes)
    return RackNow(name, True, made, (), {}, 0, 0, Tally({}, 0, False))


def test_what_a_node_wrote_stays_inside_its_label(ledger):
    """Quotes, line breaks, escapes: one sample, one line, and promtool reads it."""
    node = replace(empty_rack("su1", HOSTILE).nodes[0], code="=cmd|x")
    rack = replace(empty_rack("su1"), nodes=(node,))
    text = exposition(families(Snapshot(now(), 0.1, (rack,)), __version__))
    assert check_metrics(text) == (0, "")
    assert b"\x1b" not in text
    assert of(samples(Snapshot(now(), 0.1, (rack,))), "rackproof_node_trouble", code="OTHER") == [1]


def test_two_nodes_that_look_alike_are_one_series_and_are_counted():
    """An exposition with one series twice is none at all."""
    rack = empty_rack("su1", "n\x01", "n\x02")
    found = samples(Snapshot(now(), 0.1, (rack,)))
    assert of(found, "rackproof_node_state") == [1]
    assert of(found, "rackproof_exporter_left_out", kind="series") == [1]


def test_more_nodes_than_the_bound_leave_racks_out_whole(monkeypatch):
    """A rack is in the scrape with all its nodes, or it is counted as left out."""
    monkeypatch.setattr(metrics, "MAX_NODES", 3)
    assert MAX_NODES > 2048
    racks = (empty_rack("a", "n1", "n2"), empty_rack("b", "n1", "n2"), empty_rack("c", "n1"))
    found = samples(Snapshot(now(), 0.1, racks))
    assert {dict(labels)["rack"] for name, labels in found if name == "rackproof_node_state"} == {"a", "c"}
    assert of(found, "rackproof_exporter_left_out", kind="rack") == [1]
    assert of(found, "rackproof_exporter_left_out", kind="node") == [2]


def test_openmetrics_says_the_same(ledger, lab):
    """Both formats have the same samples."""
    told = families(reader(ledger, lab.rack).snapshot(), __version__)
    strict = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read_openmetrics(exposition(told, openmetrics=True).decode())
        for sample in family.samples
    }
    plain = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read(exposition(told).decode())
        for sample in family.samples
    }
    assert strict == plain


@pytest.fixture
def environment(ledger, tmp_path, monkeypatch):
    """The installation that a command line finds."""
    monkeypatch.setenv("RACKPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RACKPROOF_LEDGER", raising=False)
    return tmp_path


def test_the_textfile_is_there_whole_and_node_exporter_may_read_it(environment):
    """It ends in .prom, is readable for others, and nothing else stays in its folder."""
    target = environment / "collector" / "rackproof.prom"
    done = CliRunner().invoke(rackproof, ["metrics", "--textfile", str(target)])
    assert (done.exit_code, done.output) == (0, "")
    assert target.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in target.parent.iterdir()] == ["rackproof.prom"]
    assert {family.name for family in read(target.read_text())} <= {n.removesuffix("_total") for n in HELP}


def test_a_ledger_that_cannot_be_read_leaves_the_textfile_as_it_was(environment):
    """So its time of reading grows old, and an alert says so."""
    target = environment / "rackproof.prom"
    assert CliRunner().invoke(rackproof, ["metrics", "--textfile", str(target)]).exit_code == 0
    before = target.read_bytes()
    (environment / "home" / "ledger.db").write_bytes(b"no database")
    failed = CliRunner().invoke(rackproof, ["metrics", "--textfile", str(target)])
    assert isinstance(failed.exception, RackproofError)
    assert failed.exception.exit_code == 3
    assert target.read_bytes() == before


def test_json_has_every_sample(environment):
    """For whoever has no Prometheus."""
    done = CliRunner().invoke(rackproof, ["metrics", "--json"])
    told = json.loads(done.stdout)
    text = CliRunner().invoke(rackproof, ["metrics"]).stdout
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(told["samples"]) == len(lines)
    assert {"name": "rackproof_node_state", "labels": {"rack": "demo-small", "node": "node1", "state": "ADMITTED"},
            "value": 1.0} in told["samples"]  # fmt: skip


def test_a_textfile_of_another_name_is_refused(environment):
    """The collector would never read it."""
    failed = CliRunner().invoke(rackproof, ["metrics", "--textfile", str(environment / "rackproof.txt")])
    assert failed.exception.exit_code == 2
    assert not (environment / "rackproof.txt").exists()


def test_help_and_labels_are_bounded():
    """Every metric explains itself; a label holds a line."""
    assert all(re.fullmatch(r"rackproof_[a-z_]+", name) and text.endswith(".") for name, text in HELP.items())
    long = samples(Snapshot(now() + timedelta(days=1), 0.1, (empty_rack("r" * 5000, "n"),)))
    assert max(len(v) for _, labels in long for _, v in labels) == metrics.MAX_LABEL
