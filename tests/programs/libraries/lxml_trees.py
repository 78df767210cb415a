"""lxml: libxml2 does not say what a tree holds, but malloc() does what it has handed out.

With texts of some thousand bytes: of small blocks malloc() counts a header each, objcg none.
"""

from holding import hold, malloc_in_use
from lxml import etree

ELEMENTS, TEXT = 5000, 6000
before = 0


def make():
    global before
    before = malloc_in_use()
    root = etree.Element("root")
    for i in range(ELEMENTS):
        etree.SubElement(root, "element").text = f"{i:{TEXT}}"
    return root


def expected(root):
    held = malloc_in_use() - before
    # the least it can be: the text itself, one byte a character
    assert held > ELEMENTS * TEXT, held
    return held


hold(make, expected, needs="native", version=etree.__version__)
