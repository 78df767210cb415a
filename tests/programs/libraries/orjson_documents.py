"""orjson: what it makes is Python's: strings, a list, and the bytes of a document.

Large blocks come from the C library, which says what they are: orjson leaves a bytes object with
more memory than it has bytes.
"""

import sys

import orjson
from holding import hold, malloc_in_use

TEXTS, LENGTH = 15_000, 1000
DOCUMENT = b"[" + b",".join(b'"%0*d"' % (LENGTH, i) for i in range(TEXTS)) + b"]"
before = 0


def make():
    global before
    before = malloc_in_use()
    texts = orjson.loads(DOCUMENT)
    return [texts, orjson.dumps(texts)]


def expected(made):
    texts, document = made
    assert len(document) == len(DOCUMENT)
    large = malloc_in_use() - before
    assert large >= sys.getsizeof(texts) + len(document), large
    return large + sum((sys.getsizeof(text) + 15) // 16 * 16 for text in texts)


hold(make, expected, version=orjson.__version__)
