"""Whatever is put into a spec, reading it ends in a spec or in an error that names the file.

UNROTE_FUZZ sets the number of cases; the default is small enough for every run.
"""

import os
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrote.benchmark.spec import Spec, parse_spec, spec_names
from unrote.errors import OptionError

CASES = int(os.environ.get("UNROTE_FUZZ", "40"))

SPECS = [
    (resources.files("unrote.benchmark") / "specs" / f"{name}.toml").read_text(encoding="utf-8")
    for name in spec_names()
]
SPECS.append(
    """name = "small"
methods = ["erm", {name = "mat", search = {temperature = {low = 0.01, high = 1.0, log = true}}, tries = 2}]
criteria = {none = ["worst_class"], val = ["worst_group"]}
tasks = [{name = "digits", model = "linear", options = {alignment = 0.9}, recipe = {epochs = 2}}]
"""
)
LITERALS = st.recursive(
    st.one_of(
        st.integers(-(10**20), 10**20).map(str),
        st.sampled_from(["nan", "inf", "-inf", "1e999", "0", "-1", "true", "1979-05-27", "07:32:00", "''"]),
        st.sampled_from(
            ['"erm"', '"mat"', '"none"', '"digits"', '"xrm"', '"linear"', '"worst_group"', '"\\u0000"']
        ),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(
            st.sampled_from(
                ["low", "high", "log", "name", "epochs", "steps", "a b", "", "settings", "search"]
            ),
            inner,
            max_size=3,
        ).map(lambda d: "{" + ", ".join(f'"{k}" = {v}' for k, v in d.items()) + "}"),
    ),
    max_leaves=6,
)
PIECES = st.one_of(
    LITERALS,
    st.text(max_size=8),
    st.sampled_from(["[[tasks]]", "[xrm]", "\n", "]", "}", '"""', "= ", "#", "."]),
)


def read(text: str) -> None:
    """Read a text as a spec, and take an `UnroteError`, which says where, for an answer."""
    said = "fuzzed.toml"
    try:
        assert isinstance(parse_spec(text, "fuzzed.toml"), Spec)
    except OptionError as error:
        said = str(error)
    assert "fuzzed.toml" in said


@settings(max_examples=CASES)
@given(
    base=st.sampled_from(SPECS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), PIECES), min_size=1, max_size=5),
)
def test_texts_cut_and_patched_anywhere(base: str, edits: list[tuple[float, int, str]]) -> None:
    for place, removed, piece in edits:
        at = int(place * len(base))
        base = base[:at] + piece + base[at + removed :]
    read(base)


@settings(max_examples=CASES)
@given(base=st.sampled_from(SPECS), data=st.data())
def test_values_of_any_kind_in_any_place(base: str, data: st.DataObject) -> None:
    """These are TOML more often than not, so that they reach the checks behind the parser."""
    lines = base.splitlines()
    keys = [k for k, line in enumerate(lines) if " = " in line and not line.lstrip().startswith("#")]
    for k in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        key = lines[k].split(" = ")[0]
        lines[k] = f"{key} = {data.draw(LITERALS)}"
    read("\n".join(lines))


@settings(max_examples=CASES)
@given(text=st.text(max_size=60))
def test_texts_that_are_nothing(text: str) -> None:
    read(text)


@pytest.mark.parametrize("depth", [50, 5000])
def test_brackets_within_brackets(depth: int) -> None:
    read("methods = " + "[" * depth + "]" * depth)
    read("methods = " + "{a = " * depth + "1" + "}" * depth)


def test_numbers_with_more_digits_than_can_be_read() -> None:
    read("seeds = " + "9" * 5000)
