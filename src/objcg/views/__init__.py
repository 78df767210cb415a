"""Views of a process that goes on: each a module, and an extra with the library that it draws by.

None needs that process's cooperation: they read its region file. Nothing in here is imported by a
program that is watched.
"""
