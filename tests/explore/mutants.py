#!/usr/bin/env python3
"""Shows that the explorer finds what it is there to find.

Each mutant of mutants.txt is the real core with one mistake in it.  The explorer must fail for
every one, and pass for the core as it is.  Prints a table; exits 1 if it is not so.

    mutants.py [--keep FOLDER] [--jobs N] [NAME ...]
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parent.parent / "src" / "core"
MUTANTS = HERE / "mutants.txt"

CFLAGS = ["-std=gnu11", "-O1", "-g", "-fno-strict-aliasing", "-w"]
# For what is explored; the explorer itself is ordinary C.
EXPLORED = ["-DOBJCG_EXPLORE", "-fsanitize=thread"]
LINK = ["-Wl,-z,now", "-pthread"]
SECONDS_MAX = 300


@dataclass(frozen=True)
class Mutant:
    """A mistake: in `file`, each old text (which occurs exactly once) becomes its new one."""

    name: str
    file: str
    scenarios: list[str]
    edits: list[tuple[str, str]] = field(default_factory=list)


def read_mutants() -> list[Mutant]:
    """All of mutants.txt, whose head says how it is written."""
    mutants: list[Mutant] = []
    texts: list[list[str]] = []  # old, new, old, new: of the mutant being read
    for line in [*MUTANTS.read_text().split("\n"), "=== : :"]:
        if line.startswith("=== "):
            if mutants:
                joined = ["".join(f"{each}\n" for each in text) for text in texts]
                mutants[-1].edits.extend(zip(joined[::2], joined[1::2], strict=True))
            name, file, scenarios = (part.strip() for part in line[4:].split(":"))
            mutants.append(Mutant(name, file, scenarios.split()))
            texts = []
        elif line in ("---", "+++"):
            texts.append([])
        elif texts and line:
            texts[-1].append(line)
    return mutants[:-1]


def compiler() -> list[str]:
    """The C compiler, as make would have it."""
    return shlex.split(os.environ.get("CC", "cc"))


class Tree:
    """A copy of the core, compiled with the explorer."""

    def __init__(self, folder: Path, like: Tree | None = None) -> None:
        """The folder is filled with sources, and with the objects of another tree."""
        self.core = folder / "core"
        self.objects = folder / "objects"
        self.program = folder / "explore"
        shutil.copytree(CORE, self.core)
        if like is None:
            self.objects.mkdir()
        else:
            shutil.copytree(like.objects, self.objects)

    def sources(self) -> list[tuple[Path, list[str]]]:
        """Each source file, with what it is compiled with besides."""
        explored = [*sorted(self.core.glob("*.c")), *sorted(HERE.glob("scenarios_*.c"))]
        explored.append(HERE / "core_words.c")
        ordinary = [path for path in sorted(HERE.glob("*.c")) if path not in explored]
        return [(path, EXPLORED) for path in explored] + [(path, []) for path in ordinary]

    def compile(self, changed: str | None = None) -> None:
        """Compiles everything, or what depends on one changed file of the core."""
        for path, flags in self.sources():
            if changed and changed.endswith(".c") and path != self.core / changed:
                continue
            target = self.objects / (path.stem + ".o")
            includes = [f"-I{self.core}", f"-I{HERE}"]
            run([*compiler(), *CFLAGS, *flags, *includes, "-c", str(path), "-o", str(target)])
        objects = [str(path) for path in sorted(self.objects.glob("*.o"))]
        run([*compiler(), *objects, *LINK, "-o", str(self.program)])

    def edit(self, mutant: Mutant) -> None:
        """Makes the mistake."""
        path = self.core / mutant.file
        text = path.read_text()
        for old, new in mutant.edits:
            if text.count(old) != 1:
                sys.exit(
                    f"mutants.py: {mutant.name}: this occurs {text.count(old)} times in"
                    f" {mutant.file}, and should once; adapt mutants.txt to the core:\n{old}"
                )
            text = text.replace(old, new)
        path.write_text(text)

    def explore(self, *arguments: str) -> tuple[int, str]:
        """The explorer's exit status and output."""
        command = [str(self.program), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired:
            return 2, f"not done after {SECONDS_MAX} seconds"
        return done.returncode, done.stdout + done.stderr


def run(command: list[str]) -> None:
    """Runs a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mutants.py: {shlex.join(command)}\n{done.stdout}{done.stderr}")


def failure_in(output: str) -> str:
    """What the explorer says was wrong, and in which scenario."""
    found = re.search(
        r"^(\S+) +FAILED within (\d+) .*?, (\d+) .*?\n\n +(.*)$", output, re.MULTILINE
    )
    if not found:
        return output.strip().splitlines()[-1] if output.strip() else "no output"
    return f"{found[1]:20} {found[2]} {found[3]}  {found[4]}"


def replays(tree: Tree, output: str) -> bool:
    """Whether what the first failure says can be repeated, by the schedule that it prints."""
    found = re.search(r"\n\n    (.*)\n\n    explore (--scenario .*)\n", output)
    if not found:
        return False
    status, again = tree.explore(*shlex.split(found[2]))
    # Addresses differ from one process to the next.
    words = re.sub(r"0x[0-9a-f]+", "", found[1])
    return status == 1 and words in re.sub(r"0x[0-9a-f]+", "", again)


def try_mutant(mutant: Mutant, folder: Path, base: Tree) -> tuple[bool, str]:
    """Whether a mutant is caught, and its row of the table."""
    began = time.monotonic()
    tree = Tree(folder / mutant.name, base)
    tree.edit(mutant)
    tree.compile(mutant.file)
    status, output = tree.explore("--scenario", ",".join(mutant.scenarios))
    (folder / f"{mutant.name}.txt").write_text(output)
    caught = status == 1 and "FAILED within" in output and "explorer:" not in output
    what = failure_in(output) if caught else f"NOT CAUGHT (exit {status})"
    if caught and not replays(tree, output):
        caught, what = False, f"NOT REPLAYED: {what}"
    shutil.rmtree(tree.core.parent)
    seconds = time.monotonic() - began
    return caught, f"{mutant.name:30} {mutant.file:15} {seconds:5.1f} s  {what}"


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutants")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (default: 2)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what they print there")
    options = parser.parse_args()
    mutants = read_mutants()
    unknown = set(options.names) - {mutant.name for mutant in mutants}
    if unknown:
        parser.error(f"no mutant is named {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in mutants if not options.names or mutant.name in options.names]
    scenarios = sorted({name for mutant in chosen for name in mutant.scenarios})

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        base = Tree(Path(scratch) / "base")
        base.compile()
        status, output = base.explore("--scenario", ",".join(scenarios))
        if status:
            print(f"the core as it is FAILS\n{output}")
            return 1
        print(f"the core as it is passes in the {len(scenarios)} scenarios used here")
        print(f"\n{'mutant':30} {'file':15} {'time':>7}  {'scenario':20} P D  what was wrong")
        with ThreadPoolExecutor(options.jobs) as pool:
            results = []
            for caught, row in pool.map(lambda each: try_mutant(each, folder, base), chosen):
                print(row, flush=True)
                results.append(caught)
    print(f"\n{sum(results)} of {len(results)} mutants are caught")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
