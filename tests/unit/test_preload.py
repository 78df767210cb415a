"""Preloading: when the command is executed again, and what is said when that is of no use."""

from __future__ import annotations

import os
import sys

import pytest

from objcg import _core
from objcg.cli import preload


@pytest.fixture
def executed(monkeypatch):
    """Collect what would be executed; the environment is put back after the test."""
    calls = []
    monkeypatch.setattr(_core, "native_loaded", lambda: False)
    monkeypatch.setattr(os, "execv", lambda *arguments: calls.append(arguments))
    for name in ("LD_PRELOAD", "OBJCG_PRELOADED_BY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return calls


@pytest.mark.parametrize("before", [None, "", "/lib/a.so", "/lib/a.so:/lib/b.so"])
def test_the_environment_is_put_back_after_the_second_start(executed, before):
    if before is not None:
        os.environ["LD_PRELOAD"] = before
    preload.ensure()
    assert executed == [(sys.executable, sys.orig_argv)]
    first, *rest = os.environ["LD_PRELOAD"].split(":", 1)
    assert first == preload.path()
    assert rest == ([] if before is None else [before])
    assert preload.clean_up()
    assert os.environ.get("LD_PRELOAD") == before
    assert "OBJCG_PRELOADED_BY" not in os.environ


def test_it_is_not_executed_a_third_time(executed):
    preload.ensure()
    why = preload.ensure()
    assert len(executed) == 1
    assert why == f"the dynamic loader does not preload {preload.path()}"
    assert "LD_PRELOAD" not in os.environ


@pytest.mark.parametrize("changed", [None, "/lib/a.so"])
def test_what_a_wrapper_makes_of_the_variable_stays(executed, changed):
    preload.ensure()
    del os.environ["LD_PRELOAD"]
    if changed is not None:
        os.environ["LD_PRELOAD"] = changed
    assert preload.clean_up()
    assert os.environ.get("LD_PRELOAD") == changed


def test_the_mark_of_another_process_is_not_ours(executed, monkeypatch):
    monkeypatch.setenv("OBJCG_PRELOADED_BY", str(os.getpid() + 1))
    monkeypatch.setenv("LD_PRELOAD", "/lib/a.so")
    assert not preload.clean_up()
    assert os.environ["LD_PRELOAD"] == "/lib/a.so"


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        ("path", lambda: None, "is not installed beside"),
        ("path", lambda: "/a folder/x.so", "has a space or a colon"),
        ("path", lambda: "/a:b/x.so", "has a space or a colon"),
    ],
)
def test_why_it_cannot_be_is_said(executed, monkeypatch, attribute, value, told):
    monkeypatch.setattr(preload, attribute, value)
    assert told in preload.ensure()
    assert executed == []


def test_an_interpreter_that_cannot_be_executed(executed, monkeypatch):
    def fail(*_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "execv", fail)
    assert preload.ensure().endswith("cannot be executed again: No such file or directory")
    assert "LD_PRELOAD" not in os.environ


def test_without_a_command_line_there_is_nothing_to_execute(executed, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", [])
    assert preload.ensure() == "Python does not know its own command line"
    assert executed == []
