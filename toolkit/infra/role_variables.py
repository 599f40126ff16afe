"""What a site tells a role for one node: the variables of its groups and of the site, as Ansible would rank them.

Of plain values only: a text with `{{` in it is for Ansible to fill in, and is not guessed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import UndecidedError, UsageError
from toolkit.rack.model import Rack
from toolkit.runners.inventory import groups
from toolkit.settings import Settings

MAX_BYTES = 1 << 20
_SUFFIXES = (".yml", ".yaml", ".json", "")


def role_variable(settings: Settings, rack: Rack, node: str, role: str, name: str) -> tuple[Any, Path | None]:
    """The value that a play over this node sees, and the file it is from; (None, None) where nobody gives it.

    From weak to strong: the role's defaults, group_vars of `all`, of the node's groups by name, the site's own file
    (https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_variables.html). UsageError for a file that cannot
    be read, UndecidedError for a value that only Ansible can work out.
    """
    value: Any = None
    source: Path | None = None
    for path in _files(settings, rack, node, role):
        given = _read(path)
        if name in given:
            value, source = given[name], path
    if _is_template(value):
        raise UndecidedError(f"{source}: {name} is a template", "give plain values, or look with ansible -m debug")
    return value, source


def _files(settings: Settings, rack: Rack, node: str, role: str) -> Iterator[Path]:
    yield from _variants(settings.playbooks / "roles" / role / "defaults" / "main")
    member = sorted(name for name, hosts in groups(rack, [n.name for n in rack.nodes]).items() if node in hosts)
    for group in ("all", *member):
        yield from _variants(settings.inventory / "group_vars" / group)
    site = settings.site_variables(rack.site)
    if site.exists():
        yield site


def _variants(path: Path) -> Iterator[Path]:
    """A file of that name with any of Ansible's endings, or every such file in a folder of that name."""
    for suffix in _SUFFIXES:
        found = path.with_name(path.name + suffix)
        if found.is_file():
            yield found
        elif suffix == "" and found.is_dir():
            yield from sorted(p for p in found.rglob("*") if p.is_file() and p.suffix in _SUFFIXES)


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Knows Ansible's own tags as values that are not plain."""

    Loader.add_multi_constructor("!", lambda _loader, tag, _node: f"{{{{ {tag} }}}}")
    try:
        with path.open("rb") as file:
            document = yaml.load(file.read(MAX_BYTES), Loader=Loader)  # noqa: S506 - a SafeLoader
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {str(error)[:200]}", "correct it: Ansible reads it too") from error
    if document is not None and not isinstance(document, Mapping):
        raise UsageError(f"{path} is no table of variables", "correct it; a file that is encrypted whole is not read")
    return document or {}


def _is_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_is_template(part) for part in parts)
