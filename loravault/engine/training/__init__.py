"""Training adapters: what is learned from, what learns, and how it goes on after an interruption."""
