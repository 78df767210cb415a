"""ssl: what waits in memory BIOs, and connections; OpenSSL's malloc() is the C library's.

A BIO grows by a third more than it needs, so what malloc() has handed out is the measure.
"""

import ssl

from holding import hold, malloc_in_use

PAIRS, BYTES = 400, 60_000
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
before = 0


def make():
    global before
    before = malloc_in_use()
    held = []
    for _ in range(PAIRS):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(bytes(BYTES))
        held.append((context.wrap_bio(incoming, outgoing), incoming, outgoing))
    return held


def expected(held):
    waiting = sum(incoming.pending for _, incoming, _ in held)
    assert waiting == PAIRS * BYTES
    in_use = malloc_in_use() - before
    assert in_use >= waiting, in_use
    return in_use


hold(make, expected, needs="native", version=ssl.OPENSSL_VERSION)
