"""Holds memory in groups, says so, and waits until its standard input is closed."""

import sys

import objcg

objcg.enable()
with objcg.group("/tenants/small", max="8M"):
    small = [bytes(1000) for _ in range(1000)]
with objcg.group("/tenants/large", high="64M", low=1024):
    large = [bytes(1000) for _ in range(3000)]
print("ready", flush=True)
sys.stdin.read()
