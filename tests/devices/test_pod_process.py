"""A container's process: what cannot be started is told in its end, and nothing of it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.virtual.devices import pod_process
from toolkit.virtual.devices.pod_process import ENDED, LOG, START_ERROR, STARTED, Spec, write_spec

pytestmark = pytest.mark.root


def end_of(folder: Path, spec: Spec) -> dict[str, object]:
    """Of one that ran to its end; all of its processes are gone then."""
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    write_spec(folder, spec)
    subprocess.run([sys.executable, "-I", "-S", pod_process.__file__, folder], check=True, timeout=30)
    found: dict[str, object] = json.loads((folder / ENDED).read_text())
    return found


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Spec(("/bin/tr\0ue",), {}), "embedded null byte"),
        (Spec(("/bin/true",), {"A": "b\0c"}), "embedded null byte"),
        (Spec(("/bin/true",), {"A=B": "c"}), "illegal environment variable name"),
        (Spec(("no-such-program",), {"PATH": "/bin"}), "executable file not found in $PATH"),
        (Spec(("/bin/true",), {}, folder="/no/such/folder"), "No such file or directory"),
    ],
)
def test_what_cannot_be_started_says_why(tmp_path: Path, spec: Spec, words: str) -> None:
    """As containerd says it, and with its exit code; it never started."""
    ended = end_of(tmp_path, spec)
    assert (ended["code"], ended["signal"]) == (START_ERROR, 0)
    assert str(ended["failed"]).startswith("failed to create containerd task: ") and words in str(ended["failed"])
    assert not (tmp_path / STARTED).exists()


def test_what_starts_and_ends_is_told_with_its_log(tmp_path: Path) -> None:
    """The same way, for one that can."""
    ended = end_of(tmp_path, Spec(("/bin/sh", "-c", "echo out; exit 7"), {"PATH": "/bin"}))
    assert (ended["code"], ended["failed"]) == (7, "")
    assert (tmp_path / STARTED).exists() and "stdout F out" in (tmp_path / LOG).read_text()
