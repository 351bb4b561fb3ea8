"""Names of files we create: legal on every platform, unmistakable in a vault."""

from __future__ import annotations

from datetime import datetime


def image_stem(when: datetime, job: str) -> str:
    """`lv-<yyyymmdd-hhmmss>-<job>`: unique in the vault because job ids are."""
    return f"lv-{when:%Y%m%d-%H%M%S}-{job.split('@', 1)[0]}"
