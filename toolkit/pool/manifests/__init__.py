"""The objects that the door needs in a cluster: shipped as text, filled with the site's names. Pure but for reading."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.kubernetes.client import Object
from toolkit.pool.door_rule import Doormen, expressions

VALIDATING, MUTATING = "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where the doorkeeper answers.

    url     as the API server reaches it: `https://10.0.0.5:9443/door`
    ca_pem  that its certificate is verified by
    kind    how it is registered: VALIDATING, or MUTATING for servers before 1.21 (why: webhook.yaml.j2)
    """

    url: str
    ca_pem: bytes
    kind: str = VALIDATING


def manifests(namespace: str, allowed: Doormen, webhook: Webhook | None) -> tuple[Object, ...]:
    """All objects, in the order to apply them: with `webhook` for a server without ValidatingAdmissionPolicy."""
    if webhook is not None and not webhook.url.startswith("https://"):
        raise UsageError(f"{webhook.url!a} is no https:// address", "API servers call webhooks over TLS only")
    last = "policy" if webhook is None else "webhook"
    filled = dict(expressions(allowed), namespace=namespace)
    if webhook is not None:
        filled.update(kind=webhook.kind, url=webhook.url, ca_bundle=base64.b64encode(webhook.ca_pem).decode())
    return tuple(found for name in ("namespace", "rights", last) for found in _rendered(name, filled))


def _rendered(name: str, filled: dict[str, object]) -> list[Object]:
    import yaml
    from jinja2 import Environment, StrictUndefined

    # YAML, not HTML: the values are names that were checked, or quoted by tojson.
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    text = environment.from_string((_HERE / f"{name}.yaml.j2").read_text(encoding="utf-8")).render(filled)
    return [document for document in yaml.safe_load_all(text) if document]
