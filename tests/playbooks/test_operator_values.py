"""Values of the charts for each mode, held against the schemas; and the schemas' reader against a real validator."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.playbooks.local_plays import PLAYBOOKS, local, play_book
from toolkit.rack.model import Mode

SCHEMAS = sorted((PLAYBOOKS / "roles/helm_release/files").glob("*.schema.json"))
CHARTS = {"gpu_operator": "gpu-operator", "network_operator": "network-operator", "cni": "cilium"}


def load(name: str) -> Any:
    return json.loads((PLAYBOOKS / f"roles/helm_release/files/{name}.schema.json").read_text())


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    """The filter plugin."""
    file = PLAYBOOKS / "roles/helm_release/filter_plugins/values_schema.py"
    spec = importlib.util.spec_from_file_location("values_schema", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def by_mode(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Values of every role for every mode, as Ansible puts them together."""
    folder = tmp_path_factory.mktemp("values")
    files = [str(PLAYBOOKS / f"roles/{role}/{kind}/main.yml") for role in CHARTS for kind in ("defaults", "vars")]
    both = ", ".join(f"'{role}': {role}_ours | combine({role}_values, recursive=true)" for role in CHARTS)
    (folder / "values.j2").write_text(f"{{{{ {{{both}}} | to_json }}}}")
    lookup = (
        "lookup('ansible.builtin.template', '{}/values.j2', template_vars={{'gpu_operator_modes': ['{}']}}) | from_json"
    )
    texts = {str(mode): f"{{{{ {lookup.format(folder, mode)} }}}}" for mode in Mode}
    write = {"content": "{{ texts | to_json }}", "dest": str(folder / "all.json"), "mode": "0600"}
    task = {"name": "Write", "ansible.builtin.copy": write, "vars": {"texts": texts, "rackproof_mirror": {}}}
    plays = [{"name": "values", "hosts": "control1", "vars_files": files, "tasks": [task]}]
    book = play_book(folder / "book", plays, {"control_plane": {"control1": local()}}, {})
    assert book.code == 0, book.text[-3000:]
    found: dict[str, dict[str, Any]] = json.loads((folder / "all.json").read_text())
    return found


@pytest.mark.parametrize("mode", list(Mode))
def test_our_values_are_values_of_the_charts(by_mode: dict[str, Any], mode: Mode) -> None:
    """None is misspelled, in any mode."""
    for role, chart in CHARTS.items():
        jsonschema.Draft202012Validator(load(chart)).validate(by_mode[mode][role])


@pytest.mark.parametrize("mode", list(Mode))
def test_gpus_are_given_out_in_one_way(by_mode: dict[str, Any], mode: Mode) -> None:
    """DRA where the profile's mode is mnnvl_dra, the device plugin elsewhere; the driver is the host's always."""
    values = by_mode[mode]["gpu_operator"]
    dra = mode is Mode.MNNVL_DRA
    assert values["driver"] == {"enabled": False}
    assert values["devicePlugin"]["enabled"] is not dra
    assert values["draDriver"]["computeDomains"]["enabled"] is dra
    assert (values["gpuCluster"]["deployCR"], values["clusterPolicy"]["deployCR"]) == (dra, not dra)
    assert (values["nfd"]["enabled"], by_mode[mode]["network_operator"]["nfd"]["enabled"]) == (True, False)


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda p: p.name)
def test_a_schema_is_one_and_says_where_it_is_from(file: Path, reader: ModuleType) -> None:
    """With its date; every keyword is one that the reader looks at."""
    schema = json.loads(file.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert "read 2026-" in schema["title"] or "docs." in schema["title"]
    assert reader.values_errors({"no such value": 1}, schema) == ["no such value is no value of the chart"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"driver": {"enabled": True}}, "driver.enabled must be False"),
        ({"devicePlugin": {"enabled": "yes"}}, "devicePlugin.enabled must be boolean"),
        ({"mig": {"strategy": "some"}}, "mig.strategy must be one of none, single, mixed"),
        ({"daemonsets": {"tolerations": [{"kee": "x"}]}}, "daemonsets.tolerations[0].kee is no value of the chart"),
        ({"toolkit": []}, "toolkit must be object"),
    ],
)
def test_what_does_not_fit_is_named(reader: ModuleType, values: Any, said: str) -> None:
    """By its path, in words that say what would fit."""
    assert reader.values_errors(values, load("gpu-operator")) == [said]


def test_a_keyword_that_nobody_looks_at_is_an_error(reader: ModuleType) -> None:
    """A schema must not promise what is not checked."""
    with pytest.raises(ValueError, match="pattern, which is not looked at"):
        reader.values_errors("x", {"type": "string", "pattern": "y"})


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(-1, 1).filter(lambda f: f != int(f)),
    st.sampled_from(["a", "b"]),
)
VALUES = st.recursive(
    PLAIN,
    lambda deeper: st.lists(deeper, max_size=2) | st.dictionaries(st.sampled_from(["x", "y", "z"]), deeper, max_size=3),
    max_leaves=6,
)
SCHEMA = st.deferred(
    lambda: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"]),
            "enum": st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=2, unique=True),
            "properties": st.dictionaries(st.sampled_from(["x", "y"]), SCHEMA, max_size=2),
            "additionalProperties": st.booleans() | SCHEMA,
            "items": SCHEMA,
        },
    )
)


@settings(max_examples=150, deadline=None)
@given(values=VALUES, schema=SCHEMA)
def test_the_reader_agrees_with_a_real_validator(reader: ModuleType, values: Any, schema: Any) -> None:
    """Whatever schema of its subset, whatever values."""
    fits = jsonschema.Draft202012Validator(schema).is_valid(values)
    assert (reader.values_errors(values, schema) == []) is fits
