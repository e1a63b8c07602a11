"""`router demo`: a whole hospital on loopback for a minute, so that a stranger sees an image go in and a report come out."""
