"""Reads OCP Test & Validation lines into the `ocptv` package's own objects and back.

The package writes; it has no reader. Its objects say of each field how it is called, what type it has and how it is
written: read by that, a line that has an unknown field, lacks one or has one of another type raises.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections import Counter
from datetime import datetime
from enum import Enum

from ocptv.output import objects
from ocptv.output.emit import ArtifactEmitter

# Written as their ids: what they stand for was told when the run began.
_HARDWARE, _SOFTWARE = objects.HardwareInfo, objects.SoftwareInfo


class Reader:
    """Counts what it read: objects by class, diagnoses by type."""

    def __init__(self):
        self.kinds = Counter()
        self.diagnoses = Counter()
        self._hardware = {}
        self._software = {}

    def line(self, text):
        """The object of a line. TypeError, ValueError or KeyError for what is none."""
        told = json.loads(text)
        root = self._object(objects.Root, told)
        assert json.loads(ArtifactEmitter._serialize(root)) == told, text
        return root

    def _object(self, kind, told):
        hints = typing.get_type_hints(kind)
        known, found = set(), {}
        for field in dataclasses.fields(kind):
            hint, name = hints[field.name], field.metadata.get("spec_field")
            if name is None:
                name, value = self._union(hint, told)
                found[field.name] = value
            else:
                found[field.name] = self._field(hint, name, told)
            known.add(name)
        strangers = set(told) - known
        if strangers:
            raise ValueError(f"{kind.__name__} has no {strangers}")
        made = kind(**found)
        self._count(kind, made)
        return made

    def _field(self, hint, name, told):
        """A value by its type; a part by its id, where only the id is written."""
        if name not in told:
            if type(None) not in typing.get_args(hint):
                raise KeyError(name)
            return None
        value = told[name]
        if name == "hardwareInfoId" and isinstance(hint, typing._GenericAlias):
            return self._hardware[value]
        if name == "softwareInfoIds":
            return [self._software[one] for one in value]
        if name == "timestamp":
            return datetime.fromisoformat(value).timestamp()
        return self._value(hint, value)

    def _union(self, hint, told):
        """The one member of a union that the line has, or of an object that may be left out."""
        options = [o for o in (typing.get_args(hint) or (hint,)) if hasattr(o, "SPEC_OBJECT")]
        named = [o for o in options if o.SPEC_OBJECT in told]
        if len(named) > 1 or (not named and type(None) not in typing.get_args(hint)):
            raise KeyError(f"one of {[o.SPEC_OBJECT for o in options]}")
        if not named:
            return "", None
        (kind,) = named
        value = told[kind.SPEC_OBJECT]
        return kind.SPEC_OBJECT, kind(value) if issubclass(kind, dict) else self._object(kind, value)

    def _value(self, hint, value):
        options = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else (hint,)
        for option in options:
            if typing.get_origin(option) is list and isinstance(value, list):
                (of,) = typing.get_args(option)
                return [self._value(of, one) for one in value]
            if dataclasses.is_dataclass(option):
                return self._object(option, value)
            if isinstance(option, type) and issubclass(option, Enum):
                return option(value)
        return value

    def _count(self, kind, made):
        self.kinds[kind.__name__] += 1
        if kind is _HARDWARE:
            self._hardware[made.id] = made
        elif kind is _SOFTWARE:
            self._software[made.id] = made
        elif kind is objects.Diagnosis:
            self.diagnoses[made.type.value] += 1
