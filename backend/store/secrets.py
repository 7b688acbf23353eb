"""Encryption of secrets at rest: AES-256-GCM, stored as `enc:v1:` + base64(iv 12 | tag 16 | text) (LAP REST 8.1)."""

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32

_PREFIX: Final = "enc:v1:"
_IV_BYTES: Final = 12
_TAG_BYTES: Final = 16


class DecryptError(Exception):
    """A stored value was damaged or encrypted with another key."""

    def __init__(self) -> None:
        super().__init__(
            "a stored secret cannot be decrypted: start the platform with the ENCRYPTION_KEY it was stored with, "
            "or enter the secret again"
        )


class Cipher:
    """Encrypts and decrypts short texts with one 32-byte key."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def encrypt(self, text: str) -> str:
        """The stored form of `text`; different each time."""
        iv = os.urandom(_IV_BYTES)
        sealed = self._aead.encrypt(iv, text.encode(), None)
        # The library puts the tag last, the stored form has it before the text.
        return _PREFIX + base64.b64encode(iv + sealed[-_TAG_BYTES:] + sealed[:-_TAG_BYTES]).decode()

    def decrypt(self, stored: str) -> str:
        """The text of a stored form. Raises DecryptError."""
        if not stored.startswith(_PREFIX):
            raise DecryptError
        try:
            raw = base64.b64decode(stored[len(_PREFIX) :], validate=True)
            iv, tag, sealed = raw[:_IV_BYTES], raw[_IV_BYTES : _IV_BYTES + _TAG_BYTES], raw[_IV_BYTES + _TAG_BYTES :]
            return self._aead.decrypt(iv, sealed + tag, None).decode()
        except (binascii.Error, ValueError, InvalidTag) as error:
            raise DecryptError from error
