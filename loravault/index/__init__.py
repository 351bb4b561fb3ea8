"""The disposable index: SQLite through SQLModel. Every statement is a named function that takes a session.

Nothing lives only here: delete the file and `loravault reindex` finds the same answers in the notes, the images and the
loras folders. No other room writes SQL.
"""
