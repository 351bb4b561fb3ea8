"""Our templates of pages, compiled once.

`fill` is for pages that are made by the thousand: what the template prints around its values is found once for every
shape of these (which are empty, how long the lists are), and then filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

Functions = Mapping[str, Callable[..., Any]]
#: A text, a list of texts, or a list of pairs of texts.
Values = Mapping[str, str | list[str] | list[tuple[str, str]]]
#: Shapes whose forms are kept.
_FORMS = 2048
_MARK = "\0"


class _Form:
    """What a template prints for values of one shape: a text with gaps, and which value goes into which gap."""

    def __init__(self, marked: str) -> None:
        """`marked`: the template with `_marked(number)` for the value of that number, in the order of `_flat`."""
        parts = marked.split(_MARK)
        parts[::2] = [part.replace("%", "%%") for part in parts[::2]]
        self._order = [int(number) for number in parts[1::2]]
        parts[1::2] = ["%s"] * len(self._order)
        self._text = "".join(parts)
        self._pick: Callable[[Sequence[str]], Any] = itemgetter(*self._order) if self._order else lambda _flat: ()

    @classmethod
    def of(cls, marked: str) -> _Form | None:
        """The form of a template that left the marks whole."""
        try:
            return cls(marked)
        except ValueError:
            return None

    def filled(self, flat: Sequence[str]) -> str:
        """The page with these values."""
        page: str = self._text % self._pick(flat)
        return page


class Templates:
    """Templates that share their filters and functions. A name that nobody gave is an error, never a blank."""

    def __init__(self, filters: Functions | None = None, functions: Functions | None = None) -> None:
        self._filters = filters or {}
        self._functions = functions or {}
        self._environments: dict[Path, Environment] = {}
        self._forms: dict[tuple[Path, str, tuple[str, ...], tuple[int, ...]], _Form] = {}

    def fill(self, folder: Path, name: str, values: Values) -> str:
        """What `get(folder, name).render(values)` says, in a fraction of the time.

        The template may print a value, ask whether it is empty, and go through a list or count it; nothing else. One
        that does more is found out by the first values of a shape: ValueError.
        """
        shape = tuple([len(value) if type(value) is list else not value for value in values.values()])
        flat = _flat(values.values())
        key = folder, name, tuple(values), shape
        form = self._forms.get(key)
        if form is not None:
            return form.filled(flat)
        template = self.get(folder, name)
        page = template.render(values)
        form = _Form.of(template.render(_with_marks(values)))
        if form is None or form.filled(flat) != page:
            raise ValueError(f"the template {name} does more with a value than print it")
        if len(self._forms) >= _FORMS:
            self._forms.clear()
        self._forms[key] = form
        return page

    def get(self, folder: Path, name: str) -> Template:
        """The template `name` among the pages in this folder of templates."""
        environment = self._environments.get(folder)
        if environment is None:
            environment = self._environments[folder] = self._environment(folder)
        return environment.get_template(name)

    def _environment(self, folder: Path) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(folder / "pages"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # Markdown: what strangers wrote is made inert where it is taken in
            keep_trailing_newline=True,
            auto_reload=False,
        )
        environment.filters.update(self._filters)
        environment.globals.update(self._functions)
        return environment


def _flat(values: Iterable[str | list[str] | list[tuple[str, str]]]) -> list[str]:
    """All texts in their order."""
    flat: list[str] = []
    for value in values:
        if type(value) is not list:
            flat.append(value)  # type: ignore[arg-type]
        elif value and type(value[0]) is tuple:
            for pair in value:
                flat.extend(pair)
        else:
            flat.extend(value)  # type: ignore[arg-type]
    return flat


def _with_marks(values: Values) -> dict[str, Any]:
    """The same shape with a mark for every text, but for values that are empty."""
    numbers = iter(range(1_000_000))

    def mark() -> str:
        return f"{_MARK}{next(numbers)}{_MARK}"

    def marked(value: str | list[str] | list[tuple[str, str]]) -> Any:
        if isinstance(value, str):
            sign = mark()
            return sign if value else ""
        return [(mark(), mark()) if isinstance(item, tuple) else mark() for item in value]

    return {key: marked(value) for key, value in values.items()}
