"""Ratios against a bare script, measured in one run.

`make bench` runs all; `--write` pastes the figures into docs/promises.md.
"""
