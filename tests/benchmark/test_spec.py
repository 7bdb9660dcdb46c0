import dataclasses
import re
from pathlib import Path

import pytest

from unrote.benchmark.spec import RecipeSpec, load_spec, parse_spec, spec_names
from unrote.errors import OptionError
from unrote.training import Recipe

GOOD = """\
name = "small"
seeds = 2
methods = ["erm", "mat"]

[criteria]
none = ["worst_class"]
val = ["worst_group"]

[[tasks]]
name = "digits"
model = "linear"

[tasks.recipe]
learning_rate = { low = 1e-3, high = 1e-1, log = true }
epochs = 2
"""


def test_a_good_spec() -> None:
    spec = parse_spec(GOOD, "small.toml")
    assert [method.name for method in spec.methods] == ["erm", "mat"]
    assert spec.final_seeds == [1, 2]
    assert spec.regimes_of(spec.methods[0]) == ["none", "val"]


def test_a_spec_can_say_all_that_a_recipe_can() -> None:
    assert set(RecipeSpec.model_fields) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("name", spec_names())
def test_every_built_in_spec_can_be_read(name: str) -> None:
    assert load_spec(name).name == name


def test_the_built_in_specs_are_there() -> None:
    assert {"quick", "paper", "features"} <= set(spec_names())


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("seeds = 2", "seeds = 0", 2, r"seeds: .*greater than or equal to 1"),
        ("seeds = 2", "seed = 2", 2, r"seed: Extra inputs"),
        ('"mat"]', '"matt"]', 3, r"methods\[1\].name: unknown method 'matt': did you mean 'mat'"),
        (
            'val = ["worst_group"]',
            'val = ["worst_grup"]',
            7,
            r"unknown criterion .*did you mean 'worst_group'",
        ),
        ('none = ["worst_class"]', 'none = ["worst_group"]', 6, r"criteria.none\[0\]: .*needs group labels"),
        ('none = ["worst_class"]', 'none = ["oracle"]', 6, r"looks at the test split"),
        ('none = ["worst_class"]', 'nine = ["worst_class"]', 6, r"criteria.nine: Input should be 'none'"),
        ('name = "digits"', 'name = "digitz"', 10, r"tasks\[0\].name: unknown task 'digitz'"),
        ('model = "linear"', 'model = "resnet"', 11, r"unknown model 'resnet'"),
        ('model = "linear"', "options = { colour = 1 }", 11, r"no option 'colour': valid: n_train"),
        ("epochs = 2", "epochs = 2\nsteps = 3", 13, r"give exactly one of them"),
        ("epochs = 2", "epochs = 2\nclip_norm = 0", 16, r"clip_norm: .*greater than 0"),
        ("epochs = 2", "epochs = 2\nclip_norm = inf", 16, r"clip_norm: .*finite"),
        ("low = 1e-3", "low = 1", 14, r"low must be below high"),
        (
            '"mat"]',
            '{ name = "mat", settings = { heat = 1.0 } }]',
            3,
            r"no setting 'heat': it has temperature",
        ),
        ('"mat"]', '{ name = "mat", search = { heat = [1.0] } }]', 3, r"search.heat: .*no setting 'heat'"),
        ('"mat"]', '{ name = "mat", settings = { temperature = -1.0 } }]', 3, r"temperature"),
        ('"mat"]', '{ name = "mat", search = { temperature = [1.0, 0.0] } }]', 3, r"search.temperature: "),
        ('"mat"]', '{ name = "mat", groups = "xrm" }]', 3, r"takes no inferred groups"),
        ('"mat"]', '"groupdro"]', 3, r"needs the annotation regime 'train', .*add criteria.train, or"),
        ('"mat"]', '{ name = "dfr", regimes = ["none"] }]', 3, r"needs the regime 'val', not 'none'"),
        ('"mat"]', '"erm"]', 3, r"a second entry called 'erm'"),
    ],
)
def test_errors_name_the_line(old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    with pytest.raises(OptionError) as caught:
        parse_spec(GOOD.replace(old, new, 1), "small.toml")
    complaints = str(caught.value).splitlines()
    own = [text for text in complaints if re.search(message, text)]
    assert own, complaints
    assert own[0].startswith(f"small.toml, line {line}: ")


def test_all_errors_at_once() -> None:
    text = GOOD.replace('"erm"', '"emr"').replace('"digits"', '"digitz"')
    with pytest.raises(OptionError) as caught:
        parse_spec(text, "small.toml")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "small.toml, line 10",
        "small.toml, line 3",
    ]


def test_what_is_not_toml_names_the_line() -> None:
    with pytest.raises(OptionError, match=r"small.toml is not TOML: .*line 2"):
        parse_spec('name = "x"\nseeds = = 2\n', "small.toml")


def test_a_missing_file_names_the_built_in_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no spec .*nothing.toml.*quick"):
        load_spec(tmp_path / "nothing.toml")
