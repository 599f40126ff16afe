"""Facts and measurements: what a node answers, and what it must not be taken to have answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from toolkit.errors import UnreachableError
from toolkit.facts import probe
from toolkit.facts.measure import measurements_of
from toolkit.facts.probe import Fact, Probe, read
from toolkit.judge.evidence import Measurement, Subject
from toolkit.rack.gate import Scope
from toolkit.rack.model import Hca, Unit, UnitKind
from toolkit.runners.shell import CommandResult

NODE = Unit("node1", UnitKind.NODE, "VR00000001", 1, hcas=(Hca("mlx5_0", "0x1", 0), Hca("mlx5_3", "0x2", 1)))
NOW = datetime(2026, 3, 2, 10, 11, 12, tzinfo=UTC)
CASES = Path(__file__).parent / "cases"


@dataclass
class CannedShell:
    """A node that answers each program with the same result, and is gone for any other."""

    answers: Mapping[str, CommandResult]
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = 0) -> CommandResult:
        self.asked.append(tuple(argv))
        if argv[0] not in self.answers:
            raise UnreachableError(f"{node.name} does not answer")
        return self.answers[argv[0]]

    def put(self, node: Unit, local: Path, remote: str, mode: int = 0o644) -> None:
        raise NotImplementedError

    def read(self, node: Unit, remote: str, offset: int, max_bytes: int) -> bytes:
        raise NotImplementedError


def _answer(what: Probe, stdout: bytes, status: int = 0, stderr: bytes = b"", truncated: bool = False) -> Fact:
    shell = CannedShell({what.argv[0]: CommandResult(status, stdout, stderr, truncated)})
    return read(shell, NODE, what, lambda: NOW)


def _case(path: str) -> bytes:
    return (CASES / path / "input.txt").read_bytes()


def _measured(fact: Fact) -> dict[tuple[str, Subject], Measurement]:
    return {(m.metric, m.subject): m for m in measurements_of(fact, NODE, "run-1", "ab" * 32)}


def _gpu(index: int) -> Subject:
    return Subject(Scope.GPU, "node1", gpu=index)


def _link(gpu: int, link: int) -> Subject:
    return Subject(Scope.LINK, "node1", gpu=gpu, link=link)


THE_NODE = Subject(Scope.NODE, "node1")


def test_a_fact_keeps_value_time_and_raw_bytes() -> None:
    """What was answered is on record as it came, with the time it was asked."""
    fact = _answer(probe.IMAGE, b"dgx-noble 1.2.0\n")
    assert fact == Fact("image", NOW, "dgx-noble 1.2.0", b"dgx-noble 1.2.0\n", None)


@pytest.mark.parametrize("what", probe.PROBES, ids=lambda p: p.name)
def test_a_command_that_fails_gives_a_problem_and_no_value(what: Probe) -> None:
    """No probe takes a failed command for an answer."""
    fact = _answer(what, b"", status=9, stderr=b"line one\nNVIDIA driver is \x1b[31mnot loaded\n")
    assert fact.value is None
    assert fact.problem is not None
    assert fact.problem.endswith("exit status 9: NVIDIA driver is ?[31mnot loaded")
    assert measurements_of(fact, NODE, "run-1", "") == ()


@pytest.mark.parametrize("what", probe.PROBES, ids=lambda p: p.name)
def test_an_answer_over_the_bound_gives_a_problem_and_no_value(what: Probe) -> None:
    """A node that sends without end is not half believed."""
    fact = _answer(what, b"x" * 100, truncated=True)
    assert fact.value is None
    assert fact.problem is not None
    assert "more than the 100 bytes" in fact.problem


@pytest.mark.parametrize(
    "what", [p for p in probe.PROBES if p.name not in ("nvlink", "ibstat", "kernel_log")], ids=lambda p: p.name
)
@pytest.mark.parametrize("stdout", [b"", b"\x00\xff\n\n", b"{}", b"<a/>", b"a: &x [*x]\n" * 3])
def test_an_answer_of_another_kind_gives_a_problem_and_no_value(what: Probe, stdout: bytes) -> None:
    """Garbage with exit status 0 is a problem; only the one-line files may hold any word."""
    fact = _answer(what, stdout)
    assert (fact.value is None) != (fact.problem is None)
    if what.name not in ("identity", "product", "image"):
        assert fact.problem is not None


def test_a_node_that_does_not_answer_is_unreachable_not_empty() -> None:
    """Silence is an error of ours or the network's, never a fact."""
    with pytest.raises(UnreachableError):
        read(CannedShell({}), NODE, probe.GPUS, lambda: NOW)


def test_a_lost_gpu_is_evidence_though_nvidia_smi_exits_15() -> None:
    """The tool describes the others and exits 15: the GPU is missing from the count and has no measurements."""
    found = _measured(_answer(probe.GPUS, _case("nvidia-smi/a_lost_gpu"), status=15))
    assert found[("gpu_count", THE_NODE)].value == 1
    assert found[("fabric_state", _gpu(0))].value == "Completed"
    assert not [key for key in found if key[1] == _gpu(1)]


