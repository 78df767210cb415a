"""What is started inside a group belongs to it: functions, threads, jobs of a pool.

Each test lets something that was started inside a group allocate a known amount, and compares it
with what the group is charged. Some 4 MB are allocated, so that 1 % covers what the
machinery itself needs (a thread, a task, a work item, what is imported for it: below 20 KB).
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import textwrap
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import objcg

from .charges import RESIDUE, charge_of_payload, payload, within
from .programs import run_checked

Held = list[bytes]


# ---- Functions and nesting -----------------------------------------------------------------------
def test_group_run(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    held = fresh_group.run(payload)
    charged_once.append(held)


def test_group_run_hands_on_arguments_result_and_exception(fresh_group: objcg.Group) -> None:
    def function(a: int, *, b: int) -> tuple[int, int, str]:
        return a, b, objcg.current_group().path

    assert fresh_group.run(function, 1, b=2) == (1, 2, fresh_group.path)
    with pytest.raises(ZeroDivisionError):
        fresh_group.run(divmod, 1, 0)
    assert objcg.current_group() == objcg.root


def test_decorated_function(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    @fresh_group
    def work(name: str) -> Held:
        """Work."""
        assert name == "given"
        return payload()

    charged_once.append(work("given"))
    assert work.__name__ == "work"
    assert work.__doc__ == "Work."


def test_decorated_coroutine_function(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    @fresh_group
    async def work() -> Held:
        await asyncio.sleep(0)
        return payload()

    assert inspect.iscoroutinefunction(work)

    async def main() -> None:
        charged_once.append(await work())
        assert objcg.current_group() == objcg.root

    asyncio.run(main())


def test_nested_groups_charge_the_innermost(fresh_group: objcg.Group) -> None:
    inner = objcg.group(f"{fresh_group.path}/inner")
    with fresh_group:
        before = payload()
        with inner:
            within_inner = payload()
        after = payload()
    assert within(0.01, inner.memory.current, charge_of_payload())
    assert within(0.01, fresh_group.memory.current, 3 * charge_of_payload())
    del before, within_inner, after


def test_the_same_group_may_be_entered_again_inside_itself(
    fresh_group: objcg.Group, charged_once: list[Held]
) -> None:
    with fresh_group:
        with fresh_group:
            charged_once.append(payload())
        charged_once.append(payload())
    assert objcg.current_group() == objcg.root


def test_an_exception_leaves_the_group(fresh_group: objcg.Group) -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError), fresh_group:
        fail()
    assert objcg.current_group() == objcg.root


def test_contexts_copied_inside_belong_to_the_group(
    fresh_group: objcg.Group, charged_once: list[Held]
) -> None:
    with fresh_group:
        context = contextvars.copy_context()
    charged_once.append(context.run(payload))
    assert objcg.current_group() == objcg.root


# ---- Threads -------------------------------------------------------------------------------------
def test_thread_started_inside(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    with fresh_group:
        thread = threading.Thread(target=lambda: charged_once.append(payload()))
        thread.start()
    thread.join()


def test_thread_made_inside_and_started_outside_belongs_to_who_starts_it(
    fresh_group: objcg.Group,
) -> None:
    held: list[Held] = []
    with fresh_group:
        thread = threading.Thread(target=lambda: held.append(payload()))
    thread.start()
    thread.join()
    assert fresh_group.memory.current <= RESIDUE


def test_thread_subclass_and_timer(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    class Worker(threading.Thread):
        def run(self) -> None:
            charged_once.append(payload())

    with fresh_group:
        threads = [Worker(), threading.Timer(0, lambda: charged_once.append(payload()))]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()


def test_thread_of_a_thread(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    def outer() -> None:
        inner = threading.Thread(target=lambda: charged_once.append(payload()))
        inner.start()
        inner.join()

    with fresh_group:
        thread = threading.Thread(target=outer)
        thread.start()
    thread.join()


def test_a_thread_is_a_task_of_its_group_until_it_ends(fresh_group: objcg.Group) -> None:
    started, stop = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        stop.wait(10)

    with fresh_group:
        thread = threading.Thread(target=wait)
        thread.start()
    started.wait(10)
    with pytest.raises(objcg.GroupBusy):
        fresh_group.remove()
    stop.set()
    thread.join()
    del thread
    fresh_group.remove()


# ---- Jobs of a pool ------------------------------------------------------------------------------
def test_pool_job(
    fresh_group: objcg.Group, pool: ThreadPoolExecutor, charged_once: list[Held]
) -> None:
    with fresh_group:
        future = pool.submit(payload)
    charged_once.append(future.result(10))


def test_pool_map(
    fresh_group: objcg.Group, pool: ThreadPoolExecutor, charged_once: list[Held]
) -> None:
    with fresh_group:
        results = pool.map(lambda _: payload(), range(4))
    charged_once.extend(results)


def test_jobs_of_several_groups_on_the_same_threads(
    fresh_group: objcg.Group, pool: ThreadPoolExecutor
) -> None:
    groups = [objcg.group(f"{fresh_group.path}/{number}") for number in range(5)]
    futures: list[Future[Held]] = []
    for _ in range(3):
        for group in groups:
            with group:
                futures.append(pool.submit(payload))
    held = [future.result(10) for future in futures]
    for group in groups:
        assert within(0.01, group.memory.current, 3 * charge_of_payload()), group.path
    del futures, held


def test_threads_a_pool_starts_for_a_job_do_not_keep_its_group_busy(
    fresh_group: objcg.Group,
) -> None:
    with ThreadPoolExecutor(1) as executor:
        with fresh_group:
            executor.submit(payload).result(10)
        # A thread drops the last job only when it takes the next.
        assert executor.submit(objcg.current_group).result(10) == objcg.root
        fresh_group.remove()
        assert executor.submit(objcg.current_group).result(10) == objcg.root


def test_pool_initializer_does_not_belong_to_the_group_of_the_first_job(
    fresh_group: objcg.Group,
) -> None:
    seen: list[objcg.Group] = []
    with (
        fresh_group,
        ThreadPoolExecutor(1, initializer=lambda: seen.append(objcg.current_group())) as executor,
    ):
        assert executor.submit(objcg.current_group).result(10) == fresh_group
    assert seen == [objcg.root]


# ---- multiprocessing: who hands on, and threads as a pool --------------------------------------
def test_jobs_of_a_multiprocessing_thread_pool_belong_to_who_submitted_them() -> None:
    printed = run_checked("""
        import objcg
        from multiprocessing.pool import ThreadPool
        objcg.enable()
        one, other = objcg.group("/one"), objcg.group("/other")
        def where(*_):
            return objcg.current_group().path
        with one:
            pool = ThreadPool(2)
        with other:
            print(pool.apply(where), *pool.map(where, [0]), *pool.imap(where, [0]))
            print(*pool.imap_unordered(where, [0]), *pool.starmap(where, [(0, 0)]))
            print(pool.apply_async(func=where).get(), one.tasks)
        print(pool.apply(where))
        pool.terminate()
        pool.join()
        print(objcg.audit().drift)
        """)
    assert printed == ["/other"] * 6 + ["0", "/", "0"]


POOLS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import objcg
objcg.enable()
fork = multiprocessing.get_context("fork")
tenant, other = objcg.group("/tenant", max="8M"), objcg.group("/other")
def where(count):
    held = [bytes(1000) for _ in range(count)]
    return objcg.current_group().path
def executor():
    return ProcessPoolExecutor(1, mp_context=fork)
"""


