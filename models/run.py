#!/usr/bin/env python3
# ruff: noqa: T201, S603, S607
"""Checks the models in this folder with Spin.

Each model is of one protocol of the core.  A run is the model with some of its switches on.  It is
expected to hold, that is, to be searched to the end without an error; or to be refuted, by one
named property.  Anything else is a failure, and so is a search that did not come to its end.

Exit status: 0 if every run ended as expected, 1 if not, 2 if Spin or a C compiler is missing or
the command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

MODELS = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(MODELS), "build", "models")

MEMORY_MB = 1800  # for one search, of which two run at once
DEPTH = 100_000  # steps; no model comes near
SECONDS = 600  # for one search

# What pan prints when it has not looked at everything.
INCOMPLETE = (
    "Search not completed",
    "max search depth too small",
    "reached -DMEMLIM bound",
    "out of memory",
    "hash-compact",
    "Bit statespace",
    "VECTORSZ",
)

ENDS = "every_run_ends"  # the one property that is not an assertion in the model


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        name: Unique in its model.
        expects: None if the run has to hold, or the property that has to refute it.
        says: What is checked, or what is broken.
        switches: Macros to define.
        covers: Code of this run that is never reached is a failure, unless the model says why.
    """

    name: str
    expects: str | None
    says: str
    switches: tuple[str, ...] = ()
    covers: bool = False


@dataclass(frozen=True)
class Model:
    """A file, what its properties mean, and its runs."""

    name: str
    path: str
    properties: dict[str, str]
    runs: tuple[Run, ...]


@dataclass
class Outcome:
    """What came of a run; `refuted_by` is None if the property held everywhere."""

    refuted_by: str | None = None
    states: int = 0
    depth: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def broken(name: str, expects: str, says: str, *switches: str) -> Run:
    """A run with one mistake in it, that `expects` has to find."""
    return Run(name, expects, says, ("BROKEN_" + name.upper().replace("-", "_"), *switches))


THREAD = Model(
    "thread",
    "update/thread.pml",
    {
        "tryget_never_fails": "a task that finds an objcg in a group on its way can take it",
        "objcg_never_null": "a group on the way of a task has an objcg",
        "parent_never_kept": "what a task keeps was found in its group, not in one above",
        "charged_alive": "an objcg that is charged has a reference",
        "not_missed": "an allocation is charged to a group that its task was in while it ran, "
        "or to the parent of one that was removed",
        "not_resurrected": "nobody takes an objcg whose last reference is gone",
        "references_balance": "at rest each objcg has one reference of its group and one of each "
        "pointer to it",
        "at_rest_right": "at rest the pointer is flagged, or is to the objcg of the task's group",
    },
    (
        Run("final", None, "the form without a lock, which the kernel has", (), covers=True),
        Run("rfc", None, "the RFC's form, if attach takes the spinlock too", ("SPINLOCK",)),
        Run(
            "can-tryget-fail",
            "tryget_never_fails",
            "the thread's question: it can",
            ("CLAIM_TRYGET",),
        ),
        Run(
            "can-objcg-be-null",
            "objcg_never_null",
            "the other half of the answer: there may be no objcg to take",
            ("CLAIM_OBJCG",),
        ),
        Run(
            "tryget-without-migration",
            None,
            "if tasks cannot be moved, it cannot fail, and there is an objcg",
            ("NO_MIGRATION", "CLAIM_TRYGET", "CLAIM_OBJCG"),
        ),
        Run(
            "rfc-tryget",
            None,
            "it cannot fail in the RFC's form either, if attach takes the spinlock too",
            ("SPINLOCK", "CLAIM_TRYGET"),
        ),
        Run(
            "rfc-tryget-unlocked",
            "tryget_never_fails",
            "it can, if attach does not take it",
            ("SPINLOCK", "BROKEN_ATTACH_UNLOCKED", "CLAIM_TRYGET"),
        ),
        Run(
            "is-parent-kept",
            None,
            "the parent's objcg is found, but never kept, as attach comes before the removal",
            ("CLAIM_PARENT",),
        ),
        Run(
            "is-parent-kept-unordered",
            "parent_never_kept",
            "it is kept for a while, if a removal may come between move and attach",
            ("CLAIM_PARENT", "NO_MUTEX"),
        ),
        Run("unordered", None, "and that does no harm", ("NO_MUTEX",)),
        Run(
            "clear-load-store",
            None,
            "the flag may be cleared by a load and a store, as the look-up comes after",
            ("CLEAR_LOAD_STORE",),
        ),
        broken("plain-store", "not_missed", "the new pointer is stored, whatever is there by now"),
        broken(
            "attach-unlocked",
            "not_missed",
            "the RFC's form, if attach does not take the spinlock",
            "SPINLOCK",
        ),
        broken("move-forgets-flag", "not_missed", "a move does not set the flag"),
        broken(
            "attach-load-store",
            "references_balance",
            "the flag is set by a load and a store",
        ),
        broken("no-tryget", "not_resurrected", "an objcg is taken without looking at its count"),
    ),
)

