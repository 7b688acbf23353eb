"""The terminal emulator, its input encoding and its widget."""
