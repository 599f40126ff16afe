"""One archive for the vendor: evidence, answers or `unknown`, nothing of the site's names, the same bytes each time."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import fields, replace

import pytest
from rehearsal import context_over, folder, in_process, open_ledger, without_rails

from tests.bringup.test_kill import small
from tests.rma.conftest import go
from toolkit.errors import InputError, UsageError
from toolkit.ledger import Change
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.rack.model import Gpu
from toolkit.repair import Order, recover
from toolkit.rma.build import build
from toolkit.rma.form import load_form
from toolkit.rma.pack import archive
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack


def packed(lab, node="node2", **limits):
    """The archive's files."""
    with open_ledger(lab.settings) as ledger:
        return build(ledger, lab.rack, lab.rack.unit(node), replace(load_form(lab.settings), **limits))


def answers(lab):
    """Each question's answer."""
    return {a.ask.split("?")[0].split(" (")[0]: a for a in packed(lab).answers}


def test_it_holds_what_the_evidence_says_and_calls_the_rest_unknown(lost):
    """Serial, part numbers, Xid and firmware are read; what nobody records is unknown, with how it is got."""
    told = answers(lost)
    assert told["Serial number of the part"].answer == "gpu 16500000200 (GPU 0 at 00000000:1B:00.0)"
    assert "692-2G520-0200-000" in told["Part number of the board"].answer
    assert told["VBIOS version"].answer.startswith("96.00.99.00.01 (read ")
    assert "Xid 79" in told["Xids of the part"].answer
    assert "GPU_LOST on host-" in told["What was observed"].answer
    unknown = {ask for ask, a in told.items() if not a.known}
    assert {
        "Was the part reseated, and its power connections checked",
        "Output of nvidia-bug-report.sh, taken right after the failure",
        "Result and log of NVIDIA's field diagnostic",
        "Does the failure follow the part into another slot or system",
    } <= unknown
    assert all(told[ask].how for ask in unknown), "an unknown answer says how it is got"
    assert all(told[ask].answer.startswith("unknown: ") for ask in unknown)


def test_the_same_test_on_sound_parts_stands_beside_it(lost):
    """node1 is well: its reading is the control, by its run."""
    told = json.loads(packed(lost).files["measurements.json"])
    failing = {m["metric"]: m["value"] for m in told["failing"]}
    assert failing["gpus_lost"] == 1
    control = [m for m in told["control"] if m["metric"] == "gpus_lost"]
    assert [m["value"] for m in control] == [0]
    assert len(told["healthy_neighbours"]) == 1
    assert "gpus_lost: here 1, 1 others 0" in answers(lost)["Does the same test pass on comparable parts"].answer


def test_every_file_is_hashed_and_the_raw_outputs_are_named_by_their_originals(lost):
    """sha256sum -c agrees; the manifest names each file once; the original's digest is one of the ledger's."""
    found = packed(lost)
    sums = dict(reversed(line.split("  ", 1)) for line in found.files["SHA256SUMS"].decode().splitlines())
    assert set(sums) == set(found.files) - {"SHA256SUMS"}
    assert all(hashlib.sha256(found.files[path]).hexdigest() == digest for path, digest in sums.items())
    manifest = json.loads(found.files["manifest.json"])["manifest"]
    assert {f["path"] for f in manifest["files"]} == set(sums) - {"manifest.json"}
    raw = [f for f in manifest["files"] if f["path"].startswith("raw/")]
    with open_ledger(lost.settings) as ledger:
        for entry in raw:
            assert ledger.artifacts.verify(entry["original_sha256"])
            assert entry["path"] == f"raw/{entry['original_sha256'][:16]}.txt"
    assert any(f["name"] == "kernel_log.txt" for f in raw)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_the_same_evidence_gives_the_same_bytes(lost, kind):
    """No clock, owner or order of this machine: packed twice it is one file."""
    first = archive(packed(lost), kind)
    assert first == archive(packed(lost), kind)
    with zipfile.ZipFile(io.BytesIO(first)) if kind == "zip" else tarfile.open(fileobj=io.BytesIO(first)) as opened:
        names = opened.namelist() if kind == "zip" else opened.getnames()
    assert names == sorted(names)
    assert all(name.startswith("rma-16500000200/") for name in names)


