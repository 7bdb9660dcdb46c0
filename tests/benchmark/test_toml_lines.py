from unrote.benchmark.toml_lines import line_numbers, line_of

TEXT = """\
name = "x"  # [not a table]
methods = [
  "erm",
  "mat",
]
numbers = [[1, 2], # [
  [3]]
after = { a = 1, b = [1] }

[criteria]
none = ["average"]
'quoted key'.inner = 3

[[tasks]]
name = "one"

[tasks.recipe]
steps = 1

[[tasks]]
name = "two"
[tasks.recipe]
steps = 2
"""


def test_lines_of_keys_tables_and_array_items() -> None:
    found = line_numbers(TEXT)
    lines = TEXT.splitlines()
    assert found["name",] == 1
    assert lines[found["after",] - 1].startswith("after")
    assert lines[found["criteria", "none"] - 1].startswith("none")
    assert lines[found["criteria", "quoted key", "inner"] - 1].startswith("'quoted")
    assert found["tasks", 0, "recipe", "steps"] == lines.index("steps = 1") + 1
    assert found["tasks", 1, "recipe", "steps"] == lines.index("steps = 2") + 1
    assert found["tasks", 1] == len(lines) - 3


def test_an_item_of_a_long_array() -> None:
    assert line_of(TEXT, ("methods", 1, "name"), "mat") == 4


def test_the_nearest_line_above_what_is_not_there() -> None:
    assert line_of(TEXT, ("tasks", 1, "recipe", "batch_size")) == len(TEXT.splitlines()) - 1
    assert line_of(TEXT, ("nothing",)) is None
    assert line_of(TEXT, ("after", "a")) == 8
