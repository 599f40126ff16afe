"""What a virtual rack's provisioning server offers: the node image, the deploy ramdisk and the package repository."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from toolkit.durable import write_whole
from toolkit.image.site import image_key, image_trust
from toolkit.rack.model import Rack
from toolkit.settings import Settings
from toolkit.virtual.images import RECIPE, build_image, offer
from toolkit.virtual.packages import build_repository

REPOSITORY = "apt"


def stock(rack: Rack, settings: Settings, say: Callable[[str], None], recipe_file: Path = RECIPE) -> None:
    """Builds what is not built yet and offers it. A second call only looks.

    `recipe_file` is of the nodes' image; machines of QEMU take one that boots by itself.
    """
    key = image_key(settings.keys, os.environ)
    trust = image_trust(settings.keys, datetime.now(UTC))
    built = build_image(settings.cache, say, recipe_file)
    offer(built, settings.releases, settings.provision, rack.profile.image, key, trust)
    repository = build_repository(settings.cache, rack.profile.versions, say)
    _offer(settings.provision / REPOSITORY, repository)
    _write_site(settings.site_variables(rack.site), rack, repository)


def _offer(folder: Path, source: Path) -> None:
    """Hard links to the files of `source`: the server follows no symbolic link out of what it offers."""
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shutil.copytree(source, aside, copy_function=os.link)
    except shutil.Error:  # another file system
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _write_site(path: Path, rack: Rack, repository: Path) -> None:
    """What an operator would write by hand for a site with its own mirror."""
    source = {
        "name": "vendors' packages of the virtual rack",
        "uris": [f"{rack.provision_url}/{REPOSITORY}/"],
        "suites": ["./"],
        "key": (repository / "archive-key.asc").read_text(),
    }
    write_whole(path, yaml.safe_dump({"package_repositories_sources": [source]}).encode(), 0o600)
