"""Agents' tokens: what is in them, and what is taken for one (LAP REST 1.1)."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.agent_tokens import ACCESS, MAX_LENGTH, REFRESH, SCOPES, Claims, derived_key, mint, verify

KEY = b"k" * 32
NOW = 1_800_000_000.7


def signed(claims: Any, key: bytes = KEY) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.new(key, payload, hashlib.sha256).digest()).rstrip(b"=")
    return f"{payload.decode()}.{signature.decode()}"


GOOD = {"kind": ACCESS, "agent_id": "a1", "scope": ["memory"], "iat": 1_800_000_000, "exp": 1_800_000_900}


def test_what_is_in_one() -> None:
    token = mint(KEY, ACCESS, "a1", {"skills", "memory"}, NOW)
    payload, _, signature = token.partition(".")
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == {**GOOD, "scope": ["memory", "skills"]}
    assert "=" not in token
    expected = base64.urlsafe_b64encode(hmac.new(KEY, payload.encode(), hashlib.sha256).digest())
    assert signature == expected.rstrip(b"=").decode()
    assert verify(KEY, ACCESS, token, NOW) == Claims("a1", ("memory", "skills"))
    assert verify(KEY, ACCESS, signed(GOOD), NOW) == Claims("a1", ("memory",))


def test_it_ends() -> None:
    for kind, seconds in ((ACCESS, 900), (REFRESH, 86_400)):
        token = mint(KEY, kind, "a1", SCOPES, NOW)
        assert verify(KEY, kind, token, NOW + seconds - 1)
        assert verify(KEY, kind, token, int(NOW) + seconds) is None


def test_what_it_allows() -> None:
    claims = Claims("a1", ("memory",))
    assert claims.allow("memory", "a1")
    assert claims.allow("memory")
    assert not claims.allow("memory", "a2")
    assert not claims.allow("skills", "a1")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "x",
        "x.y",
        "é.é",
        "x" * (MAX_LENGTH + 1),
        signed(GOOD, b"another key of 32 bytes, it is ok"),
        signed(GOOD) + "=",
        signed(GOOD) + "A",
        signed(GOOD)[:-1],
        signed([]),
        signed(None),
        signed({}),
        signed({**GOOD, "kind": REFRESH}),
        signed({**GOOD, "agent_id": 7}),
        signed({**GOOD, "scope": "memory"}),
        signed({**GOOD, "scope": None}),
        signed({**GOOD, "exp": "tomorrow"}),
        signed({**GOOD, "exp": True}),
        signed({**GOOD, "exp": None}),
        signed({**GOOD, "exp": 1_800_000_000}),
    ],
)
def test_what_is_none(token: str) -> None:
    assert verify(KEY, ACCESS, token, NOW) is None


@given(st.data())
def test_one_changed_character_spoils_it(data: st.DataObject) -> None:
    token = mint(KEY, ACCESS, "a1", SCOPES, NOW)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_=.").filter(lambda letter: letter != token[place]))
    assert verify(KEY, ACCESS, token[:place] + other + token[place + 1 :], NOW) is None


@given(st.text(max_size=100))
def test_any_text(text: str) -> None:
    assert verify(KEY, ACCESS, text, NOW) is None


def test_the_derived_key_is_hkdf() -> None:
    expected = HKDF(hashes.SHA256(), 32, salt=None, info=b"lapconsole agent tokens").derive(b"master")
    assert derived_key(b"master") == expected != b"master"
