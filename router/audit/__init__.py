"""The audit trail: who looked at what and who did what, as messages of PS3.15 A.5 to a file and by syslog over TLS."""
