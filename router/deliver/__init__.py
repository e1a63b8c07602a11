"""Sending: originals and results to their destinations, kept and retried until they are there."""
