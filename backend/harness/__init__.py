"""The program inside a sandbox: sets it up, owns the agent's terminal, serves it."""
