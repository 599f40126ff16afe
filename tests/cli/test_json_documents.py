"""Every verb with `--json`: its document says what it is, and fits the schema that is shipped."""

import importlib
import io
import json
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from json_schemas import closed, schema, surface, wrong
from jsonschema import Draft202012Validator
from rehearsal import context_over, folder, in_process, open_ledger

from toolkit.cli import VERBS, document_schemas, output, rackproof
from toolkit.cli.documents import DOCUMENTS, identity, names, schema_text
from toolkit.cli.output import documented, plain
from toolkit.errors import RackproofError, UsageError
from toolkit.rack.lifecycle import NodeState, Stage
from toolkit.redfish import Power
from toolkit.report.eta import usual
from toolkit.report.overview import AtWork, Overview
from toolkit.report.standing import Standing
from toolkit.virtual.control import NodeStatus, RackStatus
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.firmware import Phase

RACK = "demo"
FAULTS = (
    Fault(FaultKind.ECC_DRIP, "node2", gpu=3),
    Fault(FaultKind.NVLINK_LANE_DOWN, "node4", gpu=5, link=7),
    Fault(FaultKind.BMC_DEAD, "node5"),
    Fault(FaultKind.SWAPPED_CABLES, "node6", hca="mlx5_1", other="mlx5_2"),
)
ANNEX = """annex: a1
contract: Contract 7, annex B
criteria:
  - {id: B-1, clause: B 1, text: Memory returns what was written., gates: [{code: HBM_MISCOMPARE}]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in memory."""
    with folder(tmp_path_factory.mktemp("json") / "rack") as made:
        yield made


