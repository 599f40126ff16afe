"""Command lines that are written in runbooks and pages, read as the real CLI reads them, and fenced blocks of pages."""

import shlex
from dataclasses import dataclass

import click
from markdown_it import MarkdownIt

from toolkit.cli import rackproof


@dataclass(frozen=True)
class Block:
    """A block: its language, its title (`yaml title="inventory/racks/lab.yml"`), its text, and where it begins."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def where(self):
        """For a test's name and for an error."""
        return f"{self.page}:{self.line}"


def blocks(page, text):
    """Every fenced block of a page, in order; indented ones too, as a block that is not fenced cannot be told apart."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("fence", "code_block"):
            language, *options = shlex.split(token.info) or [""]
            named = dict(option.split("=", 1) for option in options)
            if set(named) - {"title"}:
                raise ValueError(f"{page}:{token.map[0] + 1}: {token.info}: a block has a language and perhaps a title")
            found.append(Block(page, token.map[0] + 1, language, named.get("title", ""), token.content))
    return found


def spans(text):
    """Text of every code span, also of those in tables and lists."""
    told = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        told += [child.content for child in token.children or () if child.type == "code_inline"]
    return told


def prose(text):
    """What is written outside of code."""
    told = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        told += [child.content for child in token.children or () if child.type == "text"]
    return "\n".join(told)


def parse_line(line, whole=True):
    """Reads a `rackproof ...` line as far as click does before anything is done; answers the verb, or UsageError.

    Names of verbs, options and choices must exist; files and numbers may be placeholders.
    whole  required options must be there too: a command to be copied, not one that a sentence speaks of
    """
    words = shlex.split(line, comments=True)
    if words[:1] != ["rackproof"]:
        raise click.UsageError(f"not a rackproof command: {line}")
    return _parse(rackproof, words[1:], click.Context(rackproof, info_name="rackproof"), whole)


def _parse(command, words, above, whole):
    told, left, _ = command.make_parser(above).parse_args(list(words))
    for parameter in command.get_params(above):
        _check(parameter, told, above, whole)
    if not isinstance(command, click.Group):
        if left:
            raise click.UsageError(f"{above.command_path}: too many words: {' '.join(left)}")
        return above.command_path
    if "help" in told or "version" in told:
        return above.command_path
    if not left:
        raise click.UsageError(f"{above.command_path}: no verb")
    name, below, rest = command.resolve_command(above, left)
    return _parse(below, rest, click.Context(below, info_name=name, parent=above), whole)


def _check(parameter, told, above, whole):
    value = told.get(parameter.name)
    if whole and value in (None, (), []) and parameter.required:
        raise click.UsageError(f"{above.command_path}: {parameter.name} is missing")
    if value is not None and isinstance(parameter.type, click.Choice):
        for one in value if isinstance(value, list | tuple) else (value,):
            parameter.type.convert(one, parameter, above)
