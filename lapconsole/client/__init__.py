"""Typed client of a platform: REST, event feed, terminal."""
