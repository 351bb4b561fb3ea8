"""The group of all commands. A command's module is imported when it is called, not when help is shown."""

from __future__ import annotations

from importlib import import_module

import click

import loravault
from loravault.cli.app import App

#: Name, module below `loravault.cli`, and its line in the overview (equal to the command's own: a test compares).
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Set up a vault: where your LoRAs are, and our folder in it."),
    "watch": ("watch", "Serve the vault: answer requests until stopped."),
    "run": ("run", "Run one request note now and wait for its pictures."),
    "train": ("train", "Train a LoRA from a note or a folder of pictures."),
    "queue": ("queue", "Show what is running and what waits."),
    "cancel": ("cancel", "Cancel a request, or the one that is running."),
    "retry": ("retry", "Run failed requests again."),
    "reindex": ("reindex", "Look at every LoRA, image and note again."),
    "search": ("search", "Find LoRAs by name, trigger words, tags, notes and captions."),
    "show": ("show", "Tell what is known about a LoRA."),
    "recreate": ("recreate", "Make cards again that were deleted."),
    "mv": ("mv", "Rename or move a LoRA with everything that belongs to it."),
    "clean": ("clean", "List what could be tidied away, and with --yes move it into the trash."),
    "undo": ("undo", "Move back what `clean` or `mv` moved."),
    "duplicates": ("duplicates", "List LoRAs that lie in several places."),
    "stats": ("stats", "Tell the library in numbers."),
    "bases": ("bases", "List the base models, and why one cannot be used."),
    "config": ("config", "Print the settings in force and where they are from."),
    "doctor": ("doctor", "Tell what works on this machine, and what does not."),
    "uninstall": ("uninstall", "Remove what is ours and unchanged from the vault."),
    "demo": ("demo", "Make a small vault and let its notes get their pictures."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and loads only the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order of a user's first day, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"loravault.cli.{COMMANDS[cmd_name][0]}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The overview, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--vault", metavar="PATH", help="The vault. Else LORAVAULT_VAULT, else the nearest one at or above here.")
@click.version_option(loravault.__version__, prog_name="loravault")
@click.pass_context
def root(ctx: click.Context, vault: str | None) -> None:
    """Write a note, tick run, and the picture appears in the note."""
    if ctx.obj is None:
        ctx.obj = App()
    ctx.obj.vault_option = vault
