"""Gates relative to peers, from measurements to standings: drawn racks, fresh readings, nobody blamed by luck."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from toolkit.judge.compared import Standing
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.relative import (
    CONTROLS,
    Question,
    Settled,
    design_of,
    explained,
    must_be,
    question,
    rule_of,
    standings,
    trials,
)
from toolkit.judge.sequential import Decision
from toolkit.rack.gate import Scope
from toolkit.virtual.in_process_burnin import Noise

NOW = datetime(2026, 11, 23, tzinfo=UTC)
METRIC, HEALTHY = "hbm_sweep_gb_per_s_median", 2900.0
PUBLISHED = 0.016  # spread of published repeats, as in the fault model


def gpus(nodes: int, each: int = 8) -> list[Subject]:
    """All GPUs of so many nodes."""
    return [Subject(Scope.GPU, f"node{n}", gpu=g) for n in range(nodes) for g in range(each)]


def trays(nodes: int) -> list[Subject]:
    """Nodes as a whole."""
    return [Subject(Scope.NODE, f"node{n}") for n in range(nodes)]


class Drawn:
    """A rack whose readings are drawn from the in-process model; `levels` are of those that are not healthy."""

    def __init__(self, subjects, seed, spread=PUBLISHED, limit=0.04, levels=None):
        self.subjects, self.limit, self.levels = subjects, limit, levels or {}
        self.noise = Noise(spread, seed)
        self.rounds = 0

    def value(self, subject, run):
        """One reading."""
        return HEALTHY * self.levels.get(subject, 1.0) * self.noise.factor(run, str(subject), METRIC)

    def asked(self) -> Question:
        """The first readings, compared."""
        told = [Measurement(METRIC, "GB/s", self.value(s, "first"), s, NOW, "run", "ab" * 32) for s in self.subjects]
        return question(METRIC, self.limit, self.subjects, told)

    def settle(self, asked, free=None) -> list[Settled]:
        """Every suspect read until it is settled."""
        found = []
        for trial in trials(asked, free or {s.node for s in self.subjects}):
            shifts: list[float] = []
            while trial.progress(shifts).decision is Decision.AGAIN:
                beside = trial.beside(len(shifts))
                nodes = {s.node for s in (trial.suspect.subject, *beside)}
                values = {s: self.value(s, f"again {len(shifts)}") for s in self.subjects if s.node in nodes}
                shift = trial.shift(values, beside)
                assert shift is not None
                shifts.append(shift)
            self.rounds = max(self.rounds, len(shifts))
            found.append(Settled(trial, tuple(shifts)))
        return found

    def standings(self) -> dict[Subject, Standing]:
        """How everybody stands in the end."""
        asked = self.asked()
        return {c.subject: c.standing for c in standings(asked, self.settle(asked), "cd" * 32)}


@pytest.mark.parametrize(
    ("subjects", "limit"),
    [(trays(6), 0.05), (trays(31), 0.05), (gpus(6), 0.04), (gpus(1), 0.04)],
    ids=["6 nodes", "31 nodes", "48 GPUs", "8 GPUs of one node"],
)
def test_no_healthy_part_is_blamed_in_200_drawn_racks(subjects, limit):
    """At the spread of published repeats and the limits of our profiles; seeds 0 to 199. Doubts are few."""
    seen: Counter[Standing] = Counter()
    for seed in range(200):
        seen.update(Drawn(subjects, seed, limit=limit).standings().values())
    assert seen[Standing.WORSE] == 0
    assert seen[Standing.UNSETTLED] + seen[Standing.UNDECIDED] <= 0.01 * seen.total() == 2 * len(subjects)


@pytest.mark.parametrize("seed", range(10))
def test_a_slow_gpu_is_blamed_and_nobody_else(seed):
    """A tenth behind among 48: by fresh readings, and in few of them."""
    slow = Subject(Scope.GPU, "node4", gpu=2)
    drawn = Drawn(gpus(6), seed, levels={slow: 0.9})
    found = drawn.standings()
    assert [s for s, standing in found.items() if standing is Standing.WORSE] == [slow]
    assert drawn.rounds <= design_of(0.04).most


def test_what_a_whole_node_shares_blames_none_of_its_gpus():
    """2.5 % by its place, its air or its power: not the GPUs' fault; one of them that is slower still is blamed."""
    place = {Subject(Scope.GPU, "node1", gpu=g): 0.975 for g in range(8)}
    assert Standing.WORSE not in Drawn(gpus(6), 1, 0.004, levels=place).standings().values()
    slow = Subject(Scope.GPU, "node1", gpu=5)
    found = Drawn(gpus(6), 1, 0.004, levels=place | {slow: 0.975 * 0.93}).standings()
    assert [s for s, standing in found.items() if standing is Standing.WORSE] == [slow]


