"""The cluster's certificate authority, and what it signs: servers by address, users by name and groups. P-256 keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import RackproofError
from toolkit.virtual.tls import write_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, ExtensionType, GeneralName, ObjectIdentifier

LIFETIME = timedelta(days=365)
_AUTHORITY_LIFETIME = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when. As the CA's own clock sees it, a certificate may begin later or be over already."""

    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, lifetime: timedelta = LIFETIME) -> Validity:
        """From five minutes ago, for clocks that go behind ours."""
        now = datetime.now(UTC)
        return cls(now - _CLOCK_SKEW, now + lifetime)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority. Key and certificate are one file, so that there is never one without the other."""

    def __init__(self, key: EllipticCurvePrivateKey, certificate: Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def at(cls, path: Path) -> Authority:
        """The authority in this file, or a new one put there."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if not path.exists():
            made = _make()
            write_private(path, made.pem.key + made.pem.certificate)
            return made
        raw = path.read_bytes()
        key = load_pem_private_key(raw, None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise RackproofError(f"{path} is not a certificate authority of ours", "remove the control plane's folder")
        return cls(key, x509.load_pem_x509_certificate(raw))

    @property
    def pem(self) -> Issued:
        """The authority's own certificate and key."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return Issued(self._certificate.public_bytes(Encoding.PEM), _pem_key(self._key))

    @property
    def pin(self) -> str:
        """What a joining node knows the CA by: `sha256:` and the digest of its public key, as kubeadm writes it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"sha256:{hashlib.sha256(public).hexdigest()}"

    def user(self, name: str, groups: Iterable[str] = (), validity: Validity | None = None) -> Issued:
        """A client: Kubernetes takes the user from the common name, its groups from the organizations."""
        from cryptography import x509

        return self._issue(name, tuple(groups), (x509.OID_CLIENT_AUTH,), (), validity)

    def server(self, name: str, hosts: Iterable[str]) -> Issued:
        """A server at these addresses and names; also a client, as one etcd is to another."""
        from cryptography import x509

        usages = (x509.OID_SERVER_AUTH, x509.OID_CLIENT_AUTH)
        return self._issue(name, (), usages, tuple(_general(host) for host in hosts), None)

    def _issue(
        self,
        name: str,
        groups: tuple[str, ...],
        usages: tuple[ObjectIdentifier, ...],
        hosts: tuple[GeneralName, ...],
        validity: Validity | None,
    ) -> Issued:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding

        key, span = ec.generate_private_key(ec.SECP256R1()), validity or Validity.of()
        extensions: list[tuple[ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(signs=False), True),
            (x509.ExtendedKeyUsage(usages), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
        ]
        if hosts:
            extensions.append((x509.SubjectAlternativeName(hosts), False))
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(name, groups))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(span.begins)
            .not_valid_after(span.ends)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return Issued(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), _pem_key(key))


def new_key() -> bytes:
    """A private key (PEM), such as service accounts' tokens are signed with."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _pem_key(ec.generate_private_key(ec.SECP256R1()))


def _make() -> Authority:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key, span = ec.generate_private_key(ec.SECP256R1()), Validity.of(_AUTHORITY_LIFETIME)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_subject("kubernetes", ()))
        .issuer_name(_subject("kubernetes", ()))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(span.begins)
        .not_valid_after(span.ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(key, certificate)


def _subject(name: str, groups: tuple[str, ...]) -> x509.Name:
    from cryptography import x509

    rows = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*rows, x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _general(host: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
