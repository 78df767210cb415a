"""Three threads in /a do what the lines on standard input say, one after the other.

"allocate NAME" has that thread allocate; "where NAME" prints the group of its task; "remove PATH"
removes a group. Each line is answered by one.
"""

import queue
import sys
import threading

import objcg

objcg.enable(migration="--fixed" not in sys.argv)
group = objcg.group("/a")
objcg.group("/b/c")
orders = {name: queue.SimpleQueue() for name in ("worker", "other", "twin")}
tasks = {}
answers = queue.SimpleQueue()
kept = []


def serve(name: str) -> None:
    """Allocate a block whenever told to, and answer with its owner."""
    with group:
        tasks[name] = objcg.current_task()
        # two tasks of one name
        tasks[name].name = "worker" if name == "twin" else name
        answers.put(str(tasks[name].id))
        while orders[name].get():
            block = bytes(1000)
            kept.append(block)
            answers.put(objcg.owner(block).path)


threads = [threading.Thread(target=serve, args=(name,), daemon=True) for name in orders]
for thread in threads:
    thread.start()
    print(answers.get(), flush=True)
for line in sys.stdin:
    order, what = line.split()
    if order == "allocate":
        orders[what].put(True)
        print(answers.get(), flush=True)
    elif order == "where":
        print(tasks[what].group.path, flush=True)
    elif order == "remove":
        objcg.group(what).remove()
        print(*(child.path for child in objcg.root.children), flush=True)
    elif order == "drift":
        print(objcg.audit().drift, flush=True)
