"""Which line of a TOML file a value stands on: parsers keep no lines, and an error without one is a search."""

import re
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=\s*(.*)$""")

Path = tuple[str | int, ...]
"""Keys and indices from the top of the file, such as ("tasks", 1, "name")."""


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", dotted)]


def line_numbers(text: str) -> dict[Path, int]:
    """The line, from 1, of every table header and key of a TOML file that parses."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    depth = 0  # of brackets of a value that runs over several lines
    for number, line in enumerate(text.splitlines(), 1):
        if depth > 0:
            depth += _opened(line)
            continue
        if header := _HEADER.match(line):
            table = _table(_parts(header[2]), counts, new_item=header[1] == "[[")
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_parts(key[1])), number)
            depth = max(0, _opened(key[2]))
    return lines


def _table(names: Sequence[str], counts: dict[Path, int], *, new_item: bool) -> Path:
    """The path of a table: an array's name is followed by the index of its last item."""
    path: Path = ()
    for place, name in enumerate(names):
        path = (*path, name)
        if new_item and place == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _opened(value: str) -> int:
    """Brackets opened less brackets closed, outside strings and comments."""
    bare = re.sub(r"""("(?:\\.|[^"\\])*"|'[^']*')|#.*""", "", value)
    return sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}")


def line_of(text: str, location: Sequence[str | int], value: object = None) -> int | None:
    """The line that a value stands on, or the nearest line known above it; None if there is none.

    Args:
        text: of the file.
        location: keys and indices from the top.
        value: the value itself; a string is looked for below its key, where an array runs over several lines.
    """
    known = line_numbers(text)
    path = tuple(location)
    for length in range(len(path), 0, -1):
        line = known.get(path[:length])
        if line is None:
            continue
        if isinstance(value, str) and length < len(path):
            later = [other for other in known.values() if other > line]
            rows = text.splitlines()[line - 1 : (min(later) - 1 if later else None)]
            for offset, row in enumerate(rows):
                if f'"{value}"' in row or f"'{value}'" in row:
                    return line + offset
        return line
    return None
