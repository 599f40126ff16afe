"""Operator-written YAML, read so that nothing is guessed and every value knows its line and column.

Plain scalars stay strings: the schema types them. (`yaml.safe_load` reads the MAC 10:20:30:40:50:59 as the number
8041827059, the serial 0123456 as 42798 and the firmware 1.10 as 1.1.) The tree is built from the parser's events, not
by `compose`, which recurses in C: bounds on size, values, depth and aliases hold while reading, so a hostile file is
refused before it costs anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import yaml

from toolkit.errors import InputError, Problem, UsageError

MAX_BYTES = 8 * 1024 * 1024
MAX_VALUES = 250_000
MAX_ITEMS = 2048  # in one list: a rack has tens of units
MAX_DEPTH = 24
MAX_TEXT = 4096
MAX_SHOWN = 20
ONE_RACK = "one file describes one rack: tens of units; a site is many files"

# The C parser is ten times as fast; a build of PyYAML without libyaml has only the other.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Data = str | list["Data"] | dict[str, "Data"] | None
Loc = Sequence[str | int]


@dataclass(slots=True)
class Node:
    """A value with its place (1-based). `keys` holds the places of a mapping's keys, `weight` counts its
    values and `height` its levels, aliases written out."""

    line: int
    column: int
    value: str | list[Node] | dict[str, Node] | None
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    weight: int = 1
    height: int = 1


@dataclass(frozen=True, slots=True)
class Document:
    """A file's values and where each of them is written."""

    file: str
    root: Node

    @property
    def data(self) -> Data:
        """Plain Python: strings, None, lists, dictionaries."""
        return _data(self.root)

    def place(self, loc: Loc, of_key: bool = False) -> tuple[int, int]:
        """Line and column of the value at `loc`, or of its key; of the nearest value around it if there is none."""
        node, place = self.root, (self.root.line, self.root.column)
        for depth, step in enumerate(loc, 1):
            child = _child(node, step)
            if child is None:
                break
            place = (child.line, child.column)
            if of_key and depth == len(loc) and isinstance(step, str):
                place = node.keys.get(step, place)
            node = child
        return place


def _child(node: Node, step: str | int) -> Node | None:
    if isinstance(node.value, dict) and isinstance(step, str):
        return node.value.get(step)
    if isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
        return node.value[step]
    return None


def _data(node: Node) -> Data:
    value = node.value
    if isinstance(value, dict):
        return {key: _data(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_data(child) for child in value]
    return value


class Problems:
    """Collects what is wrong with one document: the first MAX_SHOWN in full, the rest as a count."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0
        self._shown: list[Problem] = []

    def add(self, loc: Loc, wrong: str, right: str = "", of_key: bool = False) -> None:
        """Notes that the value (or the key) at `loc` is wrong."""
        self.count += 1
        if len(self._shown) < MAX_SHOWN:
            line, column = self.document.place(loc, of_key)
            self._shown.append(Problem(self.document.file, line, column, path(loc), wrong, right))

    def raise_any(self) -> None:
        """Raises InputError if anything was noted; problems in the file's order."""
        if self.count:
            more = f"{self.count - len(self._shown)} more problems are not shown; " if self.count > MAX_SHOWN else ""
            ordered = sorted(self._shown, key=lambda p: (p.line, p.column))
            raise InputError(tuple(ordered), f"{more}correct {self.document.file} and run the command again")


def path(loc: Iterable[str | int]) -> str:
    """`('units', 3, 'bmc')` as `units[3].bmc`, printable whatever the file's keys are."""
    text = ""
    for step in loc:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if step.isprintable() and len(step) <= 60 else shown(step))
    return text


def shown(value: object) -> str:
    """A value from a file as it may be printed: quoted, escaped, cut."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read(file: Path) -> Document:
    """Reads and parses a file. Raises InputError for its content, UsageError where it cannot be read."""
    return parse(read_bytes(file), str(file))


def read_bytes(file: Path) -> bytes:
    """A file's bytes, never more than one over what `parse` takes. Raises UsageError where it cannot be read."""
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file", "check the path; rackproof inventory lists the racks")
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "check its permissions") from error


def parse(raw: bytes, file: str) -> Document:
    """Parses one YAML document. Raises InputError: the first fault of syntax, or every duplicate key and tag."""
    if len(raw) > MAX_BYTES:
        raise _refusal(file, 1, 1, f"the file is larger than {MAX_BYTES:,} bytes", ONE_RACK)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line, column = _place(raw, error.start)
        raise _refusal(file, line, column, "this byte is not UTF-8", "save the file as UTF-8") from error
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        line, column = _place(raw, error.position if isinstance(error.position, int) else 0)
        raise _refusal(file, line, column, "a control character is not allowed in YAML") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        context = f" {error.context}" if error.context else ""
        raise _refusal(
            file, line, column, f"not YAML: {error.problem}{context}", "check the line and the one above"
        ) from error
    return builder.document()


def peek(raw: bytes, wanted: str) -> str | None:
    """The scalar under a key of the outermost mapping, reading no further than there; None where there is none.

    For choosing among many files: what is wrong with one of them is told by `parse`, when it is used.
    """
    depth, key, at_key = 0, "", True
    try:
        for event in yaml.parse(raw[:MAX_BYTES], Loader=_LOADER):
            scalar = event.value if isinstance(event, yaml.ScalarEvent) else None
            if depth == 1 and scalar is not None and at_key:
                key = scalar
            elif depth == 1 and scalar is not None and key == wanted:
                return scalar
            if depth == 1 and (scalar is not None or isinstance(event, yaml.AliasEvent)):
                at_key = not at_key
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
                at_key = depth == 1 or at_key
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return None


