"""The lapconsole and lap commands."""
