"""Reads claims: from a neutral file of gates, from a profile of ours; and the SKUs they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from toolkit.rack.claim import WORDS, Claim, Reference, Sku, Span
from toolkit.rack.document import Document, Problems, read
from toolkit.rack.gate import WIDE, Gate, Scope
from toolkit.rack.loading import load_profile
from toolkit.rack.metric import COLLECTIVES, RAIL_METRIC, WIDE_PREFIXES, collective_metric, wide_metric
from toolkit.rack.model import Profile, UnitKind

if TYPE_CHECKING:
    from toolkit.rack.claim_schema import ClaimFile, ClaimsFile, SkuFile, SkusFile

_File = TypeVar("_File", "ClaimsFile", "SkusFile")

# metric -> test, where a closed form or a count exists
_TESTS = {
    **{collective_metric(collective, "busbw_gb_per_s"): collective for collective in COLLECTIVES},
    **{collective_metric(collective, "ranks"): "gpu_count" for collective in COLLECTIVES},
    **{wide_metric(s, c, "busbw_gb_per_s"): c for s in WIDE_PREFIXES for c in COLLECTIVES},
    "hbm_copy_gb_per_s": "hbm",
    "h2d_gb_per_s": "h2d",
    "d2h_gb_per_s": "d2h",
    "nvlink_gb_per_s": "nvlink",
    "hca_rate_gb_per_s": "nic",
    RAIL_METRIC: COLLECTIVES[0],
    "nvlinks_active": "nvlink_count",
}
_SPANS = {
    Scope.GPU: Span.GPU,
    Scope.LINK: Span.LINK,
    Scope.HCA: Span.HCA,
    Scope.NODE: Span.NODE,
    Scope.LEAF: Span.FABRIC,
    Scope.DOMAIN: Span.DOMAIN,
    Scope.RACK: Span.FABRIC,
}
# A rail is measured with one GPU and one HCA of two nodes, a leaf of every node, and nothing else is left to them.
_ONE_RAIL = (("NCCL_MNNVL_ENABLE", "0"), ("NCCL_P2P_DISABLE", "1"))
_JUDGED_BYTES = 1 << 30  # the bandwidth of a collective is of rows from 1 GiB on


def load_skus(inventory: Path) -> tuple[Sku, ...]:
    """The SKUs of inventory/skus.yml. Raises InputError with everything wrong in it, UsageError without the file."""
    from toolkit.rack.claim_schema import SkusFile

    document = read(inventory / "skus.yml")
    written = _typed(SkusFile, document)
    problems = Problems(document)
    seen: dict[str, str] = {}
    for number, sku in enumerate(written.skus):
        for name in (sku.name, *sku.aliases):
            if name.lower() in seen:
                problems.add(("skus", number, "name"), f"{name} also names {seen[name.lower()]}", "one SKU a name")
            seen[name.lower()] = sku.name
        if sku.not_slower_than and sku.not_slower_than not in {s.name for s in written.skus[:number]}:
            right = "a SKU that stands above"
            problems.add(("skus", number, "not_slower_than"), f"there is no {sku.not_slower_than} above", right)
    problems.raise_any()
    return tuple(_sku(sku) for sku in written.skus)


def _sku(written: SkuFile) -> Sku:
    fields = dict(written) | {"references": tuple(Reference(**dict(r)) for r in written.references)}
    return Sku(**fields)


def load_claims(file: Path) -> tuple[Claim, ...]:
    """The gates of a neutral file. Raises InputError with everything that is wrong in it."""
    from toolkit.rack.claim_schema import ClaimsFile

    document = read(file)
    written = _typed(ClaimsFile, document)
    return tuple(_of_neutral(gate, document, number) for number, gate in enumerate(written.gates))


def _of_neutral(written: ClaimFile, document: Document, number: int) -> Claim:
    environment = tuple(sorted(written.environment.items()))
    fields = dict(written) | {"environment": environment, "place": _place(document, ("gates", number))}
    return Claim(**fields)


def profile_claims(name: str, inventory: Path) -> tuple[tuple[Gate, Claim], ...]:
    """Every gate of a profile of ours with what it claims. Raises as `load_profile` does."""
    profile = load_profile(name, inventory)
    places = _gate_places(name, inventory)
    return tuple((gate, _claim(gate, profile, places[gate.code, gate.metric])) for gate in profile.gates)


def _claim(gate: Gate, profile: Profile, place: str) -> Claim:
    test = _TESTS.get(gate.metric, gate.metric)
    pair = gate.metric == RAIL_METRIC
    one_rail = pair or gate.scope is Scope.LEAF
    nodes = 2 if pair else _nodes(gate.scope, profile)
    return Claim(
        sku=profile.sku,
        test=test,
        scope=Span.FABRIC if pair else _SPANS[gate.scope],
        operator=gate.operator,
        limit=float(gate.limit) if isinstance(gate.limit, int | float) else None,
        unit=WORDS if isinstance(gate.limit, str | tuple) else gate.unit,
        source=gate.source,
        place=place,
        nics=1 if one_rail else profile.hcas_per_node,
        nic_gb_per_s=float(dict(profile.expected).get("hca_rate_gbit_per_s", 0)) / 8,
        nodes=nodes,
        ranks=nodes if one_rail else 0,
        environment=_ONE_RAIL if one_rail else (),
        message_bytes=_JUDGED_BYTES if test in COLLECTIVES else 0,
        publisher="rackproof",
        code=gate.code,
        required=gate.required,
        guarded=True,
    )


def _nodes(scope: Scope, profile: Profile) -> int:
    """Nodes of the communicator, of a whole rack; 0 where it is of none. A leaf is a rail: every node is on it."""
    if scope is Scope.NODE:
        return 1
    return dict(profile.units).get(UnitKind.NODE, 0) if scope in WIDE else 0


def _gate_places(name: str, inventory: Path) -> dict[tuple[str, str], str]:
    """Where each gate of a profile is written: in its own file, or in the one it takes its gates from."""
    document = read(inventory / "profiles" / f"{name}.yml")
    data = document.data
    places: dict[tuple[str, str], str] = {}
    if not isinstance(data, dict):
        return places
    if isinstance(base := data.get("gates_from"), str):
        places = _gate_places(base, inventory)
    gates = data.get("gates")
    for number, gate in enumerate(gates if isinstance(gates, list) else ()):
        if isinstance(gate, dict):
            places[str(gate.get("code")), str(gate.get("metric"))] = _place(document, ("gates", number))
    return places


def _place(document: Document, loc: tuple[str | int, ...]) -> str:
    line, column = document.place(loc)
    return f"{document.file}:{line}:{column}"


def _typed(model: type[_File], document: Document) -> _File:
    from toolkit.rack.fields import validate

    typed = validate(model, document.data)
    if not isinstance(typed, list):
        return typed
    problems = Problems(document)
    for loc, wrong, right, of_key in typed:
        problems.add(loc, wrong, right, of_key)
    problems.raise_any()
    raise AssertionError("a file that does not fit its schema has problems")
