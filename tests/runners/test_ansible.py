"""Every way Ansible is green, or silent, without having done the work; against a real sshd."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from getpass import getuser
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.rack.model import Rack
from toolkit.runners.ansible import AnsibleRunner
from toolkit.runners.play import HostOutcome, PlayEvent, PlayRequest, PlayResult
from toolkit.settings import Settings

MARKER = """
      post_tasks:
        - name: Rackproof completed probe
          ansible.builtin.raw: "true"
          changed_when: false
          check_mode: false
"""
Play = Callable[..., PlayResult]


def write_playbook(settings: Settings, tasks: str, hosts: str = "nodes", marker: str = MARKER, more: str = "") -> None:
    """probe.yml: a play with these tasks that ends with the marker."""
    head = f"    - name: Probe\n      hosts: {hosts}\n{textwrap.indent(textwrap.dedent(more).strip(), ' ' * 6)}\n"
    body = "      tasks:\n" + textwrap.indent(textwrap.dedent(tasks).strip("\n"), " " * 8)
    (settings.playbooks / "probe.yml").write_text(textwrap.dedent(head + body + marker))


@pytest.fixture
def play(settings: Settings, rack: Rack) -> Play:
    """Plays probe.yml on nodes of the rack."""

    def run(*nodes: str, timeout_s: float = 60, **options: object) -> PlayResult:
        runner = AnsibleRunner(settings, user=getuser(), **options)  # type: ignore[arg-type]
        return runner.play(PlayRequest(rack, "probe.yml", nodes, "probe", timeout_s), lambda _: None)

    return run


PING = """
- name: Say hello
  ansible.builtin.raw: echo hello
"""


def test_a_host_that_reached_the_marker_is_ok(settings: Settings, rack: Rack) -> None:
    """The plain case, with live events and a record of every task."""
    write_playbook(settings, PING)
    seen: list[PlayEvent] = []
    request = PlayRequest(rack, "probe.yml", ("node1", "node2"), "probe", 60)
    result = AnsibleRunner(settings, user=getuser()).play(request, seen.append)
    assert result.status == "successful"
    assert {name: (h.outcome, h.changed) for name, h in result.hosts.items()} == {
        "node1": (HostOutcome.OK, 1),
        "node2": (HostOutcome.OK, 1),
    }
    assert PlayEvent("node1", "Say hello", "ok") in seen
    record = [json.loads(line) for line in (result.folder / "events.jsonl").read_text().splitlines()]
    assert len(record) == 4
    assert not list(result.folder.glob("artifacts/*/job_events/*"))


def test_a_failed_a_dead_and_a_good_host_each_get_their_own_result(settings: Settings, play: Play) -> None:
    """Exit status 4 hides failures that happened at the same time; the events do not."""
    write_playbook(
        settings,
        """
        - name: Break on the second
          ansible.builtin.raw: >-
            test {{ inventory_hostname }} = node1 || { printf 'no such \\033[31mGPU\\007' >&2; exit 3; }
        """,
    )
    result = play("node1", "node2", "node3")
    assert {name: h.outcome for name, h in result.hosts.items()} == {
        "node1": HostOutcome.OK,
        "node2": HostOutcome.FAILED,
        "node3": HostOutcome.UNREACHABLE,
    }
    assert result.hosts["node2"].task == "Break on the second"
    assert "no such GPU" in result.hosts["node2"].message
    assert "refused" in result.hosts["node3"].message


def test_a_play_that_matches_no_host_proves_nothing(settings: Settings, play: Play) -> None:
    """Ansible: exit status 0, successful, nothing processed."""
    write_playbook(settings, PING, hosts="nodes:!nodes")
    result = play("node1")
    assert result.status == "successful"
    assert result.hosts["node1"].outcome is HostOutcome.UNKNOWN


def test_a_play_that_leaves_out_a_host_proves_the_other_only(settings: Settings, play: Play) -> None:
    """Ansible: exit status 0, successful, one host processed."""
    write_playbook(settings, PING, hosts="node1:node_2")
    result = play("node1", "node2")
    assert [h.outcome for h in result.hosts.values()] == [HostOutcome.OK, HostOutcome.UNKNOWN]


def test_a_typo_in_a_tag_proves_nothing(settings: Settings, play: Play) -> None:
    """Ansible: exit status 0, successful, no task ran."""
    write_playbook(settings, PING)
    result = play("node1", arguments=("--tags", "drivr"))
    assert result.status == "successful"
    assert result.hosts["node1"].outcome is HostOutcome.UNKNOWN
    assert "no task ran on it" in result.hosts["node1"].message


@pytest.mark.parametrize(("limit", "status"), [("node1,zzz", "successful"), ("zzz", "failed")])
def test_a_typo_in_the_limit_leaves_hosts_unknown(settings: Settings, play: Play, limit: str, status: str) -> None:
    """Ansible: green while one good name is left, red when none is; either way we say which hosts are not proven."""
    write_playbook(settings, PING)
    result = play("node1", "node2", arguments=("--limit", limit))
    assert result.status == status
    assert result.hosts["node2"].outcome is HostOutcome.UNKNOWN
    assert result.hosts["node1"].outcome is (HostOutcome.OK if "node1" in limit else HostOutcome.UNKNOWN)


def test_a_node_the_rack_does_not_have_is_unknown_and_the_others_go_on(settings: Settings, play: Play) -> None:
    """The set that was asked for is the set that is answered."""
    write_playbook(settings, PING)
    result = play("node1", "node9")
    assert result.hosts["node1"].outcome is HostOutcome.OK
    assert result.hosts["node9"].outcome is HostOutcome.UNKNOWN


IGNORED = """
- name: Fail softly
  ansible.builtin.raw: exit 1
  ignore_errors: true
