"""Does in its groups what the lines on standard input say; each is answered by one.

"grow PATH BYTES" holds more memory there, and says whether it could; "group NAME" makes /NAME,
given as Python writes it; "work" has the thread "worker", in /a, allocate, and says whom that is
charged to; "drift" prints that of the audit.
"""

import ast
import queue
import sys
import threading

import objcg

objcg.enable()
objcg.group("/a/limited", max="8M")
objcg.group("/a/other", high="64M")
objcg.group("/b")
held = []
orders = queue.SimpleQueue()
answers = queue.SimpleQueue()


def grow(path, size):
    """Hold `size` more bytes in a group, unless it is full."""
    try:
        with objcg.group(path):
            held.append(bytearray(size))
    except MemoryError:
        return "full"
    return "held"


def serve():
    """Allocate a block whenever told to, and answer with its owner."""
    with objcg.group("/a"):
        objcg.current_task().name = "worker"
        answers.put("ready")
        while orders.get():
            block = bytes(1000)
            held.append(block)
            answers.put(objcg.owner(block).path)


threading.Thread(target=serve, daemon=True).start()
print(answers.get(), flush=True)
for line in sys.stdin:
    order, *words = line.split(maxsplit=2)
    answer = "done"
    if order == "grow":
        answer = grow(words[0], int(words[1]))
    elif order == "group":
        objcg.group(f"/{ast.literal_eval(line.split(maxsplit=1)[1])}")
    elif order == "work":
        orders.put(item=True)
        answer = answers.get()
    elif order == "drift":
        answer = objcg.audit().drift
    print(answer, flush=True)
