"""Measurements of the whole product; each prints a table and a JSON line."""