"""


def test_an_ignored_failure_is_unknown_unless_it_is_tolerated(settings: Settings, play: Play) -> None:
    """Ansible: exit status 0, successful, ignored=1."""
    write_playbook(settings, IGNORED)
    assert play("node1").hosts["node1"].outcome is HostOutcome.UNKNOWN
    tolerated = play("node1", tolerated=frozenset({"Fail softly"}))
    assert tolerated.hosts["node1"].outcome is HostOutcome.OK


def test_a_rescued_failure_is_unknown(settings: Settings, play: Play) -> None:
    """Ansible: exit status 0, successful, rescued=1."""
    write_playbook(
        settings,
        """
        - name: Guarded
          block:
            - name: Fail inside
              ansible.builtin.raw: exit 1
          rescue:
            - name: Look away
              ansible.builtin.raw: "true"
        """,
    )
    result = play("node1").hosts["node1"]
    assert result.outcome is HostOutcome.UNKNOWN
    assert "rescued" in result.message


def test_a_dead_host_under_ignore_unreachable_is_unreachable(settings: Settings, play: Play) -> None:
    """Ansible: exit status 0, successful, dark empty, the dead host counted in ok."""
    write_playbook(settings, PING, more="ignore_unreachable: true")
    result = play("node1", "node3")
    assert result.status == "successful"
    assert [h.outcome for h in result.hosts.values()] == [HostOutcome.OK, HostOutcome.UNREACHABLE]


def test_a_playbook_without_marker_proves_nothing(settings: Settings, play: Play) -> None:
    """A playbook that forgot its end cannot be told from one that was cut short."""
    write_playbook(settings, PING, marker="\n")
    assert play("node1").hosts["node1"].outcome is HostOutcome.UNKNOWN


def test_check_mode_runs_the_marker_and_changes_nothing(settings: Settings, rack: Rack, tmp_path: Path) -> None:
    """`--check` skips commands; the marker is what tells that the play came to its end."""
    target = tmp_path / "written"
    write_playbook(settings, f"- name: Write\n  ansible.builtin.copy: {{dest: {target}, content: x, mode: '0600'}}")
    request = PlayRequest(rack, "probe.yml", ("node1",), "probe", 60, check=True)
    result = AnsibleRunner(settings, user=getuser()).play(request, lambda _: None)
    assert result.hosts["node1"].outcome is HostOutcome.OK
    assert result.hosts["node1"].changed == 1
    assert not target.exists()


def test_time_over_leaves_the_hanging_host_unknown_and_the_finished_one_ok(settings: Settings, play: Play) -> None:
    """A hanging node holds nobody else, and nothing of the run lives on."""
    write_playbook(
        settings,
        """
        - name: Hang on the second
          ansible.builtin.raw: "test {{ inventory_hostname }} = node1 || exec sleep 4713"
        """,
    )
    started = time.monotonic()
    result = play("node1", "node2", timeout_s=15)
    assert result.status == "timeout"
    assert time.monotonic() - started < 27
    assert result.hosts["node1"].outcome is HostOutcome.OK
    assert result.hosts["node2"].outcome is HostOutcome.UNKNOWN
    assert "time over after 15 s" in result.hosts["node2"].message
    assert not processes_with(str(result.folder))


def test_stop_ends_the_run_and_its_processes(settings: Settings, rack: Rack) -> None:
    """What is not done when the operator stops is not known."""
    write_playbook(settings, "- name: Hang\n  ansible.builtin.raw: exec sleep 4714")
    stop = threading.Event()
    timer = threading.Timer(4, stop.set)
    timer.start()
    runner = AnsibleRunner(settings, user=getuser(), stop=stop)
    result = runner.play(PlayRequest(rack, "probe.yml", ("node1",), "probe", 60), lambda _: None)
    timer.join()
    assert result.status == "canceled"
    assert result.hosts["node1"].outcome is HostOutcome.UNKNOWN
    assert not processes_with(str(result.folder))


def test_a_missing_playbook_is_an_error_that_names_it(settings: Settings, play: Play) -> None:
    """Nothing is started."""
    result = play("node1")
    assert result.status == "error"
    assert result.hosts["node1"].outcome is HostOutcome.UNKNOWN
    assert "probe.yml" in result.hosts["node1"].message


def test_a_syntax_error_reaches_the_operator(settings: Settings, play: Play) -> None:
    """Ansible's own words, not only an exit status."""
    (settings.playbooks / "probe.yml").write_text("- hosts: nodes\n  tasks:\n    - ansible.builtin.no_such_module:\n")
    result = play("node1")
    assert result.hosts["node1"].outcome is HostOutcome.UNKNOWN
    assert "no_such_module" in result.hosts["node1"].message


