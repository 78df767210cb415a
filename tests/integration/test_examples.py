"""The examples end with 0, and check themselves what they claim."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from .programs import OBJCG, run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def installed(*libraries: str) -> None:
    """Skip the test unless all of these can be imported."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; 'make .venv/.libraries' does it")


def test_a_bad_partition_is_stopped_and_the_others_finish() -> None:
    installed("numpy", "pandas")
    result = run([*OBJCG[:1], EXAMPLES / "partitions.py", "--partitions", "6"])
    assert (result.returncode, result.stderr) == (0, ""), result
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == [f"part-{n:02}" for n in range(6)]
    assert "MemoryError" in lines[4]
    assert result.stdout.rstrip().endswith("audit drift 0 bytes")


def test_partitions_say_what_to_install_when_pandas_is_missing() -> None:
    code = f"""
import runpy, sys
sys.modules["pandas"] = None
sys.modules["numpy"] = type(sys)("numpy")
runpy.run_path({str(EXAMPLES / "partitions.py")!r}, run_name="__main__")
"""
    result = run([*OBJCG[:1], "-c", code])
    assert result.returncode == 2
    assert result.stderr == (
        "partitions: pandas is not installed: pip install pandas (NumPy comes with it)\n"
    )


def test_an_image_that_is_a_bomb_stops_its_tenant_only() -> None:
    installed("PIL")
    result = run([*OBJCG, EXAMPLES / "images.py"])
    if result.returncode == 2:
        # it says so itself; then it must be that, and no other reason
        assert "images: objcg does not see the memory of Pillow here" in result.stderr
        pytest.skip("objcg run does not see the C library's malloc() here, which Pillow uses")
    assert result.returncode == 0, result
    assert "images: " not in result.stderr
    assert "audit drift 0 bytes" in result.stdout