WORD = Model(
    "word",
    "update/word.pml",
    {
        "something_found": "the walk ends at an objcg",
        "not_recycled": "what is charged is the objcg that was found, and alive",
        "not_missed": "an allocation is charged to a group that its task was in while it ran, or "
        "to the nearest group above that is not removed",
        "membership_kept": "at rest the word has the group that the last change put the task in",
        "at_rest_right": "at rest the word is flagged, or has the objcg of the group in it",
        ENDS: "nobody tries again for ever",
    },
    (
        Run("records", None, "two moves, a removal, a new group in the record", (), covers=True),
        Run("deep", None, "a move and two removals", ("DEEP",), covers=True),
        Run("ends", None, "whoever tries again has been overtaken", ("DEEP", "NP")),
        broken(
            "clear-load-store",
            "not_missed",
            "the flag is cleared by storing the word that was loaded",
        ),
        broken("plain-store", "not_missed", "the word is stored, whatever is there by now"),
        broken("half-store", "not_missed", "the reference alone is stored, whatever is there"),
        Run(
            "without-walk",
            None,
            "a group's objcg may be taken without looking at its state: where there is none any "
            "more, the word has changed before",
            ("DEEP", "WITHOUT_WALK"),
        ),
        broken("no-walk", "something_found", "a group that is offline ends the walk", "DEEP"),
        broken(
            "two-words",
            "not_missed",
            "group and reference are two words: a second thread clears the flag of a move that "
            "the first has not seen",
            "DEEP",
        ),
        broken("move-forgets-flag", "not_missed", "a move stores the group only"),
        broken("removal-forgets-flag", "not_recycled", "a removal leaves its tasks as they are"),
        broken("no-section", "not_recycled", "the look-up is in no section"),
        broken("epoch-first", "not_recycled", "the epoch advances before the tasks are flagged"),
        broken("no-reload", ENDS, "the word is not loaded again for another try", "DEEP", "NP"),
    ),
)

CHARGE = Model(
    "charge",
    "charge/charge.pml",
    {
        "never_over": "the charges let through at a level are within its max",
        "writer_or_charger": "a charge let through under the old max is in the usage that the "
        "writer of the new one gets",
        "conserved": "at rest the usage of each level is the sum of the charges that succeeded",
        "refused_only_when_full": "a charge is refused only where it would not have fitted",
    },
    (
        Run("writer", None, "three chargers, and a change of max", (), covers=True),
        Run("chargers", None, "three chargers, two of them twice", ("NO_WRITER", "TWICE")),
        Run(
            "is-refusal-exact",
            "refused_only_when_full",
            "the price of adding first: two can both be refused",
            ("CLAIM_EXACT", "NO_WRITER"),
        ),
        broken("check-then-act", "never_over", "compares first and adds then", "NO_WRITER"),
        broken("max-first", "writer_or_charger", "loads max before it adds"),
        broken("usage-first", "writer_or_charger", "the writer loads the usage before it stores"),
        broken("undo-forgets-lower", "conserved", "a refusal leaves the level below", "NO_WRITER"),
        broken("undo-twice", "never_over", "a refusal takes back twice", "NO_WRITER"),
        broken("undo-not-refusing", "conserved", "a refusal leaves its own level", "NO_WRITER"),
        broken("parent-not-charged", "conserved", "a charge stops at the first level", "NO_WRITER"),
    ),
)

