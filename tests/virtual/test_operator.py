"""A real virtual rack by the verbs an operator types: killed twice on the way up, resumed, proven, taken down."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from rehearsal import now

from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Stage
from toolkit.settings import load

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(900)]
RACK = "demo-small"
PROGRAM = Path(sys.executable).parent / "rackproof"


class Installation:
    """An installation of its own, driven by its command."""

    def __init__(self, home, cache):
        self.environment = os.environ | {"RACKPROOF_HOME": str(home), "RACKPROOF_CACHE": str(cache)}
        self.environment.pop("RACKPROOF_LEDGER", None)
        self.settings = load(self.environment)

    def start(self, *words):
        """Starts a verb."""
        argv = [PROGRAM, *words]
        return subprocess.Popen(argv, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def verb(self, *words, expect=0):
        """Runs a verb; answers what it printed."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == expect, output
        return output

    @property
    def has_cluster(self):
        """Whether the rack's pool is a Kubernetes cluster: its programs are not on every machine."""
        return any(path.exists() for path in self.settings.pool_policies("virtual"))

    def kubectl(self, *words):
        """What kubectl says of the rack's cluster."""
        return json.loads(self.verb("virtual", "exec", RACK, "--", "kubectl", *words, "-o", "json"))

    def members(self):
        """By name, whether the node takes jobs, and the reason that stands on it."""
        if not self.has_cluster:
            nodes = yaml.safe_load(self.settings.pool("virtual").read_text())["nodes"]
            return {name: (node["state"] == "admitted", node["reason"]) for name, node in nodes.items()}
        nodes = self.kubectl("get", "nodes")["items"]
        return {
            node["metadata"]["name"]: (
                not any(taint["key"] == "rackproof.dev/uncertified" for taint in node["spec"].get("taints", ())),
                node["metadata"]["annotations"]["rackproof.dev/reason"],
            )
            for node in nodes
        }

    def ledger(self):
        """The ledger, beside whoever writes it."""
        return Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", now)

    def kill_in(self, stage):
        """Brings up, and kills the controller a moment after `stage` began on both nodes."""
        process = self.start("bringup", RACK, "--confirm", RACK)
        for _ in range(1200):
            with self.ledger() as ledger:
                begun = [r for r in ledger.runs(RACK, stage=stage) if r.outcome is None]
            if len(begun) == 2:
                break
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.25)
        time.sleep(2)
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def rack(tmp_path_factory, built):
    """The rack, brought up in spite of two kills; the module's tests look at what became of it."""
    installation = Installation(tmp_path_factory.mktemp("home"), built)
    installation.verb("virtual", "up", RACK)
    try:
        installation.kill_in(Stage.BASE)
        installation.orphans = processes_of(installation.settings.home)
        installation.kill_in(Stage.BURNIN)
        installation.output = installation.verb("bringup", RACK, "--confirm", RACK)
        yield installation
    finally:
        installation.verb("virtual", "down")


def processes_of(home):
    """Command lines of ansible processes that work for this home, two seconds after a kill."""
    time.sleep(2)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in line and "ansible" in line:
            found.append(line)
    return found


def test_a_killed_controller_leaves_no_playbook_running(rack):
    """SIGKILL of rackproof ends its ansible-playbook too: two of them would change one node at once."""
    assert rack.orphans == []


def test_killed_twice_and_run_again_everybody_is_admitted(rack):
    """The same command is the resume."""
    assert re.findall(rf"^{RACK} +(node\d) +ADMITTED ", rack.output, re.MULTILINE) == ["node1", "node2"]
    assert {name: admitted for name, (admitted, _) in rack.members().items()} == {"node1": True, "node2": True}


