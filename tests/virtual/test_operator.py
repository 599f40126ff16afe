"""A real virtual rack by the verbs an operator types: killed twice on the way up, resumed, proven, taken down."""

import json
import os
import signal
import subprocess
import sys
import time
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
    assert "2 ADMITTED" in rack.output
    members = yaml.safe_load(rack.settings.pool("virtual").read_text())
    text = json.dumps(members, default=str)
    assert text.count('"admitted"') >= 2


def test_each_disk_was_written_once_and_each_burn_in_run_once(rack):
    """Nothing is repeated that must not be."""
    log = (rack.settings.home / "virtual" / RACK / "daemon.log").read_text()
    assert log.count('"GET /images/virtual-dgx.img.zst') == 2
    with rack.ledger() as ledger:
        intents = [e for e in ledger.events(RACK, kind=EventKind.INTENT, limit=10_000) if e.what == "burnin"]
    # a resumed run says again what it follows: it is the burn-in's own name that must not be a second one
    assert sorted((e.node, e.body["details"]["id"].rpartition("-")[0]) for e in intents[:2]) == sorted(
        (node, f"{RACK}-{node}") for node in ("node1", "node2")
    )
    assert len({e.body["details"]["id"] for e in intents}) == 2


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
    shown = json.loads(rack.verb("facts", "node1", "--json"))
    assert shown["identity"]["value"] == "VR00000001"
    assert len(shown["gpus"]["value"]["gpus"]) == 8


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
    members = yaml.safe_load(rack.settings.pool("virtual").read_text())
    assert "admitted" in json.dumps(members, default=str)
    assert "smells of smoke" in json.dumps(members, default=str)
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
