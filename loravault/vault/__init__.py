"""A user's notes as bytes with spans: reading, surgical edits, result regions, safe writing. No database, no torch."""
