"""`inventory`: checks rack files, and speaks Ansible's dynamic-inventory protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from toolkit import settings as installed
from toolkit.cli.output import emit
from toolkit.errors import InputError, Problem, UsageError
from toolkit.rack.loading import list_racks, load_rack
from toolkit.rack.model import Rack, UnitKind
from toolkit.settings import Settings


@click.command()
@click.argument("rack_name", metavar="[RACK]", required=False)
@click.option("--list", "as_list", is_flag=True, help="Ansible: every host with its variables, as JSON.")
@click.option("--host", metavar="NODE", help="Ansible: the variables of one host, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="The racks as designed, as JSON.")
def inventory(rack_name: str | None, as_list: bool, host: str | None, as_json: bool) -> None:
    """Check RACK's file, or every rack's; say what is wrong with file, line and field.

    As an Ansible inventory: make an executable file with the two lines `#!/bin/sh` and
    `exec rackproof inventory RACK "$@"`, and give it to `ansible-playbook -i`.
    """
    settings = installed.load()
    if as_list or host:
        click.echo(json.dumps(_for_ansible(settings, rack_name, host), indent=2, sort_keys=True))
        return
    names = (rack_name,) if rack_name else list_racks(settings.inventory)
    racks, problems = _load_all(names, settings.inventory)
    if as_json:
        emit({"racks": racks}, True, str)
    else:
        for rack in racks:
            click.echo(f"{rack.name}: {_contents(rack)}; profile {rack.profile.name}; digest {rack.digest[:12]}")
    if problems:
        raise InputError(tuple(problems), "correct the file and run: rackproof inventory")


def _for_ansible(settings: Settings, rack_name: str | None, host: str | None) -> object:
    from toolkit.runners.inventory import dynamic, host_variables

    rack = load_rack(_one(rack_name, list_racks(settings.inventory)), settings.inventory)
    if host is None:
        return dynamic(settings, rack)
    for node in rack.nodes:
        if node.name == host:
            return host_variables(settings, rack, node)
    raise UsageError(f"rack {rack.name} has no node {host}", f"rackproof inventory {rack.name}")


def _one(name: str | None, known: tuple[str, ...]) -> str:
    if name:
        return name
    raise UsageError("which rack is to be the inventory?", f"name one: {', '.join(known)}")


def _load_all(names: Iterable[str], folder: Path) -> tuple[list[Rack], list[Problem]]:
    racks: list[Rack] = []
    problems: list[Problem] = []
    for name in names:
        try:
            racks.append(load_rack(name, folder))
        except InputError as wrong:
            problems += wrong.problems
    return racks, problems


def _contents(rack: Rack) -> str:
    counts = [(kind, sum(u.kind is kind for u in rack.units)) for kind in UnitKind]
    gpus = len(rack.nodes) * rack.profile.gpus_per_node
    return ", ".join(f"{n} {kind}" for kind, n in counts if n) + f", {gpus} GPUs, {len(rack.links)} links"
