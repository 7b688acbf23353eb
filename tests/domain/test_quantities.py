"""Quantities: the whole grammar of Kubernetes, its rounding and its bounds, and what is none."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.quantities import MAX, cpu_millicores, memory_bytes

SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}


@pytest.mark.parametrize(
    ("text", "millicores"),
    [
        ("100m", 100),
        ("1.5", 1500),
        ("2", 2000),
        ("+.5", 500),
        ("5.", 5000),
        ("0", 0),
        ("-1", -1000),
        ("1e1", 10_000),
        ("1E-1", 100),
        ("1500000u", 1500),
        ("100n", 1),  # less than a millicore is one, as the scheduler counts
        ("-100n", -1),
        ("1k", 1_000_000),
    ],
)
def test_processors(text: str, millicores: int) -> None:
    assert cpu_millicores(text) == millicores


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512k", 512_000),
        ("512Ki", 524_288),
        ("1e9", 10**9),
        ("1E3", 1000),
        ("1e+3", 1000),
        ("1E", 10**18),
        ("128974848000m", 128_974_848),
        ("3Pi", 3 * 2**50),
        ("1.5Gi", 1_610_612_736),
        ("9007199254740988Ki", 9_223_372_036_854_771_712),
        ("1e999999999", MAX),
        ("-1e999999999", -MAX),
        ("1e-999999999", 1),
        ("0e999999999", 0),
        ("16Ei", MAX),
    ],
)
def test_memory(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "Gi",
        ".",
        "+",
        "1e",
        "1e+",
        "1ki",
        "1K",
        "1gi",
        "1Ni",
        "1 Gi",
        " 1",
        "1\n",
        "1.2.3",
        "--1",
        "1e1.5",
        "0x10",
        "1mm",
        "1GiB",
        "NaN",
        "inf",
        "1e3k",
        "1_000",
        "\u0661",
        "9" * 65,
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    assert cpu_millicores(text) is None
    assert memory_bytes(text) is None


@given(
    sign=st.sampled_from(["", "+", "-"]),
    whole=st.integers(0, 10**12),
    part=st.none() | st.text("0123456789", max_size=9),
    suffix=st.sampled_from(sorted(SUFFIXES)),
)
def test_number_and_suffix(sign: str, whole: int, part: str | None, suffix: str) -> None:
    number = str(whole) if part is None else f"{whole}.{part}"
    value = Fraction(number.rstrip(".")) * SUFFIXES[suffix]
    size = min(math.ceil(value), MAX)
    assert memory_bytes(f"{sign}{number}{suffix}") == (-size if sign == "-" else size)


@given(number=st.integers(0, 10**6), exponent=st.integers(-12, 18), e=st.sampled_from("eE"))
def test_exponents(number: int, exponent: int, e: str) -> None:
    expected = min(math.ceil(Fraction(number) * Fraction(10) ** exponent), MAX)
    assert memory_bytes(f"{number}{e}{exponent}") == expected


@given(st.text(max_size=80))
def test_any_text_is_a_bounded_number_or_none(text: str) -> None:
    for read in (cpu_millicores, memory_bytes):
        assert (value := read(text)) is None or abs(value) <= MAX
