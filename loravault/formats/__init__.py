"""Formats that others can see, as pure data and functions. Imports nothing of ours but the errors."""