@pytest.fixture(scope="module")
def call(place):
    """Gives commands on a rack of files with three faults; answers the exit code and the document on stdout."""
    lab = in_process(place, RACK, *FAULTS)
    (place / "annex.yml").write_text(ANNEX)

    @contextmanager
    def files(rack, progress=lambda told: None):
        with open_ledger(lab.settings) as ledger:
            yield context_over(lab, ledger)

    def start(*words):
        out, ended = io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            try:
                rackproof.main([str(w) for w in words], prog_name="rackproof", standalone_mode=False)
            except SystemExit as left:
                ended = left.code or 0
            except RackproofError as failure:
                ended = failure.exit_code
                if not out.getvalue():
                    raise
        return ended, json.loads(out.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RACKPROOF_HOME", str(lab.settings.home))
        patch.chdir(place)
        for name in sorted({module for module, _, _ in VERBS.values()} | {"wiring", "recert_run", "recert_after"}):
            module = importlib.import_module(f"toolkit.cli.{name}")
            if hasattr(module, "context_of"):
                patch.setattr(module, "context_of", files)
            if hasattr(module, "pool_of"):
                patch.setattr(module, "pool_of", lambda settings, rack: lab.pool)
        patch.setattr("toolkit.virtual.lab.enter_namespace", lambda settings, rack: None)
        yield start


# In the order in which they are given: what a command leaves behind is what the next ones find.
COMMANDS = (
    ("plan", ("plan", RACK), 0),
    ("bringup", ("bringup", RACK, "--confirm", RACK), 1),
    ("plan", ("plan", RACK), 0),
    ("status", ("status",), 0),
    ("why", ("why", RACK), 0),
    ("facts", ("facts", "node1"), 0),
    ("explain", ("explain", "NCCL_BUSBW_LOW"), 0),
    ("explain", ("explain", "error 802"), 0),
    ("rack-report", ("report", RACK), 0),
    ("work-order", ("fabric", RACK, "--seconds", "0.1"), 1),
    ("drift", ("drift", RACK), 3),
    ("metrics", ("metrics",), 0),
    ("export", ("export", RACK, "--format", "junit", "-o", "results.xml"), 0),
    ("inventory", ("inventory",), 0),
    ("gates", ("gates", "show", "gb200-nvl72"), 0),
    ("gates-lint", ("gates", "lint"), 0),
    ("lemons", ("lemons",), 0),
    ("rma-archive", ("rma", "node4", "-o", "node4.tar.gz"), 0),
    ("recover", ("recover", "node4", "--plan"), 0),
    ("keys", ("keys", "list"), 0),
    ("revocation-list", ("keys", "revocations", "--out", "revoked.json"), 0),
    ("verification", ("verify", "home/certificates/demo.dsse.json"), 0),
    ("verification", ("verify", "home/certificates/demo.dsse.json", "--against", RACK), 0),
    ("verification", ("verify", "annex.yml"), 1),
    ("contract-report", ("contract", RACK, "--annex", "annex.yml"), 3),
    ("admission-plan", ("admit", RACK, "--plan"), 0),
    ("admit", ("admit", RACK), 1),
    ("recert-budget", ("recert", "plan", RACK, "--minutes", "30"), 0),
    ("recert-differential", ("recert", "plan", RACK, "--after", "swap node3:gpu3"), 0),
    ("recert-run", ("recert", "run", RACK, "--due"), 0),
    ("certify", ("certify", RACK), 0),
    ("withdrawal", ("drain", "node1", "--reason", "a test", "--force", "node1"), 3),
    ("withdrawal", ("revoke", "node3", "--reason", "a test", "--force", "node3"), 3),
    ("burnin-plan", ("burnin", "node3", "--plan"), 0),
    ("burnin", ("burnin", "node3"), 0),
    ("set-aside", ("quarantine", "node1", "--reason", "a test"), 0),
    ("set-aside", ("release", "node1", "--reason", "a test"), 0),
    ("parsed", ("parse", "kernel-log", "kernel.log"), 0),
    ("schemas", ("schema",), 0),
    ("virtual-down", ("virtual", "down"), 0),
)
# What takes a cluster, machines or hours: documents of these are made of the verb's own values below.
ELSEWHERE = {
    "door install": "a Kubernetes cluster: tests/pool/test_door_verbs.py",
    "door watch": "it ends when it is interrupted; each line is a document",
    "intake": "nodes behind SSH: tests/stages",
    "keys rotate": "it asks for the key's first digits, which is told below",
    "contract --verify": "of a signed report: tests/cli/test_contract.py",
    "virtual up": "namespaces and machines: tests/virtual/test_operator.py",
    "virtual status": "the same",
    "virtual fault": "the same",
    "serve": "it ends when it is interrupted: tests/serve",
    "image": "a build, or a release: tests/image",
    **dict.fromkeys(("power", "firmware", "bmc"), "BMCs: tests/redfish/test_verbs.py"),
    "netboot": "a provision root and its service: tests/netboot",
}


@pytest.fixture(scope="module")
def ran(call, place):
    """Exit code and document of each of COMMANDS, given in their order whichever of them a test asks for."""
    (place / "kernel.log").write_text("[1.0] NVRM: Xid (PCI:0000:61:00): 79, GPU has fallen off the bus.\n")
    return [call(*words, "--json") for _, words, _ in COMMANDS]


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[" ".join(words) for _, words, _ in COMMANDS])
def test_what_a_verb_prints_fits_its_schema(ran, number):
    """And nothing is in it that the schema does not describe."""
    (name, _, status), (ended, document) = COMMANDS[number], ran[number]
    assert wrong(document, name) == []
    assert ended == status


def test_a_rotated_key_fits_its_own(call, ran):
    """It wants to be told what only the installation knows."""
    key = call("keys", "list", "--json")[1]["signer"]
    assert wrong(call("keys", "rotate", "--confirm", key[:8], "--json")[1], "key-rotation") == []


def commands(group, before=()):
    """Every command under a group, with its name."""
    context = click.Context(group, info_name="rackproof")
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, (*before, name))
        else:
            yield " ".join((*before, name)), found


def test_every_verb_with_json_has_a_document_and_is_run_or_excused_here():
    """A new verb that is neither fails this."""
    with_json = {name for name, found in commands(rackproof) if any("--json" in p.opts for p in found.params)}
    run = {name for name in with_json for _, words, _ in COMMANDS if (" ".join(words) + " ").startswith(name + " ")}
    assert sorted(with_json - {verb.partition(" --")[0] for verb in DOCUMENTS}) == []
    excused = {name for name in with_json if name in ELSEWHERE or name.partition(" ")[0] in ELSEWHERE}
    assert sorted(with_json - run - excused) == []
    assert sorted(run & excused) == []
    there = {name for name, _ in commands(rackproof)}
    gone = {verb.partition(" --")[0] for verb in DOCUMENTS if verb.partition(" ")[0] in VERBS} - there
    assert sorted(gone) == []


