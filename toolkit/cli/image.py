"""`image`: build, sign, verify and publish what nodes are imaged with; the vendor's installer as the other way."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import documented, emit, json_option, stderr
from toolkit.errors import UsageError
from toolkit.rack.loading import load_rack

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.certificate.trust import Trust
    from toolkit.image.manifest import Manifest

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_MIB = 1024 * 1024


@click.group()
def image() -> None:
    """Build, sign, verify and publish the images that nodes are written with."""


@image.command()
@click.option("--recipe", type=_FILE, help="The recipe's file; the default is debian-12-node of the inventory.")
@click.option("--arch", type=click.Choice(["amd64", "arm64"]), default="amd64", show_default=True)
@click.option("--output", type=_FOLDER, help="A new folder for the release; the default is in this installation.")
@json_option
def build(recipe: Path | None, arch: str, output: Path | None, as_json: bool) -> None:
    """Build a release from a recipe and sign it. Needs root. The same inputs make the same parts, to the last bit."""
    from toolkit.image.build import build as build_release
    from toolkit.image.manifest import Architecture
    from toolkit.image.recipe import load_recipe
    from toolkit.image.release import sign_release
    from toolkit.image.site import image_key

    settings = installed.load()
    file = recipe or installed.first_of(settings, "images/debian-12-node.yml")
    order = load_recipe(file, Architecture(arch))
    now = _now()
    folder = output or settings.releases / f"{order.name}-{arch}-{now:%Y%m%dT%H%M%SZ}"
    key = image_key(settings.keys, os.environ)  # before the work: a key that cannot be opened is told at once
    keys = (key.public_pem.decode(),)
    with stderr().status(f"building {order.name} for {arch}") as status:
        manifest = build_release(order, folder, now, lambda step: status.update(f"{order.name}: {step}"), keys=keys)
    sign_release(folder, key)
    _emit(folder, manifest, as_json)


def _now() -> datetime:
    """The time of a build: SOURCE_DATE_EPOCH where it is set (reproducible-builds.org), so that even the manifest is
    the same; else the clock's.
    """
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not told:
        return datetime.now(UTC)
    if not told.isdecimal() or len(told) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH is {told[:40]!a}", "seconds since 1970, or unset it")
    return datetime.fromtimestamp(int(told), UTC)


@image.command()
@click.argument("release", type=_FOLDER)
@json_option
def sign(release: Path, as_json: bool) -> None:
    """Sign RELEASE with the site's image key, if its parts are those of its manifest."""
    from toolkit.image.release import sign_release
    from toolkit.image.site import image_key

    settings = installed.load()
    _emit(release, sign_release(release, image_key(settings.keys, os.environ)), as_json)


@image.command()
@click.argument("release", type=_FOLDER)
@click.option("--key", "keys", type=_FILE, multiple=True, help="A public key to trust instead of this site's.")
@json_option
def verify(release: Path, keys: tuple[Path, ...], as_json: bool) -> None:
    """Verify RELEASE: a trusted key signed it, every part is there, whole, and nothing else. Reads every byte."""
    from toolkit.image.release import verify as verify_release

    _emit(release, verify_release(release, _trust(keys)), as_json)


@image.command()
@click.argument("release", type=_FOLDER)
@click.option("--allow-older", is_flag=True, help="Even where a newer release of that name is offered now.")
@json_option
def publish(release: Path, allow_older: bool, as_json: bool) -> None:
    """Verify RELEASE and offer it to the nodes that are imaged from now on."""
    from toolkit.image.release import publish as publish_release

    settings = installed.load()
    offered = publish_release(release, settings.provision, _trust(()), allow_older=allow_older)
    told = {"name": offered.manifest.name, "digest": offered.manifest.digest, "location": offered.location}
    emit(told, as_json, lambda: f"{told['name']} is offered: {settings.provision / offered.location}")


@image.command()
@click.argument("release", metavar="RELEASE|NAME")
@click.option("--packages", is_flag=True, help="Every package with its version and its archive's sha256.")
@json_option
def show(release: str, packages: bool, as_json: bool) -> None:
    """Show what RELEASE, a folder, or NAME, which is published, is made of. Its signature is verified."""
    from toolkit.image.manifest import Role
    from toolkit.image.release import SIGNED, published, read_signed

    folder = Path(release)
    if (folder / SIGNED).is_file():
        manifest = read_signed(folder / SIGNED, _trust(()))
    else:
        provision = installed.load().provision
        found = published(provision, release, _trust(()))
        folder, manifest = provision / found.location, found.manifest
    if packages:
        click.echo((folder / manifest.part(Role.PACKAGES).name).read_text(), nl=False)
        return
    _emit(folder, manifest, as_json)


