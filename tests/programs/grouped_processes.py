"""Uses processes from within a group, and shows that nothing is lost in any of them."""

import multiprocessing
import sys

import objcg


def work(number: int) -> tuple[bool, int]:
    """Allocate and free in a child; return whether objcg is on there, and its drift."""
    if not objcg.enabled():
        return False, 0
    with objcg.group(f"/workers/{number % 3}"):
        held = [bytes(length) for length in range(1000)]
    del held
    return True, objcg.audit().drift


if __name__ == "__main__":
    objcg.enable()
    group = objcg.group("/parent")
    with group:
        kept = [bytes(1000) for _ in range(1000)]
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            results = pool.map(work, range(10))
            pool.close()
            pool.join()
    print(*{enabled for enabled, _ in results}, len(results), *{drift for _, drift in results})
    print(group.memory.current > 1_000_000, objcg.audit().drift)
