"""A pod's volumes as folders and files of the node, and its containers' environment. Both ask the API server.

Kinds of volumes: configMap, secret, downwardAPI, projected, emptyDir, hostPath. A pod with another kind waits for ever,
as one does whose driver is not installed.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .node_api import ApiError, NodeApi, segment
from .pod_process import Mount

Object = dict[str, Any]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOKEN_S = 3607  # what the API server's own projected volumes ask for
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z0-9_.-]+)\)")


class NotYetError(Exception):
    """The pod has to wait: what it needs is not there. `reason` as the kubelet gives it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class PodSources:
    """Where a pod's volumes and environment come from. `address` is the node's, and so the pod's."""

    api: NodeApi
    pod: Object
    folder: Path
    node: str
    address: str

    @property
    def _namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    def volumes(self) -> dict[str, Path]:
        """Every volume's path on the node, made and filled. Raises NotYetError."""
        return {volume["name"]: self._volume(volume) for volume in self.pod["spec"].get("volumes") or ()}

    def remove(self) -> None:
        """Takes away everything that `volumes` made."""
        home = self.folder / "volumes"
        for folder in home.iterdir() if home.is_dir() else ():
            if os.path.ismount(folder):
                subprocess.run(["umount", "--lazy", str(folder)], check=False)
        shutil.rmtree(home, ignore_errors=True)

    def mounts(self, container: Object, volumes: Mapping[str, Path]) -> tuple[Mount, ...]:
        """Where the container sees them."""
        found = []
        for mount in container.get("volumeMounts") or ():
            source = volumes[mount["name"]]
            below = str(mount.get("subPath") or "")
            if below:
                source = source / below
                if ".." in source.parts:
                    raise NotYetError("CreateContainerConfigError", f"subPath {below!r} must not contain '..'")
                if not source.exists():
                    source.mkdir(parents=True)
            read_only = bool(mount.get("readOnly")) or self._of(mount["name"]) in ("configMap", "secret", "projected")
            found.append(Mount(str(source), str(mount["mountPath"]), read_only))
        return tuple(found)

    def environment(self, container: Object) -> dict[str, str]:
        """Its variables; a reference `$(NAME)` to an earlier one is replaced. Raises NotYetError."""
        values = {"PATH": PATH, "HOSTNAME": str(self.pod["metadata"]["name"])}
        for source in container.get("envFrom") or ():
            for key, kind in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
                if source.get(key):
                    data = self._data(kind, source[key])
                    values |= {str(source.get("prefix") or "") + name: text.decode() for name, text in data.items()}
        for entry in container.get("env") or ():
            told = entry.get("valueFrom")
            text = self._value(told, container) if told else expand(str(entry.get("value") or ""), values)
            if text is not None:
                values[entry["name"]] = text
        return values

    # --- volumes ---------------------------------------------------------------------------------------------------

    def _of(self, name: str) -> str:
        """The kind of a volume."""
        volume = next(v for v in self.pod["spec"]["volumes"] if v["name"] == name)
        return next((key for key in volume if key != "name"), "emptyDir")

    def _volume(self, volume: Object) -> Path:
        home = self.folder / "volumes" / str(volume["name"])
        kind = self._of(str(volume["name"]))
        source = volume.get(kind) or {}
        if kind == "hostPath":
            return Path(str(source["path"]))
        if kind == "emptyDir":
            return _empty(home, source)
        if kind not in ("configMap", "secret", "downwardAPI", "projected"):
            raise NotYetError(
                "ContainerCreating", f'MountVolume.SetUp failed for volume "{volume["name"]}": no driver for {kind}'
            )
        parts = source.get("sources") or () if kind == "projected" else ({kind: source},)
        mode = source.get("defaultMode")
        for part in parts:
            for path, raw, own in self._files(part):
                _put(home, path, raw, own if own is not None else 0o644 if mode is None else int(mode))
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _files(self, part: Object) -> Iterator[tuple[str, bytes, int | None]]:
        """(path, contents, mode) of one source of a volume."""
        for key, kind in (("configMap", "configmaps"), ("secret", "secrets")):
            source = part.get(key)
            if source is not None:
                data = self._data(kind, {**source, "name": source.get("name") or source.get("secretName")})
                items = source.get("items") or [{"key": name, "path": name} for name in data]
                for item in items:
                    if item["key"] not in data and not source.get("optional"):
                        raise NotYetError("ContainerCreating", f"references non-existent {key} key: {item['key']}")
                    if item["key"] in data:
                        yield str(item["path"]), data[item["key"]], item.get("mode")
        for item in (part.get("downwardAPI") or {}).get("items") or ():
            yield str(item["path"]), (self._value(item, {}) or "").encode(), item.get("mode")
        if part.get("serviceAccountToken"):
            yield str(part["serviceAccountToken"]["path"]), self._token(part["serviceAccountToken"]), 0o600

    def _token(self, wanted: Object) -> bytes:
        meta = self.pod["metadata"]
        account = segment(str(self.pod["spec"].get("serviceAccountName") or "default"))
        spec = {
            "audiences": [wanted["audience"]] if wanted.get("audience") else [],
            "expirationSeconds": int(wanted.get("expirationSeconds") or _TOKEN_S),
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]},
        }
        body: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{segment(self._namespace)}/serviceaccounts/{account}/token"
        try:
            return str(self.api.create(path, body)["status"]["token"]).encode()
        except ApiError as error:
            raise NotYetError("ContainerCreating", f"MountVolume.SetUp failed: fetch token: {error}") from error

    def _data(self, kind: str, named: Mapping[str, Any]) -> dict[str, bytes]:
        path = f"/api/v1/namespaces/{segment(self._namespace)}/{kind}/{segment(str(named['name']))}"
        try:
            found = self.api.get(path)
        except ApiError as error:
            if error.status == 404 and named.get("optional"):
                return {}
            raise NotYetError("CreateContainerConfigError", str(error)) from error
        packed = found.get("data") or {}
        if kind == "secrets":
            return {key: base64.b64decode(text) for key, text in packed.items()}
        binary = {key: base64.b64decode(text) for key, text in (found.get("binaryData") or {}).items()}
        return {key: text.encode() for key, text in packed.items()} | binary

    # --- values ----------------------------------------------------------------------------------------------------

    def _value(self, told: Mapping[str, Any], container: Object) -> str | None:
        """What a `valueFrom` names; None for an optional one that is not there."""
        for key, kind in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if told.get(key):
                data = self._data(kind, told[key])
                if told[key]["key"] in data:
                    return data[told[key]["key"]].decode()
                if told[key].get("optional"):
                    return None
                raise NotYetError("CreateContainerConfigError", f"couldn't find key {told[key]['key']} in {kind[:-1]}")
        if told.get("fieldRef"):
            return self._field(str(told["fieldRef"].get("fieldPath", "")))
        if told.get("resourceFieldRef"):
            way = str(told["resourceFieldRef"].get("resource", "")).split(".", 1)
            found = ((container.get("resources") or {}).get(way[0]) or {}).get(way[-1])
            return None if found is None else str(found)
        raise NotYetError("CreateContainerConfigError", f"unsupported valueFrom: {sorted(told)}")

    def _field(self, path: str) -> str:
        meta, spec = self.pod["metadata"], self.pod["spec"]
        subscript = re.fullmatch(r"metadata\.(annotations|labels)\['([^']+)'\]", path)
        if subscript:
            return str((meta.get(subscript[1]) or {}).get(subscript[2], ""))
        if path in ("metadata.annotations", "metadata.labels"):
            pairs = meta.get(path.partition(".")[2]) or {}
            return "\n".join(f'{key}="{pairs[key]}"' for key in sorted(pairs))
        fixed = {
            "metadata.name": meta["name"],
            "metadata.namespace": meta["namespace"],
            "metadata.uid": meta["uid"],
            "spec.nodeName": self.node,
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "status.hostIP": self.address,
            "status.podIP": self.address,
        }
        if path not in fixed:
            raise NotYetError("CreateContainerConfigError", f"unsupported fieldPath: {path}")
        return str(fixed[path])


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable's value where there is one; `$$` is a dollar sign."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[1] is None else values.get(match[1], match[0])

    return _REFERENCE.sub(one, text)


def _empty(home: Path, source: Mapping[str, Any]) -> Path:
    if not home.exists():
        home.mkdir(parents=True)
        if source.get("medium") == "Memory":
            size = f",size={_bytes(str(source['sizeLimit']))}" if source.get("sizeLimit") else ""
            argv = ["mount", "-t", "tmpfs", "-o", f"mode=0777{size}", "tmpfs", str(home)]
            subprocess.run(argv, check=True, capture_output=True)
        home.chmod(0o777)
    return home


def _bytes(quantity: str) -> int:
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity)
    if found is None or (found[2] and found[2] not in units):
        raise NotYetError("ContainerCreating", f"quantity {quantity!r} is not understood")
    return int(float(found[1]) * units.get(found[2], 1))


def _put(home: Path, path: str, raw: bytes, mode: int) -> None:
    target = home / path
    if ".." in target.parts or target == home:
        raise NotYetError("ContainerCreating", f"path {path!r} leads out of its volume")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(raw)
    aside.chmod(mode)
    aside.replace(target)
