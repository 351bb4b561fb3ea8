"""The only place with torch. Knows nothing of notes, vaults or databases: takes values, returns files."""