def _place(raw: bytes, offset: int) -> tuple[int, int]:
    before = raw[:offset]
    return before.count(b"\n") + 1, offset - (before.rfind(b"\n") + 1) + 1


def _refusal(file: str, line: int, column: int, wrong: str, right: str = "") -> InputError:
    return InputError((Problem(file, line, column, "", wrong, right),), f"correct {file} and run the command again")


@dataclass(slots=True)
class _Frame:
    """A list or mapping being read. `key` is the mapping's key that waits for its value."""

    node: Node
    anchor: str | None
    key: str | None = None
    waiting: bool = False


class _Builder:
    """Takes the parser's events one by one and holds every bound while doing so."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.documents = 0
        self.values = 0
        self.stack: list[_Frame] = []
        self.anchors: dict[str, Node] = {}
        self.faults: list[Problem] = []

    def take(self, event: yaml.Event) -> None:
        """One event."""
        if isinstance(event, yaml.ScalarEvent):
            self._finish(self._scalar(event), event.anchor)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._open(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            frame = self.stack.pop()
            self._finish(frame.node, frame.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._refuse(*_at(event), "a second document begins here", "one file holds one document")

    def document(self) -> Document:
        """The finished tree. Raises InputError with the duplicate keys and tags that were met."""
        if self.faults:
            raise InputError(tuple(self.faults), f"correct {self.file} and run the command again")
        return Document(self.file, self.root or Node(1, 1, None))

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        self._check_tag(event)
        if len(event.value) > MAX_TEXT:
            self._refuse(*_at(event), f"a value of {len(event.value):,} characters", f"at most {MAX_TEXT:,}")
        # implicit[0] says "plain"; the style of a plain scalar is None in one parser and '' in the other.
        empty = event.implicit[0] and event.value in ("", "~", "null")
        return Node(*_at(event), None if empty else event.value)

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        self._check_tag(event)
        if len(self.stack) >= MAX_DEPTH:
            self._refuse(*_at(event), f"nested deeper than {MAX_DEPTH} levels", "a rack file needs five")
        node = Node(*_at(event), [] if isinstance(event, yaml.SequenceStartEvent) else {})
        self.stack.append(_Frame(node, event.anchor))

    def _alias(self, event: yaml.AliasEvent) -> None:
        node = self.anchors.get(event.anchor or "")
        if node is None:
            right = f"write &{event.anchor} where it is defined"
            self._refuse(*_at(event), f"*{event.anchor} refers to no anchor above it", right)
        if len(self.stack) + node.height > MAX_DEPTH:
            self._refuse(*_at(event), f"nested deeper than {MAX_DEPTH} levels", "write it out without aliases")
        self._count(event, node.weight)
        self._put(node)

    def _finish(self, node: Node, anchor: str | None) -> None:
        self._count(node, 1)
        if anchor is not None:
            self.anchors[anchor] = node
        self._put(node)

    def _count(self, at: Node | yaml.Event, values: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            line, column = (at.line, at.column) if isinstance(at, Node) else _at(at)
            self._refuse(line, column, f"more than {MAX_VALUES:,} values, aliases included", ONE_RACK)

    def _put(self, node: Node) -> None:
        """Puts a finished value where it belongs: under its key, into its list, or at the top."""
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        frame.node.weight += node.weight
        frame.node.height = max(frame.node.height, node.height + 1)
        if isinstance(frame.node.value, list):
            self._append(frame.node.value, node)
        elif isinstance(frame.node.value, dict):
            self._set(frame, frame.node.value, node)

    def _append(self, items: list[Node], node: Node) -> None:
        if len(items) >= MAX_ITEMS:
            where = path([f.key for f in self.stack if f.key is not None]) or "the list"
            self._refuse(node.line, node.column, f"{where} has more than {MAX_ITEMS:,} entries", ONE_RACK)
        items.append(node)

    def _set(self, frame: _Frame, items: dict[str, Node], node: Node) -> None:
        if frame.waiting:
            if frame.key is not None:
                items[frame.key] = node
            frame.key, frame.waiting = None, False
            return
        if not isinstance(node.value, str):
            self._refuse(node.line, node.column, "a key is empty or not plain text", "write `name: value`")
        elif node.value in frame.node.keys:
            line, column = frame.node.keys[node.value]
            self._fault(
                node.line, node.column, f"the key {shown(node.value)} is written twice", f"first at {line}:{column}"
            )
            frame.waiting = True
        else:
            frame.node.keys[node.value] = (node.line, node.column)
            frame.key, frame.waiting = node.value, True

    def _check_tag(self, event: yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        if event.tag is not None:
            self._fault(
                *_at(event), f"the tag {shown(event.tag)} is not allowed", "remove it: the schema knows the types"
            )

    def _fault(self, line: int, column: int, wrong: str, right: str) -> None:
        self.faults.append(Problem(self.file, line, column, "", wrong, right))
        if len(self.faults) >= MAX_SHOWN:
            self.document()

    def _refuse(self, line: int, column: int, wrong: str, right: str) -> NoReturn:
        raise _refusal(self.file, line, column, wrong, right)


def _at(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
