"""The Kubernetes cluster of a virtual rack: a real control plane in the rack's controller network, and the site's pool.

Where its programs are not there, the rack's pool is a file, and that is said loudly. Racks of one site have one cluster
CA and so one login, in the site's secrets; each has a cluster of its own, at the same address of its own network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.pool import join
from toolkit.pool.door_rule import ACCOUNT, doormen
from toolkit.pool.installation import has_policies, install
from toolkit.pool.manifests import manifests
from toolkit.pool.policy import KubernetesSite
from toolkit.rack.model import Rack
from toolkit.settings import Settings
from toolkit.virtual import cluster, network
from toolkit.virtual.control_plane import binaries
from toolkit.virtual.control_plane.binaries import Binaries, NoBinariesError
from toolkit.virtual.control_plane.layout import PlaneLayout, PlaneOptions
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.virtual.layout import Layout
from toolkit.virtual.tls import write_private

Say = Callable[[str], None]
PORT = 6443
_SITE = KubernetesSite()
_AUTHORITY = "cluster-authority.pem"  # in the site's secrets
_MARK = "# Written by `rackproof virtual up`, and removed by `down`. Without this line it is left alone.\n"
_POOL = """kind: kubernetes
regulation:
  canary: 1
  growth: 2
  soak: 3s
  poll: 1s
  smoke_deadline: 60s
  floor: 0.3
  drain_deadline: 60s
kubernetes:
  kubeconfig: {kubeconfig}
  smoke_image: localhost/nccl-smoke:1
"""


def programs(settings: Settings, say: Say) -> Binaries | None:
    """The control plane's programs; None, and a notice that nobody overlooks, where there are none."""
    try:
        return binaries.find(settings.cache.resolve())
    except NoBinariesError as missing:
        say(f"NO KUBERNETES: {missing.message}")
        say(f"  the pool is a file instead. For a cluster: {missing.hint}; then `rackproof virtual up` again")
        return None


def start(layout: Layout, rack: Rack, settings: Settings, found: Binaries, say: Say) -> None:
    """The cluster runs, nodes may join it, and the site's pool is it. What runs already stays."""
    began = time.monotonic()
    secrets = settings.secrets(rack.site)
    plane = _plane(layout, found)
    plane.layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _share_authority(plane, secrets / _AUTHORITY)
    plane.start()
    network.inside(layout.controller, lambda: _configure(plane))
    write_private(_site_file(layout), rack.site.encode())
    namespace, account = _SITE.namespace, f"system:serviceaccount:{_SITE.namespace}:{ACCOUNT}"
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    write_private(secrets / _SITE.kubeconfig, plane.kubeconfig(account, groups).read_bytes())
    write_private(secrets / join.KUBECONFIG, plane.admin.read_bytes())
    _write_pool(settings, rack.site, say)
    say(f"rack {rack.name}: Kubernetes at {plane.server}, up in {time.monotonic() - began:.0f} s")


def environment(layout: Layout) -> Mapping[str, str]:
    """What an operator's kubectl needs inside the rack's network; nothing where the rack has no cluster."""
    admin = PlaneLayout(layout.cluster).kubeconfig("admin")
    return {"KUBECONFIG": str(admin)} if admin.exists() else {}


def leave(layout: Layout, settings_home: Path, others: Iterable[Layout]) -> None:
    """The rack has no cluster any more: one that it had before a crash is not its pool."""
    _site_file(layout).unlink(missing_ok=True)
    forget_pools(settings_home, others)


def forget_pools(settings_home: Path, layouts: Iterable[Layout]) -> None:
    """Removes the pool files that `start` wrote for sites of which none of these racks, which stay, has a cluster."""
    kept = {_site_file(layout).read_text() for layout in layouts if _site_file(layout).exists()}
    for path in (settings_home / "pools").glob("*.yml"):
        if path.stem not in kept and path.read_text(errors="replace").startswith(_MARK):
            path.unlink()


def _plane(layout: Layout, found: Binaries) -> ControlPlane:
    address = str(network.CONTROLLER_IN_BAND)
    # Not durable: a cluster to rehearse on is made anew in seconds, and etcd on a busy disk is slow.
    options = PlaneOptions(address, PORT, namespace=layout.controller, durable=False)
    return ControlPlane(layout.cluster, found, options)


def _share_authority(plane: ControlPlane, shared: Path) -> None:
    """One CA for all clusters of the site; it stays when they go, as the BMCs' does."""
    own = plane.layout.authority
    own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if shared.exists():
        write_private(own, shared.read_bytes())
    else:
        plane.authority  # noqa: B018 - made, and written, when it is asked for
        shared.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(shared, own.read_bytes())


def _configure(plane: ControlPlane) -> None:
    """How nodes are to be, and the door's rights. A server without policies has nothing that guards the taint: for
    that `rackproof door install` puts a webhook, whose keeper must then run.
    """
    api = plane.api()
    try:
        cluster.configure(api, f"{plane.options.address}:{plane.options.port}")
        objects = manifests(_SITE.namespace, doormen(_SITE.namespace), None)
        served = has_policies(api)
        install(api, tuple(o for o in objects if served or not str(o["kind"]).startswith("ValidatingAdmission")))
    finally:
        api.close()


def _write_pool(settings: Settings, site: str, say: Say) -> None:
    path = settings.home / "pools" / f"{site}.yml"
    if path.exists() and not path.read_text(errors="replace").startswith(_MARK):
        say(f"{path} is yours and stays: the pool is what it says")
        return
    write_whole(path, (_MARK + _POOL.format(kubeconfig=_SITE.kubeconfig)).encode())


def _site_file(layout: Layout) -> Path:
    return layout.cluster / "site"
