"""The part of iPXE's scripting language that a boot script of ours uses; pure but for the `fetch` it is given.

Commands: `kernel`, `initrd`, `boot`, `chain`, `set`, `echo`, `exit`, `sanboot` and `A || B` (B when A fails).
Settings `${name}` come from the firmware and from `set`. Reference: https://ipxe.org/scripting and ipxe.org/cmd
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

_MAGIC = "#!ipxe"
_SETTING = re.compile(r"\$\{([^{}]+)\}")
_MAX_CHAIN = 8
_MAX_LINES = 1000
_NEED_ARGUMENT = frozenset({"kernel", "initrd", "chain", "set"})
_DONE_BEFORE = frozenset({"dhcp", "ifopen", "imgfree"})  # the firmware has done it before the script runs


class ScriptError(Exception):
    """The script cannot be run, or a command in it failed."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What `boot` starts: where the kernel and its ramdisk are, and the kernel's arguments."""

    url: str
    arguments: tuple[str, ...]
    initrd: str | None


@dataclass(frozen=True, slots=True)
class Exit:
    """The script gave control back: the firmware goes on with its next boot device."""


@dataclass(slots=True)
class _Loaded:
    kernel: str | None = None
    arguments: tuple[str, ...] = ()
    initrd: str | None = None

    def boot(self) -> Kernel:
        if self.kernel is None:
            raise ScriptError("no kernel was loaded")
        return Kernel(self.kernel, self.arguments, self.initrd)


@dataclass(slots=True)
class Interpreter:
    """Runs one boot script.

    settings  `net0/mac`, `mac:hexhyp`, `serial`, `uuid`, ...: what `${...}` expands to; unknown ones are empty
    fetch     text of a URL (OSError when there is none)
    say       console output
    """

    settings: Mapping[str, str]
    fetch: Callable[[str], str]
    say: Callable[[str], None]
    _set: dict[str, str] = field(default_factory=dict)

    def boot(self, file_name: str) -> Kernel | Exit:
        """Runs what DHCP names as boot file; settings in it are expanded, as in a script."""
        return self.run(self._expand(file_name))

    def run(self, url: str, depth: int = 0) -> Kernel | Exit:
        """Fetches and runs the script at `url`. Raises ScriptError, or what `fetch` raises."""
        if depth > _MAX_CHAIN:
            raise ScriptError(f"{url}: chained more than {_MAX_CHAIN} deep")
        lines = self.fetch(url).splitlines()
        if not lines or lines[0].strip() != _MAGIC:
            raise ScriptError(f"{url}: exec format error (the first line is not {_MAGIC})")
        if len(lines) > _MAX_LINES:
            raise ScriptError(f"{url}: longer than {_MAX_LINES} lines")
        loaded = _Loaded()
        for line in lines[1:]:
            end = self._line(line, url, loaded, depth)
            if end is not None:
                return end
        return Exit()  # iPXE leaves a script at its end as `exit` does

    def _line(self, line: str, url: str, loaded: _Loaded, depth: int) -> Kernel | Exit | None:
        failure: ScriptError | None = None
        for alternative in line.split("||"):
            words = self._expand(alternative.split("#", 1)[0]).split()
            if not words:
                continue
            try:
                return self._command(words, url, loaded, depth)
            except (ScriptError, OSError) as error:
                failure = ScriptError(f"{words[0]}: {error}")
                self.say(str(failure))
        if failure is not None:
            raise failure
        return None

    def _command(self, words: list[str], url: str, loaded: _Loaded, depth: int) -> Kernel | Exit | None:
        name, arguments = words[0], words[1:]
        if name in _NEED_ARGUMENT and not arguments:
            raise ScriptError("an argument is missing")
        match name:
            case "kernel":
                loaded.kernel, loaded.arguments = urljoin(url, arguments[0]), tuple(arguments[1:])
            case "initrd":
                loaded.initrd = urljoin(url, _operand(arguments))
            case "set":
                self._set[arguments[0]] = " ".join(arguments[1:])
            case "echo":
                self.say(" ".join(arguments))
            case "chain":
                return self.run(urljoin(url, _operand(arguments)), depth + 1)
            case "boot":
                return loaded.boot()
            case "exit" | "sanboot":
                return Exit()
            case _ if name not in _DONE_BEFORE:
                raise ScriptError("command not found")
        return None

    def _expand(self, text: str) -> str:
        return _SETTING.sub(lambda m: self._set.get(m[1], self.settings.get(m[1], "")), text)


def _operand(arguments: list[str]) -> str:
    """The first word that is no option: `initrd --name initrd http://...`, `chain --autofree URL`."""
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word in ("--name", "-n", "--timeout", "-t"):
            skip = True
        elif not word.startswith("-"):
            return word
    raise ScriptError("no URL among the arguments")
