"""What the virtual nodes' kubelet is told, and what it makes of it: files, drop-ins, flags, variables. No cluster."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.virtual.devices import kubelet_config, pod_volumes
from toolkit.virtual.devices.kube_files import KubeFileError, access, kubeconfig, read_access, write_private
from toolkit.virtual.devices.kubelet_config import ConfigError

_HEAD = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"


def test_drop_ins_override_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Mappings are merged, lists replaced; other files of the folder are not read; a flag wins over all of them."""
    (tmp_path / "config.yaml").write_text(
        _HEAD + "nodeStatusUpdateFrequency: 1m30s\nauthentication: {x509: {clientCAFile: /ca}}\n"
        "authorization: {mode: AlwaysAllow}\nregisterWithTaints: [{key: a, effect: NoSchedule}]\n"
    )
    more = tmp_path / "more"
    more.mkdir()
    (more / "20-b.conf").write_text(_HEAD + "registerWithTaints: [{key: c, value: v, effect: NoExecute}]\n")
    (more / "10-a.conf").write_text(_HEAD + "registerWithTaints: [{key: b, effect: NoSchedule}]\nmaxPods: 7\n")
    (more / "99-not.yaml").write_text("nonsense: [")
    files = [f"--config={tmp_path / 'config.yaml'}", f"--config-dir={more}", "--node-ip=10.0.0.1"]
    told = kubelet_config.load(kubelet_config.parse([*files, "--hostname-override=Node7", "--node-labels=x/y=z,w="]))
    assert told.taints == ({"key": "c", "value": "v", "effect": "NoExecute"},)
    assert (told.name, told.max_pods, told.heartbeat_s, told.authorize) == ("node7", 7, 90.0, False)
    assert (told.client_ca, dict(told.labels)) == (Path("/ca"), {"x/y": "z", "w": ""})
    flagged = kubelet_config.load(kubelet_config.parse([*files, "--register-with-taints=k=v:NoSchedule,l:NoExecute"]))
    assert [taint["key"] for taint in flagged.taints] == ["k", "l"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--node-labels=node-role.kubernetes.io/worker="], "unknown 'kubernetes.io' or 'k8s.io' labels"),
        (["--node-labels=a.node-restriction.kubernetes.io/certified=true"], "unknown 'kubernetes.io'"),
        (["--register-with-taints=nonsense"], "--register-with-taints"),
        (["--hostname-override=no_such.name!"], "invalid node name"),
        (["--config=/nowhere/config.yaml"], "failed to load kubelet config file"),
    ],
)
def test_what_a_kubelet_refuses_to_start_with(flags: list[str], words: str) -> None:
    """In its words; above all, no kubelet gives itself the label that jobs trust."""
    with pytest.raises(ConfigError, match=words):
        kubelet_config.load(kubelet_config.parse(["--node-ip=10.0.0.1", *flags]))


def test_a_kubeconfig_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Private from its first byte; one without a server, or with a damaged CA, is refused with its name."""
    path = tmp_path / "kubelet.conf"
    write_private(path, kubeconfig("https://10.0.0.1:6443", "a CA\n", "default-auth", {"token": "abc"}))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_access(path)
    assert (found.server, found.ca, found.token) == ("https://10.0.0.1:6443", "a CA\n", "abc")
    assert "server: https://10.0.0.1:6443" in path.read_text()
    plain = {"clusters": [{"name": "c", "cluster": {"server": "http://10.0.0.1"}}]}
    with pytest.raises(KubeFileError, match="k: it names no cluster"):
        access(plain, "k")
    damaged = {"server": "https://a", "certificate-authority-data": base64.b64encode(b"x").decode()[:-1] + "!"}
    with pytest.raises(KubeFileError, match="unable to read certificate-authority"):
        access({"clusters": [{"name": "c", "cluster": damaged}]}, "k")


def test_references_to_variables_are_replaced_where_there_is_one() -> None:
    """`$(A)` is the variable, `$(B)` stays where there is none, `$$` is a dollar sign."""
    assert pod_volumes.expand("$(A) $(B) $$(A) $A", {"A": "1"}) == "1 $(B) $(A) $A"


@given(st.integers(0, 90), st.integers(0, 90), st.integers(0, 90))
def test_durations_are_read_as_go_writes_them(hours: int, minutes: int, seconds: int) -> None:
    """Any of their parts may be left out."""
    assert kubelet_config.seconds(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
    assert kubelet_config.seconds(f"{seconds}s") == seconds
    assert kubelet_config.seconds("250ms") == 0.25
