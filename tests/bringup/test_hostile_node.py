"""A node that lies, floods or sends escapes: never a pass, never a verdict on hardware, nothing on the screen."""

import io
from dataclasses import fields

import pytest
from rehearsal import context_over, in_process, open_ledger, without_rails
from rich.console import Console

from toolkit.bringup import bringup
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings
from toolkit.report.terminal import standings_view, why_view
from toolkit.report.why import why
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult
from toolkit.virtual.in_process import InProcessRack

ESCAPES = "\x1b[2J\x1b[1;1H\x1b]0;owned\x07 PASS \u202e\x00"


class Hostile(InProcessRack):
    """A rack of files whose node2 answers one command with what it likes."""

    command = ""
    answer = b""
    records = b""

    def run(self, node, argv, timeout_s, max_bytes=MAX_OUTPUT_BYTES):
        """node2's own answer, cut at the bound like the real shell cuts it."""
        if node.name == "node2" and self.command and argv[0] == self.command:
            return CommandResult(0, self.answer[:max_bytes], b"", len(self.answer) > max_bytes)
        return super().run(node, argv, timeout_s, max_bytes)

    def read(self, node, remote, offset, max_bytes):
        """node2's own records."""
        if node.name == "node2" and self.records and remote.endswith("records.jsonl"):
            return self.records[offset : offset + max_bytes]
        return super().read(node, remote, offset, max_bytes)


def go(tmp_path, **what):
    """One bringup with a hostile node2; answers the standings and everything a terminal would get."""
    plain = without_rails(in_process(tmp_path, "demo-small"))
    lab = Hostile(**{f.name: getattr(plain, f.name) for f in fields(plain)})
    for name, value in what.items():
        setattr(Hostile, name, value)
    try:
        with open_ledger(lab.settings) as ledger:
            bringup(context_over(lab, ledger), make_plan(lab.rack, {}))
            found = standings(ledger, lab.rack)
            console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
            console.print(standings_view("rack", found))
            for standing in found:
                console.print(why_view(why(lab.rack.name, standing, ledger.events(lab.rack.name, standing.node))))
    finally:
        for name in what:
            setattr(Hostile, name, getattr(InProcessRack, name, b"" if name != "command" else ""))
    return {s.node: s for s in found}, console.file.getvalue()


@pytest.mark.parametrize(
    "answer",
    [
        b"x" * (2 * MAX_OUTPUT_BYTES),
        b'{"gpus":' * 100_000,
        ESCAPES.encode(),
        b"<nvidia_smi_log><!ENTITY a 'b'></nvidia_smi_log>",
        b"",
        bytes(range(256)) * 1000,
    ],
    ids=["flood", "deep json", "escapes", "entity", "nothing", "binary"],
)
def test_an_answer_that_is_no_answer_is_inconclusive(tmp_path, answer):
    """The stage that needed the fact ends as our ERROR; the other node goes on."""
    found, shown = go(tmp_path, command="nvidia-smi", answer=answer)
    assert (found["node2"].state, found["node2"].code) == (NodeState.IMAGED, "EVIDENCE_MISSING")
    assert found["node1"].state is NodeState.ADMITTED
    assert "owned" not in shown or "\x1b]0" not in shown


@pytest.mark.parametrize(
    "records",
    [
        b"\x1b[2J not a record\n",
        b'{"record":"measurement","at":"2026-11-23T00:00:00+00:00","workload":"w","metric":"m","unit":"u","value":1e999}\n',
        b'{"record":"end","at":"x","planned":[],"ended":[]}\n',
        b"[" * 70_000 + b"\n",
        b"y" * 3_000_000,
    ],
    ids=["text", "infinity", "an end and nothing else", "deep", "one endless line"],
)
def test_burn_in_records_that_are_none_certify_nobody(tmp_path, records):
    """Malformed, endless or empty records: undecided, the raw bytes are kept, no certificate names the node."""
    found, shown = go(tmp_path, records=records)
    assert found["node2"].state is NodeState.JOINED
    assert found["node2"].code in {"UNDECIDED", "BURNIN_CUT", "BURNIN_INCOMPLETE"}
    assert found["node1"].state is NodeState.ADMITTED
    assert "\x1b[2J" not in shown