def test_a_megabyte_of_escapes_is_cut_and_cleaned(settings: Settings, play: Play) -> None:
    """A node's words are bounded and printable wherever they appear."""
    write_playbook(
        settings,
        r"""
        - name: Shout
          ansible.builtin.raw: |
            i=0; while [ $i -lt 16384 ]; do printf '\033[31mshout\007%058d' $i; i=$((i+1)); done; exit 1
        """,
    )
    result = play("node1")
    host = result.hosts["node1"]
    assert host.outcome is HostOutcome.FAILED
    assert len(host.message) <= 2000
    assert "\x1b" not in (result.folder / "events.jsonl").read_text()
    assert sum(f.stat().st_size for f in result.folder.rglob("*") if f.is_file()) < 100_000


def test_a_node_cannot_forge_its_own_completion(settings: Settings, play: Play) -> None:
    """ansible-runner finds its events in Ansible's output, where a module's message appears as the node sent it."""
    forged = {
        "uuid": "11111111-2222-3333-4444-555555555555",
        "event": "runner_on_ok",
        "event_data": {"host": "node1", "task": "Rackproof completed probe", "res": {"changed": False}},
    }
    payload = base64.b64encode(json.dumps(forged).encode()).decode()
    token = f"\x1b[K{payload}\x1b[{len(payload)}D\x1b[K"
    write_playbook(settings, f"- name: Answer with it\n  ansible.builtin.fail: {{msg: {json.dumps(token)}}}")
    result = play("node1")
    assert result.hosts["node1"].outcome is HostOutcome.FAILED
    record = (result.folder / "events.jsonl").read_text()
    assert "Answer with it" in record
    assert "Rackproof completed" not in record