RECYCLE = Model(
    "recycle",
    "recycle/recycle.pml",
    {
        "no_bytes": "an id that is recycled has no bytes",
        "no_block_names_it": "an id that is recycled owns no block",
        "no_section_holds_it": "nobody is about to charge or uncharge an id that is recycled",
        "no_slot_names_it": "an id that is recycled is no slot's key",
        "not_recycled": "an id that is charged is not free",
        "listed_once": "no id is on the list of candidates twice",
        "all_recycled": "at rest, after a reap, every dead id without bytes is free",
    },
    (
        Run("late", None, "a group is removed under its last blocks", (), covers=True),
        Run("reuse", None, "...and another is made and removed", ("REUSE",), covers=True),
        Run(
            "no-last-look",
            None,
            "the last look of objcg_may_recycle() is for none of these properties",
            ("NO_LAST_LOOK",),
        ),
        broken("at-once", "no_slot_names_it", "an id is free when its group is gone and it is 0"),
        broken("no-epoch", "no_section_holds_it", "sections are not waited for"),
        broken("no-keys", "no_slot_names_it", "slots are not looked at"),
        broken("uncharge-first", "no_block_names_it", "a block is uncharged before it is free"),
        broken("state-first", "all_recycled", "an uncharge loads the state, and then subtracts"),
        broken("offline-bytes-first", "all_recycled", "objcg_offline() loads the bytes first"),
        broken("clear-after-look", "all_recycled", "a reap looks, and then clears `candidate`"),
        broken("push-twice", "listed_once", "`candidate` is not looked at"),
    ),
)

STOCK = Model(
    "stock",
    "stock/stock.pml",
    {
        "never_understated": "at every moment, usage less stocks is no less than the blocks",
        "conserved": "at rest bytes = blocks + stocks, and usage = bytes",
        "reader_never_negative": "a reader, who takes one word after the other, has 0 or more",
    },
    (
        Run("removal", None, "two cpus, and a removal", (), covers=True),
        Run(
            "can-reader-be-negative",
            "reader_never_negative",
            "what is charged between two of a reader's loads makes it negative",
            ("READER",),
        ),
        broken("counter-first", "never_understated", "a drain empties the slot last"),
        broken("no-drain", "conserved", "a slot is taken with another's bytes in it"),
        broken("reads-stock-twice", "conserved", "a drain loads the bytes again"),
        broken("remote-refill", "never_understated", "a free writes another cpu's slot"),
        broken("reads-group-twice", "never_understated", "a charge reads objcg->memcg again"),
        broken("removal-moves-counter", "conserved", "a removal adds the usage to the parent's"),
        broken(
            "drains-others-unlocked",
            "never_understated",
            "another cpu's stock is drained without its lock",
        ),
    ),
)

LIMITS = Model(
    "limits",
    "limits/limits.pml",
    {
        "no_further": "who adds after a write of max is not let through above it, but for small "
        "charges up to the ceiling",
        "bounded": "what is charged is within the ceiling, or the usage at the last write",
        "no_idle_stock": "no large charge is refused while its cpu has bytes of the group in stock",
        "free_counts": "after a charge above max, a free on that cpu lowers the usage at once",
        "by_hand": "no bound is left of a max that was set by hand",
        "conserved": "at rest the usage is what the blocks and stocks have",
    },
    (
        Run("outside", None, "max is stored by another process", (), covers=True),
        Run("exempt", None, "with exempt(); max is set with the GIL held", ("EXEMPT", "INSIDE")),
        Run(
            "exempt-outside",
            None,
            "with exempt(); max is stored by another process, which takes no GIL",
            ("EXEMPT",),
        ),
        Run(
            "auto",
            None,
            "max is replaced, with a bound, while it may be set by hand",
            ("AUTO", "SLACK=3"),
        ),
        broken(
            "unbound-before-max",
            "by_hand",
            "the bound is taken away before max is stored",
            "AUTO",
            "SLACK=3",
        ),
        broken("bound-after-max", "by_hand", "the bound is stored after max", "AUTO", "SLACK=3"),
        broken("exempt-not-clamped", "bounded", "a reserve outlives its max", "EXEMPT"),
        broken("max-cached", "no_further", "max is loaded once, not by each charge"),
        broken("max-before-add", "no_further", "max is loaded before the charge is added"),
        broken(
            "grant-not-clamped", "bounded", "a grant outlives the max that it was above", "SLACK=1"
        ),
        broken("not-drained", "no_idle_stock", "a refusal leaves the stock as it is"),
        broken("keeps-slot", "free_counts", "a charge above max leaves the slot in place"),
    ),
)

