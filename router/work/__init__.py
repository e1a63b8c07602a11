"""Claim, run, settle; and what keeps that going."""
