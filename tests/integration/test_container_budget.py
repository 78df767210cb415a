"""``memory.max = "auto"``: a task gets an error before the kernel ends the process.

OBJCG_TEST_ROUNDS says how many times real containers are filled: once, in a long run 100. The
kernel's highest usage of each is printed (``pytest -rP``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from unit.cgroup_trees import Tree

import objcg

from .charges import MIB
from .container_cgroup import highest_usage, limited_cgroup
from .programs import OBJCG, TIMEOUT, environment, run, run_checked

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 64 * MIB
ROUNDS = int(os.environ.get("OBJCG_TEST_ROUNDS", "1"))
SIGKILLED = -9

# Until it is stopped by an error, at the latest after four times the limit. In a function: it is
# stopped at the jump back at the loop's end, and CPython has that outside of a `try` around it.
FILLS = {
    "small blocks": "held.append(bytes(100))",
    "medium blocks": "held.append(bytes(1000))",
    # the size that occupies most beside what is charged, nearly a fifth
    "wasteful blocks": "held.append(bytes(4609 - 33))",
    "large blocks": "held.append(b'x' * (1 << 20))",
}
FILLING = f"""
held = []
def until_stopped():
    while sum(map(len, held[-1:])) * len(held) < {4 * LIMIT}:
        STEP
try:
    until_stopped()
except MemoryError as error:
    n = len(held)
    del held
    print("stopped", type(error).__name__, n)
"""
THREADED = """
import threading
def fill():
    FILLING
thread = threading.Thread(target=fill)
thread.start()
thread.join()
"""


def in_container(limit: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a cgroup of its own with a limit; print how near to it the kernel came."""
    with limited_cgroup(limit) as cgroup:
        result = in_cgroup(cgroup, *command)
        usage = highest_usage(cgroup)
    if usage is not None:
        print(f"the kernel's highest usage: {usage / MIB:.1f} of {limit / MIB:g} MiB")
    return result


