"""XML of an untrusted node, hardened: no entities, no external documents, bounded depth, elements and size."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from toolkit.facts.unreadable import UnreadableError

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_ELEMENTS = 200_000


@dataclass(slots=True)
class Element:
    """An element with its own text, stripped."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def find(self, path: str) -> Element | None:
        """The first element at `a/b/c` below this one."""
        here: Element | None = self
        for tag in path.split("/"):
            here = next((c for c in here.children if c.tag == tag), None) if here else None
        return here

    def word(self, path: str) -> str | None:
        """Text of the element at the path; None where there is no such element."""
        found = self.find(path)
        return found.text if found else None


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise UnreadableError(f"deeper than {MAX_DEPTH} or more than {MAX_ELEMENTS} elements")
        element = Element(tag, attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def data(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text

    def end(self, _tag: str) -> None:
        element = self._open.pop()
        element.text = element.text.strip()


def _refuse_entity(name: str, *_: object) -> None:
    raise UnreadableError(f"it declares an entity ({name[:40]!r}), which no tool of ours does")


def parse(text: str) -> Element:
    """The root element. Raises UnreadableError for anything but plain, whole XML within the bounds."""
    if len(text) > MAX_CHARACTERS:
        raise UnreadableError(f"longer than {MAX_CHARACTERS} characters")
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise UnreadableError(f"not whole XML: {error}", error.lineno, error.offset + 1) from error
    if builder.root is None:
        raise UnreadableError("no element in it")
    return builder.root