def test_a_process_pool_does_not_run_jobs_under_the_limit_of_who_submitted_the_first() -> None:
    printed = run_checked(
        POOLS
        + """
with executor() as pool:
    with tenant:
        print(pool.submit(where, 0).result(60))
    with other:
        print(pool.submit(where, 20_000).result(60))
with other:
    pool = executor()
with pool, tenant:
    print(pool.submit(where, 20_000).result(60))
print(objcg.audit().drift, tenant.tasks, other.tasks)
""",
        "-Wignore::DeprecationWarning",
    )
    assert printed == ["/", "/", "/other", "0", "0", "0"]


def test_workers_that_a_process_pool_replaces_are_in_the_group_of_the_first() -> None:
    # Printed at the end: a thread of the pool forks workers at any time, and one forked between a
    # print() and its flush has the line as well and prints it once more when it ends.
    printed = run_checked(
        POOLS
        + """
lines = []
with tenant:
    pool = fork.Pool(1, maxtasksperchild=1)
for count in 0, 0, 20_000, 20_000:
    try:
        lines.append(pool.apply_async(where, (count,)).get(60))
    except MemoryError:  # a bare one where the machine is busy: one of the ceiling
        lines.append("over")
pool.close()
pool.join()
# what a removed group had is its parent's
below = objcg.group("/tenant/below")
with below:
    pool = fork.Pool(1, maxtasksperchild=1)
lines.append(pool.apply(where, (0,)))
below.remove(force=True)
lines += [pool.apply(where, (0,)) for _ in range(2)]
pool.terminate()
pool.join()
print(*lines, objcg.audit().drift, tenant.tasks, sep="\\n")
""",
        "-Wignore::DeprecationWarning",
    )
    # the one after the first was forked before the removal, and is where it was
    assert printed[:5] == ["/tenant", "/tenant", "over", "over", "/tenant/below"]
    assert printed[-3:] == ["/tenant", "0", "0"]


FILL = """
def fill(group):
    held = []
    try:
        with group:
            while True:
                held.append(bytes(100))
    except MemoryError:
        pass
    kept.append(held)
kept = []
"""


def test_what_others_send_is_not_lost_for_the_limit_of_who_sent_first() -> None:
    """A queue's thread is started at the first put()."""
    printed = run_checked(
        FILL
        + textwrap.dedent("""
        import multiprocessing, objcg
        objcg.enable()
        one, other = objcg.group("/one", max="8M"), objcg.group("/other")
        queue = multiprocessing.Queue()
        with one:
            queue.put(1)
        queue.get(timeout=30)
        fill(one)
        with other:
            for _ in range(20):
                queue.put(bytes(1_000_000))
        print(sum(len(queue.get(timeout=30)) for _ in range(20)), one.tasks)
        """)
    )
    assert printed == ["20000000", "0"]


def test_results_of_other_processes_come_whatever_the_first_to_ask_has_left() -> None:
    printed = run_checked(
        FILL
        + textwrap.dedent("""
        import multiprocessing, objcg
        from concurrent.futures import ProcessPoolExecutor
        def page(size):
            return bytes(size)
        objcg.enable()
        one, other = objcg.group("/one", max="8M"), objcg.group("/other")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            with one:
                pool.submit(page, 1).result(timeout=30)
            fill(one)
            with other:
                print(len(pool.submit(page, 1_000_000).result(timeout=30)), one.tasks)
        """),
        "-W",
        "ignore::DeprecationWarning",
    )
    assert printed == ["1000000", "0"]