def test_gpus_are_measured_with_metric_unit_and_origin() -> None:
    """Every value of the vocabulary comes with its unit, subject, run and artifact."""
    found = _measured(_answer(probe.GPUS, _case("nvidia-smi/two_gpus")))
    of_second = {metric: (m.value, m.unit) for (metric, subject), m in found.items() if subject == _gpu(1)}
    assert of_second == {
        "ecc_enabled": (1, "flag"),
        "hbm_corrected_errors": (3, "count"),
        "hbm_uncorrected_errors": (0, "count"),
        "row_remap_pending": (1, "flag"),
        "row_remap_failure": (0, "flag"),
        "recovery_action": (4, "code"),
        "pcie_width": (8, "lanes"),
        "fabric_state": ("Completed", "word"),
        "fabric_status": ("Success", "word"),
        "fabric_domain": ("00000000-0000-0000-0000-000000000000.0", "word"),
        "fabric_bandwidth": ("Full", "word"),
    }
    driver = found[("driver_version", THE_NODE)]
    assert (driver.value, driver.unit, driver.at, driver.run, driver.origin) == (
        "580.95.05", "version", NOW, "run-1", "ab" * 32,
    )  # fmt: skip
    assert found[("persistence_active", THE_NODE)].value == 1


@pytest.mark.parametrize(
    ("printed", "metric"),
    [
        ("<current_ecc>Enabled", "ecc_enabled"),
        ("<dram_correctable>0", "hbm_corrected_errors"),
        ("<remapped_row_pending>No", "row_remap_pending"),
        ("<remapped_row_failure>No", "row_remap_failure"),
        ("<gpu_recovery_action>None", "recovery_action"),
        ("<current_link_width>16x", "pcie_width"),
        ("<state>Completed", "fabric_state"),
    ],
)
def test_a_field_that_says_nothing_gives_no_measurement(printed: str, metric: str) -> None:
    """`N/A` and words nobody knows are missing evidence, never 0."""
    text = _case("nvidia-smi/two_gpus").decode()
    silent = text.replace(printed, printed.split(">", maxsplit=1)[0] + ">N/A", 1)
    assert silent != text
    assert (metric, _gpu(0)) not in _measured(_answer(probe.GPUS, silent.encode()))


def test_an_inactive_link_is_measured_as_down_and_has_no_rate() -> None:
    """A link that is printed as inactive is evidence; it has no bandwidth, not one of 0."""
    found = _measured(_answer(probe.NVLINK, _case("nvlink/one_link_down")))
    assert found[("nvlink_active", _link(0, 1))].value == 0
    assert ("nvlink_gb_per_s", _link(0, 1)) not in found
    assert found[("nvlink_gb_per_s", _link(0, 2))].value == 26.562


def test_a_gpu_with_all_links_inactive_fails_on_each_of_them() -> None:
    """The tool names no link then: its siblings' links are taken."""
    found = _measured(_answer(probe.NVLINK, _case("nvlink/one_link_down")))
    assert [found[("nvlink_active", _link(1, link))].value for link in range(3)] == [0, 0, 0]


def test_rails_are_measured_in_bytes_and_other_adapters_left_out() -> None:
    """400 Gb/s are 50 GB/s; an adapter that is not in the plan is not the rack's."""
    other = _case("ibstat/rails").replace(b"mlx5_3", b"mlx5_9")
    found = _measured(_answer(probe.IBSTAT, other))
    rail = Subject(Scope.HCA, "node1", hca="mlx5_0")
    assert {metric: m.value for (metric, _), m in found.items()} == {
        "hca_state": "Active",
        "hca_rate_gb_per_s": 50.0,
        "hca_guid": "0xa088c20300ab0000",
    }
    assert {subject for _, subject in found} == {rail}


SHOWN = b"""Id=nvidia-fabricmanager.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled

Id=kubelet.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
UnitFileState=enabled

Id=nvidia-imex.service
LoadState=not-found
ActiveState=inactive
SubState=dead
"""


def test_a_service_on_its_way_is_neither_up_nor_down() -> None:
    """`activating` gives no measurement; a unit that is not installed is down."""
    found = {metric: m.value for (metric, _), m in _measured(_answer(probe.STATES, SHOWN)).items()}
    assert found == {"fabric_manager_active": 1, "fabric_manager_masked": 0, "imex_active": 0, "imex_masked": 1}


KUBELET = b"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
registerWithTaints:
  - {key: node.kubernetes.io/slow, effect: PreferNoSchedule}
  - {key: rackproof.dev/uncertified, effect: NoSchedule}
"""


OTHER_TAINTS = KUBELET.replace(b"rackproof.dev/uncertified", b"a/b")


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (KUBELET, "rackproof.dev/uncertified:NoSchedule"),
        (OTHER_TAINTS, "node.kubernetes.io/slow:PreferNoSchedule,a/b:NoSchedule"),
        (b"kind: KubeletConfiguration\n", "none"),
    ],
)
def test_the_taint_a_kubelet_registers_with_is_a_word(config: bytes, word: str) -> None:
    """A kubelet without our taint is observed to be without it."""
    found = _measured(_answer(probe.KUBELET, config))
    assert found[("kubelet_taint", THE_NODE)].value == word


def test_the_fabric_managers_version_is_read_from_its_own_words() -> None:
    """The version is the program's, not the package's."""
    found = _measured(_answer(probe.FABRIC_MANAGER, b"Fabric Manager version is : 580.82.07\n"))
    assert found[("fabric_manager_version", THE_NODE)].value == "580.82.07"


def test_packages_count_only_when_installed() -> None:
    """A package that is removed but configured is not there."""
    said = b"kubelet 1.34.3-1.1 installed\nlibc6:amd64 2.39 installed\ncontainerd.io 2.1.5-1 config-files\n"
    assert _answer(probe.PACKAGES, said).value == {"kubelet": "1.34.3-1.1", "libc6": "2.39"}


def test_probes_have_names_of_their_own() -> None:
    """A fact is found by its name."""
    names = [p.name for p in probe.PROBES]
    assert len(set(names)) == len(names)
