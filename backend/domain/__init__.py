"""Pure rules of the platform, without I/O."""
