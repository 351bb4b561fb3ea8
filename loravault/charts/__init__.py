"""Pictures that tell how a training went. Pillow only; drawn in the worker, never in the daemon."""
