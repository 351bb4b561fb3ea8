"""Keeps a note, a cover and gallery pages for every adapter: between the index, the pages and the vault."""
