"""Groups come and go, and are charged, on several threads, for ever.

Each thread has a base of 1 MiB in a group that stays, and at most CHURNED bytes in others. The name
of a group repeats that of the one above it, so that a reader that mixes records is found out.
"""

from __future__ import annotations

import itertools
import sys
import threading

import objcg

THREADS = 3
BASE = 1 << 20
CHURNED = 64 << 10
LARGEST = 8 << 10

objcg.enable()
sys.setswitchinterval(0.0005)


def churn(number):
    top = f"/t{number}"
    with objcg.group(f"{top}/base-of-t{number}"):
        base = [bytes(1000) for _ in range(BASE // 1040)]
    started.wait()
    for turn in itertools.count():
        parent = f"{top}/p{turn % 7}"
        children = [f"{parent}/c{turn % 5 + i}-of-p{turn % 7}" for i in range(3)]
        held = []
        for path in children:
            with objcg.group(path):
                held.extend(bytes(size) for size in (100, 700, LARGEST))
        assert sum(map(len, held)) < CHURNED
        if turn % 3 == 0:
            held.clear()
        # what is still held becomes the parent's, and then its parent's
        for path in [*children, parent]:
            objcg.group(path).remove()


started = threading.Barrier(THREADS + 1)
for number in range(THREADS):
    threading.Thread(target=churn, args=(number,), daemon=True).start()
started.wait()
print("ready", flush=True)
sys.stdin.read()
