"""The platform: agents, sessions, sandboxes, harness, REST API."""