ALL = (THREAD, WORD, CHARGE, RECYCLE, STOCK, LIMITS)


# --- the tools --------------------------------------------------------------------------------


def missing(what: str) -> SystemExit:
    """Says what is not there; the caller raises what is returned."""
    print(what, file=sys.stderr)
    return SystemExit(2)


def find_spin() -> str:
    """The path of Spin: $SPIN, or from PATH; installed where that can be done."""
    wanted = os.environ.get("SPIN", "spin")
    spin = shutil.which(wanted)
    if not spin and "SPIN" not in os.environ and os.geteuid() == 0 and shutil.which("apt-get"):
        print("spin is not installed: apt-get install spin", file=sys.stderr)
        for command in (["update"], ["install", "-y", "--no-install-recommends", "spin"]):
            subprocess.run(["apt-get", *command], check=False, stdout=sys.stderr)
        spin = shutil.which("spin")
    if not spin:
        raise missing(
            f"Spin was not found as {wanted!r}. Install Debian's package 'spin', "
            "or name the program in $SPIN."
        )
    return spin


def find_compiler() -> str:
    """The name of a C compiler: $CC, gcc or cc."""
    for name in (os.environ.get("CC", ""), "gcc", "cc"):
        if name and shutil.which(name):
            return name
    raise missing("No C compiler was found. Install the package 'gcc', or name one in $CC.")


# --- one run ----------------------------------------------------------------------------------


