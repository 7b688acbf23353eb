"""Linear: its wire formats, its API, and the words for it (LAP harness 7.2)."""
