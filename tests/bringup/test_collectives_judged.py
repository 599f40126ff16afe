"""A burn-in's collectives on the controller: untrusted files to proofs, and what may be judged by them."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
from rehearsal import context_over, in_process, now, open_ledger

from toolkit.facts.nccl_path import Answer
from toolkit.judge import verdict
from toolkit.judge.evidence import Measurement, Subject
from toolkit.rack.burnin_plan import BUDGETS
from toolkit.rack.gate import Scope
from toolkit.rack.metric import COLLECTIVES, METRICS
from toolkit.rack.model import Suite
from toolkit.stages.burnin_collectives import judge_burnin, left_out, measured, not_asked, ways
from toolkit.virtual.in_process_nccl import Collectives

IDS = ("empty", "garbage", "another shape", "not fetched")


@pytest.fixture
def node2(tmp_path):
    """A context over a rack of files, its second node, and a way to put files on record."""
    lab = in_process(tmp_path, "demo-small")

    @contextmanager
    def opened():
        with open_ledger(lab.settings) as ledger:
            yield context_over(lab, ledger), lab.rack.nodes[1]

    return opened


def kept(context, files):
    """What the stage hands on: digests by name."""
    return {name: context.ledger.artifacts.put(content) for name, content in files.items()}


def files(**how):
    """What a healthy node keeps, or one that is not."""
    return {name: content for _, name, content in Collectives(8, **how).files()}


def told(**how):
    """What the node itself measured of its collectives."""
    subject = Subject(Scope.NODE, "node2")
    return [
        Measurement(m, METRICS[m].unit, v, subject, now(), "run", "ab" * 32)
        for m, v in Collectives(8, **how).measured()
    ]


def nccl(found, answer):
    """Codes of the collectives' required gates with this answer."""
    return {f.code for f in found.of(answer) if f.gate.metric.startswith("nccl_")}


def test_healthy_collectives_are_proven_and_pass_every_gate(node2):
    """The artifact of a finding is NCCL's log."""
    with node2() as (context, node):
        stored = kept(context, files())
        found = ways(context, node, stored)
        assert {proof.answer for proof in found.proofs.values()} == {Answer.PROVEN}
        assert (found.complaint, found.wrong) == ("", ())
        said = measured(context, node, "run", found)
        assert {m.origin for m in said} == {stored[f"{c}_perf.nccl.txt"] for c in COLLECTIVES}
        judged = judge_burnin(context, node, [*told(), *said])
    assert nccl(judged, verdict.Answer.FAIL) == nccl(judged, verdict.Answer.INCONCLUSIVE) == set()


@pytest.mark.parametrize("suffix", ["counters.json", "nccl.txt", "command.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00{[" * 1000, b'{"after": {"gpus": 3}}', None], ids=IDS)
def test_a_bandwidth_whose_way_is_not_proven_blames_no_part(node2, suffix, content):
    """A file that is garbage or was not fetched: slow as it is, the tray stays; the evidence is what lacks."""
    with node2() as (context, node):
        given = files(slow=True)
        name = f"all_reduce_perf.{suffix}"
        stored = kept(context, given if content is None else given | {name: content})
        if content is None:
            stored[name] = "not fetched: 99999999999 bytes"
        found = ways(context, node, stored)
        assert found.proofs["all_reduce"].answer is Answer.UNPROVEN
        judged = judge_burnin(context, node, [*told(slow=True), *measured(context, node, "run", found)])
    assert nccl(judged, verdict.Answer.FAIL) == {"NCCL_PATH_UNPROVEN"}
    assert "NCCL_BUSBW_LOW" in nccl(judged, verdict.Answer.INCONCLUSIVE)
    assert {f.gate.part for f in judged.of(verdict.Answer.FAIL)} == {"evidence"}


def test_a_proven_slow_collective_blames_the_tray(node2):
    """The same numbers with their proof are a finding."""
    with node2() as (context, node):
        found = ways(context, node, kept(context, files(slow=True)))
        judged = judge_burnin(context, node, [*told(slow=True), *measured(context, node, "run", found)])
    assert nccl(judged, verdict.Answer.FAIL) == {"NCCL_BUSBW_LOW"}