class Checker:
    """Runs Spin and the verifiers that it makes."""

    def __init__(self, spin: str, compiler: str) -> None:
        self.spin = spin
        self.compiler = compiler

    def folder(self, model: Model, run: Run) -> str:
        """Where a run is built, and leaves what Spin said."""
        return os.path.join(BUILD, f"{model.name}-{run.name}")

    def source(self, model: Model) -> str:
        """The path of the model."""
        return os.path.join(MODELS, model.path)

    def macros(self, run: Run) -> list[str]:
        """The switches that the model sees."""
        return ["-D" + switch for switch in run.switches if switch != "NP"]

    def command(self, folder: str, *command: str) -> str:
        """The output of a command that has to succeed."""
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:2])} failed:\n{done.stdout}")
        return done.stdout

    def build(self, model: Model, run: Run) -> None:
        """Makes the verifier."""
        folder = self.folder(model, run)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        said = self.command(folder, self.spin, *self.macros(run), "-a", self.source(model))
        if "Error" in said or "warning" in said:
            raise RuntimeError(f"spin complains of {model.path}:\n{said}")
        options = ["-O1" if run.expects else "-O2", "-w", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}"]
        if "NP" in run.switches:
            options.append("-DNP")
        else:
            options.append("-DSAFETY")
            if run.expects:
                options.append("-DBFS")  # the shortest counterexample
        self.command(folder, self.compiler, *options, "-o", "pan", "pan.c")

    def search(self, model: Model, run: Run) -> str:
        """Runs the verifier, and returns what it printed."""
        folder = self.folder(model, run)
        options = [f"-m{DEPTH}", "-w22"]
        if "NP" in run.switches:
            options.append("-l")
        done = subprocess.run(
            ["./pan", *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        with open(os.path.join(folder, "pan.out"), "w", encoding="utf-8") as file:
            file.write(done.stdout)
        return done.stdout

    def replay(self, model: Model, run: Run) -> str:
        """Follows the counterexample; the model's own sentences are in what is returned."""
        folder = self.folder(model, run)
        trail = os.path.basename(model.path) + ".trail"
        done = subprocess.run(
            [self.spin, *self.macros(run), "-k", trail, "-T", self.source(model)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return done.stdout

    def check(self, model: Model, run: Run) -> Outcome:
        """Builds, searches, and compares with what is expected."""
        outcome = Outcome()
        start = time.monotonic()
        try:
            self.build(model, run)
            said = self.search(model, run)
            judge(said, run, outcome)
            if outcome.refuted_by and not outcome.faults:
                self.check_trail(model, run, outcome)
            if run.covers and not outcome.faults:
                outcome.faults += self.unreached(model, run, said)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            outcome.faults.append(str(error))
        outcome.seconds = time.monotonic() - start
        return outcome

    def check_trail(self, model: Model, run: Run, outcome: Outcome) -> None:
        """The counterexample has to show, step by step, what the search says it does."""
        said = self.replay(model, run)
        shown = re.findall(r"text of failed assertion: assert\(.*\|\|(\w+)\)+$", said, re.MULTILINE)
        if run.expects == ENDS:
            if "START OF CYCLE" not in said:
                outcome.faults.append("the counterexample has no cycle")
        elif run.expects not in shown:
            outcome.faults.append(f"the counterexample shows {shown or 'nothing'}")

    def unreached(self, model: Model, run: Run, said: str) -> list[str]:
        """Lines that no execution reaches, less those that the model gives a reason for.

        An inline is in the verifier once for each use; a line of it is reached if any use is.
        """
        process = re.compile(r"^(?:unreached in )?(?:proctype (\S+)|init\b)")
        dead: set[tuple[str, int]] = set()
        where = ""
        for line in said.splitlines():
            if header := process.match(line):
                where = header.group(1) or "init"
            elif found := re.match(r"\t\S+:\d+, state (\d+),", line):
                dead.add((where, int(found.group(1))))
        # All states there are; without -o3, some are hidden in the one before.
        folder = os.path.join(self.folder(model, run), "states")
        os.makedirs(folder)
        self.command(folder, self.spin, *self.macros(run), "-o3", "-a", self.source(model))
        self.command(folder, self.compiler, "-w", "-DSAFETY", "-o", "pan", "pan.c")
        alive: set[int] = set()
        lines: set[int] = set()
        for line in self.command(folder, "./pan", "-d").splitlines():
            if header := process.match(line):
                where = header.group(1) or "init"
            elif found := re.match(r"\tstate\s+(\d+) -.*\] (\S+):(\d+) => ", line):
                number = int(found.group(3))
                if found.group(2) == self.source(model):
                    lines.add(number)
                    if (where, int(found.group(1))) not in dead:
                        alive.add(number)
        with open(self.source(model), encoding="utf-8") as file:
            text = ["", *file.read().splitlines()]
        faults = [] if lines else ["pan -d lists no states"]
        for number in sorted(lines):
            excused = f"unreached in {run.name}:" in text[number]
            place = f"{model.path}:{number}: {text[number].strip()}"
            if number not in alive and not excused:
                faults.append(f"never reached: {place}")
            if number in alive and excused:
                faults.append(f"reached after all: {place}")
        return faults


def judge(said: str, run: Run, outcome: Outcome) -> None:
    """Reads what pan printed; whatever is not plainly as expected is a fault."""
    faults = outcome.faults
    errors = re.search(r"errors: (\d+)", said)
    states = re.search(r"(\d+(?:\.\d+)?(?:e\+\d+)?) states, stored", said)
    depth = re.search(r"depth reached (\d+)", said)
    if not errors or not states or not depth:
        faults.append("pan said nothing that can be read:\n" + said[-2000:])
        return
    outcome.states = int(float(states.group(1)))
    outcome.depth = int(depth.group(1))
    reasons = re.findall(r"^pan:1: (.*)$", said, re.MULTILINE)
    if reasons:
        outcome.refuted_by = property_of(reasons[0])
    if outcome.refuted_by != run.expects:
        faults.append(
            f"expected {run.expects or 'no error'}, found {outcome.refuted_by or 'no error'}"
        )
    if run.expects:
        return
    if errors.group(1) != "0":
        faults.append(f"{errors.group(1)} errors")
    faults.extend(f"pan says: {word}" for word in INCOMPLETE if word in said)
    wanted = ["Full statespace search for:"]
    if "NP" in run.switches:
        wanted.append(r"non-progress cycles\s+\+")
    else:
        wanted += [r"assertion violations\s+\+", r"invalid end states\s+\+"]
    faults.extend(f"pan does not say: {line}" for line in wanted if not re.search(line, said))


def property_of(reason: str) -> str:
    """The property in one of pan's errors; what pan says, if it is in none."""
    if found := re.match(r"assertion violated .*\|\|(\w+)\)+ \(at depth", reason):
        return found.group(1)
    if reason.startswith("non-progress cycle"):
        return ENDS
    return reason


# --- what is printed --------------------------------------------------------------------------


def counterexample(checker: Checker, model: Model, run: Run) -> int:
    """Prints the shortest way to the error, a sentence for each step that matters."""
    if not run.expects:
        print(f"{model.name}/{run.name} is expected to hold: there is nothing to show")
        return 2
    outcome = checker.check(model, run)
    if outcome.faults:
        print("\n".join(outcome.faults))
        return 1
    with open(checker.source(model), encoding="utf-8") as file:
        names = dict(re.findall(r"^ \* name: (.+?) = (.+)$", file.read(), re.MULTILINE))
    print(f"{model.name}/{run.name}: {run.says}\n")
    step = 0
    for line in checker.replay(model, run).splitlines():
        if "START OF CYCLE" in line:
            print("\nfrom here on for ever:\n")
            continue
        if line.startswith(("spin: ", "\t")):
            if "trail ends" in line:
                break
            continue
        for short, name in names.items():
            line = re.sub(rf"\b{re.escape(short)}\b", name, line)  # noqa: PLW2901
        step += 1
        print(f"{step:3}. {line.strip()}")
    print(f"\nSo this does not hold: {model.properties[run.expects]} ({run.expects}).")
    return 0


def print_list(runs: list[tuple[Model, Run]]) -> None:
    """Prints the runs, and the properties of their models."""
    last: Model | None = None
    for model, run in runs:
        if model is not last:
            last = model
            print(f"\n{model.name} ({model.path})")
            for name, meaning in model.properties.items():
                print(f"  property {name}: {meaning}")
        expected = f"refuted by {run.expects}" if run.expects else "holds"
        print(f"  {model.name}/{run.name}: {run.says}; {expected}")


ROW = "{:<8} {:<25} {:<32} {:<8} {:>11} {:>6} {:>8}"


def run_all(checker: Checker, runs: list[tuple[Model, Run]], jobs: int) -> int:
    """Does the runs, prints a line for each, and returns the exit status."""
    print(ROW.format("model", "run", "expected", "result", "states", "depth", "seconds"))
    bad = 0
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [(model, run, pool.submit(checker.check, model, run)) for model, run in runs]
        for model, run, future in waiting:
            outcome = future.result()
            print(
                ROW.format(
                    model.name,
                    run.name,
                    run.expects or "holds",
                    "FAILED" if outcome.faults else "ok",
                    outcome.states,
                    outcome.depth,
                    f"{outcome.seconds:.1f}",
                ),
                flush=True,
            )
            for fault in outcome.faults:
                print("    " + fault.replace("\n", "\n    "))
            bad += bool(outcome.faults)
    holds = sum(1 for _, run in runs if not run.expects)
    print(f"{holds} to hold, {len(runs) - holds} to be refuted: {bad} not as expected")
    return 1 if bad else 0


def select(names: list[str]) -> list[tuple[Model, Run]]:
    """The runs of the given names, MODEL or MODEL/RUN; all of them if none is given."""
    runs = [(model, run) for model in ALL for run in model.runs]
    for name in names:
        if not any(name in (model.name, f"{model.name}/{run.name}") for model, run in runs):
            raise missing(f"There is no model or run named {name!r}; see --list.")
    if not names:
        return runs
    return [
        (model, run)
        for model, run in runs
        if model.name in names or f"{model.name}/{run.name}" in names
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Checks the models of the core with Spin.")
    parser.add_argument("--list", action="store_true", help="print runs and properties, and exit")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="MODEL or MODEL/RUN; may be given several times",
    )
    parser.add_argument("--trail", metavar="MODEL/RUN", help="print a counterexample in words")
    parser.add_argument("--jobs", type=int, default=2, help="searches at once (default 2)")
    args = parser.parse_args()
    runs = select([args.trail] if args.trail else args.only)
    if args.list:
        print_list(runs)
        return 0
    checker = Checker(find_spin(), find_compiler())
    if args.trail:
        if len(runs) != 1:
            raise missing(f"{args.trail!r} is not one run; see --list.")
        return counterexample(checker, *runs[0])
    return run_all(checker, runs, args.jobs)


if __name__ == "__main__":
    sys.exit(main())
