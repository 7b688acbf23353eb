"""Sandboxes as local process trees."""
