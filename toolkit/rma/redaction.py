"""Names of a site out of what leaves it: hosts, addresses, users, secrets. Text in, text and counts out; no I/O.

The same name gets the same stand-in throughout an archive, so that a reader can still tell one host from another.
Stand-ins are numbered as they are met: the same evidence gives the same text.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from toolkit.rma.form import Policy, Treatment

REMOVED = "[secret removed]"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
# Four whole octets: a firmware's 96.00.99.00.01 and a driver's 580.95.05 are none.
_IPV4 = re.compile(rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,8}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])")
_MAC = re.compile(r"(?<![\w:\-])(?:[0-9A-Fa-f]{2}([:\-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:\-])")
_SECRETS = (
    re.compile(r"-{5}BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-{5}.*?(?:-{5}END [A-Z0-9 ]{0,40}PRIVATE KEY-{5}|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^\s/:@\"']{1,128}:[^\s/@\"']{1,256}(?=@)"),
    re.compile(r"(?i)(?<=bearer )[\w.~+/\-]{8,4096}=*"),
    re.compile(r"\beyJ[\w\-]{8,4096}\.[\w\-]{8,4096}\.[\w\-]{0,4096}"),
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,255}\b|\bhvs\.[\w\-]{20,255}"),
)  # fmt: skip
# NAME=value, "name": "value", --name value: the value goes, the name stays.
_NAMED_SECRET = re.compile(
    r"(?i)((?:passw(?:or)?d|passphrase|secret|token|api[_\-]?key|access[_\-]?key|private[_\-]?key"
    r"|authorization|credential)s?[\w\-]{0,32}[\"']?\s{0,4}(?:[=:]\s{0,4}|\s--?\s?))([\"']?)(?!\[secret)([^\s\"',;}&<]{1,4096})"
)
_USER_AT = re.compile(r"(?<![\w.\-])([A-Za-z_][\w.\-]{0,31})@([A-Za-z0-9][\w.\-]{0,252})")
_HOME = re.compile(r"(?<=/home/)[^\s/\"':,;]{1,64}")
_USER_IS = re.compile(r"(\b(?:USER|LOGNAME|SUDO_USER|USERNAME)[\"']?\s{0,2}[=:]\s{0,2}[\"']?)([\w.\-]{1,64})")
_HOST_IS = re.compile(r"(\bHOST(?:NAME)?[\"']?\s{0,2}[=:]\s{0,2}[\"']?)([A-Za-z0-9][\w.\-]{0,252})")
# The host in a line of syslog, and in one of NCCL's own.
_SYSLOG = re.compile(
    r"(?m)^((?:[A-Z][a-z]{2} [ \d]\d [\d:]{8}|\d{4}-\d\d-\d\dT[\d:.,+Z\-]{8,32}) )([A-Za-z0-9][\w.\-]{0,252})"
    r"(?= [\w.\-/]{1,64}(?:\[\d{1,8}\])?:)"
)
_NCCL = re.compile(r"(?m)^()([A-Za-z0-9][\w.\-]{0,252})(?=:\d{1,8}:\d{1,8} \[\d{1,3}\] NCCL )")
_KEPT_USERS = frozenset({"root"})


@dataclass(slots=True)
class Redactor:
    """What of a site is hidden, and how often it was.

    hosts  names known to be a site's own; users: logins
    kept   texts that are never taken for a name: serials, firmware versions, PCI addresses
    """

    policy: Policy
    hosts: Iterable[str] = ()
    users: Iterable[str] = ()
    kept: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    _stand_ins: dict[tuple[str, str], str] = field(default_factory=dict)
    _known_hosts: re.Pattern[str] | None = None
    _known_users: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        self._known_hosts = _any_of(self.hosts, r"(?:\.[A-Za-z0-9\-]{1,63}){0,6}(?:\.[A-Za-z]{2,24})?")
        self._known_users = _any_of(set(self.users) - _KEPT_USERS, "")

    def text(self, text: str) -> str:
        """The text without what the policy hides."""
        text = self._secrets(text)
        if self.policy.macs is Treatment.REPLACE:
            text = self._each(_MAC, text, "mac")
        if self.policy.addresses is Treatment.REPLACE:
            text = self._each(_IPV4, text, "address")
            text = self._each(_IPV6, text, "address", _is_ipv6)
        if self.policy.users is Treatment.REPLACE:
            text = self._users(text)
        if self.policy.hosts is Treatment.REPLACE:
            text = self._hosts(text)
        return text

    def value(self, value: object) -> object:
        """The same of every text in a JSON value, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(v) for v in value]
        return value

    def _secrets(self, text: str) -> str:
        for pattern in _SECRETS:
            text, found = pattern.subn(REMOVED, text)
            self.counts["secret"] += found
        text, found = _NAMED_SECRET.subn(lambda m: f"{m[1]}{m[2]}{REMOVED}", text)
        self.counts["secret"] += found
        return text

    def _users(self, text: str) -> str:
        def address(match: re.Match[str]) -> str:
            host = match[2] if self.policy.hosts is Treatment.KEEP else self._stand_in("host", match[2])
            return f"{self._user(match[1])}@{host}"

        text = _USER_AT.sub(address, text)
        text = _HOME.sub(lambda m: self._user(m[0]), text)
        text = _USER_IS.sub(lambda m: f"{m[1]}{self._user(m[2])}", text)
        return self._each(self._known_users, text, "user")

    def _user(self, name: str) -> str:
        return name if name in _KEPT_USERS else self._stand_in("user", name)

    def _hosts(self, text: str) -> str:
        for pattern in (_SYSLOG, _NCCL, _HOST_IS):
            text = pattern.sub(lambda m: f"{m[1]}{self._stand_in('host', m[2])}", text)
        return self._each(self._known_hosts, text, "host")

    def _each(
        self, pattern: re.Pattern[str] | None, text: str, kind: str, real: Callable[[str], bool] = lambda _: True
    ) -> str:
        if pattern is None:
            return text

        def one(match: re.Match[str]) -> str:
            found = match[0]
            return found if found in self.kept or not real(found) else self._stand_in(kind, found)

        return pattern.sub(one, text)

    def _stand_in(self, kind: str, name: str) -> str:
        """`host-1` for a host, whether by its short name or its long one."""
        if re.fullmatch(rf"{kind}-\d+", name):
            return name
        self.counts[kind] += 1
        key = kind, (name.split(".", 1)[0] if kind == "host" else name).lower()
        if key not in self._stand_ins:
            self._stand_ins[key] = f"{kind}-{sum(k == kind for k, _ in self._stand_ins) + 1}"
        return self._stand_ins[key]


def _any_of(names: Iterable[str], then: str) -> re.Pattern[str] | None:
    """Any of these names as a whole word; the longest first, so that node10 is not node1 and a nought."""
    known = sorted({name for name in names if name}, key=lambda name: (-len(name), name))
    if not known:
        return None
    words = "|".join(map(re.escape, known))
    return re.compile(rf"(?<![A-Za-z0-9])(?:{words}){then}(?![A-Za-z0-9])")


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6 and text not in ("::",)
    except ValueError:
        return False
