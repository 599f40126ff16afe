"""What a virtual rack's provisioning server offers: the node image, the deploy ramdisk and the package repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from toolkit.rack.model import Rack
from toolkit.settings import Settings
from toolkit.virtual.images import build_image, publish
from toolkit.virtual.packages import build_repository

REPOSITORY = "apt"


def stock(rack: Rack, settings: Settings, say: Callable[[str], None]) -> None:
    """Builds what is not built yet and offers it. A second call only looks."""
    publish(build_image(settings.cache, say), settings.provision, rack.profile.image)
    repository = build_repository(settings.cache, rack.profile.versions, say)
    _link(settings.provision / REPOSITORY, repository)
    _write_site(settings.site_variables(rack.site), rack, repository)


def _link(path: Path, target: Path) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(path)


def _write_site(path: Path, rack: Rack, repository: Path) -> None:
    """What an operator would write by hand for a site with its own mirror."""
    source = {
        "name": "vendors' packages of the virtual rack",
        "uris": [f"{rack.provision_url}/{REPOSITORY}/"],
        "suites": ["./"],
        "key": (repository / "archive-key.asc").read_text(),
    }
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(yaml.safe_dump({"package_repositories_sources": [source]}))
    aside.chmod(0o600)
    aside.replace(path)
