"""What the platform knows of programs elsewhere that agents take work from. Uses nothing of ours but the domain."""
