"""Recordings: the samples of a process in an SQLite file. docs/recording.md describes the file."""
