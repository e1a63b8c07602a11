"""The ledger: the one record of what is owed and done, on SQLite or PostgreSQL."""
