"""A kubeconfig that would be less safe, or other, than it says is refused before anything is sent."""

import base64
import json

import pytest

from toolkit.errors import InputError, UsageError
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiUnreachableError
from toolkit.kubernetes.kubeconfig import load
from toolkit.virtual.control_plane import documents
from toolkit.virtual.control_plane.certificates import Authority


@pytest.fixture
def document(tmp_path):
    """A good kubeconfig, to be spoilt."""
    authority = Authority.at(tmp_path / "authority.pem")
    raw = documents.kubeconfig("https://127.0.0.1:1", authority.pem.certificate, "admin", authority.user("admin"))
    return json.loads(raw)


@pytest.fixture
def written(tmp_path):
    """Writes a kubeconfig as a site keeps it: for its owner only."""

    def write(content, mode=0o600):
        path = tmp_path / "kubeconfig"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)
        return path

    return write


def test_a_good_one_is_taken(document, written):
    """The named context or the current one, and nothing is sent."""
    document["contexts"].append({"name": "second", "context": document["contexts"][0]["context"]})
    path = written(document)
    assert load(path).cluster.server == "https://127.0.0.1:1"
    assert load(path, "second").context_name == "second"
    assert ApiServer.connect(path).requests == 0


@pytest.mark.parametrize(
    ("table", "key", "changes", "told"),
    [
        (
            "clusters",
            "cluster",
            {"insecure-skip-tls-verify": True},
            "insecure-skip-tls-verify: the server would not be",
        ),
        ("clusters", "cluster", {"server": "http://127.0.0.1:8080"}, "not https://"),
        ("clusters", "cluster", {"proxy-url": "http://proxy:3128"}, "proxy-url: not supported"),
        ("clusters", "cluster", {"tls-server-name": "other"}, "tls-server-name: not supported"),
        ("users", "user", {"exec": {"apiVersion": "v1", "command": "x"}}, "exec: not supported: it runs a program"),
        ("users", "user", {"auth-provider": {"name": "gcp"}}, "auth-provider: not supported"),
        ("users", "user", {"as": "somebody"}, "as: not supported: it acts as somebody else"),
    ],
)
def test_what_would_be_ignored_is_refused(document, written, table, key, changes, told):
    """Each setting that we do not carry out as it stands ends the command and names its field."""
    document[table][0][key] |= changes
    with pytest.raises(InputError, match=told):
        load(written(document))


def test_a_context_that_leads_nowhere_is_named(document, written):
    """No such context, no such cluster, no current context, no user: four errors, no traceback."""
    path = written(document)
    with pytest.raises(InputError, match="'other' not found"):
        load(path, "other")
    with pytest.raises(InputError, match="no context is named"):
        load(written({**document, "current-context": ""}))
    with pytest.raises(InputError, match="names no user"):
        load(
            written({**document, "contexts": [{"name": documents.CLUSTER, "context": {"cluster": documents.CLUSTER}}]})
        )
    with pytest.raises(InputError, match="not a kubeconfig"):
        load(written({**document, "clusters": []}))


@pytest.mark.parametrize("text", ["", "[]", "a: [", "clusters: 7\ncurrent-context: x", "x" * (2 << 20), "\x00"])
def test_what_is_no_kubeconfig_is_told_with_its_file(written, text):
    """Empty, a list, broken YAML, wrong types, two MiB: an error with the file's name."""
    path = written(text)
    with pytest.raises(InputError, match=str(path)):
        load(path)


def test_others_may_not_read_it(document, written, tmp_path):
    """It holds a login; a file that is not there says where it is wanted."""
    with pytest.raises(UsageError, match=r"mode 0644.*\n.*chmod 600"):
        load(written(document, 0o644))
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none")


@pytest.mark.parametrize("field", ["client-key-data", "client-certificate-data"])
def test_a_broken_key_is_told_without_its_content(document, written, field):
    """Neither base64 that is none nor a PEM that is none ends in a traceback, or shows the key."""
    for spoilt in ("%%%secret-5f3a", base64.b64encode(b"secret-5f3a").decode()):
        document["users"][0]["user"][field] = spoilt
        with pytest.raises(UsageError, match="cannot be used") as told:
            ApiServer.connect(written(document))
        assert "5f3a" not in str(told.value)


@pytest.mark.parametrize("server", ["https://[::", "https://a:b", "https://", "https://\x00"])
def test_an_address_that_is_none_is_told(document, written, server):
    """No traceback of the library below, at once or at the first request."""
    document["clusters"][0]["cluster"]["server"] = server
    with pytest.raises((UsageError, ApiUnreachableError)):
        ApiServer.connect(written(document)).version()


def test_a_token_file_that_is_gone_is_named(document, written, tmp_path):
    """The token is read when it is needed; the error names the file, and is the operator's to mend."""
    document["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
    api = ApiServer.connect(written(document))
    with pytest.raises(UsageError, match="token not found"):
        api.version()
