"""How the digest of weights is known, in the words that lock files, logs and pages use."""

from __future__ import annotations

FIRST_USE = "first use"
"""Nobody said what it should be: it was taken as it was, and is kept since."""
PINNED = "digest known to the router"
GIVEN = "digest given by the operator"
SHIPS = "ships with the router"
