"""Lints gates: can this floor fail, can it pass, does it measure what it says, and who says so?

A gate is compared with the closed form of the way its bytes take (`route`, `ceilings`) and with what healthy hardware
has measured. What no closed form covers is listed as unchecked, never as clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from toolkit.judge.ceilings import Ceiling
from toolkit.judge.relative import PUBLISHED, design_of
from toolkit.judge.route import COLLECTIVES, Route, Way, off_path, route
from toolkit.rack.claim import WORDS, Claim, Reference, Sku
from toolkit.rack.gate import Operator

TO_GB_PER_S = {"GB/s": 1.0, "Gb/s": 1 / 8, "MB/s": 1e-3, "TB/s": 1e3}
PLATEAU_BYTES = 1 << 30
ROUNDING = 1.005  # published ceilings are written without decimals

# A floor that lets 40 % loss pass is the complaint of NVIDIA/aicr#2784.
LEAST_SHARE_OF_REFERENCE = 0.6
# Where nothing was measured on that route: half of the least share of the yardstick that any healthy SKU reached, so
# that hardware at half rate does not pass. NVLink 679.6 of 900 (GB200 tray), NIC 376 of 400 (GB300), HBM 6.03 of 8 TB/s
# (GB300), host 193 of 450 (GB200), a port or link its own rate.
LEAST_SHARE_OF_YARDSTICK = {Way.NVLINK: 0.38, Way.NIC: 0.47, Way.HBM: 0.375, Way.HOST: 0.21, Way.PORT: 0.5}
# An older SKU tells something only where this one is about twice as fast.
HALF_AS_FAST = 0.55
# A slip is believed where the corrected number is as near the ceiling as a gate is.
PLAUSIBLE = (0.45, 1.0)
_PERCENT = ("%", "percent")
_LEAST_SHARE = 0.001  # under which the readings that settle it are too many to count
_NO_SOURCE = ("", "-", "?", "none", "todo", "tbd", "unknown", "n/a", "internal", "experience", "default")


class Code(StrEnum):
    """Stable names of what can be wrong with a gate."""

    IMPOSSIBLE = "GATE_IMPOSSIBLE"
    VACUOUS = "GATE_VACUOUS"
    OFF_PATH = "GATE_OFF_PATH"
    UNDERSIZED = "GATE_UNDERSIZED"
    UNIT_SLIP = "GATE_UNIT_SLIP"
    UNSOURCED = "GATE_UNSOURCED"
    UNDECIDABLE = "GATE_UNDECIDABLE"
    CONTRADICTS_NEIGHBOUR = "GATE_CONTRADICTS_NEIGHBOUR"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one claim. `formula` has the numbers in it; `right` says what would be."""

    code: Code
    claim: Claim
    why: str
    formula: str
    right: str

    @property
    def warning(self) -> bool:
        """Whether it is worth a look only: neighbours may differ for a reason."""
        return self.code is Code.CONTRADICTS_NEIGHBOUR


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A claim whose limit nothing was compared with, and why."""

    claim: Claim
    why: str


@dataclass(frozen=True, slots=True)
class Lint:
    """Everything found. `claims` counts what was read; those not in `unchecked` met a closed form or a count."""

    claims: int
    findings: tuple[Finding, ...]
    unchecked: tuple[Unchecked, ...]

    @property
    def defects(self) -> tuple[Finding, ...]:
        """Findings that make a gate wrong."""
        return tuple(f for f in self.findings if not f.warning)


def lint(claims: Sequence[Claim], skus: Iterable[Sku]) -> Lint:
    """Lints every claim by itself and against its neighbours. Findings come in the order of the claims."""
    known = tuple(skus)
    names = _names(known)
    findings: list[Finding] = []
    unchecked: list[Unchecked] = []
    for claim in claims:
        sku = names.get(_plain(claim.sku))
        findings += _unsourced(claim)
        if claim.operator is Operator.PEERS and claim.limit is not None:
            findings += _among_peers(claim)
        elif sku is None:
            unchecked.append(Unchecked(claim, f"no data of the SKU {claim.sku}: add it to inventory/skus.yml"))
        elif claim.unit == WORDS:
            unchecked.append(Unchecked(claim, "a limit in words"))
        elif claim.operator is Operator.SAME_ACROSS:
            unchecked.append(Unchecked(claim, "compares what it is asked of with each other: there is no limit"))
        elif claim.limit is None and (claim.guarded or not claim.required):
            unchecked.append(Unchecked(claim, "has no limit: INCONCLUSIVE by rule, never a pass"))
        else:
            findings += _alone(claim, sku, known)
            if not _is_checked(claim, sku):
                unchecked.append(Unchecked(claim, f"no closed form for {claim.test} in {claim.unit}"))
    findings += _neighbours(claims, names)
    order = {id(claim): number for number, claim in enumerate(claims)}
    return Lint(len(claims), tuple(sorted(findings, key=lambda f: order[id(f.claim)])), tuple(unchecked))


def ceiling_of(claim: Claim, skus: Iterable[Sku]) -> Ceiling | None:
    """The ceiling of one claim; None where there is no closed form or no data of its SKU."""
    if claim.operator is Operator.PEERS:
        return None  # its limit is a share of what siblings reach, which no ceiling is
    sku = sku_named(claim.sku, skus)
    found = route(claim, sku) if sku and claim.unit in TO_GB_PER_S else None
    return found.ceiling if found else None


def sku_named(name: str, skus: Iterable[Sku]) -> Sku | None:
    """The SKU of that name or alias, however it is spelt; None where there is no data of it."""
    return _names(tuple(skus)).get(_plain(name))


def _names(skus: tuple[Sku, ...]) -> dict[str, Sku]:
    return {_plain(name): sku for sku in skus for name in (sku.name, *sku.aliases)}


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _counts(claim: Claim, sku: Sku) -> tuple[int, str] | None:
    """How many there are of what the claim counts, on one node."""
    table = {
        "gpu_count": (sku.gpus_per_node, "GPUs in a node"),
        "nic_count": (claim.nics or sku.nics, "compute NIC ports in a node"),
        "nvlink_count": (sku.nvlinks, "NVLinks of a GPU"),
    }
    return table.get(claim.test)


def _is_checked(claim: Claim, sku: Sku) -> bool:
    by_rate = claim.unit in TO_GB_PER_S and route(claim, sku) is not None
    return by_rate or claim.unit == "fraction" or _counts(claim, sku) is not None


def _unsourced(claim: Claim) -> Iterator[Finding]:
    stated = claim.limit is not None or claim.unit == WORDS
    if stated and claim.source.strip().lower() in _NO_SOURCE:
        right = "name the document, measurement or decision the limit comes from, with its date"
        yield Finding(Code.UNSOURCED, claim, "nobody can check a number that comes from nowhere", "", right)


def _among_peers(claim: Claim) -> Iterator[Finding]:
    """A share below siblings: one that can be worth a part, and that readings can settle."""
    limit = claim.limit or 0.0
    share = limit / 100 if claim.unit in _PERCENT else limit
    right = f"the least share that is worth a part: 0.03 to {1 - LEAST_SHARE_OF_REFERENCE:g}"
    if share <= 0:
        why = "no two parts read the same: half of all healthy ones are below the median"
        yield Finding(Code.IMPOSSIBLE, claim, why, "", right)
    elif share >= 1 and share / 100 <= 1 - LEAST_SHARE_OF_REFERENCE:
        why = f"{limit:g} is {share:.0%} of the siblings' rate; a sound limit if it is meant in percent"
        yield Finding(Code.UNIT_SLIP, claim, why, f"{share:g} / 100 = {share / 100:g}", right)
    elif share > 1 - LEAST_SHARE_OF_REFERENCE:
        why = f"a part that lost {share:.0%} of what its siblings reach would pass"
        yield Finding(Code.VACUOUS, claim, why, f"1 - {share:g} < {LEAST_SHARE_OF_REFERENCE:g}", right)
    else:
        design = design_of(max(share, _LEAST_SHARE))
        needed = design.expected_readings(worse=True)
        if needed > design.most:
            why = f"healthy readings are further apart: a slow part takes {needed:.0f} of them or more, and there are"
            formula = f"effect {share:g}, readings' spread {PUBLISHED.sigma:g} as published of repeats"
            yield Finding(Code.UNDECIDABLE, claim, f"{why} {design.most} at most", formula, right)


def _alone(claim: Claim, sku: Sku, known: tuple[Sku, ...]) -> Iterator[Finding]:
    if reason := off_path(claim, sku):
        right = "drop the variable, or state the scope that is really measured and its own floor"
        if claim.scope.value == "fabric":
            right = (
                "spread the ranks over NVLink domains, or take NVLink away (NCCL_MNNVL_ENABLE=0, NCCL_P2P_DISABLE=1)"
            )
        yield Finding(Code.OFF_PATH, claim, f"the {claim.scope} is not what is measured: {reason}", "", right)
    if claim.test in COLLECTIVES and 0 < claim.message_bytes < PLATEAU_BYTES:
        formula = f"{claim.message_bytes:,} bytes < 2^30 = {PLATEAU_BYTES:,} bytes"
        why = "messages this small measure latency and launch, not bandwidth"
        yield Finding(Code.UNDERSIZED, claim, why, formula, "judge rows of 1 GiB and more, or the plateau")
    counted = _counts(claim, sku)
    if claim.limit is None:
        yield Finding(
            Code.VACUOUS, claim, "there is no limit, and a tool that takes 0 for it always passes", "", "state a limit"
        )
    elif claim.unit == "fraction":
        yield from _fraction(claim, claim.limit)
    elif counted is not None:
        yield from _count(claim, claim.limit, *counted)
    elif claim.unit in TO_GB_PER_S and (taken := route(claim, sku)) is not None:
        yield from _bandwidth(claim, claim.limit, sku, taken, known)
    elif claim.operator is Operator.AT_LEAST and claim.limit <= 0:
        yield _zero(claim)


def _zero(claim: Claim) -> Finding:
    return Finding(Code.VACUOUS, claim, f"everything is at least {claim.limit:g}", "", "state a limit above 0")


def _fraction(claim: Claim, limit: float) -> Iterator[Finding]:
    if claim.operator is Operator.AT_LEAST and limit <= 0:
        yield _zero(claim)
    if limit > 1:
        yield Finding(Code.IMPOSSIBLE, claim, "no share is above 1", f"{limit:g} > 1", "a share from 0 to 1")


def _count(claim: Claim, limit: float, there: int, what: str) -> Iterator[Finding]:
    formula = f"{what} = {there}"
    if limit > there and claim.operator in (Operator.AT_LEAST, Operator.EQUALS):
        yield Finding(Code.IMPOSSIBLE, claim, f"{limit:g} cannot be there", formula, f"{there}")
    elif limit < there and claim.operator is Operator.EQUALS:
        yield Finding(Code.IMPOSSIBLE, claim, f"a whole node has more than {limit:g}", formula, f"{there}")
    elif limit < there and claim.operator is Operator.AT_LEAST:
        why = f"{there - limit:g} may be missing and the node passes"
        yield Finding(Code.VACUOUS, claim, why, formula, f"{there}")


def _bandwidth(claim: Claim, limit: float, sku: Sku, taken: Route, known: tuple[Sku, ...]) -> Iterator[Finding]:
    """The floor, in GB/s and by the author's own tolerance, against the ceiling and against what is healthy."""
    if claim.operator is not Operator.AT_LEAST:
        return
    factor = TO_GB_PER_S[claim.unit]
    floor = limit * claim.tolerance * factor
    least, reason = _least(claim, sku, taken, known)
    allowed = f"a floor from {_text(least / factor)} to under {_text(taken.ceiling.gb_per_s / factor)} {claim.unit}"
    own = f"{limit:g} {claim.unit}" + (f" x {claim.tolerance:g}" if claim.tolerance != 1 else "")
    own += f" = {floor:.4g} GB/s" if claim.unit != "GB/s" or claim.tolerance != 1 else ""
    above, below = floor > taken.ceiling.gb_per_s * ROUNDING, floor < least
    named = f"{taken.ceiling.name}: {taken.ceiling.formula}"
    if floor <= 0:
        yield replace(_zero(claim), formula=named, right=allowed)
    elif (above or below) and (slip := _slip(claim, limit, taken)):
        yield Finding(Code.UNIT_SLIP, claim, f"{own} is {slip}", named, allowed)
    elif above:
        yield Finding(Code.IMPOSSIBLE, claim, f"{own} is above the ceiling: no hardware passes", named, allowed)
    elif below:
        share = f"{taken.ceiling.share(floor):.0%} of it"
        yield Finding(Code.VACUOUS, claim, f"{own} passes broken hardware: {reason}", f"{named}; {share}", allowed)


