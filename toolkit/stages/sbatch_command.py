"""A burn-in as a Slurm job: its name, its folder, sbatch's command line and the script that runs on the node. Pure.

The job has the whole node, in the rack's maintenance reservation. It is never requeued, for what was cut is looked at
before it is begun again. What it prints goes to a file on shared storage, in frames (burnin/frames.py): a line that
somebody else puts there, or that is lost, is found.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from toolkit.pool.policy import SlurmSite
from toolkit.runners.carrier import Task

CLAIM = "job"  # file with the number of the one job that may run this identity
PROGRAM = "program"  # file with the sha256 of the program that was ordered
_SLACK_SECONDS = 180.0  # to copy the program, to start, and to write out what is left at the end
_PREFIX = "rackproof-burnin"
# exit 75: another job has this run; 90: the program is not the one that was ordered
_SCRIPT = """#!/bin/sh
# rackproof: burn-in {identity} of {node}
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
(set -C; echo "$SLURM_JOB_ID" >{claim}) 2>/dev/null || exit 75
work=$(mktemp -d /tmp/rackproof-burnin.XXXXXXXX) || exit 74
trap 'rm -rf "$work"' EXIT
trap 'kill -TERM "$child" 2>/dev/null; wait "$child"' TERM
cp {program} "$work/burnin.pyz" || exit 74
echo "{digest}  $work/burnin.pyz" | sha256sum --check --status || {{ echo "the program is not {digest}"; exit 90; }}
export RACKPROOF_CARRIER="{carrier}$SLURM_JOB_ID" RACKPROOF_NODE="$SLURMD_NODENAME" PYTHONDONTWRITEBYTECODE=1
python3 -I "$work/burnin.pyz" emit --run {identity} --out "$work/out" --program {digest} -- {arguments} &
child=$!
wait "$child"
"""
_CARRIER = "slurm-"


def job_name(node: str, identity: str) -> str:
    """Of the run's job: the same for the same run."""
    return f"{_PREFIX}:{node}:{identity}"


def is_of(name: str, node: str) -> bool:
    """Whether a job of that name is a burn-in of the node."""
    return name.startswith(f"{_PREFIX}:{node}:")


def carrier_of(job: str) -> str:
    """What the program is told that carries it: of its frames' chain."""
    return f"{_CARRIER}{job}"


def program_path(shared: Path, digest: str) -> Path:
    """Where the program lies on shared storage."""
    return shared / f"burnin-{digest[:20]}.pyz"


def folder_of(shared: Path, identity: str) -> Path:
    """Where a run's claim and output lie."""
    return shared / "runs" / identity


def sbatch(site: SlurmSite, node: str, task: Task, reservation: str) -> tuple[str, ...]:
    """Arguments of sbatch; the script comes on its standard input."""
    given = {"partition": site.partition, "account": site.account, "qos": site.qos}
    gres = (f"--gres={site.gres}:{task.gpus}",) if site.gres and task.gpus else ()
    minutes = -(-int(task.longest_s + _SLACK_SECONDS) // 60)
    output = folder_of(Path(site.shared), task.identity) / "%j.log"
    return (
        "--parsable", f"--job-name={job_name(node, task.identity)}", f"--nodelist={node}", "--nodes=1", "--ntasks=1",
        *(f"--{name}={value}" for name, value in given.items() if value), f"--reservation={reservation}",
        "--exclusive", "--mem=0", *gres, "--nice", "--no-requeue", f"--time={minutes}", "--export=NIL", "--chdir=/",
        "--input=/dev/null", f"--output={output}", "--open-mode=append",
    )  # fmt: skip


def script(site: SlurmSite, node: str, task: Task, digest: str) -> bytes:
    """The batch script: claims the run, checks the program, runs it."""
    shared = Path(site.shared)
    return _SCRIPT.format(
        identity=shlex.quote(task.identity),
        node=shlex.quote(node),
        claim=shlex.quote(str(folder_of(shared, task.identity) / CLAIM)),
        program=shlex.quote(str(program_path(shared, digest))),
        digest=digest,
        carrier=_CARRIER,
        arguments=shlex.join(task.arguments),
    ).encode()
