"""Small programs that allocate much, for `objcg bench programs`, and the process they run in.

Each is a file of its own that is run by its path, never imported: what it does must be the same
where objcg is not used. Its argument is a scale: 1, the default, takes about a second. Those
with an underscore are for other benchmarks, and say what their arguments are.
"""
