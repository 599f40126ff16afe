"""What each verb prints with `--json`: its document's name and version. The schemas are files beside this one.

A version only ever grows: within it fields are added, and values to those that are enumerated; nothing is taken away,
renamed or given another type. What breaks that is the next version. So a reader passes over fields it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from toolkit.errors import UsageError

PREFIX = "rackproof.dev/"
WORK_ORDER = "rackproof/work-order/v1"  # older than the others' form of a name

# By command, without the program's name: the document. Two of one verb: the second stands under `VERB --OPTION`.
DOCUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "plan": "plan", "bringup": "bringup", "admit": "admit", "admit --plan": "admission-plan",
        "certify": "certify", "status": "status", "why": "why", "facts": "facts", "explain": "explain",
        "report": "rack-report", "fabric": "work-order", "drift": "drift", "burnin": "burnin",
        "burnin --plan": "burnin-plan", "recert plan --after": "recert-differential",
        "recert plan --minutes": "recert-budget", "recert run": "recert-run", "drain": "withdrawal",
        "revoke": "withdrawal", "door install": "door-install", "door watch": "door-line",
        "quarantine": "set-aside", "release": "set-aside", "recover": "recover", "lemons": "lemons",
        "rma": "rma-archive",
        "verify": "verification", "contract": "contract-report", "contract --verify": "contract-reading",
        "keys list": "keys", "keys rotate": "key-rotation", "keys revocations": "revocation-list",
        "gates lint": "gates-lint", "gates show": "gates", "metrics": "metrics",
        "schema": "schemas", "serve": "serve-address", "export": "export", "parse": "parsed",
        "inventory": "inventory", "intake": "intake", "virtual up": "virtual-rack", "virtual status": "virtual-rack",
        "virtual down": "virtual-down", "virtual fault": "virtual-fault",
        "image build": "image-release", "image sign": "image-release", "image verify": "image-release",
        "image show": "image-release", "image import": "image-release", "image publish": "image-offer",
        "image autoinstall": "image-autoinstall",
        "power on": "power", "power off": "power", "power status": "power-status",
        "firmware plan": "firmware-plan", "firmware update": "firmware-update",
        "bmc check": "bmc-check", "bmc log": "bmc-log", "bmc bios": "bmc-bios", "bmc sensors": "bmc-sensors",
        "bmc rotate-password": "bmc-rotation", "bmc boot": "bmc-boot",
        "netboot plan": "netboot-plan", "netboot status": "netboot-status", "netboot probe": "netboot-probe",
        "netboot serve": "netboot-service", "netboot forget": "netboot-forgotten",
        "netboot render": "netboot-configuration",
    }
)  # fmt: skip
VERSION = 1  # of all of them, until one of them breaks


def names() -> tuple[str, ...]:
    """Of every document, sorted, each once."""
    return tuple(sorted(set(DOCUMENTS.values())))


def identity(name: str) -> str:
    """What stands in the document's field `schema`."""
    return WORK_ORDER if name == "work-order" else f"{PREFIX}{name}/v{VERSION}"


def schema_text(name: str) -> str:
    """The JSON Schema of a document, as it is shipped. Raises UsageError for a name that there is none of."""
    if name not in names():
        raise UsageError(f"there is no document {name!a}", f"documents: {', '.join(names())}")
    return resources.files("toolkit.cli").joinpath("schemas", f"{name}.v{VERSION}.json").read_text(encoding="utf-8")
