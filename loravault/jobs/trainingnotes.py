"""A training note for a folder of pictures that somebody names on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from loravault.config import VaultConfig
from loravault.errors import UserError
from loravault.jobs.context import Context
from loravault.jobs.intake import Intake
from loravault.requests.training_pictures import folder_of
from loravault.vault.inert import inert_value
from loravault.vault.names import free_stem, name_key, safe_stem
from loravault.vault.yamlwrite import property_lines

#: Folder in ours for the notes that are made so.
HOME = "Trainings"
#: Properties that the command line may set.
KEYS = ("name", "subject", "trigger", "base", "steps")


class TrainingNotes:
    """Makes such notes, and starts them."""

    def __init__(self, ctx: Context, intake: Intake, note_paths: Callable[[], Collection[str]]) -> None:
        self._ctx = ctx
        self._intake = intake
        self._note_paths = note_paths

    def obey(self, _kind: str, args: dict[str, Any]) -> dict[str, Any]:
        """The command `train`: a note for the folder, and its run. Raises `UserError`."""
        config = self._ctx.config
        dataset = dataset_of(Path(str(args["folder"])), config)
        wanted = {key: args["properties"][key] for key in KEYS if args["properties"].get(key) not in (None, "")}
        name = safe_stem(str(wanted.get("name") or Path(str(args["folder"])).name), 100)
        taken = {name_key(rel.rpartition("/")[2].removesuffix(".md")) for rel in self._note_paths()}
        stem = free_stem(name, lambda one: name_key(one) not in taken, kind="training")
        rel = f"{config.folder}/{HOME}/{stem}.md"
        try:
            self._ctx.writer.create(rel, note_text(name, dataset, wanted, args.get("prompts") or ()).encode())
        except FileExistsError as error:
            raise UserError(
                f"{rel} is there already: run it with `loravault train`, or give another --name."
            ) from error
        except OSError as error:
            raise UserError(f"{rel} cannot be written: {error.strerror or error}.") from error
        return {"run": self._intake.start(rel), "note": rel}


def dataset_of(folder: Path, config: VaultConfig) -> str:
    """What `dataset` has to say for this folder. Raises `UserError` for one that may not be read from."""
    real = Path(os.path.realpath(folder))
    home = Path(os.path.realpath(config.vault))
    text = real.relative_to(home).as_posix() if real != home and real.is_relative_to(home) else str(real)
    found = folder_of(text, config.vault, config.datasets)
    if isinstance(found, str):
        if real.is_dir() and text == str(real):
            raise UserError(
                f"{folder} is outside the vault. Allow it in config.toml, and give the command again: datasets = "
                f'["{real}"]'
            )
        raise UserError(found)
    return text


def note_text(name: str, dataset: str, properties: Mapping[str, Any], prompts: Sequence[str]) -> str:
    """The note. It is the user's from its first moment."""
    values: dict[str, Any] = {"loravault": "train", "run": False, "name": name, **properties, "dataset": dataset}
    front = [line for key, value in values.items() for line in property_lines(key, _value(value))]
    blocks = [f"```prompt\n{inert_value(prompt)}\n```\n" for prompt in prompts]
    return "\n".join(["---", *front, "---", f"# {name}", "", *blocks]).rstrip("\n") + "\n"


def _value(value: Any) -> Any:
    return inert_value(value) if isinstance(value, str) else value
