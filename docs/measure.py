"""Measure for docs/benchmarks.md: each result becomes docs/benchmarks/NAME-VERSION.json.

    python docs/measure.py --python .venv/bin/python --python .venv-3.11/bin/python [NAME ...]
    python docs/measure.py switch --rounds 3 -- --OPTION-OF-THE-BENCHMARK ...

objcg has to be installed there, with the extras "bench" and "peers". ``make results`` sees to that.
Without a name all benchmarks are run, which takes hours; nothing else should run at the time. One
that fails is reported, the others are run all the same. docs/benchmarks.py makes the document.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from objcg import bench
from objcg.bench.runner import BenchmarkError, read_result

MOST_BYTES = 700_000
"""Of a file: it is kept with the sources. alloc has the most, some 650 rows of 800 bytes."""


def measure(python: str, name: str, options: list[str], folder: Path) -> Path:
    """Run a benchmark and store its result; return the file.

    Raises:
        BenchmarkError: it failed, or its result is too large.
    """
    partial = folder / f"{name}.partial"
    command = [python, "-m", "objcg", "bench", name, "--json", *options]
    try:
        with partial.open("wb") as output:
            # not where modules of the sources would be imported
            done = subprocess.run(command, stdout=output, cwd=folder, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"{' '.join(command)} ended with status {done.returncode}")
        result = read_result(str(partial), name)
    finally:
        partial.unlink(missing_ok=True)
    version = re.search(r" (\d+\.\d+)\.", result["python"])
    assert version is not None, result["python"]
    text = as_text(result)
    if len(text) > MOST_BYTES:
        raise BenchmarkError(f"{name}: {len(text):,} bytes, more than {MOST_BYTES:,}: not stored")
    path = folder / f"{name}-{version[1]}.json"
    path.write_text(text, encoding="utf-8")
    return path


def as_text(result: dict[str, Any]) -> str:
    """Return a result as JSON with a line for each row, so that changes of it can be read."""
    head = [f"{json.dumps(key)}: {json.dumps(result[key])}" for key in result if key != "rows"]
    rows = ",\n".join(json.dumps(row) for row in result["rows"])
    return "{" + ",\n".join([*head, f'"rows": [\n{rows}\n]']) + "}\n"


def main() -> int:
    """Measure what the command line says; return 1 if something failed."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(bench.NAMES)}")
    parser.add_argument("--python", action="append", metavar="PATH", help="default: this one")
    parser.add_argument("--results", type=Path, metavar="FOLDER", default=here / "benchmarks")
    parser.add_argument("--rounds", metavar="N", help="as of objcg bench")
    parser.add_argument("--quick", action="store_true", help="as of objcg bench: to see it work")
    parser.usage = "%(prog)s [option ...] [NAME ...] [-- option of the benchmark ...]"
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    passed_on = arguments[cut + 1 :]
    passed_on += ["--rounds", options.rounds] if options.rounds else []
    passed_on += ["--quick"] if options.quick else []
    for name in options.names:
        if name not in bench.NAMES:
            parser.error(f"{name!r} is not a benchmark; there are {', '.join(bench.NAMES)}")
    if "--quick" in passed_on and options.results == here / "benchmarks":
        parser.error("--quick measures nothing that a document could show; it needs --results")
    folder = options.results.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names or bench.NAMES:
        for python in options.python or [sys.executable]:
            start = time.monotonic()
            try:
                # the path as it is: what a link leads to is another environment
                path = measure(str(Path(python).absolute()), name, passed_on, folder)
            except (BenchmarkError, OSError) as error:
                print(f"FAILED {name}: {error}", file=sys.stderr, flush=True)
                failed.append(name)
            else:
                print(f"{path}: {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
