import json
import re

import pytest
from typer.testing import CliRunner, Result

from unrote.cli import main
from unrote.cli.app import app
from unrote.methods import METHODS


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result


def test_lists_every_method_with_the_group_labels_it_needs() -> None:
    lines = {line.split()[0]: line for line in run().stdout.splitlines() if line[2:].strip()}
    for name in METHODS.names():
        assert re.sub(r"\s+", " ", METHODS[name].reference) in lines[name], "the line is whole"
    assert re.search(r"mat +none ", lines["mat"])
    assert re.search(r"dfr +validation \*", lines["dfr"])
    assert re.search(r"rwg +training \*", lines["rwg"])
    assert "groups='xrm'" in lines["*"]


def test_the_list_as_json() -> None:
    records = {record["name"]: record for record in json.loads(run("--json").stdout)}
    assert set(records) == set(METHODS.names())
    assert records["rwg"] == {
        "name": "rwg",
        "needs": "train",
        "takes_inferred_groups": True,
        "reference": "Idrissi et al. 2022, arXiv 2110.14503",
    }


@pytest.mark.parametrize("name", METHODS.names())
def test_explains_a_method(name: str) -> None:
    output = run(name).stdout
    record = json.loads(run(name, "--json").stdout)
    assert record["algorithm"] in output, "in the words of its file, brackets and all"
    assert METHODS[name].reference in output
    fields = getattr(METHODS[name], "__dataclass_fields__", {})
    assert [p["name"] for p in record["parameters"]] == list(fields)
    for parameter in record["parameters"]:
        default, search = (
            fields[parameter["name"]].default,
            fields[parameter["name"]].metadata.get("search"),
        )
        assert (parameter["default"], parameter["search"]) == (
            default,
            None if search is None else str(search),
        )
        assert parameter["meaning"], "every hyper-parameter is documented"
        assert f"  {parameter['name']} " in output
    assert ("no hyper-parameters" in output) == (not fields)


def test_ranges_and_meanings_are_in_the_table() -> None:
    (line,) = (line for line in run("ldam").stdout.splitlines() if line.startswith("  max_margin"))
    assert line.split("  ", 2)[2].split(maxsplit=1)[0] == "0.5"
    assert "0.1 to 0.8 (log)" in line
    assert "margin of the smallest class, in cosine, above 0." in line


def test_a_method_that_does_not_exist_is_exit_code_2_and_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["unrote", "methods", "mta"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "unknown method 'mta': did you mean 'mat'" in capsys.readouterr().err
