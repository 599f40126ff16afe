"""recert_cronjob in a real API server: foretold, applied, left alone, taken back; and what its pod's scripts do."""

# ruff: noqa: F811 - fixtures that are imported are named again where they are asked for
from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.plane import api, control_plane  # noqa: F401
from tests.playbooks.local_plays import PLAYBOOKS, Book, local, play_book
from toolkit.kubernetes.client import ApiServer
from toolkit.virtual.control_plane.plane import ControlPlane

SPACE = "recert-cronjob"
RACKS = ("hall7-r1", "hall7-r2")
NAMES = {rack: f"rackproof-recert-{rack}" for rack in RACKS}
FILES = PLAYBOOKS / "roles/recert_cronjob/files"


def on(name: str, **variables: object) -> dict[str, object]:
    """The role with two racks, or as told."""
    wanted = {"recert_cronjob_racks": list(RACKS), **variables}
    return {"name": name, "hosts": "controller", "roles": [{"role": "recert_cronjob"}], "vars": wanted}


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, object]:
    """Where the role finds what it calls."""
    return {
        "recert_cronjob_kubeconfig": str(control_plane.kubeconfig("recert", ("system:masters",))),
        "recert_cronjob_kubectl": str(Path(sys.executable).with_name("kubectl")),
        "recert_cronjob_namespace": SPACE,
        "recert_cronjob_image": "registry.example/rackproof@sha256:" + "0" * 64,
        "recert_cronjob_file": str(tmp_path_factory.mktemp("manifest") / "cronjob.yaml"),
    }


@pytest.fixture(scope="module")
def story(site: Mapping[str, object], api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> list[Book]:
    """Foretold; applied, again, written down, one rack less; the undo foretold, and refused without its secrets."""
    folder = tmp_path_factory.mktemp("cronjob")
    hosts = {"controller": {"controller1": local()}}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    for name in ("environment", "files"):
        meta = {"name": f"rackproof-controller-{name}", "namespace": SPACE}
        api.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    done = [on("applied"), on("again"), on("written", recert_cronjob_state="file")]
    done.append(on("less", recert_cronjob_racks=["hall7-r1"]))
    asked = [on("undo", recert_cronjob_state="absent"), on("refused", recert_cronjob_secret="nobodys")]
    return [
        play_book(folder, [on("foretold")], hosts, site, check=True),
        play_book(folder, done, hosts, site),
        play_book(folder, asked, hosts, site, check=True),
    ]


def test_a_cluster_without_the_secrets_is_refused_with_what_to_do(story: list[Book]) -> None:
    """Before anything is touched."""
    said = " ".join(story[-1].text.split())
    assert "needs the Secrets nobodys-environment and nobodys-files, and has neither" in said
    assert story[-1].plays["refused"].changed == ()


def test_it_is_applied_as_foretold_then_left_alone_and_what_is_not_wanted_goes(
    story: list[Book], api: ApiServer
) -> None:
    """One rack taken off loses its CronJob; the undo is foretold and touches nothing; the claim is never deleted."""
    assert [book.code for book in story] == [0, 0, 2], "\n".join(book.text[-2000:] for book in story)
    changed = {name: play.changed for book in story for name, play in book.plays.items()}
    assert changed == {
        "foretold": (("controller1", "Compare it"),),
        "applied": (("controller1", "Apply it"),),
        "again": (),
        "written": (("controller1", "Write it down"),),
        "less": (("controller1", "Delete what is not wanted"),),
        "undo": (("controller1", "Delete what is not wanted"),),
        "refused": (),
    }
    assert "persistentvolumeclaim" not in story[-1].plays["undo"].text
    kept = [job["metadata"]["name"] for job in api.list(version(api), "CronJob", SPACE)]
    assert kept == [NAMES["hall7-r1"]]


def version(api: ApiServer) -> str:
    """Of CronJobs, on this server."""
    return "batch/v1" if api.serves("batch/v1", "CronJob") else "batch/v1beta1"


@pytest.mark.usefixtures("story")
def test_the_server_has_what_was_meant(api: ApiServer) -> None:
    """Never two at once, one start made up for, no second pod; under an account without a token, confined."""
    found = api.get(version(api), "CronJob", NAMES["hall7-r1"], SPACE)
    assert found is not None
    spec: dict[str, Any] = found["spec"]
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 72000)
    minute, rest = spec["schedule"].split(" ", 1)
    assert (0 <= int(minute) < 60, rest) == (True, "1 * * *")
    job = spec["jobTemplate"]["spec"]
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (0, 43200)
    pod = job["template"]["spec"]
    assert (pod["restartPolicy"], pod["serviceAccountName"]) == ("Never", "rackproof-recert")
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/var/lib/rackproof/keys"]["readOnly"] is True
    assert pod["containers"][0]["args"][1:] == ["recert", "hall7-r1", "1800"]
    bound = [*api.list("rbac.authorization.k8s.io/v1", "RoleBinding", SPACE)]
    bound += api.list("rbac.authorization.k8s.io/v1", "ClusterRoleBinding")
    assert not [b for b in bound for s in b.get("subjects") or () if s["name"] == "rackproof-recert"]


