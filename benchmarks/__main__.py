"""`make bench`: every benchmark, one after the other."""

from __future__ import annotations

from benchmarks import overhead

if __name__ == "__main__":
    overhead.main()
