"""`loravault train`."""

from __future__ import annotations

from pathlib import Path

import click

from loravault.cli.app import App, pass_app
from loravault.cli.notes import note_in_vault
from loravault.cli.outcome import tell
from loravault.cli.progress import following
from loravault.errors import UserError


@click.command("train")
@click.argument("target", metavar="NOTE|FOLDER")
@click.option("--name", help="Of the new LoRA; else the folder's name.")
@click.option("--trigger", help="The words that call it up, such as 'sks cat'.")
@click.option(
    "--subject", type=click.Choice(["character", "style", "object", "concept"]), help="What the pictures show."
)
@click.option("--base", help="The base model to train on; `loravault bases` lists them.")
@click.option("--steps", type=click.IntRange(1), help="How long; else decided from the pictures.")
@click.option("--prompt", "prompts", multiple=True, help="What is drawn to see how it goes; may be repeated.")
@click.option("--json", "as_data", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
@pass_app
def command(
    app: App,
    ctx: click.Context,
    target: str,
    name: str | None,
    trigger: str | None,
    subject: str | None,
    base: str | None,
    steps: int | None,
    prompts: tuple[str, ...],
    as_data: bool,
) -> None:
    """Train a LoRA from a note or a folder of pictures.

    NOTE is a note with `loravault: train`; what it says counts. For a FOLDER (with captions in .txt files beside the
    pictures, if there are any) a note is made in LoraVault/Trainings, and that is run. Beside a running `loravault
    watch` it is handed to it, else it is trained here. Ctrl-C keeps what was learned: the same command goes on.
    """
    config = app.config()
    properties = {"name": name, "trigger": trigger, "subject": subject, "base": base, "steps": steps}
    given = {key: value for key, value in properties.items() if value is not None}
    control = app.open_control(config)
    folder = app.cwd / Path(target).expanduser()
    if folder.is_dir():
        with following(folder.name) as show:
            view = control.train_folder(folder, given, prompts, show)
    else:
        if given or prompts:
            raise UserError(
                f"What is wanted of {target} stands in the note: --{next(iter(given), 'prompt')} is for folders."
            )
        rel = note_in_vault(config.vault, app.cwd, target)
        with following(rel) as show:
            view = control.run_note(rel, show, kind="train")
    ctx.exit(tell([view], as_data=as_data))
