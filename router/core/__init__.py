"""Decisions only: values in, values out. No I/O, clock, randomness, sockets or torch."""