@image.command("import")
@click.argument("name")
@click.option("--kernel", type=_FILE, required=True, help="The installer's kernel.")
@click.option("--initrd", type=_FILE, required=True, help="The installer's initial ramdisk.")
@click.option("--iso", type=_FILE, required=True, help="The vendor's ISO.")
@click.option("--arch", type=click.Choice(["amd64", "arm64"]), default="amd64", show_default=True)
@click.option("--output", type=_FOLDER, help="A new folder for the release; the default is in this installation.")
@json_option
def take(name: str, kernel: Path, initrd: Path, iso: Path, arch: str, output: Path | None, as_json: bool) -> None:
    """Take a vendor's installer in as a signed release NAME: kernel, initrd and ISO, as parts that are hashed."""
    from toolkit.image.installer import import_installer
    from toolkit.image.manifest import Architecture
    from toolkit.image.release import sign_release
    from toolkit.image.site import image_key

    settings = installed.load()
    now = _now()
    folder = output or settings.releases / f"{name}-{arch}-{now:%Y%m%dT%H%M%SZ}"
    key = image_key(settings.keys, os.environ)
    import_installer(name, Architecture(arch), kernel, initrd, iso, folder, now)
    _emit(folder, sign_release(folder, key), as_json)


@image.command()
@click.argument("rack", metavar="RACK")
@click.argument("node", metavar="NODE")
@click.option("--release", "name", help="The installer's release; the default is the profile's image.")
@click.option("--template", type=_FILE, help="A site's own user-data template (Jinja).")
@click.option("--show", "what", type=click.Choice(["user-data", "meta-data", "kernel-arguments"]), default="user-data")
@json_option
def autoinstall(rack: str, node: str, name: str | None, template: Path | None, what: str, as_json: bool) -> None:
    """Print what the vendor's installer is told for NODE of RACK: NoCloud's files, kernel arguments."""
    from toolkit.image.autoinstall import TEMPLATE, Order, command_line, meta_data, user_data
    from toolkit.image.installer import ISO
    from toolkit.runners.inventory import LOGIN_KEY

    settings = installed.load()
    planned = load_rack(rack, settings.inventory)
    unit = next((found for found in planned.nodes if found.name == node), None)
    if unit is None:
        raise UsageError(f"{planned.name} has no node {node}", "one of: " + ", ".join(n.name for n in planned.nodes))
    storage = planned.profile.imaging.storage
    key = settings.keys / f"{LOGIN_KEY}.pub"
    order = Order(
        unit, name or planned.profile.image, (key.read_text().strip(),) if key.is_file() else (),
        data_mount=storage.data_mount, mirrored=storage.mirrored,
    )  # fmt: skip
    base = planned.provision_url or "http://PROVISION"
    told = {
        "user-data": user_data(order, template or TEMPLATE),
        "meta-data": meta_data(unit),
        "kernel-arguments": command_line(f"{base}/images/{order.image}/DIGEST/{ISO}", f"{base}/autoinstall/TOKEN"),
    }
    if as_json:
        click.echo(json.dumps(documented(told), indent=2))
        return
    click.echo(told[what].rstrip("\n"))


def _trust(files: tuple[Path, ...]) -> Trust:
    from toolkit.certificate.public_key import trusted_keys
    from toolkit.certificate.trust import Trust
    from toolkit.image.site import image_trust

    return Trust.of(trusted_keys(files)) if files else image_trust(installed.load().keys, datetime.now(UTC))


def _emit(folder: Path, manifest: Manifest, as_json: bool) -> None:
    value = {"folder": str(folder), "digest": manifest.digest, **manifest.statement()}
    emit(value, as_json, lambda: _view(folder, manifest))
    sys.stdout.flush()


def _view(folder: Path, manifest: Manifest) -> Table:
    from rich.table import Table

    boots = ", ".join(manifest.boots) or "a virtual rack only"
    title = f"{manifest.name} {manifest.architecture}, {manifest.created_at:%Y-%m-%d %H:%M:%S}Z, boots by {boots}"
    table = Table("role", "part", "MiB", "sha256", title=title, caption=f"{folder}\n{manifest.digest}")
    for part in manifest.parts:
        table.add_row(part.role.value, part.name, f"{part.size_bytes / _MIB:.1f}", part.sha256)
    return table
