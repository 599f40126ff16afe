"""`intake`: rented nodes become a rack file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.errors import UsageError
from toolkit.settings import Settings


@click.command()
@click.argument("rack_name", metavar="RACK")
@click.option("--site", required=True, help="The site whose pool the nodes are for.")
@click.option(
    "--profile", "profile_name", required=True, help="What the nodes should be: a name of inventory/profiles."
)
@click.option("--ansible", type=click.Path(exists=True, path_type=Path), help="An Ansible inventory that lists them.")
@click.option("--group", default="all", show_default=True, help="The group of --ansible that they are.")
@click.option("--kubeconfig", type=click.Path(exists=True, path_type=Path), help="A cluster that has them as nodes.")
@click.option("--selector", default="", help="Labels of --kubeconfig's nodes that they are.")
@click.option(
    "--known-hosts", type=click.Path(exists=True, path_type=Path), required=True,
    help="Their host keys, as their owner told them.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="The rack file to write. Default: the inventory's.")
@json_option
def intake(
    rack_name: str,
    site: str,
    profile_name: str,
    ansible: Path | None,
    group: str,
    kubeconfig: Path | None,
    selector: str,
    known_hosts: Path,
    out: Path | None,
    as_json: bool,
) -> None:
    """Take rented nodes in: write RACK's file from an Ansible inventory or a cluster's node list.

    Every node is asked over SSH what it is; nothing on it is changed. It must take this installation's login key
    (keys/login.pub in RACKPROOF_HOME).
    """
    from toolkit.cli.wiring import now
    from toolkit.rack.intake import rack_file
    from toolkit.rack.loading import load_profile
    from toolkit.runners.ssh import SshShell
    from toolkit.stages.hands import make_keys
    from toolkit.stages.intake import from_ansible, from_cluster, pin_known, survey

    settings = installed.load()
    target = out or settings.inventory / "racks" / f"{rack_name}.yml"
    if target.exists():
        raise UsageError(f"{target} is there already", "give another name or --out; a rack file is never overwritten")
    profile = load_profile(profile_name, settings.inventory)
    if ansible is not None and kubeconfig is None:
        listed, source = from_ansible(ansible, group), f"the Ansible inventory {ansible.name}, group {group}"
    elif kubeconfig is not None and ansible is None:
        from toolkit.kubernetes.client import ApiServer

        listed, source = from_cluster(ApiServer.connect(kubeconfig), selector), "a cluster's nodes"
    else:
        raise UsageError("who are the nodes?", "give --ansible or --kubeconfig, one of the two")
    make_keys(settings)
    pin_known(listed, known_hosts, settings.known_hosts(rack_name))
    with SshShell(settings, rack_name) as shell:
        nodes = survey(shell, listed, profile, now())
    _write_checked(target, rack_file(rack_name, site, profile, nodes, source), settings)
    told = {"rack": rack_name, "file": str(target), "nodes": [node.name for node in nodes]}
    emit(told, as_json, lambda: f"{target}: {len(nodes)} rented nodes; next: rackproof plan {rack_name}")


def _write_checked(target: Path, text: str, settings: Settings) -> None:
    """Puts the file in its place only if it loads: what a node told may not be a serial at all."""
    from toolkit.rack.loading import load_rack

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".intake-") as folder:
        aside = Path(folder) / target.name
        aside.write_text(text)
        load_rack(str(aside), settings.inventory)
        try:
            os.link(aside, target)
        except FileExistsError as taken:
            raise UsageError(f"{target} is there already", "a rack file is never overwritten") from taken
