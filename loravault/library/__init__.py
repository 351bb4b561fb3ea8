"""Adapter files, base models and images on disk: what is there and what each of them is. No database, no torch."""
