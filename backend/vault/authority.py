"""The certificate authority of a vault: its key never leaves the process but for a file of its owner's.

A vault of its own platform keeps the key in its folder. Vaults that serve together derive the same one from the key
they share with their platforms: sandboxes then trust each of them, also one that was started after they were.
"""

import datetime
import ipaddress
import os
import ssl
from collections import OrderedDict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from backend.domain.egress import BadHost, normal
from backend.vault import identity
from backend.vault.limits import HOSTS

KEY_FILE = "ca.key"
CERTIFICATE_FILE = "ca.crt"

_LEAF = datetime.timedelta(days=30)
_RENEW = datetime.timedelta(days=1)
_SKEW = datetime.timedelta(hours=1)
_NAME = "LAP vault of this platform"


class Authority:
    """Makes certificates for hosts, and TLS contexts that show them."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_pem = identity.key_pem(self._leaf_key)
        self._contexts: OrderedDict[tuple[str, bool], tuple[ssl.SSLContext, datetime.datetime]] = OrderedDict()

    @classmethod
    def load(cls, directory: Path) -> "Authority":
        """The one kept in `directory`, made there once. Raises OSError, ValueError when the files cannot be used."""
        key_path, certificate_path = directory / KEY_FILE, directory / CERTIFICATE_FILE
        if not (key_path.exists() and certificate_path.exists()):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = identity.self_signed(key, _NAME, datetime.datetime.now(datetime.UTC) - _SKEW, identity.YEARS)
            # The key last: a half-written pair is made anew.
            _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
            _write(key_path, identity.key_pem(key), 0o600)
        loaded = serialization.load_pem_private_key(key_path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != certificate.public_key():
            raise ValueError(f"{key_path} and {certificate_path} do not belong together: remove both to start anew")
        return cls(loaded, certificate)

    @classmethod
    def derived(cls, secret: str) -> "Authority":
        """The one of all vaults that share a key."""
        key = identity.derived_key(secret, "certificate authority of sandboxes")
        return cls(key, identity.self_signed(key, _NAME, identity.EPOCH, identity.AGES))

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

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
        identity.load(context, self._leaf(host, now) + self.pem + self._leaf_pem)
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
        return identity.issued(
            self._leaf_key.public_key(),
            host[:64],
            [name],
            ExtendedKeyUsageOID.SERVER_AUTH,
            by=(self._key, self._certificate),
            start=now - _SKEW,
            end=now + _LEAF,
        ).public_bytes(serialization.Encoding.PEM)


def _write(path: Path, data: bytes, mode: int) -> None:
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
