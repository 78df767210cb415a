from __future__ import annotations

import pytest

from objcg._sizes import LARGEST, format_size, parse_bytes, parse_limit, parse_protection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1234", 1234),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("1K", 1024),
        ("2G", 2 << 30),
        ("3T", 3 << 40),
        ("64KiB", 64 << 10),
        ("1.5 GiB", 3 << 29),
        (" 10MiB ", 10 << 20),
        ("0.5K", 512),
        ("1.50M", 3 << 19),
    ],
)
def test_text_is_read_as_the_kernel_does(text, expected):
    assert parse_bytes(text, "x") == expected
    assert parse_limit(text, "x") == expected


def test_whole_numbers_of_any_type_are_sizes():
    class Index:
        def __index__(self):
            return 7

    assert parse_limit(7, "x") == 7
    assert parse_limit(Index(), "x") == 7
    assert parse_limit(LARGEST, "x") == LARGEST


@pytest.mark.parametrize("value", ["max", " max ", None])
def test_max_and_none_are_no_limit(value):
    assert parse_limit(value, "x") is None


@pytest.mark.parametrize("value", ["max", None])
def test_a_number_of_bytes_cannot_be_unlimited(value):
    with pytest.raises((ValueError, TypeError), match="accepted are"):
        parse_bytes(value, "x")


def test_protection_can_be_unset_but_not_endless():
    assert parse_protection(None, "memory.low") is None
    assert parse_protection("1K", "memory.low") == 1024
    with pytest.raises(ValueError, match=r"'max'.*None for no protection"):
        parse_protection("max", "memory.low")


@pytest.mark.parametrize(
    "value",
    [
        *("", "M", "1X", "1KB", "1B", "-1", "+1", "1e6", "1_000", "0x10", "1 000", "1.", ".5"),
        *("0.3K", "٣", "1" * 65, "9" * 10_000, "8388608T", -1, 2**63 - 1, 2**63),
    ],
)
def test_a_bad_value_is_named_with_what_is_accepted(value):
    with pytest.raises(ValueError, match=r"^memory\.max: .*accepted are a whole number") as caught:
        parse_limit(value, "memory.max")
    assert str(value)[:50] in str(caught.value)


@pytest.mark.parametrize("value", [True, False, 1.5, b"1M", [1]])
def test_a_value_of_another_type_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^memory\.max: .*accepted are a whole number") as caught:
        parse_limit(value, "memory.max")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (35_756_441, "34.1 MiB"),
        (1 << 40, "1.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes_are_written_for_people(size, expected):
    assert format_size(size) == expected
