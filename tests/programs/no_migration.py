"""What works, and what does not, where tasks cannot be moved. The argument says which part runs.

Whatever is started from a group belongs to it: "rely solely on fork to enter the right cgroup".
"""

import asyncio
import contextvars
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import objcg

SIZES = (40, 600, 9000)


def owner_of_new(size: int) -> str:
    """Allocate; return the path of the group that it is charged to."""
    block = b"x" * size
    owner = objcg.owner(block)
    return owner.path if owner is not None else "nobody's"


def paths() -> str:
    """Return where this code is, and where blocks of all kinds are charged to, if it is one."""
    return ",".join(sorted({objcg.current_group().path, *map(owner_of_new, SIZES)}))


def inherits(a: objcg.Group, b: objcg.Group) -> None:
    """Threads, threads of threads, jobs of a pool, tasks of an event loop, copies of a context."""
    found = []

    def in_thread() -> None:
        found.append(paths())
        inner = threading.Thread(target=lambda: found.append(paths()))
        inner.start()
        inner.join()

    async def child(group: objcg.Group) -> str:
        before = paths()
        with group:
            await asyncio.sleep(0)
            inside = paths()
        return f"{before} {inside} {paths()}"

    async def main() -> None:
        with a:
            spawned = [asyncio.create_task(child(b)) for _ in range(3)]
            found.append(await asyncio.to_thread(paths))
        found.extend(await asyncio.gather(*spawned))
        found.append(paths())

    with ThreadPoolExecutor(1) as pool:
        for group in (a, b):
            with group:
                thread = threading.Thread(target=in_thread)
                thread.start()
                found.append(pool.submit(paths).result())
                context = contextvars.copy_context()
            thread.join()
            found.append(context.run(paths))
        found.append(pool.submit(paths).result())
    asyncio.run(main())
    for path in sorted(found):
        print(path)


def moves(a: objcg.Group, b: objcg.Group) -> None:
    """Neither the own task, nor that of another thread, nor to the group it is in already."""
    inside, end = threading.Event(), threading.Event()
    tasks = []

    def work() -> None:
        tasks.append(objcg.current_task())
        inside.set()
        end.wait(60)
        tasks.append(paths())

    with a:
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait(60)
        tasks[0:0] = [objcg.current_task()]
        for task in tasks[:2]:
            for group in (b, a, objcg.root):
                try:
                    task.move(group)
                except objcg.MigrationForbidden as error:
                    print(error.errno, task.group.path, a.tasks, b.tasks)
        print(paths())
    end.set()
    thread.join()
    print(tasks[-1])


def removes(a: objcg.Group, b: objcg.Group) -> None:
    """A group with tasks in it, of its own and inherited, and then without."""
    end = threading.Event()
    with a:
        thread = threading.Thread(target=end.wait, args=(60,))
        thread.start()
        inner = objcg.group("/a/inner")
        with inner:
            for force in (False, True):
                try:
                    inner.remove(force=force)
                except (objcg.GroupBusy, objcg.MigrationForbidden) as error:
                    print(type(error).__name__, inner.online, inner.tasks, a.tasks, paths())
        inner.remove(force=True)
        print("removed", inner.online, paths())
    try:
        a.remove(force=True)
    except objcg.MigrationForbidden:
        print("still there", a.online, a.tasks)
    end.set()
    thread.join()
    a.remove(force=True)
    b.remove()
    print("removed", a.online, b.online)


objcg.enable(migration=False)
{"inherits": inherits, "moves": moves, "removes": removes}[sys.argv[1]](
    objcg.group("/a"), objcg.group("/b")
)
print("drift", objcg.audit().drift)