def test_a_whole_node_that_is_far_behind_is_not_excused_by_being_whole():
    """A tenth is more than a place may cause."""
    slow = {Subject(Scope.GPU, "node1", gpu=g): 0.9 for g in range(8)}
    found = Drawn(gpus(8), 2, 0.004, levels=slow).standings()
    assert {s for s, standing in found.items() if standing is Standing.WORSE} == set(slow)


def test_controls_are_others_each_round_and_never_of_a_lost_node():
    """Where too few are left there is no round."""
    slow = Subject(Scope.GPU, "node4", gpu=2)
    (trial,) = trials(Drawn(gpus(9), 3, 0.001, levels={slow: 0.9}).asked(), {f"node{n}" for n in range(9)})
    assert trial.count == CONTROLS
    assert set(trial.beside(0)) != set(trial.beside(1))
    left = trial.beside(0, {"node0"})
    assert len(left) == CONTROLS
    assert "node0" not in {s.node for s in left}
    assert trial.beside(0, {f"node{n}" for n in range(9)}) == ()
    assert trial.shift({slow: 1.0}, trial.beside(0)) is None


def test_only_nodes_that_are_free_are_read_again():
    """A suspect on a node that may not be loaded is unsettled, never passed and never blamed."""
    slow = Subject(Scope.GPU, "node4", gpu=2)
    drawn = Drawn(gpus(6), 3, 0.001, levels={slow: 0.9})
    asked = drawn.asked()
    assert trials(asked, {"node0", "node1"}) == []
    (one,) = [c for c in standings(asked, [], "cd" * 32) if c.subject == slow]
    assert one.standing is Standing.UNSETTLED
    assert "not free" in one.why
    (trial,) = trials(asked, {"node3", "node4"})
    assert {c.node for c in trial.candidates} <= {"node3", "node4"}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_siblings_are_said_to_be_too_few_whatever_they_read(count):
    """However slow one of them is."""
    subjects = trays(count)
    asked = Drawn(subjects, 0, levels={subjects[0]: 0.5}).asked()
    found = standings(asked, [], "cd" * 32)
    assert {c.standing for c in found} == {Standing.TOO_FEW}
    assert f"{count} of its kind" in found[0].why


def test_a_sibling_without_one_number_is_undecided_and_no_peer():
    """No measurement, two of them, or a word."""
    subjects = trays(9)
    told = [Measurement(METRIC, "GB/s", HEALTHY + n, s, NOW, "run", "o") for n, s in enumerate(subjects[:8])]
    word = Measurement(METRIC, "GB/s", "fast", subjects[7], NOW, "run", "o")
    found = standings(question(METRIC, 0.04, subjects, [*told[:7], told[6], word]), [], "cd" * 32)
    assert [c.standing for c in found[6:]] == [Standing.UNDECIDED] * 3
    assert {c.standing for c in found[:6]} == {Standing.ALIKE}
    four = standings(question(METRIC, 0.04, subjects, told[:4]), [], "cd" * 32)
    assert {c.standing for c in four} == {Standing.UNDECIDED}, "there were enough, and they gave no number"


def test_a_board_that_drifts_is_read_again_though_it_stands_alike():
    """Its standing is that of the fresh readings, and the drift's words go along."""
    drawn = Drawn(gpus(6), 5, 0.002)
    asked = drawn.asked()
    own = Subject(Scope.GPU, "node2", gpu=1)
    assert trials(asked, {f"node{n}" for n in range(6)}) == []
    (trial,) = trials(asked, {f"node{n}" for n in range(6)}, [own])
    assert trial.suspect.subject == own
    cleared = Settled(trial, (0.0, 0.0, 0.0))
    (one,) = [c for c in standings(asked, [cleared], "cd" * 32, {own: "worse since"}) if c.subject == own]
    assert (one.standing, one.drift) == (Standing.CLEARED, "worse since")


@pytest.mark.parametrize("limit", [0.001, 0.03, 0.33, 0.5, 0.97, 0.999])
def test_every_share_makes_a_rule(limit):
    """A third of it is tolerated, and what a position may do leaves room."""
    rule = rule_of(limit)
    assert rule.tolerated == pytest.approx(limit / 3)
    assert rule.effect + rule.position < 1


def test_the_words_have_the_numbers_in_them():
    """For the operator who asks what 4 % means."""
    assert must_be(0.04) == "at most 4 % below its siblings' median"
    words = " ".join(explained(0.04, excused=True))
    assert "2.67%" in words
    assert "fewer than 5 siblings: not asked, and the certificate says so" in words
    assert "INCONCLUSIVE, for" in " ".join(explained(0.04, excused=False))
