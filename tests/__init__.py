"""Tests. A package, so that `tests.peers` is ours even where an installed package brings a top-level `tests` of its own."""
