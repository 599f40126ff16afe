"""A control plane that is started, stopped, killed and started again; what it keeps is below one folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from toolkit.errors import BusyError, RackproofError
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from toolkit.virtual import network
from toolkit.virtual.control_plane import bootstrap, components, documents
from toolkit.virtual.control_plane.binaries import Binaries
from toolkit.virtual.control_plane.certificates import Authority, Issued, Validity, new_key
from toolkit.virtual.control_plane.components import APISERVER, CONTROLLERS, ETCD, SCHEDULER
from toolkit.virtual.control_plane.layout import PlaneLayout, PlaneOptions
from toolkit.virtual.control_plane.processes import Component, Processes
from toolkit.virtual.tls import write_private

T = TypeVar("T")

_READY_S = 120.0  # 6 s on idle cores
_POLL_S = 0.1
_ASK_S = 5.0
_GRACE_S = 5.0
_TOKENS_ON_DEMAND = (1, 24)
_ADMINS = "system:masters"
_DEFAULT = PlaneOptions()


class ControlPlane:
    """etcd, API server, controllers and scheduler of one cluster."""

    def __init__(self, folder: Path, binaries: Binaries, options: PlaneOptions = _DEFAULT) -> None:
        self.layout = PlaneLayout(folder.resolve())
        self.options = options
        self._binaries = binaries
        self._processes = Processes(self.layout.folder, options.namespace, tied=options.tied)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self.options.server

    @property
    def authority(self) -> Authority:
        """The cluster's CA."""
        return Authority.at(self.layout.authority)

    @property
    def admin(self) -> Path:
        """Kubeconfig of an administrator that RBAC does not hold back."""
        return self.layout.kubeconfig("admin")

    def start(self) -> None:
        """All four run and answer, and nodes may join. What runs already stays; what a crash left is taken over.

        Raises RackproofError with the last words of a program that ends, BusyError while another start is at work.
        """
        self.layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._only_one():
            self._write_files()
            etcd, apiserver = (make(self._binaries, self.layout, self.options) for make in _SERVERS)
            self._processes.ensure(etcd)
            self._processes.ensure(apiserver)
            self._wait((etcd, apiserver), lambda api: api.ready())
            clients = (
                components.controllers(self._binaries, self.layout, self.options),
                components.scheduler(self._binaries, self.layout),
            )
            for component in clients:
                self._processes.ensure(component)
            self._wait((etcd, apiserver, *clients), self._is_set_up)

    def stop(self) -> None:
        """None of them runs any more; the data stay. Nothing to do where none runs."""
        self._processes.end((SCHEDULER, CONTROLLERS, APISERVER))
        self._processes.end((ETCD,), _GRACE_S)

    def stop_api(self) -> None:
        """The API server dies: connections are refused until `start_api`."""
        self._processes.end((APISERVER,))

    def start_api(self) -> None:
        """The API server is back and answers; so is etcd. The controllers find it by themselves."""
        servers = tuple(make(self._binaries, self.layout, self.options) for make in _SERVERS)
        for component in servers:
            self._processes.ensure(component)
        self._wait(servers, lambda api: api.ready())

    def pids(self) -> dict[str, int]:
        """Processes that run, by component."""
        return {name: running.pid for name, running in self._processes.found().items()}

    def api(self, timeout_s: float = 10.0) -> ApiServer:
        """The API as an administrator. In another network namespace: for use inside it only."""
        return ApiServer.connect(self.admin, timeout_s=timeout_s)

    def kubeconfig(self, user: str, groups: Iterable[str] = (), validity: Validity | None = None) -> Path:
        """A kubeconfig with a client certificate for any user; made anew by each call."""
        member_of = tuple(groups)
        mark = hashlib.sha256("\0".join((user, *member_of)).encode()).hexdigest()[:8]
        path = self.layout.kubeconfig(f"{quote(user, safe='')[:80]}-{mark}")
        self._write_kubeconfig(path, user, self.authority.user(user, member_of, validity))
        return path

    def token(self, lifetime: timedelta = timedelta(hours=1)) -> str:
        """A new bootstrap token that a node joins with. A secret."""
        return self._with_api(lambda api: bootstrap.token(api, lifetime), 10.0)

    def _is_set_up(self, api: ApiServer) -> bool:
        """Nodes may join, and the controllers have begun: pods need an account, and until 1.23 also its token."""
        bootstrap.prepare(api, self.server, self.authority.pem.certificate)
        account = api.get("v1", "ServiceAccount", "default", "default")
        return account is not None and (bool(account.get("secrets")) or api.version() >= _TOKENS_ON_DEMAND)

    def _write_files(self) -> None:
        layout = self.layout
        for name in ("pki", "log", "kubeconfigs", "etcd"):
            (layout.folder / name).mkdir(mode=0o700, exist_ok=True)
        authority = self.authority
        own = authority.pem
        write_private(layout.ca, own.certificate)
        write_private(layout.ca_key, own.key)
        _write_once(layout.key("service-accounts"), new_key)
        _write_once(layout.encryption, lambda: documents.encryption(os.urandom(32)))
        write_private(layout.audit_policy, documents.audit_policy())
        services = (components.FIRST_SERVICE, "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        hosts = dict.fromkeys((self.options.address, "127.0.0.1", "localhost", *services, *self.options.hosts))
        self._write_issued(APISERVER, authority.server(APISERVER, hosts))
        self._write_issued(ETCD, authority.server(ETCD, (components.ETCD_HOST, "localhost")))
        kubelets = authority.user("kube-apiserver-kubelet-client", (_ADMINS,))
        self._write_issued("apiserver-kubelet-client", kubelets)
        self._write_kubeconfig(self.admin, "kubernetes-admin", authority.user("kubernetes-admin", (_ADMINS,)))
        for name in (CONTROLLERS, SCHEDULER):
            user = f"system:{name}"
            self._write_kubeconfig(layout.kubeconfig(name), user, authority.user(user))

    def _write_issued(self, name: str, issued: Issued) -> None:
        write_private(self.layout.certificate(name), issued.certificate)
        write_private(self.layout.key(name), issued.key)

    def _write_kubeconfig(self, path: Path, user: str, issued: Issued) -> None:
        write_private(path, documents.kubeconfig(self.server, self.authority.pem.certificate, user, issued))

    def _wait(self, running: tuple[Component, ...], wanted: Callable[[ApiServer], bool]) -> None:
        """Asks until the answer is yes; each of these programs must go on running meanwhile."""
        end = time.monotonic() + _READY_S
        while lacking := self._with_api(lambda api: _lacking(api, wanted), _ASK_S):
            self._processes.require(running)
            if time.monotonic() > end:
                raise RackproofError(
                    f"the control plane in {self.layout.folder} is not ready after {_READY_S:g} s: {lacking}",
                    f"see the logs in {self.layout.folder}/log",
                )
            time.sleep(_POLL_S)

    def _with_api(self, action: Callable[[ApiServer], T], timeout_s: float) -> T:
        def asked() -> T:
            api = self.api(timeout_s)
            try:
                return action(api)
            finally:
                api.close()

        return network.inside(self.options.namespace, asked) if self.options.namespace else asked()

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        with (self.layout.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(
                    f"the control plane in {self.layout.folder} is being started", "wait until that has ended"
                ) from error
            yield


_SERVERS = (components.etcd, components.apiserver)


def _lacking(api: ApiServer, wanted: Callable[[ApiServer], bool]) -> str:
    """Empty for a yes. A server that starts refuses connections first, and its own administrator next."""
    try:
        return "" if wanted(api) else "it answers, and is not set up"
    except (ApiUnreachableError, ApiRefusedError) as error:
        return error.message


def _write_once(path: Path, make: Callable[[], bytes]) -> None:
    if not path.exists():
        write_private(path, make())
