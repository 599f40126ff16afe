"""`door`: what holds a Kubernetes pool's door shut, put into the cluster and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import click

from toolkit import settings as installed
from toolkit.cli.output import documented, emit, json_option, stderr
from toolkit.cli.wiring import ledger_of, now
from toolkit.errors import UsageError
from toolkit.pool.policy import PoolKind, PoolPolicy
from toolkit.settings import Settings

WEBHOOK_FILE = "door-webhook.pem"
_SLURM_FILES = Path(__file__).parents[1] / "pool" / "slurm_site"
_INSTEAD = {
    PoolKind.SLURM: f"copy the files of {_SLURM_FILES} beside slurm.conf, and add there: JobSubmitPlugins=lua, "
    "HealthCheckProgram=.../rackproof_health_check.sh, HealthCheckInterval=60; then scontrol reconfigure",
}
site_option = click.option("--site", "site_name", help="The site; not needed where the inventory has one only.")
rack_option = click.option("--rack", "rack_name", help="A virtual rack: its cluster is in its own network.")


@dataclass(frozen=True, slots=True)
class _Site:
    """`racks`: rack of each node of the site, by the node's name."""

    name: str
    policy: PoolPolicy
    secrets: Path
    racks: Mapping[str, str]


@click.group()
def door() -> None:
    """The door of a Kubernetes pool: nobody but rackproof lifts its taint."""