def in_cgroup(cgroup: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a cgroup."""
    shell = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup), *command]
    return subprocess.run(
        shell,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def filling(what: str, *, thread: bool = False) -> str:
    """Return a program that fills memory with blocks of a kind."""
    code = FILLING.replace("STEP", FILLS[what])
    return THREADED.replace("FILLING", textwrap.indent(code, "    ").strip()) if thread else code


# ---- In a real cgroup ----------------------------------------------------------------------------
@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("what", FILLS)
def test_a_program_that_fills_its_container_gets_an_error_and_is_not_killed(
    what: str, thread: bool
) -> None:
    code = filling(what, thread=thread)
    # that the kernel kills it without
    assert in_container(LIMIT, sys.executable, "-c", code).returncode == SIGKILLED
    for _ in range(ROUNDS):
        result = in_container(LIMIT, *OBJCG, "--max", "auto", "--json", "-c", code)
        is_stopped_near_its_limit(result, what)


def is_stopped_near_its_limit(result: subprocess.CompletedProcess[str], what: str) -> None:
    assert result.returncode == 0, result
    stopped, error, _ = result.stdout.split()
    assert stopped == "stopped"
    # the pointers of a list are a large block, too, and a thread may come to the ceiling
    assert error in {"MemoryError", *(["MemoryLimitExceeded"] if what != "large blocks" else [])}
    parsed = json.loads(result.stderr)
    budget = parsed["budget"]
    assert budget["limit"] == LIMIT
    assert "/objcg-test-" in budget["source"]
    (root,) = (group for group in parsed["groups"] if group["path"] == "/")
    assert root["max"] == budget["max"]
    # The rest is the interpreter's start-up (12 MiB), the margin of 8 MiB, a tenth for what comes
    # unseen: half of the container is of use in any case.
    assert LIMIT // 2 < root["peak"] < LIMIT


def test_other_processes_of_the_container_take_from_the_budget() -> None:
    holder = "import sys; held = b'x' * (24 << 20); print('ready', flush=True); sys.stdin.read()"
    asks = "import objcg; print(objcg.root.memory.max)"
    with limited_cgroup(LIMIT) as cgroup:
        alone = int(in_cgroup(cgroup, *OBJCG, "--max", "auto", "-c", asks).stdout)
        shell = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup)]
        with subprocess.Popen(
            [*shell, sys.executable, "-c", holder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            beside = int(in_cgroup(cgroup, *OBJCG, "--max", "auto", "-c", asks).stdout)
            child.communicate("", timeout=TIMEOUT)
    # the held bytes and an interpreter of a few MiB, less the tenth that is kept back anyway, or
    # where more is free the sixth
    assert 5 / 6 * 24 * MIB < alone - beside < 0.9 * 40 * MIB


WORKERS = f"""
import os, objcg
pids = []
for _ in range(4):
    pid = os.fork()
    if pid:
        pids.append(pid)
        continue
    {textwrap.indent(filling("medium blocks"), "    ").strip()}
    os._exit(0 if objcg.audit().drift == 0 else 3)
print([os.waitpid(pid, 0)[1] for pid in pids])
"""


def test_forked_workers_that_fill_the_container_at_once_are_not_killed() -> None:
    python = (sys.executable, "-W", "ignore::DeprecationWarning")
    plain = in_container(2 * LIMIT, *python, "-c", WORKERS.replace("objcg", "os"))
    # what fills the memory may be any of them, and the parent too
    assert plain.returncode == SIGKILLED or str(-SIGKILLED) in plain.stdout
    for _ in range(ROUNDS):
        result = in_container(2 * LIMIT, *python, *OBJCG[1:], "--max", "auto", "-c", WORKERS)
        assert result.returncode == 0, result
        assert result.stdout.splitlines()[-1] == "[0, 0, 0, 0]"


# ---- In a recorded one, of which every number can be chosen --------------------------------------
@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A container of 1 GiB of which 200 MiB are used."""
    tree = Tree(tmp_path, "0::/\n", "/ /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    tree.v2("/sys/fs/cgroup", 1024 * MIB, 200 * MIB)
    return tree


PROLOGUE = """
import os, sys, time
import objcg
from objcg import _budget, _container
objcg.enable()
folder = os.environ["TREE"]
_budget._cgroups = _container.Cgroups(folder + "/proc", folder)
MIB = 1 << 20
root = objcg.root.memory

def becomes(limit, used):
    for name, value in (("max", limit), ("current", used)):
        scratch = folder + "/scratch"
        with open(scratch, "w") as file:
            file.write(value if isinstance(value, str) else str(value * MIB))
        os.replace(scratch, f"{folder}/sys/fs/cgroup/memory.{name}")

def eventually(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True
"""


def words(code: str, tree: Tree) -> list[str]:
    """Run code after the prologue; return what it prints."""
    # 3.12 warns of a fork() beside the reclaimer's thread
    no_warning = ("-W", "ignore::DeprecationWarning")
    return run_checked(PROLOGUE + textwrap.dedent(code), *no_warning, TREE=str(tree.folder))


def test_max_reads_as_the_bytes_in_force(tree: Tree) -> None:
    printed = words('root.max = "auto"; print(root.max, root.current)', tree)
    limit, current = map(int, printed)
    reserve = 1024 * MIB // 50 // 4
    room = 1024 * MIB - 200 * MIB - reserve
    # what is charged is in memory; some of it may have come in after the measurement, or gone
    assert abs(limit - (room * 5 // 6 - 4 * MIB)) <= current + 64 * 1024


def test_max_follows_what_is_free_and_a_limit_that_is_changed_or_taken_away(tree: Tree) -> None:
    printed = words(
        """
        objcg.group("/", max="auto")
        first = root.max
        becomes(1024, 600)
        print(eventually(lambda: 325 * MIB < first - root.max < 340 * MIB))
        becomes(2048, 600)
        print(eventually(lambda: root.max > first))
        becomes("max", 600)
        print(eventually(lambda: root.max is None))
        """,
        tree,
    )
    assert printed == ["True"] * 3


def test_a_limit_that_comes_later_is_found_at_the_next_wake_up(tree: Tree) -> None:
    tree.v2("/sys/fs/cgroup", "max", 200 * MIB)
    printed = words(
        """
        root.max = "auto"
        print(root.max)
        becomes(1024, 200)
        time.sleep(0.02)
        objcg._core.wake_reclaimer()
        print(eventually(lambda: root.max is not None))
        """,
        tree,
    )
    assert printed == ["None", "True"]


def test_without_descriptors_to_look_with_what_was_measured_holds(tree: Tree) -> None:
    printed = words(
        """
        import resource
        from objcg import limits
        def use_up():
            held = []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                return held
        def looks():
            before = _budget._measured
            objcg._core.wake_reclaimer()
            return eventually(lambda: _budget._measured > before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = use_up()
        try:
            root.max = "auto"
        except OSError as error:
            print(error.errno, root.max, limits.measure)
        for fd in held:
            os.close(fd)
        root.max = "auto"
        before = root.max
        time.sleep(0.02)
        held = use_up()
        print(looks(), root.max == before)
        for fd in held:
            os.close(fd)
        becomes(1024, 600)
        print(eventually(lambda: root.max < before))
        """,
        tree,
    )
    assert printed == ["24", "None", "None", "True", "True", "True"]


def test_a_signal_in_the_middle_of_a_measurement_may_ask_for_one(tree: Tree) -> None:
    """Of a handler that sets it, too: it neither waits for itself nor measures twice at once."""
    printed = words(
        """
        import signal
        signal.signal(signal.SIGALRM, lambda *_: setattr(root, "max", "auto"))
        look = _budget._cgroups.nearest
        asked = []
        def nearest():
            if not asked:
                asked.append(os.kill(os.getpid(), signal.SIGALRM))
            return look()
        _budget._cgroups.nearest = nearest
        root.max = "auto"
        print(len(asked), root.max < 1024 * MIB, objcg.limits.measure is not None)
        """,
        tree,
    )
    assert printed == ["1", "True", "True"]


@pytest.mark.parametrize("value", ["5 * MIB", "None", "'max'", "2**40"])
def test_any_other_value_ends_it(tree: Tree, value: str) -> None:
    printed = words(
        f"""
        root.max = "auto"
        root.max = {value}
        before = root.max
        becomes(512, 300)
        objcg._core.wake_reclaimer()
        time.sleep(0.3)
        print(root.max == before)
        root.max = "auto"
        print(root.max < 512 * MIB)
        """,
        tree,
    )
    assert printed == ["True", "True"]


def test_a_limit_that_is_set_without_our_knowing_ends_it(tree: Tree) -> None:
    """As another process does, through the region."""
    printed = words(
        """
        root.max = "auto"
        objcg.root._set("max", 77 * MIB)
        for used in 300, 400:
            becomes(1024, used)
            objcg._core.wake_reclaimer()
            time.sleep(0.1)
        print(root.max == 77 * MIB, objcg.limits.measure)
        """,
        tree,
    )
    assert printed == ["True", "None"]


def test_a_task_is_not_stopped_by_a_budget_that_has_grown(tree: Tree) -> None:
    """Measured anew before an error: what others had is free now, and the period not over."""
    printed = words(
        """
        becomes(1024, 1000)
        root.max = "auto"
        small = root.max
        becomes(1024, 200)
        time.sleep(0.02)
        held = [bytes(1000) for _ in range(100_000)]
        print(small < 20 * MIB, root.max > 500 * MIB, root.events["raised"])
        """,
        tree,
    )
    assert printed == ["True", "True", "0"]


def test_a_task_is_stopped_when_others_have_taken_what_was_free(tree: Tree) -> None:
    printed = words(
        """
        root.max = "auto"
        held = []
        try:
            with objcg.group("/tenant"):
                for n in range(100):
                    held += [bytes(1000) for _ in range(100)]
                becomes(1024, 1020)
                objcg._core.wake_reclaimer()
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:
                    held.append(bytes(1000))
                    del held[-1]
        except objcg.MemoryLimitExceeded as error:
            print(error.group.path, error.limit < error.usage)
        becomes(1024, 200)
        print(eventually(lambda: root.max > 500 * MIB), objcg.audit().drift)
        """,
        tree,
    )
    assert printed == ["/", "True", "True", "0"]


def test_a_forked_child_follows_too_and_both_have_their_part(tree: Tree) -> None:
    printed = words(
        """
        # siblings are told by their real cgroups
        with open("/proc/self/cgroup") as file:
            real = file.read()
        count = _budget._sharers.count
        _budget._sharers.count = lambda _: count(real)
        root.max = "auto"
        before = root.max
        pid = os.fork()
        if not pid:
            # twice two share what is free now
            print(root.max < before // 4 + MIB, flush=True)
            # two, a second later
            half = before // 2
            print(eventually(lambda: half - 3 * MIB < root.max < half + MIB), flush=True)
            becomes(1024, 600)
            ok = eventually(lambda: root.max < before // 2 - 150 * MIB)
            print(ok, objcg.audit().drift, flush=True)
            sys.stdin.readline()
            os._exit(0)
        print(eventually(lambda: root.max < before // 2 - 150 * MIB))
        print(os.waitpid(pid, 0)[1] == 0)
        # and this one has it all again
        becomes(1024, 200)
        print(eventually(lambda: root.max > before - MIB))
        """,
        tree,
    )
    assert sorted(printed) == ["0", *["True"] * 6]


def test_who_shares_is_counted_right_by_a_task_that_has_no_memory_left(tree: Tree) -> None:
    """It takes 32 KiB to list a folder, which max refuses; taken for one, each would have all."""
    code = """
        with open("/proc/self/cgroup") as file:
            real = file.read()
        counted = []
        count = _budget._sharers.count
        def counting(_):
            counted.append(count(real))
            return counted[-1]
        _budget._sharers.count = counting
        root.max = "auto"
        reads, writes = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(writes)
            os.read(reads, 1)
            os._exit(0)
        print(eventually(lambda: _budget.measure() or counted[-1] == 2))
        time.sleep(0.02)
        counted.clear()
        def fill():
            held = []
            while len(held) < 2_000_000:
                held.append(bytes(1000))
        try:
            fill()
        except objcg.MemoryLimitExceeded as error:
            print(error.group.path, set(counted))
        os.close(writes)
        print(os.waitpid(pid, 0)[1])
    """
    tree.v2("/sys/fs/cgroup", 128 * MIB, 100 * MIB)
    code = PROLOGUE + textwrap.dedent(code)
    result = run([*OBJCG, "-c", code], env={"TREE": str(tree.folder)})
    assert (result.returncode, result.stdout.split()) == (0, ["True", "/", "{2}", "0"]), result


def test_the_reclaimer_measures_where_everything_is_refused(tree: Tree) -> None:
    """An error of its own would be reported as unraisable, and the limit would not be followed.

    The program's own code, for which it calls unforced(), is refused memory there as anywhere.
    """
    printed = words(
        """
        root.max = "auto"
        measured, refused_inside = [False], [False]
        def measuring():
            _budget.measure()
            try:
                objcg._core.unforced(bytes, 100_000)
            except MemoryError:
                refused_inside[0] = True
            measured[0] = len(bytes(100_000)) > 0
        objcg.limits.measure = measuring
        _core = objcg._core
        sleep, fail, wake = time.sleep, _core.fail_charges, _core.wake_reclaimer
        fail(objcg.root.id, 1, True)
        wake()
        sleep(0.3)
        _, refused = fail(0, 0, False)
        print(measured, refused_inside, refused > 0)
        """,
        tree,
    )
    assert printed == ["[True]", "[True]", "True"]


def test_all_threads_may_set_it_at_once(tree: Tree) -> None:
    """Each of two threads replaces only what it knows; none may take the other for a stranger."""
    printed = words(
        """
        import threading
        root.max = "auto"
        sys.setswitchinterval(1e-5)
        def measure():
            for _ in range(300):
                _budget._measured = 0.0
                _budget.measure()
        threads = [threading.Thread(target=measure) for _ in range(4)]
        for thread in threads: thread.start()
        for i in range(200):
            becomes(1024, 200 + i)
        for thread in threads: thread.join()
        print(objcg.limits.measure is not None)
        """,
        tree,
    )
    assert printed == ["True"]


# ---- Where it is accepted ------------------------------------------------------------------------
def test_auto_is_refused_for_other_groups_before_anything_is_made(fresh_group: objcg.Group) -> None:
    with pytest.raises(ValueError, match=r"'auto' is accepted for the root group only"):
        fresh_group.memory.max = "auto"
    with pytest.raises(ValueError, match=r"'auto' is accepted for the root group only.*/auto/x"):
        objcg.group(f"{fresh_group.path}/auto/x", max="auto")
    assert fresh_group.children == ()
    with pytest.raises(ValueError, match=r"memory\.high: 'auto' is not a size"):
        objcg.root.memory.high = "auto"
    assert fresh_group.memory.max is None


def test_run_says_when_there_is_no_limit() -> None:
    code = "import objcg; print(objcg.root.memory.max, objcg.current_group().memory.max)"
    result = run([*OBJCG, "--max", "auto", "--high", "1T", "--json", "-c", code])
    assert result.returncode == 0
    parsed: dict[str, Any] = json.loads(result.stderr)
    (root,) = (group for group in parsed["groups"] if group["path"] == "/")
    # the suite itself may run in a container that has one
    assert result.stdout == f"{root['max']} None\n"
    assert parsed["budget"]["max"] == root["max"]
    assert (parsed["budget"]["limit"] is None) == (root["max"] is None)
    text = run([*OBJCG, "--max", "auto", "-c", code]).stderr
    line = text.splitlines()[2]
    assert line.startswith("max auto: ")
    if root["max"] is None:
        assert "has no memory limit that can be seen" in line


def test_objcg_does_not_load_it_unless_it_is_used() -> None:
    printed = run_checked("""
        import sys, objcg
        objcg.enable()
        objcg.group("/a", max="64M")
        print([name for name in sys.modules if name in ("objcg._budget", "objcg._container")])
        objcg.root.memory.max = "auto"
        print("objcg._budget" in sys.modules)
    """)
    assert printed == ["[]", "True"]
