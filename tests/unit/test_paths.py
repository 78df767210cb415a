from __future__ import annotations

import pytest

from objcg import _paths


def test_root_has_no_parts():
    assert _paths.split("/") == ()


@pytest.mark.parametrize(
    "parts", [("a",), ("tenants", "acme"), ("ünïcode", "a b", "..."), ("x" * 255,), ("é" * 127,)]
)
def test_a_path_is_split_into_its_parts(parts):
    assert _paths.split("/" + "/".join(parts)) == parts


def test_the_deepest_group_is_128_below_root():
    assert len(_paths.split("/a" * 128)) == 128
    with pytest.raises(ValueError, match="129 groups deep"):
        _paths.split("/a" * 129)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", "does not begin with '/'"),
        ("a/b", "does not begin with '/'"),
        ("//", "an empty part"),
        ("/a/", "an empty part"),
        ("/a//b", "an empty part"),
        ("/a/./b", "the part '.'"),
        ("/../a", "the part '..'"),
        ("/a\0b", "a NUL"),
        ("/\udc80", "cannot be written as UTF-8"),
        ("/" + "x" * 256, "a part of 256 bytes"),
        ("/" + "é" * 128, "a part of 256 bytes"),
    ],
)
def test_a_bad_path_is_named_with_its_fault_and_what_is_accepted(path, fault):
    with pytest.raises(ValueError, match="accepted is") as caught:
        _paths.split(path)
    assert fault in str(caught.value)
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize("path", [None, b"/a", 3, ["/a"]])
def test_a_path_must_be_text(path):
    with pytest.raises(TypeError, match="must be a str"):
        _paths.split(path)
