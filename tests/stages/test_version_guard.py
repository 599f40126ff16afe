"""A stage is not begun on a node whose installed versions do not go together, nor where nobody could tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rehearsal import context_over, in_process, open_ledger

from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Unit
from toolkit.runners.shell import CommandResult
from toolkit.stages.context import Context, Result, Work
from toolkit.stages.version_guard import adapter_firmware, admitted


class Answers:
    """The rack's shell, with another answer of dpkg-query on some nodes."""

    def __init__(self, lab, packages: Mapping[str, tuple[int, str]]) -> None:  # type: ignore[no-untyped-def]
        self.lab, self.packages = lab, packages

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return self if name == "shell" else getattr(self.lab, name)

    def run(self, node: Unit, argv, timeout_s: float, stdin: bytes = b"") -> CommandResult:  # type: ignore[no-untyped-def]
        """What the node says."""
        if argv[0] != "dpkg-query" or node.name not in self.packages:
            return self.lab.shell.run(node, argv, timeout_s)
        status, text = self.packages[node.name]
        return CommandResult(status, text.encode(), b"", False)


@pytest.fixture
def admit(tmp_path: Path) -> Iterator:  # type: ignore[type-arg]
    """Asks the guard; names that may go on, and the results of the others."""
    lab = in_process(tmp_path, "demo-small")
    with open_ledger(lab.settings) as ledger:

        def ask(**packages: tuple[int, str]) -> tuple[list[str], dict[str, Result]]:
            context = context_over(lab, ledger)
            told = Context(**{f: getattr(context, f) for f in context.__slots__} | {"hands": Answers(lab, packages)})
            results: dict[str, Result] = {}

            def each(nodes, look):  # type: ignore[no-untyped-def]
                for node in nodes:
                    result = look(node)
                    if result is not None:
                        results[node.name] = result

            for node in lab.rack.nodes:
                with lab.changing(node.name) as machine:
                    machine.power, machine.image = "On", "0" * 64
            work = Work(lab.rack.nodes, {}, results.__setitem__, each)
            return [n.name for n in admitted(told, work, Stage.NVLINK).nodes], results

        yield ask


def test_nodes_as_locked_go_on(admit) -> None:  # type: ignore[no-untyped-def]
    """All of them, and nobody has a result yet."""
    assert admit() == (["node1", "node2"], {})


def test_a_skewed_node_is_held_back_and_the_others_go_on(admit) -> None:  # type: ignore[no-untyped-def]
    """An error of configuration, never a fault of the hardware; it names the pin."""
    text = "nvidia-driver-580-open 580.95.05 installed\nnvidia-fabricmanager 580.82.07 installed\n"
    kept, results = admit(node2=(0, text))
    assert kept == ["node1"]
    assert (results["node2"].outcome, results["node2"].code) == (Outcome.ERROR, "VERSION_SKEW")
    assert "the lock has nvidia-fabricmanager 580.95.05" in results["node2"].message


def test_a_node_whose_packages_could_not_be_read_is_held_back(admit) -> None:  # type: ignore[no-untyped-def]
    """No evidence is no permission."""
    kept, results = admit(node1=(2, ""))
    assert kept == ["node2"]
    assert (results["node1"].outcome, results["node1"].code) == (Outcome.ERROR, "EVIDENCE_MISSING")
    assert "packages were not read" in results["node1"].message


def test_firmware_of_adapters_of_one_type_is_one_answer() -> None:
    """Two that differ are named together, and equal no pin."""
    adapters = [{"type": "MT4129", "firmware": v} for v in ("28.47.1088", "28.39.3004", "28.47.1088")]
    assert adapter_firmware({"adapters": [*adapters, {"type": None, "firmware": None}]}) == {
        "mt4129": "28.39.3004+28.47.1088"
    }
