"""The certificate authority of one data directory: its key never leaves this process but for a file of its owner's."""

import datetime
import ipaddress
import os
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from backend.domain.egress import BadHost, normal
from backend.vault.limits import HOSTS

KEY_FILE = "ca.key"
CERTIFICATE_FILE = "ca.crt"

_YEARS = datetime.timedelta(days=3650)
_LEAF = datetime.timedelta(days=30)
_RENEW = datetime.timedelta(days=1)
_SKEW = datetime.timedelta(hours=1)


class Authority:
    """Makes certificates for hosts, and TLS contexts that show them."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_pem = _key_pem(self._leaf_key)
        self._contexts: OrderedDict[tuple[str, bool], tuple[ssl.SSLContext, datetime.datetime]] = OrderedDict()

    @classmethod
    def load(cls, directory: Path) -> "Authority":
        """The one kept in `directory`, made there once. Raises OSError, ValueError when the files cannot be used."""
        key_path, certificate_path = directory / KEY_FILE, directory / CERTIFICATE_FILE
        if not (key_path.exists() and certificate_path.exists()):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _self_signed(key)
            # The key last: a half-written pair is made anew.
            _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
            _write(key_path, _key_pem(key), 0o600)
        loaded = serialization.load_pem_private_key(key_path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != certificate.public_key():
            raise ValueError(f"{key_path} and {certificate_path} do not belong together: remove both to start anew")
        return cls(loaded, certificate)

    def context(self, host: str, *, http2: bool) -> ssl.SSLContext:
        """A server's context with a certificate for a normal host."""
        now = datetime.datetime.now(datetime.UTC)
        found = self._contexts.get((host, http2))
        if found is not None and found[1] > now:
            self._contexts.move_to_end((host, http2))
            return found[0]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        context.sni_callback = self._named
        _load(
            context, self._leaf(host, now) + self._certificate.public_bytes(serialization.Encoding.PEM) + self._leaf_pem
        )
        self._contexts[host, http2] = context, now + _LEAF - _RENEW
        if len(self._contexts) > HOSTS:
            self._contexts.popitem(last=False)
        return context

    def _named(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Remember which host the client asks for, and be that host."""
        if name is not None:
            tls.vault_name = name  # type: ignore[attr-defined]
            try:
                tls.context = self.context(normal(name), http2=True)
            except BadHost:
                return

    def _leaf(self, host: str, now: datetime.datetime) -> bytes:
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (
            (x509.SubjectAlternativeName([name]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(digital_signature=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _LEAF)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "LAP vault of this platform")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(**uses: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: uses.get(name, False) for name in names})


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """The library loads certificates from files only; this one exists in memory."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _write(path: Path, data: bytes, mode: int) -> None:
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
