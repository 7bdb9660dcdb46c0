"""Records of long measurements, a JSON line each, and the part of a page that shows them."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Records:
    """The records of one script, which are added as they are made: a run that is stopped goes on where it was.

    Args:
        name: of the script, without ".py".
        page: the file under docs that shows them, between <!-- PART: benchmarks/NAME.py write --> and
            <!-- end of PART -->.
    """

    def __init__(self, name: str, page: str) -> None:
        self.name = name
        self.path = ROOT / "benchmarks" / "results" / f"{name}.jsonl"
        self.page = ROOT / "docs" / page

    def read(self) -> list[dict[str, Any]]:
        """The records so far."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def add(self, row: dict[str, Any]) -> None:
        """Append one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def show(self, text: str, part: str = "table") -> None:
        """Replace a part of the page."""
        begin, end = f"<!-- {part}: benchmarks/{self.name}.py write -->", f"<!-- end of {part} -->"
        before, rest = self.page.read_text().split(begin)
        self.page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")
