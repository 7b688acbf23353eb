"""Sandboxes as directories and process trees of this machine (Linux)."""
