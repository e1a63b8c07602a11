"""From the spool to the destinations."""
