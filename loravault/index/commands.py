"""What the command line asks of a running daemon, as rows; and single facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, delete, select

from loravault.index.tables import CommandRow, FactRow


def ask(session: Session, kind: str, args: Mapping[str, Any], now: float) -> int:
    """Leave a command for the daemon; returns its number."""
    row = CommandRow(kind=kind, args=json.dumps(dict(args)), created=now)
    session.add(row)
    session.flush()
    assert row.id is not None
    return row.id


def new_commands(session: Session) -> Sequence[CommandRow]:
    """Commands that wait, oldest first."""
    return session.exec(select(CommandRow).where(CommandRow.state == "new").order_by(col(CommandRow.id))).all()


def answer(session: Session, number: int, state: str, reply: Mapping[str, Any]) -> None:
    """The daemon's answer to a command."""
    row = session.get(CommandRow, number)
    if row is not None:
        row.state = state
        row.reply = json.dumps(dict(reply), ensure_ascii=False)
        session.add(row)


def command(session: Session, number: int) -> CommandRow | None:
    """The command of this number."""
    return session.get(CommandRow, number, populate_existing=True)


def forget_commands(session: Session, before: float) -> None:
    """Drop old commands: at the start (nobody waits for them any more) and now and then."""
    session.exec(delete(CommandRow).where(col(CommandRow.created) < before))


def fact(session: Session, key: str) -> str | None:
    """A single fact."""
    row = session.get(FactRow, key)
    return None if row is None else row.value


def set_fact(session: Session, key: str, value: str) -> None:
    """Remember a single fact."""
    session.merge(FactRow(key=key, value=value))