def _text(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _slip(claim: Claim, limit: float, taken: Route) -> str:
    """What the number looks like in another unit, where that explains it; else empty."""
    ceiling, given = taken.ceiling, limit * TO_GB_PER_S[claim.unit]
    # Bits are a port's unit: nobody writes a collective's busbw in them, and a factor of 8 fits too many numbers.
    units = [u for u in TO_GB_PER_S if u != claim.unit and (u != "Gb/s" or taken.way is Way.PORT)]
    tries = [(unit, limit * TO_GB_PER_S[unit]) for unit in units]
    low, high = PLAUSIBLE
    fits = [
        f"a sound floor if the number is in {unit}: {value:.4g} GB/s, {ceiling.share(value):.0%} of the ceiling"
        for unit, value in tries
        if low <= ceiling.share(value) <= high
    ]
    if not fits and ceiling.share(given) < 1 / 10 and low <= ceiling.share(given * 10) <= high:
        fits = [
            f"a digit short: {_text(limit * 10)} {claim.unit} would be {ceiling.share(given * 10):.0%} of the ceiling"
        ]
    return fits[0] if fits else ""


def _least(claim: Claim, sku: Sku, taken: Route, known: tuple[Sku, ...]) -> tuple[float, str]:
    """The lowest floor that still catches something, in GB/s, and why."""
    share = LEAST_SHARE_OF_YARDSTICK[taken.way]
    yardstick = taken.yardstick
    why = f"half-rate hardware reaches {share:g} x {yardstick.name} ({yardstick.gb_per_s:g} GB/s)"
    bounds = [(share * yardstick.gb_per_s, why)]
    reference = reference_of(claim, sku, taken)
    if reference:
        least = LEAST_SHARE_OF_REFERENCE * reference.gb_per_s
        why = f"healthy is {reference.gb_per_s:g} ({reference.source}), and {LEAST_SHARE_OF_REFERENCE:g} x that is "
        bounds.append((least, f"{why}{least:.0f} GB/s"))
    older = next((s for s in _older(sku, known) if s.references), None)
    other = route(claim, older) if older else None
    alike = other is not None and other.way is taken.way
    if older and other and alike and other.ceiling.gb_per_s <= HALF_AS_FAST * taken.ceiling.gb_per_s:
        reference = reference_of(claim, older, other)
        if reference:
            why = f"a healthy {older.name} of half the ceiling measures {reference.gb_per_s:g} ({reference.source})"
            bounds.append((reference.gb_per_s, why))
    return max(bounds)


def _older(sku: Sku, known: tuple[Sku, ...]) -> Iterator[Sku]:
    """The SKUs this one may be expected to match, nearest first."""
    by_name: Mapping[str, Sku] = {s.name: s for s in known}
    seen = {sku.name}
    while (older := by_name.get(sku.not_slower_than)) is not None and older.name not in seen:
        seen.add(older.name)
        yield older
        sku = older


def reference_of(claim: Claim, sku: Sku, taken: Route) -> Reference | None:
    """The lowest healthy measurement of this test on this way and size; by ring only where there is no other."""
    collective = claim.test in COLLECTIVES
    stated = bool(claim.nodes or claim.ranks) or claim.scope.value == "node"
    if taken.way is Way.NIC and taken.node_nic_gb_per_s != sku.nics * sku.nic_gb_per_s:
        return None
    found = [
        r
        for r in sku.references
        if r.test == claim.test
        and r.route == taken.way
        and (not collective or r.nodes == taken.nodes or (not stated and r.nodes > 1))
    ]
    found = [r for r in found if r.ring is not taken.in_switch] or found
    return min(found, key=lambda r: r.gb_per_s, default=None)


def _neighbours(claims: Sequence[Claim], names: Mapping[str, Sku]) -> Iterator[Finding]:
    """One publisher's floors for one test: a newer SKU's under an older one's that can do no more."""
    floors = [
        (claim, sku, taken, claim.limit * TO_GB_PER_S[claim.unit])
        for claim in claims
        if claim.limit and claim.operator is Operator.AT_LEAST and claim.unit in TO_GB_PER_S
        if (sku := names.get(_plain(claim.sku))) and (taken := route(claim, sku))
    ]
    skus = tuple(dict.fromkeys(names.values()))
    for claim, sku, taken, floor in floors:
        older = {s.name for s in _older(sku, skus)}
        for other, other_sku, other_taken, other_floor in floors:
            alike = (claim.test, claim.scope, taken.nodes, claim.publisher) == (
                other.test,
                other.scope,
                other_taken.nodes,
                other.publisher,
            )
            if alike and other_sku.name in older and floor < other_floor <= taken.ceiling.gb_per_s:
                why = f"the {claim.sku} may be slower than the {other.sku}, whose floor is {other.limit:g} {other.unit}"
                formula = f"{floor:g} < {other_floor:g} GB/s; {taken.ceiling.name}: {taken.ceiling.formula}"
                right = f"at least {other_floor:g} GB/s as at {other.place}, or say why it is slower"
                yield Finding(Code.CONTRADICTS_NEIGHBOUR, claim, why, formula, right)
                break
