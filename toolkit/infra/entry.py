"""Tells pytest of the plugin, which only a command line that names this package loads: others do not pay for it.

pytest reads options before it knows what `--pyargs` names, so a conftest.py inside the package would come too late.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_PACKAGE = "toolkit.infra"
_PLUGIN = "toolkit.infra.plugin"


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Loads the plugin, options and all, where this package is among the arguments."""
    if names_this_package(args, early_config.invocation_params.dir):
        early_config.pluginmanager.import_plugin(_PLUGIN)


def names_this_package(args: Iterable[str], folder: Path) -> bool:
    """Whether one of the arguments is this package, a module or a test of it, by name or by path from the folder."""
    return any(_is_ours(arg.partition("::")[0], folder) for arg in args if arg and not arg.startswith("-"))


def _is_ours(arg: str, folder: Path) -> bool:
    if arg == _PACKAGE or arg.startswith(f"{_PACKAGE}."):
        return True
    own = Path(__file__).parent
    return own.name in arg and own in ((path := (folder / arg).absolute()), *path.parents)
