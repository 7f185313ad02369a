"""Engines: what turns requests into tokens."""
