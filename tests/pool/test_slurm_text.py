"""What Slurm prints, and what is written on a node: no text of anybody's makes a node, a field or a certificate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UndecidedError
from toolkit.pool import slurm_record, slurm_smoke
from toolkit.pool.model import SmokeEnd
from toolkit.pool.policy import SlurmSite
from toolkit.pool.slurm_record import Record, Standing
from toolkit.pool.slurm_text import SlurmNode, jobs_of, nodes_of, shown

MARK = "rp0123456789abcdef"
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
DIGEST = "ab" * 32
RECORD = Record({"rack": "demo", "rail-group": "demo.leaf1_leaf2"}, DIGEST, NOW + timedelta(days=1))
ANY = st.text(max_size=80).filter(lambda text: MARK not in text)


def row(*fields: str) -> str:
    return "".join(f"{field}{MARK}" for field in fields) + "\n"


@given(comment=ANY, reason=ANY, by=ANY, feature=ANY)
def test_any_text_stays_in_its_field(comment: str, reason: str, by: str, feature: str) -> None:
    """Line breaks, other programs' separators and whole rows in it: two nodes, each with its own state."""
    said = row("node1", "IDLE+DRAIN", "a", feature, comment, reason, by, "2026-11-23T08:00:00")
    said += row("node2", "idle", "(null)", "(null)", "(null)", "none", "Unknown", "Unknown")
    first, second = nodes_of(said, MARK).values()
    assert (first.name, first.state, first.at) == ("node1", {"idle", "drain"}, NOW)
    assert first.reason in (reason, "")
    assert second == SlurmNode("node2", frozenset({"idle"}))
    assert shown(reason).isprintable()


