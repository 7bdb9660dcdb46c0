"""What a record holds, against computations of its own; and what becomes of a damaged one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import GROUPS, RECIPE, picture_task, record, sentences, text_task
from table_files import people, write_csv, write_pictures
from toys import planted_task

from unrote.api import evaluate, fit
from unrote.data import Split, Task
from unrote.errors import DataError, OptionError, UnroteError
from unrote.memorization import influence_matrix, leave_one_out
from unrote.record import Trained, record_run, train_methods
from unrote.report import RunRecord, find_records, merge, read_record
from unrote.tables import make_task, read_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task, dict[str, Trained], RunRecord]:
    folder, task = tmp_path_factory.mktemp("runs") / "texts", text_task()
    trained = record(folder, task)
    return folder, task, trained, read_record(folder)


class TestWhatIsRecorded:
    def test_accuracy_is_that_of_evaluate(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord]
    ) -> None:
        _, task, trained, found = run
        assert [one.name for one in found.contents.methods] == ["erm", "mat"]
        for one in found.contents.methods:
            wanted = evaluate(trained[one.name].fitted, task).to_dict()
            assert one.scores is not None
            got = one.scores.model_dump(mode="json")
            by_class = zip(got.pop("class_accuracy"), wanted.pop("class_accuracy"), strict=True)
            assert got == wanted
            assert [(a["n"], a["accuracy"]) for a, _ in by_class] == [
                (b["n"], b["accuracy"])
                for b in evaluate(trained[one.name].fitted, task).to_dict()["class_accuracy"]
            ]

    def test_scores_are_those_of_the_head(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord]
    ) -> None:
        _, task, trained, found = run
        for k, one in enumerate(trained.values()):
            wanted = leave_one_out(one.fitted, task.train.x, task.train.y)
            np.testing.assert_allclose(found.arrays[f"{k}.memorization"], wanted.values, atol=1e-6)
            memorized = found.contents.methods[k].memorized
            assert memorized == pytest.approx((wanted.values > 0.25).mean())
            wanted_influence = wanted.details["self_influence"]
            np.testing.assert_allclose(found.arrays[f"{k}.self_influence"], wanted_influence, rtol=1e-4)

    def test_held_out_predictions_and_groups_are_the_twins(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord]
    ) -> None:
        _, task, trained, found = run
        twins = trained["mat"].fitted.artefacts["xrm"]
        held_out = twins.held_out().logits
        assert found.arrays["held_out"].tolist() == held_out.argmax(1).tolist()
        assert found.arrays["inferred"].tolist() == twins.mistakes[0].tolist()
        assert found.arrays["group"].tolist() == task.group(task.train).tolist()
        assert found.contents.held_out is not None
        assert found.contents.held_out.accuracy == pytest.approx(
            float((held_out.argmax(1) == task.train.y).double().mean())
        )

    def test_groups_are_those_of_the_twins_that_made_the_held_out_logits(
        self, tmp_path: Path, run: tuple[Path, Task, dict[str, Trained], RunRecord]
    ) -> None:
        """Where both kinds of twins were trained, as a default that compares them does."""
        _, task, trained, _ = run
        networks = trained["mat"].fitted.artefacts["xrm"]
        heads = replace(networks, mistakes=1 - networks.mistakes, source="trunk")
        for made_by in (networks, heads):
            artefacts = {"xrm": networks, "trunk": heads, "held_out": made_by.held_out()}
            record_run(
                task, {"mat": replace(trained["mat"].fitted, artefacts=artefacts)}, tmp_path / made_by.source
            )
            found = read_record(tmp_path / made_by.source)
            assert found.arrays["inferred"].tolist() == made_by.mistakes[0].tolist()

    def test_the_shift_is_mats(self, run: tuple[Path, Task, dict[str, Trained], RunRecord]) -> None:
        _, task, trained, found = run
        shift, y = trained["mat"].fitted.artefacts["shift"], task.train.y
        rows = torch.arange(len(y))
        np.testing.assert_allclose(
            found.arrays["1.shift"], (shift[rows, y] - shift[rows, 1 - y]).numpy(), atol=1e-5
        )
        recorded = found.contents.methods[1].shift
        assert recorded is not None
        # where held-out models say k and the temperature is low, P is nearly the confusion matrix
        assert np.array(recorded.confusion).sum(1) == pytest.approx([1, 1])
        assert found.contents.methods[0].shift is None
        assert "0.shift" not in found.arrays

    def test_influence_is_that_of_the_matrix(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord]
    ) -> None:
        _, task, trained, found = run
        test = task.test
        assert test is not None
        rows, columns = found.arrays["influence.train"], found.arrays["influence.test"]
        whole = influence_matrix(trained["erm"].fitted, task.train.x, task.train.y, test.x, test.y)
        np.testing.assert_allclose(
            found.arrays["0.influence"], whole[np.ix_(rows, columns)] / len(task.train), rtol=1e-3, atol=1e-9
        )
        groups = found.arrays["group"][rows]
        assert (np.diff(groups) >= 0).all()
        assert len(set(np.bincount(groups)[np.unique(groups)])) == 1  # as many of each group
        assert found.contents.influence is not None
        assert found.contents.influence.test == [sentences(120, 1)[i] for i in columns]

    def test_examples_are_listed_by_score_with_their_texts(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord]
    ) -> None:
        _, _, _, found = run
        index = np.array(found.contents.examples.index)
        assert sorted(index) == list(range(200))
        largest = np.maximum(found.arrays["0.memorization"], found.arrays["1.memorization"])[index]
        assert (np.diff(largest) <= 0).all()
        assert found.contents.examples.content == [sentences(200, 0)[i] for i in index]
        assert found.contents.examples.kind == "text"

    def test_curves_end_where_training_ends(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord]
    ) -> None:
        _, _, _, found = run
        for one in found.contents.methods:
            assert one.curves is not None
            assert one.scores is not None
            assert len(one.curves.steps) > 10
            assert one.curves.series["test/average"][-1] == pytest.approx(one.scores.average)
            last = one.curves.series[f"test/{one.scores.worst_group.name}"][-1]
            assert last == pytest.approx(one.scores.worst_group.accuracy)

    def test_looking_on_changes_nothing(self, run: tuple[Path, Task, dict[str, Trained], RunRecord]) -> None:
        """The evaluations for the curves must not move the classifier that is trained."""
        _, task, trained, _ = run
        plain = fit(task, "erm", regime="none", model="linear", recipe=RECIPE)
        assert torch.equal(plain.logits(task.train.x), trained["erm"].fitted.logits(task.train.x))


class TestContents:
    def test_pictures_become_thumbnails(self, tmp_path: Path) -> None:
        task = picture_task()
        record(tmp_path / "run", task, ("erm",), epochs=2)
        found = read_record(tmp_path / "run")
        first = found.contents.examples.index[0]
        wanted = (task.train.x[torch.tensor([first])][0] * 255).round().byte().permute(1, 2, 0).numpy()
        assert found.contents.examples.kind == "picture"
        assert (found.arrays["pictures"][0] == wanted).all()

    def test_rows_of_a_table(self, tmp_path: Path) -> None:
        columns = people(200)
        made = make_task(read_table(write_csv(tmp_path / "people.csv", columns)), "label", group="colour")
        record_run(made, train_methods(made, ["erm"], epochs=1), tmp_path / "run")
        found = read_record(tmp_path / "run").contents
        assert found.examples.columns[0] == "colour"  # the group first; the label has a column of its own
        assert "label" not in found.examples.columns
        number, cells = int(found.examples.names[0]), found.examples.content[0]
        city = found.examples.columns.index("city")
        assert cells[city] == columns["city"][number - 1]

    def test_folder_of_pictures(self, tmp_path: Path) -> None:
        made = make_task(read_table(write_pictures(tmp_path / "pictures"), picture_size=16), "class")
        record_run(made, train_methods(made, ["erm"], epochs=1, model="linear"), tmp_path / "run")
        found = read_record(tmp_path / "run")
        assert found.contents.examples.kind == "picture"
        assert found.arrays["pictures"].shape[1:] == (16, 16, 3)
        assert found.contents.examples.names[0].endswith(".png")
        assert found.contents.data.groups == "inferred"

    def test_shown_stands_for_features(self, tmp_path: Path) -> None:
        task = planted_task()
        fitted = fit(task, "erm", regime="none")
        folder = record_run(task, {"erm": fitted}, tmp_path / "plain")
        assert read_record(folder).contents.examples.kind == "nothing"
        texts = [f"example {i}" for i in range(64)]
        folder = record_run(task, {"erm": fitted}, tmp_path / "shown", shown={"train": texts})
        found = read_record(folder).contents.examples
        assert found.content == [texts[i] for i in found.index]
        with pytest.raises(DataError, match="63 entries for 64 examples"):
            record_run(task, {"erm": fitted}, tmp_path / "short", shown={"train": texts[1:]})


class TestMissingParts:
    def test_without_twins_nothing_is_inferred(self, tmp_path: Path) -> None:
        task = planted_task(attributes=False)
        folder = record_run(task, {"erm": fit(task, "erm")}, tmp_path / "run")
        found = read_record(folder).contents
        assert {"held_out", "inferred", "groups", "erm: curves"} <= set(found.missing)
        assert found.data.groups is None
        scores = found.methods[0].scores
        assert scores is not None
        assert [one.name for one in scores.groups] == ["0", "1"]  # the classes, as there is nothing else

    def test_groups_are_inferred_where_nobody_annotated_them(self, tmp_path: Path) -> None:
        task = text_task(attributes=False)
        trained = record(tmp_path / "run", task, ("erm",), epochs=4)
        found = read_record(tmp_path / "run").contents
        twins = trained["erm"].fitted.artefacts["xrm"]
        assert found.data.groups == "inferred"
        assert found.data.group_sizes[1] == int(twins.mistakes[0].sum())
        scores, test = found.methods[0].scores, task.test
        assert scores is not None
        assert test is not None
        minority = (twins.trained.predict(test.x).argmax(-1) != test.y).any(0)
        assert [one.n for one in scores.groups] == [int((~minority).sum()), int(minority.sum())]

    def test_an_ensemble_has_no_head(self, tmp_path: Path) -> None:
        task = text_task()
        trained = train_methods(
            task, ["dpe"], settings={"dpe": {"hold_out": "train"}}, model="linear", epochs=1
        )
        assert not trained["dpe"].fitted.stack_alone
        folder = record_run(task, trained, tmp_path / "run")
        found = read_record(folder)
        assert {"dpe: memorization", "influence"} <= set(found.contents.missing)
        assert found.contents.methods[0].scores is not None
        assert len(found.contents.examples.index) == 200

    def test_no_test_split(self, tmp_path: Path) -> None:
        x, y = torch.randn(40, 4), torch.arange(40) % 2
        task = Task("lone", Split(x, y))
        folder = record_run(task, {"erm": fit(task, "erm", model="linear")}, tmp_path / "run")
        found = read_record(folder).contents
        assert found.methods[0].scores is None
        assert {"accuracy", "influence"} <= set(found.missing)


class TestFolder:
    def test_others_files_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(OptionError, match="not empty"):
            record_run(planted_task(), {}, tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]

    def test_replaced_only_if_asked(self, tmp_path: Path) -> None:
        task = planted_task()
        fitted = {"erm": fit(task, "erm", regime="none")}
        record_run(task, fitted, tmp_path / "run")
        with pytest.raises(OptionError, match="--overwrite"):
            record_run(task, fitted, tmp_path / "run")
        record_run(task, fitted, tmp_path / "run", examples=5, overwrite=True)
        assert len(read_record(tmp_path / "run").contents.examples.index) == 5
        assert len(list((tmp_path / "run").iterdir())) == 2  # no old arrays, no partial files

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda raw: {**raw, "format": 99}, "format 99"),
            (lambda raw: {key: value for key, value in raw.items() if key != "methods"}, "methods"),
            (lambda raw: {**raw, "arrays": ["../other.safetensors", raw["arrays"][1]]}, "outside its folder"),
            (lambda raw: {**raw, "arrays": [raw["arrays"][0], "0" * 32]}, "recorded hash"),
            (lambda raw: {**raw, "examples": {**raw["examples"], "index": [10**6] * 200}}, "do not fit"),
            (lambda raw: {**raw, "data": {**raw["data"], "class_names": ["one"]}}, "do not fit"),
            (lambda raw: [raw], "format None"),
        ],
    )
    def test_damaged_records_are_refused(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord], tmp_path: Path, damage: object, said: str
    ) -> None:
        for file in run[0].iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        raw = json.loads((tmp_path / "record.json").read_text())
        (tmp_path / "record.json").write_text(json.dumps(damage(raw)))  # type: ignore[operator]
        with pytest.raises(DataError, match=said):
            read_record(tmp_path)

    @pytest.mark.parametrize("cut", [0, 1, 100, -1])
    @pytest.mark.parametrize("which", ["record.json", "arrays"])
    def test_cut_files_are_refused(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord], tmp_path: Path, cut: int, which: str
    ) -> None:
        for file in run[0].iterdir():
            content = file.read_bytes()
            (tmp_path / file.name).write_bytes(content[:cut] if file.name.startswith(which) else content)
        with pytest.raises(UnroteError):
            read_record(tmp_path)

    def test_found_alone_or_among_others(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord], tmp_path: Path
    ) -> None:
        assert (
            find_records(run[0])
            == find_records(run[0] / "record.json")
            == find_records(run[0].parent)
            == [run[0]]
        )
        with pytest.raises(DataError, match="unrote compare"):
            find_records(tmp_path)


class TestMerge:
    def test_methods_side_by_side(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord], tmp_path: Path
    ) -> None:
        _, task, trained, first = run
        record_run(task, {"mat": trained["mat"], "again": trained["erm"]}, tmp_path / "other")
        both = merge({"one": first, "two": read_record(tmp_path / "other")})
        assert [one.name for one in both.contents.methods] == ["erm", "mat", "mat (two)", "again"]
        for k, source in enumerate((0, 1, 1, 0)):
            for what in ("memorization", "influence"):
                assert (both.arrays[f"{k}.{what}"] == first.arrays[f"{source}.{what}"]).all()
        assert "2.shift" in both.arrays
        assert "3.shift" not in both.arrays

    def test_other_data_are_refused(
        self, run: tuple[Path, Task, dict[str, Trained], RunRecord], tmp_path: Path
    ) -> None:
        task = planted_task()
        record_run(task, {"erm": fit(task, "erm", regime="none")}, tmp_path / "run")
        with pytest.raises(DataError, match="different data"):
            merge({"one": run[3], "two": read_record(tmp_path / "run")})


def test_group_labels_reach_only_methods_that_take_them() -> None:
    task = text_task()
    trained = train_methods(task, ["erm", "groupdro"], model="linear", epochs=1)
    assert {name: one.regime for name, one in trained.items()} == {
        "erm": "none",
        "groupdro": "train",
    }
    assert GROUPS[0] in task.group_names[0]


def test_settings_of_methods_that_are_not_trained_are_refused() -> None:
    with pytest.raises(OptionError, match="'mat', which is not among the methods: erm"):
        train_methods(text_task(), ["erm"], settings={"mat": {"temperature": 1.0}})
    with pytest.raises(OptionError, match="name at least one"):
        train_methods(text_task(), [])