@pytest.mark.usefixtures("story")
def test_the_cluster_makes_a_pod_of_it(api: ApiServer) -> None:
    """Admitted as it is: the Job controller makes the pod that the CronJob's Job asks for."""
    found = api.get(version(api), "CronJob", NAMES["hall7-r1"], SPACE)
    assert found is not None
    template = found["spec"]["jobTemplate"]
    meta = {"name": "by-hand", "namespace": SPACE, "labels": template["metadata"]["labels"]}
    api.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]})
    end = time.monotonic() + 20
    while not (pods := api.list("v1", "Pod", SPACE)):
        assert time.monotonic() < end, api.list("v1", "Event", SPACE)
        time.sleep(0.1)
    assert pods[0]["metadata"]["labels"]["rackproof.dev/recert"] == "hall7-r1"


@pytest.mark.usefixtures("story")
def test_the_manifest_for_others_to_apply_is_the_same(site: Mapping[str, object], api: ApiServer) -> None:
    """State file: batch/v1, both racks; each starts at a minute of its own."""
    documents = list(yaml.safe_load_all(Path(str(site["recert_cronjob_file"])).read_text()))
    assert [d["kind"] for d in documents] == ["ServiceAccount", "PersistentVolumeClaim", "CronJob", "CronJob"]
    jobs = {d["metadata"]["name"]: d for d in documents if d["kind"] == "CronJob"}
    assert {job["apiVersion"] for job in jobs.values()} == {"batch/v1"}
    assert len({job["spec"]["schedule"] for job in jobs.values()}) == 2
    served = api.get(version(api), "CronJob", NAMES["hall7-r1"], SPACE)
    assert served is not None
    wanted = jobs[NAMES["hall7-r1"]]["spec"]
    assert served["spec"]["schedule"] == wanted["schedule"]
    script = wanted["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    assert script == (FILES / "recert.sh").read_text()
    assert served["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"][0] == script


def running(folder: Path, program: str) -> subprocess.Popen[str]:
    """The pod's script over that rackproof, which it waits 0.1 s for where it is undecided."""
    rackproof = folder / "bin/rackproof"
    rackproof.parent.mkdir(parents=True)
    rackproof.write_text(f"#!/bin/sh\ncd {folder}\n{program}")
    rackproof.chmod(0o755)
    argv = ["sh", "-uc", (FILES / "recert.sh").read_text(), "recert", "hall7-r1", "0.1"]
    told = os.environ | {"PATH": f"{rackproof.parent}:/usr/bin:/bin"}
    return subprocess.Popen(argv, env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("status", [0, 1, 2, 4])
def test_a_pod_tries_again_what_is_undecided_and_ends_with_what_came_of_it(tmp_path: Path, status: int) -> None:
    """3 twice, then what the third try said; each asks for what is due."""
    program = f'echo "$*" >>calls; [ "$(wc -l <calls)" -lt 3 ] && exit 3; exit {status}'
    with running(tmp_path, program) as pod:
        said = pod.communicate(timeout=20)[0]
    assert pod.returncode == status
    assert said.count("undecided: again in 0.1 s") == 2
    assert (tmp_path / "calls").read_text() == "recert run hall7-r1 --due --json\n" * 3


def test_a_pod_that_is_stopped_interrupts_the_run_and_waits_for_it(tmp_path: Path) -> None:
    """The run ends in order; the pod's status is undecided, and nothing begins again."""
    program = 'trap "echo order >order; exit 3" INT; echo >began; while :; do sleep 0.05; done'
    with running(tmp_path, program) as pod:
        end = time.monotonic() + 20
        while not (tmp_path / "began").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        pod.terminate()
        assert pod.wait(20) == 3
    assert (tmp_path / "order").read_text() == "order\n"


def test_secrets_become_files_that_rackproof_takes(tmp_path: Path) -> None:
    """Two underscores are a slash; nobody else can read them, though the Secret's own files can be read by a group."""
    source, private = tmp_path / "files", tmp_path / "private"
    source.mkdir()
    for name in ("keys__login", "secrets__hall7__bmc.yml"):
        (source / name).write_text(name)
        (source / name).chmod(0o440)
    script = (FILES / "secrets.sh").read_text().replace("/private", str(private)).replace("/files", str(source))
    subprocess.run(["sh", "-euc", script], check=True)
    made = {str(p.relative_to(private)): p for p in private.rglob("*") if p.is_file()}
    assert sorted(made) == ["keys/login", "secrets/hall7/bmc.yml"]
    assert {p.stat().st_mode & 0o777 for p in made.values()} == {0o600}
    assert {p.stat().st_mode & 0o777 for p in private.rglob("*") if p.is_dir()} == {0o700}
