"""Who regulates: a Lease in the cluster, taken and kept as Kubernetes' own controllers do (client-go's election).

No clock is compared with another machine's: a holder counts as alive while its record goes on changing before our eyes,
and as gone once it has stood still for as long as it promised. A clock that is wrong by an hour changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus

from toolkit.errors import BusyError, UndecidedError
from toolkit.kubernetes.client import ApiServer, Object
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, ConflictError
from toolkit.pool.node_object import shown

NAME = "rackproof-regulator"
_LOOK_S = 0.5
_MOST_S = 3600.0  # a promise to be away for longer is none
_API, _KIND = "coordination.k8s.io/v1", "Lease"


@dataclass(frozen=True, slots=True)
class Terms:
    """duration_s  a holder that is silent for this long has lost the lease; client-go's default
    renew_s     how often it says that it is alive; several times within the duration
    """

    duration_s: float = 15.0
    renew_s: float = 4.0


USUAL = Terms()


@dataclass(slots=True)
class _Watched:
    """A holder's record as we saw it, and since when it has not changed, by our own steady clock."""

    record: tuple[str, str]
    since: float


class Election:
    """The lease as a candidate and then its holder has it: renewed from a thread while it is held."""

    def __init__(self, api: ApiServer, namespace: str, holder: str, terms: Terms) -> None:
        self._api = api
        self._namespace = namespace
        self._holder = holder
        self._terms = terms
        self._record: Object = {}
        self._renewed = 0.0
        self._stop = threading.Event()
        self._taken_over = threading.Event()

    @property
    def held(self) -> bool:
        """Whether nobody else can have it yet: renewed within its duration, by our own steady clock."""
        return not self._taken_over.is_set() and time.monotonic() - self._renewed < self._terms.duration_s

    def require(self) -> None:
        """UndecidedError once the lease may be another's."""
        if not self.held:
            raise UndecidedError(
                f"the lease {self._namespace}/{NAME} was lost: another regulator may lead by now; nothing more is done",
                "the same command again goes on where this one stopped",
            )

    def acquire(self, gone: Callable[[str], bool]) -> None:
        """Takes the lease, or BusyError that names the holder. Waits for the holder's duration at most."""
        watched: _Watched | None = None
        while True:
            began = time.monotonic()
            found = self._api.get(_API, _KIND, NAME, self._namespace)
            spec = (found or {}).get("spec") or {}
            holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
            if found is None or not holder or gone(holder) or self._stands_still(watched, spec):
                if self._write(partial(self._create) if found is None else partial(self._take, found), began):
                    return
                watched = None  # another was first: look whether it lives
                continue
            if watched is None:
                watched = _Watched((holder, renewed), began)
            elif watched.record != (holder, renewed):
                raise BusyError(
                    f"{shown(holder, 120)} regulates this pool (lease {self._namespace}/{NAME}, renewed just now)",
                    "wait until it has ended; to stop it, end its process",
                )
            self._stop.wait(_LOOK_S)

    def keep(self) -> None:
        """Renews until `release`; for a thread. An API server that is away is asked again until the lease is over."""
        while not self._stop.wait(self._terms.renew_s) and self.held:
            began = time.monotonic()
            try:
                self._record = self._api.replace(self._body(self._record))
                self._renewed = began
            except ConflictError:
                self._look_again()
            except (ApiUnreachableError, ApiRefusedError):
                continue

    def release(self) -> None:
        """Gives the lease back, so that the next need not wait; where that fails it ends by itself."""
        if not self.held:
            return
        body = self._body(self._record)
        body["spec"].update(holderIdentity="", leaseDurationSeconds=1)
        try:
            self._api.replace(body)
        except (ApiUnreachableError, ApiRefusedError):
            return

    def stop(self) -> None:
        """Renewing ends."""
        self._stop.set()

    def _stands_still(self, watched: _Watched | None, spec: Object) -> bool:
        told = spec.get("leaseDurationSeconds")
        promised = float(told) if isinstance(told, int) and 0 < told <= _MOST_S else self._terms.duration_s
        now = (str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or ""))
        return watched is not None and watched.record == now and time.monotonic() - watched.since >= promised

    def _look_again(self) -> None:
        """Somebody wrote the record: if its holder is another, the lease is theirs."""
        try:
            found = self._api.get(_API, _KIND, NAME, self._namespace)
        except (ApiUnreachableError, ApiRefusedError):
            return
        if found is None or (found.get("spec") or {}).get("holderIdentity") != self._holder:
            self._taken_over.set()
        else:
            self._record = found

    def _write(self, send: Callable[[], Object], began: float) -> bool:
        """Whether we wrote the record before anybody else."""
        try:
            self._record = send()
        except ConflictError:
            return False
        self._renewed = began
        return True

    def _create(self) -> Object:
        record = {"apiVersion": _API, "kind": _KIND, "metadata": {"name": NAME, "namespace": self._namespace}}
        try:
            return self._api.create(self._body(record, taken=True))
        except ApiRefusedError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                raise UndecidedError(
                    f"the namespace {self._namespace} is not there: {refused.message}", "rackproof door install"
                ) from refused
            raise

    def _take(self, record: Object) -> Object:
        return self._api.replace(self._body(record, taken=True))

    def _body(self, record: Object, *, taken: bool = False) -> Object:
        spec = dict(record.get("spec") or {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec.update(holderIdentity=self._holder, leaseDurationSeconds=round(self._terms.duration_s), renewTime=now)
        if taken:
            spec.update(acquireTime=now, leaseTransitions=int(spec.get("leaseTransitions") or 0) + 1)
        return {**record, "apiVersion": _API, "kind": _KIND, "spec": spec}


@contextmanager
def elected(
    api: ApiServer, namespace: str, holder: str, gone: Callable[[str], bool], terms: Terms = USUAL
) -> Iterator[Election]:
    """The lease while the block runs. BusyError where another holds it; UndecidedError at the end if it was lost.

    gone  answers whether a holder is certainly dead (a process of this machine that ended): then nobody waits for it
    """
    election = Election(api, namespace, holder, terms)
    election.acquire(gone)
    thread = threading.Thread(target=election.keep, name=f"lease {NAME}", daemon=True)
    thread.start()
    try:
        yield election
        election.require()
    finally:
        election.stop()
        thread.join()
        election.release()
