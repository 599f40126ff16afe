"""The annex of a contract: what it maps criteria to, and where each mistake in it stands."""

import hashlib
from pathlib import Path

import pytest

from toolkit.errors import InputError, UsageError
from toolkit.rack.contract import MAX_CRITERIA, Asked, Criterion, Measure, Unasked, asked, compared
from toolkit.rack.contract_file import load_annex
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.loading import load_profile
from toolkit.settings import load

INVENTORY = load({}).inventory
EXAMPLE = INVENTORY / "examples" / "contract_annex.yml"
HEAD = """annex: a1
contract: Contract 7
criteria:
"""


@pytest.fixture
def annex(tmp_path):
    """Reads an annex with these lines below its head."""

    def write(text, head=HEAD) -> object:
        file = tmp_path / "annex.yml"
        file.write_text(head + text)
        return load_annex(file, INVENTORY)

    return write


def one(gates):
    """A criterion with these gates; they begin in line 8 of the file."""
    return f"  - id: B-1\n    clause: B 1\n    text: It works.\n    gates:\n{gates}"


def wrong(annex, text, head=HEAD):
    """(line, what is said) of every problem of such an annex."""
    with pytest.raises(InputError) as caught:
        annex(text, head)
    return [(p.line, f"{p.field}: {p.wrong} ({p.right})") for p in caught.value.problems]


def test_the_example_is_read_whole_and_names_its_bytes():
    """Nine criteria; limits of the contract's own typed by their metric's unit; the digest is that of the file."""
    read = load_annex(EXAMPLE, INVENTORY)
    assert len(read.criteria) == 9
    assert read.digest == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()
    busbw = read.criteria[4].measures[0]
    assert busbw == Measure("NCCL_BUSBW_LOW", "nccl_busbw_gb_per_s", Operator.AT_LEAST, 470.0)
    assert read.criteria[5].measures == (Measure("", "nccl_all_gather_busbw_gb_per_s", Operator.AT_LEAST, 330.0),)


@pytest.mark.parametrize(
    ("gates", "line", "says"),
    [
        ("      - {code: NCCL_BUSBW_LOV}", 8, "no profile has a gate 'NCCL_BUSBW_LOV' (did you mean NCCL_BUSBW_LOW?)"),
        ("      - {metric: nccl_busbw}", 8, "not a known metric"),
        ("      - {}", 8, "names neither a gate nor a metric"),
        ("      - {metric: gpu_celsius_max}", 8, "nobody says what of gpu_celsius_max is right"),
        ("      - {code: GPU_HOT, limit: 85}", 8, "no unit; gpu_celsius_max is in celsius (unit: celsius)"),
        ("      - {code: GPU_HOT, limit: 85, unit: watt}", 8, "watt; gpu_celsius_max is in celsius"),
        ("      - {code: GPU_HOT, unit: celsius}", 8, "unit without a limit"),
        ("      - {code: GPU_HOT, operator: at_most}", 8, "operator without a limit"),
        ("      - {code: GPU_HOT, limit: hot, unit: celsius}", 8, "'hot' is not a number"),
        ("      - {code: GPU_HOT, limit: [1, 2], unit: celsius}", 8, "at_most takes one value"),
        ("      - {code: GPU_HOT, scope: node}", 8, "GPU_HOT is asked of each gpu, not node"),
        ("      - {code: GPU_HOT, metric: hbm_celsius_max}", 8, "GPU_HOT does not read hbm_celsius_max"),
        ("      - {code: PCIE_BANDWIDTH_LOW, limit: 40, unit: GB/s}", 8, "PCIE_BANDWIDTH_LOW reads 2 metrics"),
        ("      - {code: GEMM_DIGEST_DIFFERS, limit: x, unit: word}", 8, "same_across takes no limit"),
        ("      - {metric: gpu_celsius_max, limit: 85, unit: celsius}", 8, "how values compare with the limit is miss"),
        ("      - {metric: driver_version, operator: at_least, limit: 580, unit: version}", 8, "not order a version"),
        ("      - {code: GPU_HOT}\n      - {code: GPU_HOT}", 9, "GPU_HOT is asked twice"),
        ("      - {cod: GPU_HOT}", 8, "there is no such field (did you mean code?)"),
    ],
)  # fmt: skip
def test_every_mistake_in_a_measure_has_its_line(annex, gates, line, says):
    """And says what would be right; a half-known measure is never asked."""
    problems = wrong(annex, one(gates + "\n"))
    assert len(problems) == 1
    assert problems[0][0] == line
    assert says in problems[0][1]


