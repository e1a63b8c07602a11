"""Timings side by side with other programs; never part of the tests. Run with  make bench."""