def test_no_secret_reaches_the_folder_or_the_process_list(
    settings: Settings, rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role reads its secret from a file under no_log; an operator's token stays in the operator's shell."""
    canary, token = "canary-5f1d7c1e", "token-09ab3344"
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text(canary)
    monkeypatch.setenv("CLOUD_TOKEN", token)
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "minimal")
    write_playbook(
        settings,
        f"""
        - name: Use the secret
          ansible.builtin.copy:
            content: "{{{{ lookup('ansible.builtin.file', '{secret}') }}}}"
            dest: {tmp_path}/used
            mode: "0600"
          no_log: true
        - name: Fail with the secret
          ansible.builtin.command: "false {{{{ lookup('ansible.builtin.file', '{secret}') }}}}"
          no_log: true
        """,
    )
    listed: list[str] = []
    request = PlayRequest(rack, "probe.yml", ("node1",), "probe", 60, {"harmless": "value-77"})

    def look(_: PlayEvent) -> None:
        listed.append(subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout)

    result = AnsibleRunner(settings, user=getuser()).play(request, look)
    assert (tmp_path / "used").read_text() == canary
    assert result.hosts["node1"].message == "hidden by no_log"
    kept = [f.read_text(errors="replace") for f in result.folder.rglob("*") if f.is_file()]
    assert any("value-77" in text for text in kept)
    assert not [text for text in kept if canary in text or token in text]
    ours = "\n".join(line for text in listed for line in text.splitlines() if "lifeline" in line or "playbook" in line)
    assert "probe.yml" in ours
    assert canary not in ours
    assert token not in ours
    assert all(f.stat().st_mode & 0o077 == 0 for f in result.folder.rglob("*.json") if "inventory" in str(f))


def test_a_second_run_of_the_same_name_gets_its_own_folder(settings: Settings, play: Play) -> None:
    """Resume is running again; the first record stays."""
    write_playbook(settings, PING)
    first, second = play("node1"), play("node1")
    assert first.folder != second.folder
    assert (first.folder / "events.jsonl").exists()


def test_a_run_cannot_be_named_out_of_its_folder(settings: Settings, rack: Rack) -> None:
    """A path is not a name."""
    with pytest.raises(UsageError):
        AnsibleRunner(settings).play(PlayRequest(rack, "probe.yml", ("node1",), "../x", 1), lambda _: None)


def test_sites_group_variables_reach_the_play(settings: Settings, play: Play) -> None:
    """The run uses the group_vars that plain ansible-playbook would; what the caller passes is stronger."""
    (settings.inventory / "group_vars" / "virtual.yml").write_text("word: site\n")
    write_playbook(settings, "- name: Say it\n  ansible.builtin.raw: test {{ word }} = site")
    assert play("node1").hosts["node1"].outcome is HostOutcome.OK


CONTROLLER = """
import sys
from pathlib import Path
import pickle
sys.path.insert(0, sys.argv[1])
settings, rack, user = pickle.loads(Path(sys.argv[2]).read_bytes())
from toolkit.runners.ansible import AnsibleRunner
from toolkit.runners.play import PlayRequest
request = PlayRequest(rack, "probe.yml", ("node1", "node2"), "probe", 600)
AnsibleRunner(settings, user=user).play(request, lambda _: None)
"""


def test_sigkill_of_the_controller_takes_ansible_with_it(settings: Settings, rack: Rack, tmp_path: Path) -> None:
    """Without the lifeline ansible-playbook goes on, and the operator's second run meets it on the nodes."""
    write_playbook(settings, "- name: Hang\n  ansible.builtin.raw: exec sleep 4715")
    (tmp_path / "pickle").write_bytes(pickle.dumps((settings, rack, getuser())))
    repository = str(Path(__file__).resolve().parents[2])
    argv = [sys.executable, "-c", CONTROLLER, repository, str(tmp_path / "pickle")]
    controller = subprocess.Popen(argv)
    wait_for(lambda: len(processes_with("sleep 4715")) >= 2)
    (running, *_) = processes_with("lifeline.py", str(settings.home))
    scratch = next(Path(word).parent for word in running.split() if word.endswith("/lifeline"))
    assert scratch.is_dir()
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    wait_for(lambda: not processes_with(str(settings.home)))
    assert not scratch.exists()


def processes_with(*words: str) -> list[str]:
    """Command lines, of every process but this one, that contain all words."""
    listed = subprocess.run(["ps", "axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line for line in listed.splitlines() if all(word in line for word in words)]
    return [line for line in lines if int(line.split()[0]) != os.getpid()]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Fails when the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.1)
