"""Use cases: what happens when an agent or session is created, stopped, restarted."""