WHOLE = row("node1", "idle", "a", "b", "c", "d", "e", "f")
BAD = {
    "a field too few": row("node1", "idle", "a", "b", "c", "d", "e"),
    "no name": row("", "idle", "a", "b", "c", "d", "e", "f"),
    "a name of two lines": row("node1\nnode2", "idle", "a", "b", "c", "d", "e", "f"),
    "no state": row("node1", "idle|x", "a", "b", "c", "d", "e", "f"),
    "cut": WHOLE[:-30],
    "words between rows": f"{WHOLE}error: x\n{WHOLE}",
    "words after": f"{WHOLE}error: x",
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_as_it_should_be_is_refused_whole(case: str) -> None:
    """Half an answer is no answer."""
    with pytest.raises(UndecidedError, match="printed what nobody expects"):
        nodes_of(BAD[case], MARK)


def test_jobs_are_read_with_their_users_words_bounded() -> None:
    """A job's name is its user's."""
    (job,) = jobs_of(row("12_[1-3%2]", "eve", "PENDING", "1:00:00", "x\n\x1b[2Jy" * 40, ""), MARK)
    assert str(job).startswith("job 12_[1-3%2] x [2Jyx")
    assert str(job).isprintable() and len(str(job)) < 140
    with pytest.raises(UndecidedError):
        jobs_of(row("12; rm", "eve", "PENDING", "1:00", "x", ""), MARK)
    assert jobs_of("", MARK) == ()


def bearing(record: Record, comment: str = "", state: str = "idle") -> SlurmNode:
    """A node with the record and its features."""
    bare = SlurmNode("node1", frozenset(state.split("+")), ("h100",), ("h100", "ib"), comment)
    written = slurm_record.marks(bare, record)
    return replace(
        bare, active=tuple(written["ActiveFeatures"].split(",")), comment=written["Comment"],
        available=tuple(written["AvailableFeatures"].split(",")),
    )  # fmt: skip


@given(comment=ANY, state=st.sampled_from(["idle", "mixed", "allocated+completing"]))
def test_a_record_is_read_as_it_was_written_whatever_the_comment_held(comment: str, state: str) -> None:
    """Others' words and features stay; writing it twice changes nothing."""
    node = bearing(RECORD, comment, state)
    assert slurm_record.record_of(node) == RECORD
    assert slurm_record.standing(node, NOW) is Standing.OPEN
    assert node.available[:2] == ("h100", "ib")
    assert slurm_record.marks(node, RECORD)["Comment"] == node.comment
    member = slurm_record.pool_node(node, NOW)
    assert member is not None and member.admitted and member.expires == RECORD.expires
    assert member.labels == {"rackproof.dev/rack": "demo", "rackproof.dev/rail-group": "demo.leaf1_leaf2"}


@given(data=st.data())
def test_a_node_with_any_feature_more_or_less_is_not_admitted(data: st.DataObject) -> None:
    """What somebody edited by hand is no admission."""
    node = bearing(RECORD)
    ours = [word for word in node.active if word.startswith("rackproof_")]
    gone = data.draw(st.sampled_from(ours))
    more = data.draw(st.sampled_from(["rackproof_certified2", "rackproof_until_20991231T000000Z"]))
    for active in (tuple(w for w in node.active if w != gone), (*node.active, more)):
        member = slurm_record.pool_node(replace(node, active=active), NOW)
        assert member is not None and not member.admitted


@pytest.mark.parametrize(
    ("state", "takes"),
    [
        ("idle", True), ("mixed+planned", True), ("allocated+completing", True), ("idle+powered_down", True),
        ("idle+drain", False), ("down", False), ("idle+not_responding", False), ("idle+maintenance", False),
        ("unknown", False), ("idle+fail", False), ("future", False), ("idle+invalid_reg", False), ("error", False),
        ("idle+some_flag_of_a_newer_slurm", False), ("idle+allocated", False), ("planned", False),
    ],
)  # fmt: skip
def test_only_known_states_take_jobs(state: str, takes: bool) -> None:
    """A word that nobody knows keeps a node out."""
    node = bearing(RECORD, state=state)
    assert slurm_record.takes_jobs(node) is takes
    member = slurm_record.pool_node(node, NOW)
    assert member is not None and member.admitted is takes


@given(reason=ANY)
def test_a_reason_of_ours_is_known_for_ours_and_printable(reason: str) -> None:
    """Whoever reads it with sinfo has one line."""
    text = slurm_record.our_reason(reason)
    assert text.startswith("rackproof: ") and text.isprintable() and len(text) <= 420 and '"' not in text
    node = SlurmNode("node1", frozenset({"idle", "drain"}), reason=text.strip())
    assert slurm_record.is_drained_by_us(node) and slurm_record.held_by_others(node) == ""


def test_a_smoke_collective_over_several_nodes_is_one_communicator() -> None:
    """A task a node with all its GPUs, brought together by PMIx, in the partition that jobs run in."""
    site = SlurmSite(partition="train", gres="gpu", smoke="/opt/all_reduce_perf", qos="ops")
    argv = slurm_smoke.command(site, ("node1", "node2"), "s1", 300.0)
    assert {"--nodelist=node1,node2", "--nodes=2", "--ntasks=2", "--mpi=pmix", "--gres=gpu:8", "--partition=train",
            "--qos=ops", "--constraint=rackproof_certified"} <= set(argv)  # fmt: skip
    assert argv[argv.index("/opt/all_reduce_perf") :][-2:] == ("-g", "8")


SRUN = {
    "a node is lost": ("# nThread 1\n", "srun: error: Node failure on node2\n", SmokeEnd.FAILED, "node2 was lost"),
    "a rank fails": ("# nThread 1\n", "srun: error: node2: task 1: Exited with exit code 3\n", SmokeEnd.FAILED,
                     "rank on node2 died: Exited with exit code 3"),
    "no nodes": ("", "srun: error: Unable to allocate resources: Requested nodes are busy\n", SmokeEnd.UNDECIDED,
                 "Requested nodes are busy"),
    "two words": ("# nThread\n# Out of bounds values : 0 OK\n# Out of bounds values : 0 OK\n", "", SmokeEnd.UNDECIDED,
                  "status 1"),
    "cut short": ("# nThread\n# Out of bounds values : 0 O", "", SmokeEnd.UNDECIDED, "status 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", SRUN)
def test_what_srun_says_of_a_smoke_collective(case: str) -> None:
    """FAILED only where it ran."""
    out, errors, end, detail = SRUN[case]
    smoked = slurm_smoke.judged(1, out, errors)
    assert smoked.end is end
    assert detail in smoked.detail