@door.command("install")
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), required=True, help="An administrator's."
)
@click.option("--context", default="", help="Context of that kubeconfig; without it its current one.")
@click.option("--webhook", metavar="URL", help="Where `door watch --listen` will answer, for API servers before 1.30.")
@click.option("--no-webhook", is_flag=True, help="Before 1.30: only watch, and put back what somebody lifted.")
@click.option("--exempt", multiple=True, metavar="NODE", help="May join without the taint. Several times.")
@click.option("--new-login", is_flag=True, help="Write the door's kubeconfig anew though there is one.")
@click.option("--dry-run", is_flag=True, help="Print the objects, as kubectl apply takes them; change nothing.")
@site_option
@rack_option
@json_option
def install_(
    kubeconfig: Path, context: str, webhook: str | None, no_webhook: bool, exempt: tuple[str, ...], new_login: bool,
    dry_run: bool, site_name: str | None, rack_name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Put the door into the cluster: namespace, account and rights, and the rule that holds the taint.

    Safe to repeat. Writes the login that rackproof uses from then on into the site's secrets.
    """
    import yaml

    from toolkit.kubernetes.client import ApiServer
    from toolkit.pool.door_rule import doormen
    from toolkit.pool.installation import has_policies, install, webhook_kind, write_login
    from toolkit.pool.manifests import Webhook, manifests
    from toolkit.pool.webhook import certificate_for

    settings = installed.load()
    site = _site(settings, site_name, rack_name)
    space, allowed = site.policy.kubernetes.namespace, doormen(
        site.policy.kubernetes.namespace, site.policy.kubernetes.taint_by, exempt
    )  # fmt: skip
    api = ApiServer.connect(kubeconfig, context)
    served = has_policies(api)
    if not served and not webhook and not no_webhook:
        raise UsageError(
            f"this API server ({'.'.join(map(str, api.version()))}) has no ValidatingAdmissionPolicy",
            "--webhook https://HOST:PORT/door, where `rackproof door watch --listen HOST:PORT` runs; or --no-webhook",
        )
    hook = None
    if webhook and not served:
        pem = certificate_for(urlsplit(webhook).hostname or "", site.secrets / WEBHOOK_FILE, now())
        hook = Webhook(webhook, pem, webhook_kind(api))
    objects = manifests(space, allowed, hook)
    if not served and hook is None:
        objects = tuple(o for o in objects if not str(o["kind"]).startswith("ValidatingAdmission"))
    if dry_run:
        emit(objects, as_json, lambda: yaml.safe_dump_all(objects, sort_keys=False))
        return
    done = install(api, objects)
    login = site.secrets / site.policy.kubernetes.kubeconfig
    written = new_login or not login.exists()
    if written:
        write_login(api, space, kubeconfig, context, login)
    rows = [*done, f"{login} {'written' if written else 'is there and stays'}"]
    if hook is not None:
        rows.append(f"now: rackproof door watch --site {site.name} --listen {urlsplit(hook.url).netloc}")
    emit({"applied": done, "login": login, "webhook": webhook if hook else ""}, as_json, lambda: "\n".join(rows))


@door.command("watch")
@click.option("--listen", metavar="HOST:PORT", help="Answer the webhook there; without it only watch.")
@click.option("--exempt", multiple=True, metavar="NODE", help="As given to `door install`.")
@click.option("--leave-jobs", is_flag=True, help="Shut nodes only; do not move the jobs that run there.")
@site_option
@rack_option
@json_option
def watch(
    listen: str | None,
    exempt: tuple[str, ...],
    leave_jobs: bool,
    site_name: str | None,
    rack_name: str | None,
    as_json: bool,
) -> None:
    """Keep the door until interrupted: shut nodes out whose certificate ended, or that somebody let in by hand."""
    import signal
    import threading

    from toolkit.doorkeeper import Doorkeeper
    from toolkit.pool.door_rule import doormen
    from toolkit.pool.kubernetes import KubernetesPool
    from toolkit.pool.webhook import serving

    settings = installed.load()
    site = _site(settings, site_name, rack_name, (PoolKind.KUBERNETES, PoolKind.SLURM))
    lock, stop = threading.Lock(), threading.Event()

    def tell(line: str) -> None:
        at = now().isoformat(timespec="milliseconds")
        with lock:
            click.echo(json.dumps(documented({"at": at, "told": line}, "door-line")) if as_json else f"{at} {line}")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if site.policy.kind is PoolKind.SLURM:
        _watch_slurm(settings, site, tell, stop)
        return
    space = site.policy.kubernetes.namespace
    allowed = doormen(space, site.policy.kubernetes.taint_by, exempt)
    hook = serving(_address(listen), site.secrets / WEBHOOK_FILE, allowed, tell) if listen else nullcontext(("", 0))
    with ledger_of(settings) as ledger, hook as (host, port):
        keeper = Doorkeeper(
            lambda: KubernetesPool.open(site.policy, site.secrets), ledger, site.racks, tell, now,
            None if leave_jobs else site.policy.regulation,
        )  # fmt: skip
        stderr().print(
            f"the door of {site.name}: {len(site.racks)} nodes" + (f", webhook at {host}:{port}" if listen else "")
        )
        keeper.run(stop)


def _watch_slurm(settings: Settings, site: _Site, tell: Callable[[str], None], stop: Event) -> None:
    from toolkit.pool.slurm import SlurmPool
    from toolkit.pool.slurm_door import SlurmDoorkeeper

    pool = SlurmPool.open(site.policy, settings, site.name)
    with ledger_of(settings) as ledger:
        stderr().print(f"the door of {site.name}: {len(site.racks)} nodes in Slurm")
        SlurmDoorkeeper(pool, ledger, site.racks, tell, now).run(stop)


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UsageError(f"{listen!a} is no address to listen on", "--listen 10.0.0.5:9443")
    return host.strip("[]"), int(port)


def _site(
    settings: Settings, name: str | None, rack_name: str | None, kinds: Collection[PoolKind] = (PoolKind.KUBERNETES,)
) -> _Site:
    """The site by its name, or by one of its racks; its pool must be of one of these kinds."""
    from toolkit.pool.policy_file import load_policy
    from toolkit.rack.loading import list_racks, load_rack

    racks = [load_rack(r, settings.inventory) for r in ([rack_name] if rack_name else list_racks(settings.inventory))]
    sites = sorted({r.site for r in racks})
    found = name or (sites[0] if len(sites) == 1 else "")
    if found not in sites:
        wrong = f"{found} is not one of the inventory's" if found else "the inventory has several sites"
        raise UsageError(wrong, f"--site, one of {', '.join(sites)}")
    policy = load_policy(settings, found)
    if policy.kind not in kinds:
        raise UsageError(
            f"the pool of {found} is of kind {policy.kind}", _INSTEAD.get(policy.kind, f"see pools/{found}.yml")
        )
    ours = [r for r in racks if r.site == found]
    virtual = [r for r in ours if r.profile.virtual]
    if len(virtual) > 1 or (virtual and len(ours) > 1):
        raise UsageError(f"each virtual rack of {found} has a network of its own", "--rack with one of them")
    if virtual:
        from toolkit.virtual.lab import enter_namespace

        enter_namespace(settings, virtual[0].name)
    return _Site(found, policy, settings.secrets(found), {n.name: r.name for r in ours for n in r.nodes})
