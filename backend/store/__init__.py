"""SQL tables, queries, migrations and the event log."""
