"""Finds the data that comes with loravault. The only module that knows where it lies.

An installed wheel carries everything under `loravault/data/`. A checkout, also under an editable install, keeps
`templates/` and `examples/vault/` at its root, where people edit them; the demo base and its adapters are in
`loravault/data/` either way.
"""

from __future__ import annotations

from pathlib import Path

from loravault.errors import UserError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def demo_base() -> Path:
    """The diffusers folder of the demo base."""
    return _first(_PACKAGE / "data" / "demo_base")


def demo_adapters() -> Path:
    """The folder with the adapters that were made for the demo base."""
    return _first(_PACKAGE / "data" / "demo_adapters")


def base_parts() -> Path:
    """The folder with `configs/` and `tokenizers/`: what a base that is a single file leaves unsaid."""
    return _first(_PACKAGE / "data" / "base_parts")


def templates() -> Path:
    """The folder with `notes/` (request templates for the user) and `pages/` (Jinja2)."""
    return _first(_PACKAGE / "data" / "templates", _CHECKOUT / "templates")


def example_vault() -> Path:
    """The small living vault that `loravault demo` copies."""
    return _first(_PACKAGE / "data" / "example_vault", _CHECKOUT / "examples" / "vault")


def _first(*candidates: Path) -> Path:
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise UserError(f"loravault's own files are missing at {candidates[0]}: install it again.")