def test_nodes_are_the_clusters_with_their_place_and_without_a_ticket_left(rack):
    """In the cluster they are where the rack file has them; the tokens that they joined with are nowhere any more."""
    if not rack.has_cluster:
        pytest.skip("no Kubernetes control plane: the pool is a file")
    nodes = rack.kubectl("get", "nodes")["items"]
    assert [(n["metadata"]["labels"]["rackproof.dev/slot"], n["status"]["nodeInfo"]["systemUUID"]) for n in nodes] == [
        ("1", "VR00000001"), ("2", "VR00000002"),
    ]  # fmt: skip
    assert all(n["status"]["allocatable"]["nvidia.com/gpu"] == "8" for n in nodes)
    tokens = rack.kubectl("get", "secrets", "-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token")
    kept = [t["metadata"]["name"] for t in tokens["items"]]
    assert len(kept) <= 1, "only the ticket of a killed run is left; it ends by itself"
    assert not list(rack.settings.secrets("virtual").glob("join-*.json"))


def test_each_disk_was_written_once_and_each_burn_in_run_once(rack):
    """Nothing is repeated that must not be."""
    log = (rack.settings.home / "virtual" / RACK / "daemon.log").read_text()
    assert len(re.findall(r'"GET /images/virtual-dgx\.img\.zst/\w+/disk\.img\.zst HTTP\S+ 200', log)) == 2, log
    with rack.ledger() as ledger:
        intents = [e for e in ledger.events(RACK, kind=EventKind.INTENT, limit=10_000) if e.what == "burnin"]
        seen = [e for e in ledger.events(RACK, kind=EventKind.OBSERVED, limit=10_000) if e.what == "burnin"]
        records = {e.node: ledger.artifacts.get(e.body["details"]["artifacts"]["records"]) for e in seen}
    # a resumed run says again which burn-in it follows; what counts is that no second one was begun
    assert {(e.node, e.body["details"]["id"]) for e in intents} == {(e.node, e.body["details"]["id"]) for e in seen}
    assert sorted(e.node for e in seen) == sorted(records) == ["node1", "node2"]
    assert [kept.count(b'"record":"start"') for kept in records.values()] == [1, 1]


def test_the_certificate_verifies_offline_and_a_flipped_byte_does_not(rack, tmp_path):
    """Exit 0 for the one, exit 1 and a clear word for the other."""
    certificate = rack.settings.certificate(RACK)
    assert "VALID" in rack.verb("verify", str(certificate))
    spoilt = bytearray(certificate.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    (tmp_path / "spoilt").write_bytes(spoilt)
    assert "CERTIFICATE_" in rack.verb("verify", str(tmp_path / "spoilt"), expect=1)


def test_running_it_again_has_nothing_to_do(rack):
    """No stage runs on a rack at its goal."""
    output = rack.verb("bringup", RACK)
    assert "at its goal" in output
    assert "passed" not in output


def test_no_secret_reached_a_log_an_artifact_or_the_ledger(rack):
    """The BMC password is in its file and in the virtual BMCs' own memory, nowhere else under the home."""
    secrets = rack.settings.secrets("virtual")
    password = yaml.safe_load((secrets / "bmc.yml").read_text())["bmc"]["password"].encode()
    private = (rack.settings.keys / "login").read_bytes().splitlines()[3]
    places = [p for p in rack.settings.home.rglob("*") if p.is_file() and not p.is_symlink()]
    searched = [p for p in places if not p.is_relative_to(secrets) and p.suffix != ".img"]
    assert len(searched) > 50
    for needle, own in ((password, None), (private, rack.settings.keys / "login")):
        found = [p for p in searched if p != own and needle in p.read_bytes()]
        assert found == []


def test_facts_are_read_from_the_running_node(rack):
    """`facts` shows what the node says now."""
    shown = json.loads(rack.verb("facts", "node1", "--json"))["facts"]
    assert shown["identity"]["value"] == "VR00000001"
    assert len(shown["gpus"]["value"]["gpus"]) == 8


def checks(rack, folder, *words):
    """The checks of a user's own pipeline, from a project of his; red ones by name, and what was printed."""
    argv = [sys.executable, "-m", "pytest", "--pyargs", "toolkit.infra", "--rack", RACK, "-rfE", *words]
    done = subprocess.run(argv, cwd=folder, env=rack.environment, capture_output=True, text=True, check=False)
    lines = [
        line.split(" - ")[0].split() for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))
    ]
    assert (done.returncode != 0) == bool(lines), done.stdout + done.stderr
    return {(word, name.rpartition("::")[2]) for word, name in lines}, done.stdout