def test_several_mistakes_are_told_at_once(annex):
    """A missing clause, a text that is too long, a number that is there twice, and one criterion too many."""
    long = "x" * 121
    text = f"  - {{id: A, text: {long}, gates: [{{code: GPU_HOT}}]}}\n"
    told = wrong(annex, text)
    assert any("clause: is missing" in says for _, says in told)
    assert any("one line of 1 to 120 characters" in says for _, says in told)
    twice = "  - {id: A, clause: c, text: t, gates: [{code: GPU_HOT}]}\n" * 2
    assert wrong(annex, twice) == [(5, "criteria[1].id: the criterion A is written twice (line 4 has it too)")]
    many = "".join(
        f"  - {{id: A{n}, clause: c, text: t, gates: [{{code: GPU_HOT}}]}}\n" for n in range(MAX_CRITERIA + 1)
    )
    assert "17 criteria: more do not fit on the page that is signed" in wrong(annex, many)[0][1]


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    """Not an empty annex."""
    with pytest.raises(UsageError, match="there is no such file"):
        load_annex(Path(tmp_path / "none.yml"), INVENTORY)


def test_a_code_means_all_its_gates_and_a_limit_of_the_contract_replaces_ours():
    """With its source; what the profile leaves out is told with the reason, what it never had by its name."""
    profile = load_profile("virtual-dgx-h100", INVENTORY)
    criterion = Criterion(
        "B-1", "B 1", "t",
        (Measure("FABRIC_NOT_COMPLETED"), Measure("NCCL_BUSBW_LOW", "nccl_busbw_gb_per_s", Operator.AT_LEAST, 470.0),
         Measure("HBM_BANDWIDTH_LOW"), Measure("IMEX_DOMAIN_NOT_UP"),
         Measure("", "gpu_watts_max", Operator.AT_MOST, 700.0)),
    )  # fmt: skip
    found = list(asked(criterion, "Contract 7, B 1", profile))
    gates = [a for a in found if isinstance(a, Asked)]
    assert [g.gate.metric for g in gates] == ["fabric_state", "fabric_status", "nccl_busbw_gb_per_s", "gpu_watts_max"]
    assert [g.by_contract for g in gates] == [False, False, True, True]
    assert (gates[2].gate.limit, gates[2].gate.source) == (470.0, "Contract 7, B 1")
    assert (gates[3].gate.scope, gates[3].gate.unit, gates[3].gate.required) == (Scope.GPU, "watt", True)
    left_out, unknown = [a for a in found if isinstance(a, Unasked)]
    assert (left_out.name, left_out.why[:27]) == ("HBM_BANDWIDTH_LOW", "a virtual GPU is as fast as")
    assert unknown == Unasked("IMEX_DOMAIN_NOT_UP", "profile virtual-dgx-h100 has no such gate")


def test_a_limit_is_told_stricter_or_looser_in_the_right_direction():
    """A floor that is higher is stricter; a ceiling that is higher is looser; words do not compare."""
    profile = load_profile("dgx-h100", INVENTORY)
    named = {g.metric: g for g in reversed(profile.gates)}
    floor, count, word = named["nccl_busbw_gb_per_s"], named["hbm_miscompares"], named["fabric_state"]

    def against(gate, limit):
        (told,) = asked(
            Criterion("i", "c", "t", (Measure(gate.code, gate.metric, gate.operator, limit),)), "s", profile
        )
        return compared(told.gate, gate)

    assert against(floor, 470.0) == "stricter"
    assert against(floor, 400.0) == "looser"
    assert against(floor, 440) == "equal"
    assert against(count, 3) == "looser"
    assert against(word, "Started") == "other"
