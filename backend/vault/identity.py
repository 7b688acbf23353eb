"""Keys and certificates made of one shared key, and the TLS by which vaults and platforms prove that they have it.

Both derive the same authority from the key, sign a certificate of their own with it, each for its side alone, and take
none that another has signed. Nothing that depends on the key is sent but under TLS 1.3 between the two, so a recording
of it is of no use.
"""

import datetime
import os
import ssl
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

MIN_KEY: Final = 32
"""Characters of a shared key: who sees a certificate of it must not guess it."""
YEARS: Final = datetime.timedelta(days=3650)
EPOCH: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
AGES: Final = 3 * YEARS - datetime.timedelta(days=7)
"""From the epoch on, for what is made anew with each process: machines whose clocks differ must agree on it."""
VAULT_NAME: Final = "lap-vault"
_SALT: Final = b"lapconsole vault 1"
# The order of the group, less one: what a private key of P-256 is below.
_GROUP: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 - 1


def derived_key(secret: str, purpose: str) -> ec.EllipticCurvePrivateKey:
    """The key for one purpose that everybody with the shared key derives."""
    data = HKDF(hashes.SHA256(), 48, _SALT, purpose.encode()).derive(secret.encode())
    return ec.derive_private_key(int.from_bytes(data, "big") % _GROUP + 1, ec.SECP256R1())


def vault_side(secret: str) -> ssl.SSLContext:
    """For a vault that platforms connect to: nobody else gets through the handshake."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, secret, ExtendedKeyUsageOID.SERVER_AUTH)
    context.num_tickets = 0
    return context


def platform_side(secret: str) -> ssl.SSLContext:
    """For a platform that connects to vaults, under the name VAULT_NAME."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, secret, ExtendedKeyUsageOID.CLIENT_AUTH)


def _context(protocol: int, secret: str, usage: ObjectIdentifier) -> ssl.SSLContext:
    authority = derived_key(secret, "control connections")
    issuer = self_signed(authority, "LAP vault control", EPOCH, AGES)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.DNSName(VAULT_NAME)
    issued_to = issued(
        key.public_key(), VAULT_NAME, [name], usage, by=(authority, issuer), start=EPOCH, end=EPOCH + AGES
    )
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=issuer.public_bytes(serialization.Encoding.PEM).decode())
    load(context, issued_to.public_bytes(serialization.Encoding.PEM) + key_pem(key))
    return context


def self_signed(
    key: ec.EllipticCurvePrivateKey, name: str, start: datetime.datetime, life: datetime.timedelta
) -> x509.Certificate:
    """The certificate of an authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def issued(
    key: ec.EllipticCurvePublicKey,
    subject: str,
    names: Sequence[x509.GeneralName],
    usage: ObjectIdentifier,
    *,
    by: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.Certificate:
    """The certificate that an authority gives to one end of connections."""
    authority, issuer = by
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (
        (x509.SubjectAlternativeName(names), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([usage]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False),
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(authority, hashes.SHA256())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in the clear."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load(context: ssl.SSLContext, pem: bytes) -> None:
    """Show a certificate, with its key in `pem`: the library loads from files only, and this one exists in memory."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _usage(**uses: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: uses.get(name, False) for name in names})
