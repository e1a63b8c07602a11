"""The one record of what is owed and done."""
