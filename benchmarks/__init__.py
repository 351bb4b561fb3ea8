"""Side by side with the peers, as ratios in one run. `make bench` runs all; `--write` pastes the figures into docs/promises.md."""