def test_every_shipped_schema_is_one_and_is_what_the_types_say():
    """Made anew: python -m toolkit.cli.document_schemas. A difference that takes something away is a new version."""
    for name in names():
        Draft202012Validator.check_schema(schema(name))
        assert schema_text(name) == document_schemas.text_of(name), name
        assert schema(name)["properties" if "properties" in schema(name) else "anyOf"]


def test_nothing_that_version_1_had_is_gone():
    """Fields and their types as they were when version 1 began: a reader of then reads the documents of now."""
    began = json.loads((Path(__file__).parent / "documents_v1.json").read_text())
    assert len(began) > 30
    gone = {name: sorted(set(of) - surface(schema(name))) for name, of in began.items()}
    assert {name: of for name, of in gone.items() if of} == {}


def test_a_field_taken_away_or_of_another_type_is_seen(call, ran):
    """The check itself: a document with one field less, one more, or one of another type does not fit."""
    _, document = call("status", RACK, "--json")
    nodes = document["racks"][RACK]["nodes"]
    for spoil in (lambda n: n.pop("code"), lambda n: n.update(more=1), lambda n: n.update(state="ILL"),
                  lambda n: n.update(part=3)):  # fmt: skip
        copy = json.loads(json.dumps(document))
        spoil(copy["racks"][RACK]["nodes"][0])
        assert len(wrong(copy, "status")) == 1
    assert nodes
    was = surface(schema("status"))
    less = schema("status")
    del less["$defs"]["Standing"]["properties"]["part"]
    assert "/racks/*/nodes/*/part: string" in was - surface(less)


def test_documents_of_verbs_that_need_machines_fit_too():
    """Made of the values that those verbs print, by what prints them."""
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    fault = Fault(FaultKind.ECC_DRIP, "node2", gpu=3, value=0.02)
    busy = Overview(
        "r", "s", "p", (Standing("node1", NodeState.JOINED, None, Stage.BURNIN),), "ops@host pid 1",
        (AtWork(Stage.BURNIN, ("node1",), now, usual([60.0, 70.0])),), "rackproof status r",
    )  # fmt: skip
    values = {
        "status": {"racks": {"r": busy}},
        "virtual-rack": RackStatus("demo", True, (NodeStatus("node1", Power.ON, Phase.OFF, (fault,), None),)),
        "virtual-fault": {"fault": fault, "set": True},
        "door-line": {"at": now.isoformat(), "told": "node1 is shut out"},
        "door-install": {"applied": ["Namespace rackproof"], "login": Path("/secrets/kubeconfig"), "webhook": ""},
        "intake": {"rack": "rented", "file": "/inventory/racks/rented.yml", "nodes": ["n1"]},
        "netboot-plan": {"changed": ["demo"], "forgotten": [], "nodes": 6},
        "netboot-status": {"nodes": [{"rack": "demo", "mac": "52:54:00", "address": "10.66.0.11", "state": "none"}]},
        "netboot-service": {"root": Path("/provision"), "socket": Path("/run/rackproof-netboot/socket")},
        "netboot-forgotten": {"forgotten": "demo"},
        "netboot-configuration": {"program": "nginx", "text": "server {}\n"},
        "serve-address": {"address": "http://127.0.0.1:8181/", "token_file": None},
        "image-autoinstall": {"user-data": "#cloud-config", "meta-data": "", "kernel-arguments": "autoinstall"},
        "image-offer": {"name": "debian", "digest": "ab" * 32, "location": "images/debian"},
    }  # fmt: skip
    for name, value in values.items():
        told = json.loads(json.dumps(documented(value, name), default=plain))
        assert wrong(told, name) == []


def test_schema_prints_a_schema_and_lists_who_prints_what(call, capsys):
    """An unknown name is refused with the names there are."""
    rackproof.main(["schema", "status"], prog_name="rackproof", standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["properties"]["schema"] == {"const": "rackproof.dev/status/v1"}
    rackproof.main(["schema"], prog_name="rackproof", standalone_mode=False)
    listed = capsys.readouterr().out
    assert all(identity(name) in listed for name in names())
    with pytest.raises(UsageError, match="no document 'nothing'"):
        rackproof.main(["schema", "nothing"], prog_name="rackproof", standalone_mode=False)


def test_a_closed_schema_still_lets_mappings_of_any_name_through():
    """Racks are keyed by their names: closing the objects must not close those."""
    assert closed(schema("status"))["properties"]["racks"]["additionalProperties"] is not False
    assert output.documented([1, 2]) == [1, 2]
    assert sys.modules[output.__name__] is output
