"""Where sessions run: the driver contract and its implementations."""