def test_wrong_data_over_the_wrong_fabric_blames_no_gpu(node2):
    """Nothing a collective says of another fabric is said of this one."""
    with node2() as (context, node):
        found = ways(context, node, kept(context, files(sockets=True)))
        bad = [replace(m, value=5) if m.metric.endswith("wrong_values") else m for m in told(sockets=True)]
        judged = judge_burnin(context, node, [*bad, *measured(context, node, "run", found)])
        silent = judge_burnin(context, node, [*bad, *measured(context, node, "run", found)], wrong=found.wrong)
    assert found.wrong == COLLECTIVES
    assert nccl(judged, verdict.Answer.FAIL) == {"NCCL_PATH_UNPROVEN"}
    assert not any(f.gate.metric.startswith("nccl_") for f in silent.findings)


def test_counters_that_claim_more_than_was_moved_prove_nothing(node2):
    """Another program on the links, or a node that makes its numbers up."""
    with node2() as (context, node):
        given = files()
        readings = json.loads(given["alltoall_perf.counters.json"])
        readings["after"]["gpus"][3]["links"][0]["sent"] *= 3
        given["alltoall_perf.counters.json"] = json.dumps(readings).encode()
        found = ways(context, node, kept(context, given))
    assert found.wrong == ("alltoall",)
    assert "something else used it" in found.complaint


def test_a_hang_leaves_no_proof_and_no_complaint(node2):
    """The gates are INCONCLUSIVE: nothing was measured."""
    with node2() as (context, node):
        found = ways(context, node, kept(context, files(hung=True)))
        judged = judge_burnin(context, node, measured(context, node, "run", found))
    assert (found.proofs, found.complaint) == ({}, "")
    assert "NCCL_PATH_UNPROVEN" in nccl(judged, verdict.Answer.INCONCLUSIVE)


def test_a_suite_is_judged_by_what_it_plans_and_a_certificate_by_everything(node2):
    """Quick runs two collectives: the gates of the others are named, not failed; without a suite all are asked."""
    assert left_out(Suite.QUICK) == ("all_gather", "reduce_scatter", "sendrecv")
    assert [left_out(s) for s in Suite if s is not Suite.QUICK] == [()] * 3
    two = {name: content for name, content in files().items() if name.startswith(("all_reduce", "alltoall"))}
    with node2() as (context, node):
        unasked = not_asked(context.rack.profile, Suite.QUICK)
        found = ways(context, node, kept(context, two))
        ran = [m for m in told() if not any(f"nccl_{c}_" in m.metric for c in left_out(Suite.QUICK))]
        said = [*ran, *measured(context, node, "run", found)]
        quick, whole = judge_burnin(context, node, said, Suite.QUICK), judge_burnin(context, node, said)
    assert len(unasked) == 18
    assert nccl(quick, verdict.Answer.INCONCLUSIVE) == set()
    # Gates relative to siblings are asked once these are compared.
    assert nccl(whole, verdict.Answer.INCONCLUSIVE) == set(unasked) - {"NCCL_BUSBW_BELOW_PEERS"}


def test_the_controller_knows_the_collectives_of_the_nodes_suites():
    """Kinds, sizes, iterations and deadlines of `BUDGETS` are those of burnin/suites.py."""
    from burnin.nccl.collective import Collective
    from burnin.suites import BY_NAME

    for suite in Suite:
        planned = [w for w in BY_NAME[suite].workloads if isinstance(w, Collective)]
        budget = BUDGETS[suite]
        assert [(w.kind.value, w.smallest, w.largest, w.iterations, w.deadline_s) for w in planned] == [
            (c.kind, c.smallest, c.largest, c.iterations, c.deadline_s) for c in budget.collectives
        ]
        assert budget.deadline_s == BY_NAME[suite].deadline_s
