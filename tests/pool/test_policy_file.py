"""A site's pool file: what it says, where it lies, and what is told of one that is wrong."""

from __future__ import annotations

from dataclasses import fields

import pytest

from toolkit.certificate.unverified import Unverified
from toolkit.errors import InputError
from toolkit.pool.door_rule import doormen
from toolkit.pool.file import FilePool
from toolkit.pool.policy import OUR_OWN, KubernetesSite, PoolKind, PoolPolicy, Regulation, SlurmSite
from toolkit.pool.policy_file import load_policy
from toolkit.pool.policy_schema import KubernetesFile, RegulationFile, SlurmFile
from toolkit.pool.site import open_pool
from toolkit.settings import load

WHOLE = """\
kind: kubernetes
accepts: [rented, as_designed]
regulation:
  canary: 2
  growth: 1.5
  most: 64
  soak: 15m
  poll: 10s
  patience: 2m
  smoke: false
  smoke_deadline: 1h
  floor: 0.75
  drain_deadline: 90s
kubernetes:
  kubeconfig: door.kubeconfig
  context: site-a
  namespace: gpu-door
  image: registry.example/burnin:1@sha256:00
  smoke_image: registry.example/smoke:1
  taint_by: ["nvsentinel/fault-remediation"]
"""


@pytest.fixture
def site(tmp_path):
    """An installation with an inventory of its own; writes the site's pool file in one of its two places."""
    settings = load({"RACKPROOF_HOME": str(tmp_path / "home"), "RACKPROOF_INVENTORY": str(tmp_path / "inventory")})

    def written(text, folder=settings.home):
        file = folder / "pools" / "demo.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return settings, written


def test_a_site_without_a_file_has_a_pool_in_a_file(site):
    """By the defaults."""
    settings, _ = site
    assert load_policy(settings, "demo") == PoolPolicy()
    assert isinstance(open_pool(settings, "demo"), FilePool)


def test_every_field_is_read(site):
    """Durations in seconds."""
    settings, written = site
    written(WHOLE)
    policy = load_policy(settings, "demo")
    assert policy.kind is PoolKind.KUBERNETES
    assert policy.accepts == {Unverified.RENTED, Unverified.AS_DESIGNED}
    assert policy.regulation == Regulation(2, 1.5, 64, 900.0, 10.0, 120.0, False, 3600.0, 0.75, 90.0)
    assert policy.kubernetes.kubeconfig == "door.kubeconfig"
    trusted = doormen("gpu-door", policy.kubernetes.taint_by).users  # as `rackproof door install` takes them
    assert trusted == {"system:serviceaccount:nvsentinel:fault-remediation"}
    assert (policy.kubernetes.context, policy.kubernetes.namespace) == ("site-a", "gpu-door")


def test_every_field_of_a_policy_can_be_written():
    """A field that only the code can set is one that no site can."""
    durations = {"soak_s": "soak", "poll_s": "poll", "patience_s": "patience", "smoke_s": "smoke_deadline"}
    durations |= {"drain_s": "drain_deadline", "burnin_wait_s": "burnin_wait"}
    for written, read in ((RegulationFile, Regulation), (KubernetesFile, KubernetesSite), (SlurmFile, SlurmSite)):
        assert {durations.get(f.name, f.name) for f in fields(read)} == set(written.model_fields)


def test_the_files_that_are_shipped_are_good_and_the_example_shows_the_defaults(site):
    """What an operator copies is what the code does without a file."""
    settings, written = site
    inventory = load({}).inventory
    written((inventory / "examples/pool.yml").read_text())
    assert load_policy(settings, "demo") == PoolPolicy(kind=PoolKind.KUBERNETES)
    for file in (inventory / "pools").glob("*.yml"):
        written(file.read_text())
        assert load_policy(settings, "demo").kind is PoolKind.FILE


def test_what_is_not_said_is_the_default(site):
    """A file of one line is a file; so is a list of nothing that is accepted."""
    settings, written = site
    written("kind: file\n")
    assert load_policy(settings, "demo") == PoolPolicy()
    assert Unverified.RENTED not in OUR_OWN
    written("kind: file\naccepts: []\n")
    assert load_policy(settings, "demo").accepts == frozenset()


def test_the_installations_own_file_goes_before_the_inventorys(site):
    """A rehearsal may soak for seconds where the site soaks for minutes."""
    settings, written = site
    written("kind: file\nregulation: {soak: 10m}\n", settings.inventory)
    assert load_policy(settings, "demo").regulation.soak_s == 600
    written("kind: file\nregulation: {soak: 0s}\n")
    assert load_policy(settings, "demo").regulation.soak_s == 0


