"""Makes the schemas of `--json` from types: `python -m toolkit.cli.document_schemas` writes the shipped files anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from toolkit.bringup import Summary
from toolkit.certificate.reading import Verified
from toolkit.cli import document_types as types
from toolkit.cli import document_types_site as site
from toolkit.cli import documents
from toolkit.judge.version_drift import DriftReport
from toolkit.pool.admission_plan import AdmissionPlan
from toolkit.rack.burnin_plan import BurninPlan
from toolkit.rack.plan import Plan
from toolkit.reissue import Certified
from toolkit.report.contract_document import ContractReport
from toolkit.report.html.values import RackReport
from toolkit.report.lemons import LemonList
from toolkit.virtual.control import RackStatus

# A signed statement of in-toto, as https://in-toto.io/Statement/v1 has it, with its folder and digest.
IMAGE_RELEASE = {
    "type": "object",
    "properties": {
        "folder": {"type": "string"}, "digest": {"type": "string"}, "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {"type": "array", "items": {"type": "object"}}, "predicateType": {"type": "string"},
        "predicate": {"type": "object"},
    },
    "required": ["folder", "digest", "_type", "subject", "predicateType", "predicate"],
}  # fmt: skip
IMAGE_AUTOINSTALL = {
    "type": "object",
    "properties": {n: {"type": "string"} for n in ("user-data", "meta-data", "kernel-arguments")},
    "required": ["user-data", "meta-data", "kernel-arguments"],
}
# Of a node that is armed, taken or done also what its offer says of that.
NETBOOT_STATUS = {
    "type": "object",
    "properties": {
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {n: {"type": "string"} for n in ("rack", "mac", "address", "state")},
                "required": ["rack", "mac", "address", "state"],
            },
        }
    },
    "required": ["nodes"],
}

# Of a document: its type, or its schema; several whose fields it has together; a list of the forms it may have.
TYPES: Mapping[str, Any] = {
    "plan": (Plan, types.PlanMore),
    "bringup": Summary,
    "admit": (Summary, types.AdmitMore),
    "admission-plan": (AdmissionPlan, types.AdmissionPlanMore),
    "certify": Certified,
    "status": types.StatusDocument,
    "why": types.WhyDocument,
    "facts": types.FactsDocument,
    "explain": types.ExplainDocument,
    "rack-report": RackReport,
    "work-order": types.WorkOrderDocument,
    "drift": DriftReport,
    "burnin": types.BurninDocument,
    "burnin-plan": BurninPlan,
    "recert-differential": types.DifferentialDocument,
    "recert-budget": types.BudgetDocument,
    "recert-run": types.RecertRunDocument,
    "withdrawal": types.WithdrawalDocument,
    "door-install": types.DoorInstallDocument,
    "door-line": types.DoorLineDocument,
    "set-aside": types.SetAsideDocument,
    "recover": types.RecoverDocument,
    "lemons": LemonList,
    "rma-archive": types.RmaDocument,
    "verification": [(Verified, types.ProvenMore), types.RefusedDocument],
    "contract-report": ContractReport,
    "contract-reading": types.ContractReadingDocument,
    "keys": site.KeysDocument,
    "key-rotation": site.KeyRotationDocument,
    "revocation-list": site.RevocationListDocument,
    "gates-lint": site.GatesLintDocument,
    "gates": site.GatesDocument,
    "metrics": site.MetricsDocument,
    "export": site.ExportDocument,
    "parsed": dict[str, Any],
    "inventory": site.InventoryDocument,
    "intake": site.IntakeDocument,
    "virtual-rack": RackStatus,
    "virtual-down": site.VirtualDownDocument,
    "virtual-fault": site.VirtualFaultDocument,
    "image-release": IMAGE_RELEASE,
    "image-offer": site.ImageOfferDocument,
    "image-autoinstall": IMAGE_AUTOINSTALL,
    "power": site.PowerDocument,
    "power-status": site.PowerStatusDocument,
    "firmware-plan": site.FirmwarePlanDocument,
    "firmware-update": site.FirmwareUpdateDocument,
    "bmc-check": site.BmcCheckDocument,
    "bmc-log": site.BmcLogDocument,
    "bmc-bios": site.BmcBiosDocument,
    "bmc-sensors": site.BmcSensorsDocument,
    "bmc-rotation": site.BmcRotationDocument,
    "bmc-boot": site.BmcBootDocument,
    "schemas": site.SchemasDocument,
    "serve-address": site.ServeAddressDocument,
    "netboot-plan": site.NetbootPlanDocument,
    "netboot-status": NETBOOT_STATUS,
    "netboot-probe": site.NetbootProbeDocument,
    "netboot-service": site.NetbootServiceDocument,
    "netboot-forgotten": site.NetbootForgottenDocument,
    "netboot-configuration": site.NetbootConfigurationDocument,
}


class _Whole(GenerateJsonSchema):
    """Every field is required: what has a default in Python is written all the same."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return True


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a document, with its field `schema`."""
    definitions: dict[str, Any] = {}
    found = TYPES[name]
    forms = [_named(_form(one, definitions), name) for one in (found if isinstance(found, list) else [found])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://{documents.identity(name)}",
        "title": f"{documents.identity(name)}: rackproof {_verbs(name)}",
        **(forms[0] if len(forms) == 1 else {"anyOf": forms}),
        "$defs": {key: _tidy(value) for key, value in sorted(definitions.items())},
    }


def _form(of: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """One form of a document; what it refers to goes to `definitions`."""
    merged: dict[str, Any] = {}
    for one in of if isinstance(of, tuple) else (of,):
        made: JsonSchemaValue = (
            dict(one)
            if isinstance(one, dict)
            else TypeAdapter(one).json_schema(mode="serialization", schema_generator=_Whole)
        )
        definitions |= made.pop("$defs", {})
        reference = made.get("$ref", "").removeprefix("#/$defs/")
        form = dict(definitions[reference]) if reference else made
        for key in ("properties", "required"):
            if key in merged:
                form[key] = merged[key] | form[key] if key == "properties" else [*merged[key], *form[key]]
        merged |= form
    return merged


def _named(form: dict[str, Any], name: str) -> dict[str, Any]:
    form = _tidy(form)
    fields = {"schema": {"const": documents.identity(name)}, **form.get("properties", {})}
    required = ["schema", *(r for r in form.get("required", ()) if r != "schema")]
    return form | {"properties": fields, "required": required}


def _tidy(schema: Any) -> Any:
    """Without what a reader has no use for: a title that repeats the field's name, and Python's defaults."""
    if isinstance(schema, list):
        return [_tidy(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: v for k, v in schema.items() if k not in ("title", "default") or isinstance(v, dict)}
    if "properties" in kept:
        kept["properties"] = {k: _tidy(v) for k, v in kept["properties"].items()}
        return {k: v if k == "properties" else _tidy(v) for k, v in kept.items() if k != "additionalProperties"}
    return {k: _tidy(v) for k, v in kept.items()}


def _verbs(name: str) -> str:
    return ", ".join(verb for verb, document in documents.DOCUMENTS.items() if document == name)


def text_of(name: str) -> str:
    """As the shipped file has it."""
    return json.dumps(schema_of(name), indent=1, sort_keys=False) + "\n"


def write(folder: Path) -> None:
    """Writes every schema anew."""
    folder.mkdir(exist_ok=True)
    for name in documents.names():
        (folder / f"{name}.v{documents.VERSION}.json").write_text(text_of(name), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parent / "schemas")
