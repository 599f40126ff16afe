"""Kubernetes Events of a rack's results: a real API server takes them, and gives them back as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kubernetes.plane import api, control_plane
from toolkit.export.events import events
from toolkit.export.results import Answered

__all__ = ["api", "control_plane"]
KUBECTL = Path(sys.executable).with_name("kubectl")


def items(results):
    return json.loads(events(results))["items"]


def test_every_run_and_every_node_is_an_event_and_only_a_pass_is_normal(found):
    """Gates are none: a cluster's events are no place for thousands of lines."""
    told = items(found)
    cases = [c for _, c in found.cases() if c.name in ("outcome", "admitted") and c.answer is not Answered.SKIPPED]
    assert len(told) == len(cases) > 10
    assert [e["type"] == "Normal" for e in told] == [c.answer is Answered.PASSED for c in cases]
    assert len({e["metadata"]["name"] for e in told}) == len(told)
    (certify,) = [e for e in told if e["involvedObject"]["name"] == "node2" and e["message"].startswith("certify")]
    assert certify["reason"] == "HBM_ECC_CORRECTED"
    assert "part: GPU 3 (16500000203" in certify["message"]


def test_the_same_results_make_the_same_names(found):
    """Applied twice they are one; read later, without a run in between, too."""
    again = replace(found, made_at=found.made_at.replace(year=2027))
    assert [e["metadata"]["name"] for e in items(found)] == [e["metadata"]["name"] for e in items(again)]


def test_texts_are_within_the_servers_bounds(hostile):
    """Cut by bytes, never inside a character."""
    for event in items(hostile):
        assert len(event["message"].encode()) <= 1024
        assert len(event["reason"]) <= 128
    assert any(len(event["message"].encode()) > 1000 for event in items(hostile))


@pytest.fixture(scope="module")
def applied(control_plane, found, hostile, tmp_path_factory):
    """Both lists, applied by kubectl; answers how it went."""
    folder = tmp_path_factory.mktemp("events")

    def apply(name, content):
        path = folder / name
        path.write_bytes(content)
        words = [KUBECTL, "--kubeconfig", control_plane.admin, "apply", "-f", path]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    first = apply("found.json", events(found))
    again = apply("again.json", events(found))
    strange = apply("hostile.json", events(hostile))
    return first, again, strange


def test_a_real_api_server_takes_them_and_gives_them_back(applied, api, found):
    """Every one, with its node, reason and words; a second time changes nothing."""
    (code, said), (again, unchanged), _ = applied
    assert code == 0, said
    assert said.count(" created") == len(items(found))
    assert (again, unchanged.count(" unchanged")) == (0, len(items(found)))
    kept = {e["metadata"]["name"]: e for e in api.list("v1", "Event", namespace="default")}
    for event in items(found):
        mine = kept[event["metadata"]["name"]]
        for key in ("type", "reason", "message", "firstTimestamp", "lastTimestamp", "count", "reportingComponent"):
            assert mine[key] == event[key]
        assert mine["involvedObject"]["name"] == event["involvedObject"]["name"]
    of_node = api.list("v1", "Event", namespace="default", fields="involvedObject.kind=Node,involvedObject.name=node2")
    assert {e["reason"] for e in of_node} >= {"HBM_ECC_CORRECTED", "RackproofImagePassed"}


def test_hostile_words_are_text_to_the_api_server(applied, api):
    """It takes them too: a name of our own making, bounded words, an object that is no node of the cluster."""
    _, _, (code, said) = applied
    assert code == 0, said
    kept = [e for e in api.list("v1", "Event", namespace="default") if e["involvedObject"]["name"].startswith("=HYPER")]
    assert len(kept) == 1
    assert all(c.isprintable() for c in kept[0]["message"])