# What is replaced in the whole file and by what; then the problem: its line, the field, words of it.
BAD = [
    ("kind: kubernetes", "kind: kubernetis", 1, "kind", "did you mean kubernetes?"),
    ("kind: kubernetes\n", "", 1, "kind", "is missing"),
    ("kind: kubernetes", "kind: slurm", 14, "kubernetes", "this is never read"),
    ("[rented, as_designed]", "[rented, everything]", 2, "accepts[1]", "not a known unverified"),
    ("canary: 2", "canary: 0", 4, "regulation.canary", "out of range"),
    ("growth: 1.5", "growth: 1", 5, "regulation.growth", "out of range"),
    ("most: 64", "most: many", 6, "regulation.most", "not a number"),
    ("soak: 15m", "soak: 15", 7, "regulation.soak", "a number and s, m or h: 10m"),
    ("soak: 15m", "soak: 99h", 7, "regulation.soak", "from 0s to 24h"),
    ("poll: 10s", "poll: 0s", 8, "regulation.poll", "out of range"),
    ("poll: 10s", "poll:", 8, "regulation.poll", "is empty"),
    ("smoke: false", "smoke: no", 10, "regulation.smoke", "true or false"),
    ("floor: 0.75", "floor: 75", 12, "regulation.floor", "from 0 to 1"),
    ("drain_deadline: 90s", "drain_dedline: 90s", 13, "regulation.drain_dedline", "did you mean drain_deadline?"),
    ("namespace: gpu-door", "namespace: GPU door", 17, "kubernetes.namespace", "as Kubernetes has it"),
    ("door.kubeconfig", "../../etc/passwd", 15, "kubernetes.kubeconfig", "no folders"),
    ("nvsentinel/fault-remediation", "system:serviceaccount:a:b", 20, "kubernetes.taint_by[0]", "as NAMESPACE/NAME"),
    ("smoke_image: registry.example/smoke:1", "smoke_image: '-v /:/host'", 19, "kubernetes.smoke_image", "an image"),
]


@pytest.mark.parametrize(("old", "new", "line", "field", "words"), BAD)
def test_a_fault_in_the_file_has_its_line(site, old, new, line, field, words):
    """One change in a good file, one problem that says where and what."""
    settings, written = site
    assert old in WHOLE
    file = written(WHOLE.replace(old, new))
    with pytest.raises(InputError) as refused:
        load_policy(settings, "demo")
    (problem,) = refused.value.problems
    assert (problem.file, problem.line, problem.field) == (str(file), line, field)
    assert words in f"{problem.wrong} {problem.right}"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("kind: file\nregulation:\n  soak: 5m\n  smoke: true\n", 4, "a pool in a file starts no jobs"),
        ("kind: kubernetes\nregulation: {smoke: true}\n", 2, "names no smoke_image"),
        ("regulation:\n  smoke: true\nkind: slurm\nslurm: {gres: gpu}\n", 2, "names no `smoke` program"),
    ],
)
def test_a_smoke_collective_that_the_pool_does_not_have_cannot_be_asked_for(site, text, line, words):
    """By a file that says so; one that leaves the word out gets what the pool has, and is told when that is none."""
    settings, written = site
    file = written(text)
    with pytest.raises(InputError) as refused:
        load_policy(settings, "demo")
    (problem,) = refused.value.problems
    assert (problem.file, problem.line, problem.field) == (str(file), line, "regulation.smoke")
    assert words in problem.wrong and "smoke: false" in problem.right
    written(text.replace("smoke: true", "floor: 0.5"))
    assert words in load_policy(settings, "demo").no_smoke
    written(text.replace("smoke: true", "smoke: false"))
    assert "the site's policy asks for none" in load_policy(settings, "demo").no_smoke


@pytest.mark.parametrize(
    "text",
    [
        "kind: kubernetes\nregulation: {smoke: true}\nkubernetes: {smoke_image: 'registry.example/smoke:1'}\n",
        "kind: slurm\nregulation: {smoke: true}\nslurm: {smoke: /opt/all_reduce_perf}\n",
    ],
)
def test_a_smoke_collective_that_the_pool_has_is_asked_for(site, text):
    """Said, or left out."""
    settings, written = site
    for asked in (text, text.replace("regulation: {smoke: true}\n", "")):
        written(asked)
        policy = load_policy(settings, "demo")
        assert (policy.regulation.smoke, policy.no_smoke) == (True, "")


def test_all_problems_are_told_at_once(site):
    """In the file's order."""
    settings, written = site
    written(WHOLE.replace("canary: 2", "canary: x").replace("floor: 0.75", "floor: 7"))
    with pytest.raises(InputError) as refused:
        load_policy(settings, "demo")
    assert [p.field for p in refused.value.problems] == ["regulation.canary", "regulation.floor"]
