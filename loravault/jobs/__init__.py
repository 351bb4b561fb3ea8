"""Queue, scheduling, the worker and its supervisor, delivery and recovery: from a settled note to its answer."""
