"""The console and the lap command: everything a person sees of a platform."""
