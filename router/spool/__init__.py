"""Bytes on disk, written durably in one place."""
