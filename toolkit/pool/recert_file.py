"""What a site believes of tests and faults: recert.yml, every number with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.judge.recert.hazard import Cause
from toolkit.rack.document import Problems, read
from toolkit.rack.model import Suite
from toolkit.settings import Settings

FILE = "recert.yml"


@dataclass(frozen=True, slots=True)
class Sourced:
    """A number, where it comes from and the day it was written. A source that begins with `assumed` has no other."""

    value: float
    source: str
    date: str

    @property
    def assumed(self) -> bool:
        """Whether nobody has published it."""
        return self.source.startswith("assumed")


@dataclass(frozen=True, slots=True)
class Beliefs:
    """gray, gray_hours, shape  of every cause: see toolkit.judge.recert.hazard.Prior
    lost_minutes             of every node of a job, by an interruption
    oldest_hours             of evidence, after which it is renewed whatever it pays
    at_once                  share of the nodes of a leaf or domain that is tested at once
    margin_hours             a certificate that ends within these is due
    cells_hours              workloads of a run that was cut are not run again for so long
    powers                   by suite and cause: chance to find a gray fault that is there
    """

    gray: Sourced
    gray_hours: Sourced
    shape: Sourced
    lost_minutes: Sourced
    oldest_hours: Sourced
    at_once: Sourced
    margin_hours: Sourced
    cells_hours: Sourced
    powers: Mapping[Suite, Mapping[Cause, Sourced]]

    @property
    def assumed(self) -> tuple[str, ...]:
        """What of it has no source, by name; the powers of a suite together."""
        single = (
            "gray", "gray_hours", "shape", "lost_minutes", "oldest_hours", "at_once", "margin_hours", "cells_hours",
        )  # fmt: skip
        named = [f"{name} {getattr(self, name).value:g}" for name in single if getattr(self, name).assumed]
        powers = [f"powers of {s}" for s, found in self.powers.items() if any(p.assumed for p in found.values())]
        return (*named, *powers)


def load_beliefs(settings: Settings) -> Beliefs:
    """The installation's own file, else the inventory's. InputError with all that is wrong; UsageError without."""
    from toolkit.pool.recert_schema import RecertFile
    from toolkit.rack.fields import validate

    own = settings.home / FILE
    document = read(own if own.exists() else settings.inventory / FILE)
    problems = Problems(document)
    written = validate(RecertFile, document.data)
    if isinstance(written, list):
        for loc, wrong, right, of_key in written:
            problems.add(loc, wrong, right, of_key)
        problems.raise_any()
        raise AssertionError("a file that does not fit its schema has problems")
    powers: dict[Suite, dict[Cause, Sourced]] = {}
    for number, one in enumerate(written.powers):
        of_suite = powers.setdefault(one.suite, {})
        if one.cause in of_suite:
            problems.add(("powers", number), f"{one.suite} and {one.cause} have a power already", "one of each")
        of_suite[one.cause] = Sourced(one.value, one.source, one.date)
    problems.raise_any()
    single = {
        name: Sourced(told.value, told.source, told.date)
        for name, told in written
        if name != "powers"
    }  # fmt: skip
    return Beliefs(**single, powers=powers)
