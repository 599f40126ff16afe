"""recert_schedule.yml on a real machine: units that systemd takes, that are confined, and that tell how a run ended."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.playbooks.conftest import Machines, Story
from toolkit.runners.play import HostOutcome

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(1200)]
RACK, SITE = "dgx-h100-su", "hall7"
RECERT, TIMER, DOOR = (
    f"rackproof-recert@{RACK}.service",
    f"rackproof-recert@{RACK}.timer",
    f"rackproof-door@{SITE}.service",
)
METRICS = "rackproof-metrics@ledger"
HOME = "/var/lib/rackproof"
SECRET = 'pa$s "word" with \\ and `ticks`'
WANTED: Mapping[str, object] = {
    "recert_schedule_hosts": "nodes",
    "recert_schedule_racks": [RACK, "demo"],
    "recert_schedule_jitter_s": 1,
    "door_watch_sites": [SITE],
    "metrics_textfile_state": "present",
    "controller_service_secrets": {"RACKPROOF_KEY_PASSPHRASE": SECRET},
}
# The real rackproof, from the checkout; where a test says so, what the test wants to see of the service instead.
PROGRAM = f"""#!/bin/sh
[ "$1" = metrics ] || echo "$*" >>{HOME}/calls
[ -e {HOME}/script ] && [ "$1" != metrics ] && {{ . {HOME}/script; exit; }}
export PYTHONPATH=/opt/rackproof/packages:/opt/rackproof/checkout
exec /usr/bin/python3 -c 'from toolkit.cli import main; main()' "$@"
"""


def play(nodes: Machines, check: bool = False, **variables: object) -> list[str]:
    """Tasks of the playbook that changed something on node1, which is the controller."""
    host = nodes.try_play("recert_schedule.yml", check, ("node1",), **{**WANTED, **variables})["node1"]
    assert host.outcome is HostOutcome.OK, host
    return list(nodes.tasks.get("node1", []))


@pytest.fixture(scope="module")
def controller(brought_up: Story) -> Iterator[Machines]:
    """A node as the machine that rackproof is installed on, its jobs scheduled by the playbook."""
    nodes = brought_up.nodes
    program = nodes.roots["node1"] / "opt/rackproof/bin/rackproof"
    program.parent.mkdir(exist_ok=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    refused = nodes.try_play("recert_schedule.yml", False, ("node1",), **WANTED)["node1"]
    assert "rackproof-recert needs the user rackproof" in refused.message
    nodes.sh(
        f"id rackproof 2>/dev/null || useradd --system --home-dir {HOME} rackproof;"
        f"install -d -m 700 -o rackproof -g rackproof {HOME}"
    )
    assert nodes.sh("getent passwd rackproof").split(":")[5] == HOME
    says(nodes, "exit 0")
    foretold = play(nodes, check=True)
    assert {"Write the unit", "Write the timer"} <= set(foretold)
    assert nodes.sh("ls /etc/systemd/system | grep -c rackproof-recert || true").strip() == "0"
    assert set(foretold) <= set(play(nodes))
    yield nodes


def says(nodes: Machines, script: str) -> None:
    """What the program does from now on, where it is not asked for metrics."""
    nodes.sh(f"cat >{HOME}/script.new <<'END'\n{script}\nEND\nmv {HOME}/script.new {HOME}/script; rm -f {HOME}/calls")


def shown(nodes: Machines, unit: str, name: str) -> str:
    """A property of the unit."""
    return nodes.sh(f"systemctl show -P {name} {unit}").strip()


def until(nodes: Machines, unit: str, wanted: Callable[[str], bool], name: str = "SubState") -> str:
    """The property once it is as wanted."""
    end = time.monotonic() + 30
    while not wanted(found := shown(nodes, unit, name)):
        assert time.monotonic() < end, nodes.sh(f"systemctl status --no-pager {unit} || true")
        time.sleep(0.1)
    return found


def ended(nodes: Machines, script: str) -> dict[str, str]:
    """ActiveState, SubState, Result and ExecMainStatus of a run that did this."""
    says(nodes, script)
    said = nodes.sh(f"""
        systemctl reset-failed {RECERT} 2>/dev/null; systemctl stop {RECERT}; systemctl start --no-block {RECERT}
        for i in $(seq 600); do
            now=$(systemctl show -P SubState {RECERT})
            case $now in dead | failed | auto-restart) break ;; esac
            sleep 0.05
        done
        systemctl show -p ActiveState -p SubState -p Result -p ExecMainStatus {RECERT}""")
    return dict(line.split("=", 1) for line in said.splitlines())


def was(active: str, sub: str, result: str, status: int) -> dict[str, str]:
    """What `ended` answers."""
    return {"ActiveState": active, "SubState": sub, "Result": result, "ExecMainStatus": str(status)}


def test_a_second_run_changes_nothing_and_systemd_finds_no_fault(controller: Machines) -> None:
    """Units as systemd itself verifies them, for an instance of each."""
    assert play(controller) == []
    units = f"{TIMER} {RECERT} {DOOR} {METRICS}.timer {METRICS}.service"
    assert controller.sh(f"systemd-analyze verify --man=no {units} 2>&1").strip() == ""
    assert controller.sh(f"systemctl is-enabled {TIMER} {DOOR} {METRICS}.timer").split() == ["enabled"] * 3


def test_the_services_are_confined_and_secrets_are_roots(controller: Machines) -> None:
    """By systemd's own count of exposure (0 to 10), and by who can read what."""
    for unit in (RECERT, DOOR, f"{METRICS}.service"):
        said = controller.sh(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        found = re.search(r"exposure level for \S+: ([\d.]+)", said)
        assert found, said
        assert float(found[1]) <= 2.0, said
    for name in ("rackproof-recert", "rackproof-door", "rackproof-metrics"):
        assert controller.sh(f"stat -c '%a %U' /etc/default/{name}").split() == ["600", "root"]
    assert SECRET not in controller.sh("cat /etc/systemd/system/rackproof-*; journalctl --no-pager")


def test_a_run_sees_its_secret_and_can_do_its_work_in_there(controller: Machines) -> None:
    """The real program keeps its ledger, ssh and Ansible run, who holds a rack is seen; /etc is not its to write."""
    lines = [
        f'[ "$RACKPROOF_KEY_PASSPHRASE" = {shlex.quote(SECRET)} ] && echo secret >&3',
        "export PYTHONPATH=/opt/rackproof/packages:/opt/rackproof/checkout",
        f"python3 -c 'from toolkit.cli import main; main()' status {RACK} --json >/dev/null && echo ledger >&3",
        "python3 -m ansible playbook -i localhost, -c local /opt/rackproof/checkout/playbooks/undo.yml --list-tasks"
        " >/dev/null && echo ansible >&3",
        "python3 -m ansible adhoc -i localhost, -c local -e ansible_python_interpreter=/usr/bin/python3 -m ping all"
        " >&2 && echo module >&3",
        "ssh-keygen -q -t ed25519 -N '' -f $RACKPROOF_HOME/probe && echo key >&3",
        "[ -e /proc/1/stat ] && echo others >&3",
        "touch /etc/made 2>/dev/null || echo etc >&3",
        "unshare --user true 2>/dev/null || echo namespaces >&3",
        "ls /root >/dev/null 2>&1 || echo logins >&3",
    ]
    alone = '[ "$1" = recert ] || exit 0'  # the door's unit runs the same program, whenever systemd starts it again
    body = "\n".join([alone, f"exec 3>{HOME}/seen", "export HOME=/tmp", *lines, "exit 0"])
    assert ended(controller, body) == was("inactive", "dead", "success", 0)
    wanted = "secret ledger ansible module key others etc namespaces logins"
    assert controller.sh(f"cat {HOME}/seen").split() == wanted.split(), controller.sh(
        f"journalctl --no-pager -u {RECERT}"
    )


def test_exit_statuses_are_told_apart(controller: Machines) -> None:
    """0 is done; 1, 2 and 4 are failed units; 3 is neither: it is tried again, by hand at once."""
    assert ended(controller, "exit 0") == was("inactive", "dead", "success", 0)
    for status in (1, 2, 4):
        assert ended(controller, f"exit {status}") == was("failed", "failed", "exit-code", status)
    assert ended(controller, "exit 3") == was("activating", "auto-restart", "exit-code", 3)
    assert RECERT not in controller.sh("systemctl --failed --no-legend --plain")
    assert shown(controller, RECERT, "RestartUSec") == "30min"
    says(controller, "exit 0")
    controller.sh(f"systemctl restart {RECERT}")
    assert until(controller, RECERT, lambda text: text == "dead") == "dead"


def test_what_a_run_is_asked(controller: Machines) -> None:
    """What is due, and nothing beside it. The unit of the door, which systemd starts again, asks on its own."""
    ended(controller, "exit 1")
    calls = controller.sh(f"cat {HOME}/calls").splitlines()
    assert [call for call in calls if not call.startswith("door ")] == [f"recert run {RACK} --due --json"]


def test_the_real_program_writes_numbers_again_and_again_and_knows_no_secret_but_the_ledger(
    controller: Machines,
) -> None:
    """From the ledger of this installation, for whoever reads the folder; long before the alert of an hour."""
    controller.sh(f"systemctl start {METRICS}.service")
    assert shown(controller, f"{METRICS}.service", "Result") == "success"
    text = controller.sh("cat /var/lib/rackproof-metrics/rackproof.prom")
    assert "rackproof_build_info" in text
    assert controller.sh("stat -c '%a %U' /var/lib/rackproof-metrics/rackproof.prom").split() == ["644", "rackproof"]
    assert until(controller, f"{METRICS}.timer", lambda text: text == "waiting") == "waiting"
    assert (
        controller.sh("grep -h ^OnUnitInactiveSec /etc/systemd/system/rackproof-metrics@.timer")
        .strip()
        .endswith("=300s")
    )
    assert "PASSPHRASE" not in controller.sh("cat /etc/default/rackproof-metrics")


def test_a_stopped_run_is_interrupted_as_by_hand(controller: Machines) -> None:
    """SIGINT to the program alone, which puts its things in order; then it is over and is not tried again."""
    says(controller, f"trap 'echo order >>{HOME}/order; exit 3' INT; echo >{HOME}/began; while :; do sleep 0.1; done")
    controller.sh(f"rm -f {HOME}/order {HOME}/began; systemctl start --no-block {RECERT}")
    until(controller, RECERT, lambda text: text == "running")
    controller.sh(f"for i in $(seq 100); do [ -e {HOME}/began ] && exit; sleep 0.1; done; exit 1")
    controller.sh(f"systemctl stop {RECERT}")
    assert controller.sh(f"cat {HOME}/order") == "order\n"
    assert shown(controller, RECERT, "ActiveState") != "activating"
    assert shown(controller, RECERT, "TimeoutStopUSec") == "3min"


def test_a_run_that_lasts_too_long_is_interrupted_and_goes_on_later(controller: Machines) -> None:
    """Its end in order counts as undecided. With a limit of two seconds in place of hours."""
    shorter = f"/run/systemd/system/{RECERT}.d"
    controller.sh(f"mkdir -p {shorter}; printf '[Service]\\nRuntimeMaxSec=2\\n' >{shorter}/limit.conf")
    controller.sh("systemctl daemon-reload")
    waits = "trap 'exit 3' INT; while :; do sleep 0.1; done"
    assert ended(controller, waits) == was("activating", "auto-restart", "timeout", 3)
    controller.sh(f"systemctl stop {RECERT}; rm -r {shorter}; systemctl daemon-reload")


def test_runs_that_were_missed_are_made_up_for_by_one(controller: Machines) -> None:
    """Three days off: one run soon after the timer is back, and the next at its time."""
    says(controller, "exit 0")
    stamp = f"/var/lib/systemd/timers/stamp-{TIMER}"
    controller.sh(
        f"systemctl reset-failed; systemctl stop {TIMER}; touch -d '3 days ago' {stamp}; systemctl start {TIMER}"
    )
    before = time.monotonic()
    while "recert run" not in controller.sh(f"cat {HOME}/calls 2>/dev/null || true"):
        assert time.monotonic() < before + 90, controller.sh(f"systemctl status --no-pager {TIMER}")
        time.sleep(0.5)
    until(controller, RECERT, lambda text: text == "dead")
    until(controller, TIMER, lambda text: text == "waiting")
    assert controller.sh(f"grep -c 'recert run' {HOME}/calls").strip() == "1"
    elapses = controller.sh(f"date -d \"$(systemctl show -P NextElapseUSecRealtime {TIMER})\" '+%H:%M'").strip()
    assert elapses in ("01:00", "01:01")


def test_the_door_is_kept_whatever_ends_it_but_a_wrong_file(controller: Machines) -> None:
    """It comes back by itself; on status 2 it is failed."""
    says(controller, "exec sleep 1000")
    controller.sh(f"systemctl restart {DOOR}")
    until(controller, DOOR, lambda text: text == "running")
    assert controller.sh(f"cat {HOME}/calls").strip() == f"door watch --site {SITE}"
    controller.sh(f"kill -KILL $(systemctl show -P MainPID {DOOR})")
    assert until(controller, DOOR, lambda text: text == "auto-restart") == "auto-restart"
    says(controller, "exit 2")
    controller.sh(f"systemctl start {DOOR} || true")
    assert until(controller, DOOR, lambda text: text == "failed") == "failed"


def test_a_rack_that_is_taken_off_and_the_undo_leave_nothing_behind(controller: Machines) -> None:
    """First one rack, then all; no unit, no secret, nothing failed; the home stays."""
    assert "Disable the instance" in play(controller, recert_schedule_racks=[RACK])
    assert controller.sh("systemctl list-timers --all --no-legend 'rackproof-*'").split().count(TIMER) == 1
    gone = {"recert_schedule_state": "absent", "door_watch_state": "absent", "metrics_textfile_state": "absent"}
    foretold = play(controller, check=True, **gone)
    assert controller.sh(f"systemctl is-enabled {TIMER}").strip() == "enabled"
    assert set(foretold) == set(play(controller, **gone))
    assert play(controller, **gone) == []
    assert controller.sh("find /etc -name '*rackproof-[rdm]*'; ls /var/lib/rackproof-metrics").split() == []
    assert controller.sh("systemctl --all --no-legend list-units 'rackproof-[rdm]*'").split() == []
    assert controller.sh(f"stat -c %U {HOME}").strip() == "rackproof"
