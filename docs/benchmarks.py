"""Make docs/benchmarks.md, its pictures and the README's table of the results in docs/benchmarks.

    python docs/benchmarks.py            # rewrites what is not up to date
    python docs/benchmarks.py --check    # exits with 1 if something is not

A result is what ``objcg bench NAME --json`` has printed, in docs/benchmarks/NAME-3.13.json, or of
which version of Python it is; docs/measure.py makes them. In the document all that stands outside
of the lines ``<!-- table: ... -->`` and ``<!-- end -->`` is written by hand, and stays.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent))

import goals

from objcg import bench
from objcg.bench import document, plots
from objcg.bench.runner import BenchmarkError, read_result

MINORS = ("3.13", "3.11")
"""The versions of Python that the document shows."""

ELSEWHERE = ("seed",)
"""Benchmarks with a document of their own: this one may leave them out."""

LONG = 30
"""Lines of a table from which on it is folded."""

Results = dict[tuple[str, str], dict[str, Any]]
"""By benchmark and version of Python."""


class DocumentError(Exception):
    """The document cannot be made, or is not up to date; the text says why, in one line."""


def read(folder: Path) -> Results:
    """Return all results of a folder.

    Raises:
        DocumentError: a file is not what its name says.
    """
    found: Results = {}
    for path in sorted(folder.glob("*.json")):
        name, _, minor = path.stem.rpartition("-")
        if minor not in MINORS or name not in bench.NAMES:
            raise DocumentError(
                f"{path} is not named after a benchmark ({', '.join(bench.NAMES)}) "
                f"and a version of Python ({', '.join(MINORS)})"
            )
        try:
            result = read_result(str(path), name)
        except BenchmarkError as error:
            raise DocumentError(str(error)) from error
        if f" {minor}." not in result["python"]:
            raise DocumentError(f"{path} was measured on {result['python']}")
        found[name, minor] = result
    return found


def tables(results: Results, pictures: str) -> dict[str, str]:
    """Return all that the document shows, by name; `pictures` is the folder, as it links to it."""
    rows = {
        minor: {name: result["rows"] for (name, of), result in results.items() if of == minor}
        for minor in MINORS
    }
    made = {"summary": goals.summary(rows)}
    names = dict.fromkeys([*bench.NAMES, *(goal.benchmark for goal in goals.GOALS)])
    for name in names:
        for minor in MINORS:
            result = results.get((name, minor))
            made[f"{name} {minor}"] = (
                "Not measured."
                if result is None
                else _section(result, f"{pictures}/{name}-{minor}.svg")
            )
    return made


def _section(result: dict[str, Any], picture: str) -> str:
    benchmark = bench.load(result["name"])
    parts = [
        f"{result['python']}; {result['machine']}.",
        f"![{result['name']}: {benchmark.DESCRIPTION}]({picture})",
    ]
    for name, table in benchmark.markdown(result["rows"]).items():
        if table.count("\n") >= LONG:
            folded = f"<details><summary>{name}: {table.count(chr(10)) - 1} lines</summary>"
            parts += [folded, table, "</details>"]
        else:
            parts += [f"{name}:", table]
    return "\n\n".join(parts)


def rewrite(text: str, results: Results, pictures: str) -> str:
    """Return the document as the results make it.

    Raises:
        DocumentError: its markers are wrong, or a benchmark has none.
    """
    made = tables(results, pictures)
    there = document.names(text)
    needed = [
        name
        for name in made
        if name.partition(" ")[0] not in ELSEWHERE
        or any(name == f"{benchmark} {minor}" for benchmark, minor in results)
    ]
    for name in needed:
        if there.count(name) != 1:
            raise DocumentError(
                f"the line <!-- table: {name} --> is there {there.count(name)} times"
            )
    try:
        return document.rewrite(text, made)
    except ValueError as error:
        raise DocumentError(str(error)) from error


def stale_pictures(results: Results, folder: Path) -> list[str]:
    """Return what is wrong with the pictures of a folder, a line for each."""
    wrong = []
    expected = {folder / f"{name}-{minor}.svg": result for (name, minor), result in results.items()}
    for path, result in expected.items():
        if not path.exists():
            wrong.append(f"{path} is not there")
        elif plots.digest_of(str(path)) != plots.digest(result):
            wrong.append(f"{path} was not made from {path.with_suffix('.json').name}")
    wrong += [
        f"{path} has no result" for path in sorted(folder.glob("*.svg")) if path not in expected
    ]
    return wrong


def make(text_path: Path, folder: Path, *, check: bool, excerpts: Sequence[Path] = ()) -> list[str]:
    """Bring document and pictures up to date, or say what is not.

    Excerpts are other documents that show some of the tables.

    Raises:
        DocumentError: it cannot be made.
    """
    results = read(folder)
    new = {text_path: rewrite(text_path.read_text(encoding="utf-8"), results, folder.name)}
    try:
        for path in excerpts:
            made = tables(results, f"docs/{folder.name}")
            new[path] = document.rewrite(path.read_text(encoding="utf-8"), made)
    except ValueError as error:
        raise DocumentError(f"{path}: {error}") from error
    if check:
        wrong = [
            f"{path} is not what {folder} makes"
            for path, text in new.items()
            if text != path.read_text(encoding="utf-8")
        ]
        return wrong + stale_pictures(results, folder)
    for path in folder.glob("*.svg"):
        name, _, minor = path.stem.rpartition("-")
        if (name, minor) not in results:
            path.unlink()
    try:
        for (name, minor), result in results.items():
            plots.draw(bench.load(name), result, str(folder / f"{name}-{minor}.svg"))
    except BenchmarkError as error:
        raise DocumentError(str(error)) from error
    for path, text in new.items():
        path.write_text(text, encoding="utf-8")
    return []


def main() -> int:
    """Do what the command line says."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, metavar="FOLDER", default=here / "benchmarks")
    parser.add_argument(
        "--document",
        type=Path,
        metavar="FILE",
        help="default: of the folder's name, beside it, as FOLDER.md",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if it is not up to date"
    )
    options = parser.parse_args()
    folder = options.results.resolve()
    path = options.document or folder.with_suffix(".md")
    excerpts = [here.parent / "README.md"] if path == here / "benchmarks.md" else []
    try:
        wrong = make(path, folder, check=options.check, excerpts=excerpts)
    except (DocumentError, OSError) as error:
        wrong = [str(error)]
    for line in wrong:
        print(f"docs/benchmarks.py: {line}", file=sys.stderr)
    if wrong and options.check:
        print("run: make documents", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
