"""loravault: an asset manager and daemon for LoRA adapters that lives in an Obsidian vault."""

__version__ = "0.1.0"
