"""The live model: what the console knows, kept current by events."""