def test_nothing_of_the_sites_names_is_in_it_and_each_replacement_is_counted(lost):
    """Neither a node's name nor the operator's; the count is what the policy did."""
    found = packed(lost)
    text = "\n".join(content.decode() for content in found.files.values())
    for name in ("node1", "node2", "leaf1"):
        assert name not in text
    assert found.redacted["host"] > 20
    counted = json.loads(found.files["manifest.json"])["redaction"]["replaced_or_removed"]
    assert counted == dict(found.redacted)


def test_a_policy_that_keeps_names_hides_secrets_all_the_same(lost, tmp_path):
    """The site's own rma.yml: hosts stay; a private key never does."""
    shipped = (lost.settings.inventory / "rma.yml").read_text()
    own = lost.settings.home / "rma.yml"
    own.write_text(shipped.replace("hosts: replace", "hosts: keep"))
    try:
        found = packed(lost)
    finally:
        own.unlink()
    assert "GPU_LOST on node2" in found.files["README.txt"].decode()
    assert found.redacted["host"] == 0


def test_the_archive_is_bounded_and_says_what_it_left_out(lost):
    """Long outputs keep their ends; what has no room is named with its digest."""
    found = packed(lost, artifact_bytes=2000, total_bytes=6000)
    raw = {path: content for path, content in found.files.items() if path.startswith("raw/")}
    assert sum(map(len, raw.values())) <= 6000
    assert any(b" bytes left out]" in content for content in raw.values())
    assert found.left_out
    assert all(len(one.sha256) == 64 and "bound" in one.why for one in found.left_out)
    assert "left out: " in found.files["README.txt"].decode()


def test_a_node_that_never_failed_has_nothing_to_return(lost):
    """Usage, and where to look."""
    with pytest.raises(UsageError, match="never failed on evidence"):
        packed(lost, "node1")


def test_what_was_tried_is_in_it_and_a_second_removal_in_another_slot_answers_whether_it_follows(tmp_path):
    """A reboot that helped, then the same serial lost in another node: the vendor's question is answered."""
    with folder(tmp_path / "rack") as place:
        fault = Fault(FaultKind.XID_79, "node2", gpu=0, times=1)
        lab = small(without_rails(in_process(place, "demo-small", fault)))
        go(lab)
        with open_ledger(lab.settings) as ledger:
            assert recover(context_over(lab, ledger), "node2", Order(confirmed=True)).exit_code == 0
            ledger.move(lab.rack.name, "node2", Change(NodeState.QUARANTINED, Move.REPAIR), "recovered")
        assert (
            "reboot (systemctl reboot) settled"
            in answers(lab)["Was the GPU reset, the node rebooted or power-cycled, and did it help"].answer
        )
        lab.rack = _with_board(_with_board(lab.rack, "node2", "16599999999"), "node1", "16500000200")
        lab.faults[:] = [Fault(FaultKind.XID_79, "node1", gpu=0, times=9)]
        with open_ledger(lab.settings) as ledger:
            ledger.move(lab.rack.name, "node1", Change(NodeState.ADMITTED, Move.QUARANTINE), "board exchanged")
            ledger.move(lab.rack.name, "node1", Change(NodeState.QUARANTINED, Move.REPAIR), "board exchanged")
        go(lab)
        told = {a.ask: a for a in packed(lab, "node1").answers}
        follows = told["Does the failure follow the part into another slot or system?"]
        assert follows.known
        assert "it failed in 2 places" in follows.answer


