"""Encryption at rest."""

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.store.secrets import Cipher, DecryptError

CIPHER = Cipher(bytes(range(32)))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_comes_back(text: str) -> None:
    stored = CIPHER.encrypt(text)
    assert stored.startswith("enc:v1:")
    assert CIPHER.decrypt(stored) == text


def test_format_is_iv_tag_text() -> None:
    """A value written by another implementation of the format."""
    from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
    from cryptography.hazmat.primitives.ciphers import algorithms, modes

    iv = os.urandom(12)
    encryptor = Primitive(algorithms.AES(bytes(range(32))), modes.GCM(iv)).encryptor()
    sealed = encryptor.update(b"hello") + encryptor.finalize()
    stored = "enc:v1:" + base64.b64encode(iv + encryptor.tag + sealed).decode()
    assert CIPHER.decrypt(stored) == "hello"


def test_is_different_each_time() -> None:
    assert CIPHER.encrypt("same") != CIPHER.encrypt("same")


@pytest.mark.parametrize("stored", ["", "plain", "enc:v1:", "enc:v1:????", "enc:v2:AAAA", "enc:v1:" + "A" * 64])
def test_refuses_what_it_did_not_write(stored: str) -> None:
    with pytest.raises(DecryptError, match="ENCRYPTION_KEY"):
        CIPHER.decrypt(stored)


def test_refuses_another_key_and_damage() -> None:
    stored = CIPHER.encrypt("secret")
    with pytest.raises(DecryptError):
        Cipher(bytes(32)).decrypt(stored)
    with pytest.raises(DecryptError):
        CIPHER.decrypt(stored[:-5] + ("A" if stored[-5] != "A" else "B") + stored[-4:])
