"""The documents of a burn-in in Kubernetes: what a pod asks for, where it may go, and what it may do there."""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

import burnin
from toolkit.runners.carrier import Task
from toolkit.runners.job_manifest import PART_BYTES, JobSite, Program, claim_template, job, job_name

SITE = JobSite("rackproof", "nvcr.io/nvidia/pytorch:25.10-py3")
TASK = Task("Rack_7-node12-3.again", 8, ("--suite", "quick", "--gpus", "8"), 900.0)
PROGRAM = Program.of(bytes(range(256)) * 9000)
BOOT = Path(burnin.__file__).parent / "boot.py"


def pod(site: JobSite = SITE, claim: str = "") -> dict:
    """The Job's pod."""
    return job(site, "node12", TASK, PROGRAM, BOOT.read_text(), claim)["spec"]["template"]["spec"]


def test_a_pod_asks_for_every_gpu_of_its_node_and_goes_nowhere_else():
    """By the node's name itself: labels may lie."""
    (container,) = pod()["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    (term,) = pod()["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node12"]}]}
    tolerated = {t["key"] for t in pod()["tolerations"]}
    assert tolerated == {"rackproof.dev/uncertified", "node.kubernetes.io/unschedulable", "nvidia.com/gpu"}


def test_a_job_preempts_nobody_runs_once_and_ends_by_itself():
    """Its own deadline is past the pod's, which keeps the log; the pod's past the suite's and the wait."""
    spec = job(SITE, "node12", TASK, PROGRAM, "", "")["spec"]
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (0, 1, 1)
    assert pod()["priorityClassName"] == "rackproof-burnin" and pod()["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] > pod()["activeDeadlineSeconds"] > 900 + SITE.start_s
    assert spec["ttlSecondsAfterFinished"] >= 86_400


def test_a_pod_has_no_more_of_the_host_than_the_kernel_log():
    """One file of the host, for which it is privileged; without that, nothing of it."""
    paths = [v["hostPath"]["path"] for v in pod()["volumes"] if "hostPath" in v]
    assert paths == ["/dev/kmsg"] and pod()["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())
    (shm,) = (v for v in pod()["volumes"] if v["name"] == "shm")
    assert shm["emptyDir"]["medium"] == "Memory"
    small = pod(replace(SITE, kernel_log=False))
    assert not [v for v in small["volumes"] if "hostPath" in v]
    security = small["containers"][0]["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]} and "privileged" not in security
    assert small["containers"][0]["args"][-2:] == ["--kernel-log", "/nonexistent"]


@pytest.mark.parametrize("version", ["resource.k8s.io/v1", "resource.k8s.io/v1beta1"])
def test_gpus_come_by_claim_where_the_device_plugin_does_not_give_them(version: str):
    """All of the node's, never both ways: over-admission otherwise."""
    claimed = pod(claim=version)
    (container,) = claimed["containers"]
    assert "limits" not in container["resources"] and container["resources"]["claims"] == [{"name": "gpus"}]
    template = claim_template(SITE, TASK, version)
    assert claimed["resourceClaims"][0]["resourceClaimTemplateName"] == template["metadata"]["name"]
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    asked = request if version.endswith("beta1") else request["exactly"]
    assert (asked["deviceClassName"], asked["allocationMode"]) == ("gpu.nvidia.com", "All")


def test_a_run_has_one_name_and_two_runs_never_the_same():
    """Short enough for the label that the Job controller makes of it."""
    names = {job_name(i) for i in ("a-1", "a.1", "A-1", "a-" + "x" * 120 + "1", "a-" + "x" * 120 + "2", "..")}
    assert len(names) == 6 and all(len(name) <= 58 for name in names)
    assert job_name("a-1") == job_name("a-1")


def test_the_program_is_parts_that_fit_and_join_to_the_same_bytes(tmp_path):
    """Immutable, named by the digest; the pod joins them, checks them, and becomes the program."""
    script = b"import sys; print('became', sys.argv[1:])\n" + b"# padding\n" * 200_000
    program = Program.of(script)
    maps = program.config_maps("rackproof")
    assert len(maps) == 3 and all(m["immutable"] for m in maps)
    assert all(
        len(m["binaryData"]["part"]) < 1_300_000 and m["metadata"]["name"].find(program.digest[:20]) > 0 for m in maps
    )
    assert max(map(len, program.parts)) == PART_BYTES < 1 << 20
    for number, each in enumerate(maps):
        (tmp_path / f"parts/{number:02d}").mkdir(parents=True)
        (tmp_path / f"parts/{number:02d}/part").write_bytes(base64.b64decode(each["binaryData"]["part"]))
    argv = [sys.executable, "-I", "-c", BOOT.read_text(), sha256(script).hexdigest(), str(tmp_path / "parts")]
    argv += [str(tmp_path / "program.py"), "emit", "--run", "r"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "became ['emit', '--run', 'r']\n")
    (tmp_path / "parts/01/part").write_bytes(b"else")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 90 and "are not the program that was ordered" in done.stderr
