"""What `objcg bench instructions` counts besides the small programs, and the marks between which.

Each program is a file of its own, as those of ``_programs`` are: it has ``main(scale)``, which
returns how many operations it did. It must not import objcg, which stock's side never does; on the
other side objcg is there already.
"""