def test_the_certificates_that_named_the_part_tell_what_changed(tmp_path):
    """Certified, then lost: the history has the certificate, and driver and VBIOS are compared with it."""
    with folder(tmp_path / "rack") as place:
        lab = small(without_rails(in_process(place, "demo-small")))
        go(lab)
        lab.faults.append(Fault(FaultKind.XID_79, "node2", gpu=0, times=1))
        with open_ledger(lab.settings) as ledger:
            ledger.move(lab.rack.name, "node2", Change(NodeState.ADMITTED, Move.LAPSE), "for the test")
        go(lab)
        changed = answers(lab)["Has anything changed with the system, driver or application recently"]
        assert changed.known, changed.answer
        assert "driver 580.95.05 as before, VBIOS 96.00.99.00.01 as before" in changed.answer
        (one,) = json.loads(packed(lab).files["history.json"])["certificates"]
        assert one["driver"] == "580.95.05"
        assert one["certificate"] in changed.evidence
        assert one["issued"] < one["expires"]


def _with_board(rack, name, serial):
    """The rack with that board as GPU 0 of the node."""
    units = (replace(u, gpus=(Gpu(0, serial),)) if u.name == name else u for u in rack.units)
    return replace(rack, units=tuple(units))


ESCAPES = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202e"
LEAKS = (
    "Nov 23 15:00:01 gpu-host-17.corp.example kernel: NVRM: Xid (PCI:0000:1b:00): 79, pid=7, name=/home/alice/train\n"
    "mail bob@corp.example from 10.67.8.9 or fe80::1ff:fe23:4567:890a, NIC 52:54:00:AB:CD:EF\n"
    "export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG password: hunter2 https://carol:s3cret@repo.example/x\n"
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
)


class Hostile(InProcessRack):
    """A rack of files whose node2 says in its kernel log what it likes."""

    def run(self, node, argv, timeout_s, max_bytes=MAX_OUTPUT_BYTES):
        """Escapes, secrets and another's names where the log is read."""
        if node.name == "node2" and "kmsg" in " ".join(argv):
            return CommandResult(0, (LEAKS + ESCAPES).encode(), b"")
        return super().run(node, argv, timeout_s, max_bytes)


def test_a_hostile_node_neither_draws_on_the_screen_nor_leaks(tmp_path):
    """Its text is in the archive, made harmless: no escape in README or JSON, no secret, no name of another host."""
    with folder(tmp_path / "rack") as place:
        plain = small(without_rails(in_process(place, "demo-small", Fault(FaultKind.HBM_STICKY_BIT, "node2", gpu=0))))
        lab = Hostile(**{f.name: getattr(plain, f.name) for f in fields(plain)})
        go(lab)
        found = packed(lab)
        shown = b"".join(content for path, content in found.files.items() if not path.startswith("raw/"))
        assert b"\x1b" not in shown
        assert b"\x07" not in shown
        raw = b"".join(content for path, content in found.files.items() if path.startswith("raw/"))
        assert b"NVRM: Xid" in raw, "the log itself is there"
        everything = (shown + raw).decode("utf-8", "replace")
        for secret in ("hunter2", "s3cret", "wJalrXUtnFEMI", "b3BlbnNzaC1rZXk", "alice", "bob@", "gpu-host-17",
                       "10.67.8.9", "52:54:00:AB:CD:EF", "fe80::1ff"):  # fmt: skip
            assert secret not in everything, secret
        assert {kind for kind, count in found.redacted.items() if count} == {"host", "address", "mac", "user", "secret"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("answered_by: observed", "answered_by: guessed"), "is not a known source"),
        (("hosts: replace", "hosts: forget"), "is not a known treatment"),
        (("artifact_kib: 2048", "artifact_kib: 0"), "out of range"),
        (("    how: a technician at the node\n", ""), "does not say how the answer is got"),
        (("total_mib", "total_mb"), "there is no such field"),
    ],
)
def test_a_form_with_a_typo_is_told_by_its_line(lost, change, says):
    """File, line and what would be right; nothing is packed."""
    own = lost.settings.home / "rma.yml"
    own.write_text((lost.settings.inventory / "rma.yml").read_text().replace(*change))
    try:
        with pytest.raises(InputError, match=says) as wrong:
            load_form(lost.settings)
    finally:
        own.unlink()
    assert f"{own}:" in str(wrong.value)
