"""A pipeline of images in threads, in which a tenant's image that is a bomb stops that tenant only.

Four tenants send images, which are decoded, rotated, made small and encoded by a pool of threads,
with Pillow. The images of ``shady`` are 76 KB of PNG that unpack to 400 million
pixels. Each tenant has a memory control group with a limit, and each image one below it. The bombs
run into the limit and are refused with a MemoryError; nobody else notices anything.

    objcg run examples/images.py [--images 6] [--threads 4] [--limit 96M] [--quiet]

It takes "objcg run", which has objcg see the memory that Pillow takes from the C library. The
program ends with 1, and says why, if a good image failed, a bomb was not stopped, or a byte is
lost.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import objcg

try:
    from PIL import Image
except ImportError:
    print("images: Pillow is not installed: pip install Pillow", file=sys.stderr)
    sys.exit(2)

MIB = 1 << 20
STEADY = ("acme", "globex", "initech")
SHADY = "shady"
WIDTH, HEIGHT = 1600, 1200
BOMB_SIDE = 20_000
THUMBNAIL = (128, 128)


@dataclass
class Tenant:
    """A tenant's group, and what became of its images."""

    name: str
    group: objcg.Group
    thumbnails: list[bytes] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


# ---- The pipeline --------------------------------------------------------------------------------


def thumbnail(data: bytes) -> bytes:
    """Decode an image, turn it, make it small; return it as JPEG."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB").rotate(90, expand=True)
    small.thumbnail(THUMBNAIL)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG")
    return encoded.getvalue()


def process(tenant: Tenant, number: int, data: bytes) -> None:
    """Do one image in a group of its own below the tenant's, which has the limit."""
    group = objcg.group(f"{tenant.group.path}/image-{number}")
    try:
        with group:
            small = thumbnail(data)
    except MemoryError as refused:  # MemoryLimitExceeded is one.
        tenant.refused[type(refused).__name__] += 1
    else:
        tenant.thumbnails.append(small)
    # What it still holds, the thumbnail, is the tenant's from now on.
    group.remove()


def process_all(tenants: list[Tenant], options: argparse.Namespace) -> None:
    """Do the images of all tenants in turns, by some threads."""
    good, bomb = picture(), bomb_of(BOMB_SIDE)
    with ThreadPoolExecutor(options.threads) as pool:
        jobs = [
            pool.submit(process, tenant, number, bomb if tenant.name == SHADY else good)
            for number in range(options.images)
            for tenant in tenants
        ]
    for job in jobs:
        job.result()


# ---- The images ----------------------------------------------------------------------------------


def picture() -> bytes:
    """Return an image as PNG."""
    encoded = io.BytesIO()
    Image.radial_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB").save(encoded, "PNG")
    return encoded.getvalue()


def bomb_of(side: int) -> bytes:
    """Return a white image of `side` by `side` pixels as PNG, made without ever having it."""
    packed = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)  # one bit a pixel
    rows = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# ---- What it must show ---------------------------------------------------------------------------


def sees_pillow() -> bool:
    """Return whether the memory of an image is charged."""
    group = objcg.group("/probe")
    with group:
        image = Image.new("RGB", (WIDTH, HEIGHT))
    charged = group.memory.current
    image.close()
    group.remove()
    return charged >= WIDTH * HEIGHT


def resident_bytes(name: str) -> int:
    """Read VmRSS (resident now) or VmHWM (the most ever) of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition(name + ":")[2].split()[0])


def print_table(tenants: list[Tenant]) -> None:
    """Print a line for each tenant."""
    print(f"{'tenant':10}{'peak':>10}{'max':>8}{'done':>6}  refused")
    for tenant in tenants:
        memory = tenant.group.memory
        refused = ", ".join(f"{error} {times} times" for error, times in tenant.refused.items())
        print(
            f"{tenant.name:10}{memory.peak / MIB:9.1f}M{(memory.max or 0) / MIB:7.0f}M"
            f"{len(tenant.thumbnails):6}  {refused}"
        )
    print(
        f"\na bomb unpacks to {BOMB_SIDE**2 / MIB:.0f} MiB; most resident memory "
        f"{resident_bytes('VmHWM') / MIB:.0f} MiB; audit drift {objcg.audit().drift} bytes"
    )


def unmet_expectations(tenants: list[Tenant], images: int) -> list[str]:
    """Say what is not as this example claims; nothing when all is."""
    unmet = []
    for tenant in tenants:
        done, wanted = len(tenant.thumbnails), 0 if tenant.name == SHADY else images
        if done != wanted:
            unmet.append(f"{tenant.name} had {done} images done, not {wanted}: {tenant.refused}")
        if len(set(tenant.thumbnails)) > 1:
            unmet.append(f"{tenant.name} got different thumbnails of one image")
        memory = tenant.group.memory
        limit = memory.max or 0
        if memory.peak > limit + limit // 8 + 4 * MIB:  # There even small allocations fail.
            unmet.append(f"{tenant.name} was charged {memory.peak} bytes, above {limit}")
    if resident_bytes("VmHWM") > BOMB_SIDE**2:
        unmet.append("the process took the memory of a bomb")
    if objcg.audit().drift != 0:
        unmet.append(f"the audit found a drift of {objcg.audit().drift} bytes")
    return unmet


def main() -> int:
    """Run the pipeline; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=6, help="how many each tenant sends")
    parser.add_argument("--threads", type=int, default=4, help="how many are done at a time")
    parser.add_argument("--limit", default="96M", help="memory.max of each tenant")
    parser.add_argument("--quiet", action="store_true", help="print only what went wrong")
    options = parser.parse_args()
    objcg.enable()
    # Pillow has a limit of its own, of pixels and for everybody; here the tenant's shall count.
    Image.MAX_IMAGE_PIXELS = None
    if not sees_pillow():
        print(
            "images: objcg does not see the memory of Pillow here: run it by "
            "'objcg run examples/images.py', without --no-native",
            file=sys.stderr,
        )
        return 2
    tenants = [
        Tenant(name, objcg.group(f"/tenants/{name}", max=options.limit))
        for name in (*STEADY, SHADY)
    ]
    process_all(tenants, options)
    unmet = unmet_expectations(tenants, options.images)
    if not options.quiet:
        print_table(tenants)
    for reason in unmet:
        print(f"images: {reason}", file=sys.stderr)
    return 1 if unmet else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
