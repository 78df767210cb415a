"""Tests of the whole of objcg inside real programs."""
