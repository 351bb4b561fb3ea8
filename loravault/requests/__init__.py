"""A note becomes a typed request, or words that say what is wrong with it. Pure: no files, no database."""
