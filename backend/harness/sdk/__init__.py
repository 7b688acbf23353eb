"""The server of the claude-agent-sdk harness, in a process of its own (LAP harness 2.2, 2.3)."""
