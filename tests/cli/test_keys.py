"""`rackproof keys`: looking changes nothing, and what ends a key asks for its name."""

import json

import pytest
from click.testing import CliRunner

from toolkit.certificate.sign import load_or_create
from toolkit.cli import rackproof
from toolkit.errors import UsageError


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """The keys' folder of an installation of its own."""
    monkeypatch.setenv("RACKPROOF_HOME", str(tmp_path))
    for name in ("RACKPROOF_SIGNER", "RACKPROOF_KEY_PASSPHRASE", "RACKPROOF_KEY_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "keys"


def run(*words):
    """What the verb writes; raises what it raises."""
    return CliRunner().invoke(rackproof, ["keys", *words], catch_exceptions=False, standalone_mode=False).stdout


def test_looking_at_keys_makes_none(keys):
    """Where there is none it says so."""
    for words in (("list",), ("rotate", "--confirm", "00000000")):
        with pytest.raises(UsageError, match="no key"):
            run(*words)
    assert not keys.exists()


def test_looking_where_somebody_else_holds_the_key_leaves_it_so(keys):
    """An operator's shell without RACKPROOF_SIGNER: nothing is made, the key that signs is told."""
    key = load_or_create(keys)
    (keys / "certificate.key").unlink()
    told = json.loads(run("list", "--json"))
    assert told["signer"] == key.keyid
    assert [file.name for file in keys.iterdir()] == ["certificate.pub"]


def test_a_rotation_asks_for_the_key_s_name_and_a_stolen_one_is_marked(keys):
    """The hint is the command; the list shows what the old one is still good for."""
    key = load_or_create(keys)
    with pytest.raises(UsageError) as asked:
        run("rotate", "--stolen")
    assert asked.value.hint == f"rackproof keys rotate --stolen --confirm {key.keyid[:8]}"
    assert load_or_create(keys).keyid == key.keyid
    run("rotate", "--stolen", "--confirm", key.keyid[:8])
    told = json.loads(run("list", "--json"))
    assert [(k["stamped"], k["signs"]) for k in told["keys"]] == [(False, True), (True, False)]
    assert told["keys"][1]["keyid"] == key.keyid
    assert "with a timestamp" in run("list")