SMOKE_SECONDS = 5.0  # a node, as pytest's marker promises; a busy machine takes its share of it


def seconds_of(junit):
    """What the checks of each node took, from a JUnit file."""
    spent = dict.fromkeys(("node1", "node2"), 0.0)
    for case in ET.parse(junit).getroot().iter("testcase"):  # noqa: S314 - our own file
        for node in spent:
            spent[node] += float(case.get("time")) if f"[{node}" in case.get("name") else 0.0
    return spent


def test_checks_in_a_users_pipeline_are_green_and_turn_red_where_something_breaks(rack, tmp_path):
    """Smoke within its time, all of it by two workers; then a link that is down, and what a cluster says of a node."""
    red, output = checks(rack, tmp_path, "-m", "smoke", "--junitxml=smoke.xml")
    assert red == set(), output
    assert all(0.0 < spent < SMOKE_SECONDS for spent in seconds_of(tmp_path / "smoke.xml").values())
    red, output = checks(rack, tmp_path, "-n2", "--dist=loadgroup")
    assert (red, " passed" in output) == (set(), True), output
    faults = [("nvlink_lane_down", "node2", "--gpu", "5", "--link", "7")]
    faults += [("gpu_xid_condition", "node1")] if rack.has_cluster else []
    for fault in faults:
        rack.verb("virtual", "fault", RACK, *fault)
    try:
        red, output = checks(rack, tmp_path, "-k", "fabric or member")
    finally:
        for kind, node, *_ in faults:
            rack.verb("virtual", "fault", RACK, kind, node, "--clear")
    assert red == {
        ("FAILED", "test_gate[node2-gpu5-NVLINK_LINK_DOWN]"),
        ("FAILED", "test_joined_view[node2]"),
        ("ERROR", "test_gate[node2-gpu5-NVLINK_SLOW]"),
        *([("FAILED", "test_member[node1]")] if rack.has_cluster else []),
    }
    assert "next:   rackproof explain NVLINK_LINK_DOWN; then rackproof drain node2" in output


def test_plain_ansible_works_on_the_same_rack(rack, tmp_path):
    """The dynamic inventory is enough for an operator's own playbooks."""
    script = tmp_path / "inventory"
    script.write_text(f'#!/bin/sh\nexec {PROGRAM} inventory {RACK} "$@"\n')
    script.chmod(0o755)
    ansible = str(Path(sys.executable).parent / "ansible")
    output = rack.verb("virtual", "exec", RACK, "--", ansible, "-i", str(script), "nodes", "-m", "ansible.builtin.ping")
    assert output.count("pong") == 2


def test_a_node_set_aside_leaves_the_pool_and_says_why(rack):
    """quarantine, why and release, as an operator uses them."""
    rack.verb("quarantine", "node2", "--reason", "smells of smoke")
    assert "smells of smoke" in rack.verb("why", "node2")
    (admitted, _), (aside, reason) = rack.members()["node1"], rack.members()["node2"]
    assert (admitted, aside) == (True, False)
    assert "smells of smoke" in reason
    rack.verb("release", "node2", "--reason", "cable tie removed")
    assert '"PLANNED"' in rack.verb("status", RACK, "--json")


def test_a_busy_rack_is_refused_to_a_second_operator(rack):
    """Two bringups at once: the second is told who drives it, exit 3, and nothing happens."""
    first = rack.start("bringup", RACK, "--confirm", RACK)
    try:
        for _ in range(200):
            with rack.ledger() as ledger:
                if [r for r in ledger.runs(RACK, "node2", Stage.IMAGE) if r.outcome is None]:
                    break
            time.sleep(0.1)
        assert "is driven by" in rack.verb("bringup", RACK, "--confirm", RACK, expect=3)
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
