"""CivilComments: four tasks of four names, their groups held against an independent count."""

from pathlib import Path

import data_copies as copies
import numpy as np
import pandas as pd
import pytest
import torch

from unrote import Recipe, evaluate, fit
from unrote.data import Task, load_task
from unrote.data.folders import recognise
from unrote.data.folders.examples import Texts
from unrote.errors import DataError, HiddenGroupsError

SPLIT, TOXICITY, IDENTITY = copies.comments()
Y, MENTIONED = (TOXICITY >= 0.5).astype(int), IDENTITY >= 0.5


def load(root: Path, name: str) -> Task:
    """A task whose one feature is the row of the table."""
    copy = next(copy for copy in recognise(root) if copy.name == name)
    np.save(root / "rows.npy", np.arange(len(copy.y), dtype=np.float32)[:, None])
    return load_task(name, root=root, counts="any", features=root / "rows.npy")


def test_overlapping_groups(tmp_path: Path) -> None:
    copies.civilcomments_wilds(tmp_path / "civilcomments_v1.0" / "all_data_with_identities.csv")
    task = load(tmp_path, "civilcomments")
    assert len(task.scored_group_names) == 16
    for place, split in enumerate(task.splits.values()):
        membership = task.scored_groups(split)
        for y, toxic in enumerate(("not toxic", "toxic")):
            for k, identity in enumerate(copies.IDENTITIES):
                column = task.scored_group_names.index(f"{toxic}, {identity}")
                wanted = [bool(Y[i] == y and MENTIONED[i, k]) for i in range(90) if SPLIT[i] == place]
                assert membership[:, column].tolist() == wanted
    # a comment can be in several groups, or in none
    assert {0, 1, 2} <= set(task.scored_groups(task.train).sum(1).tolist())
    # and where a partition is needed, it is by any identity
    assert task.train.attribute.tolist() == MENTIONED[SPLIT == 0].any(1).astype(int).tolist()


def test_the_worst_of_the_overlapping_groups(tmp_path: Path) -> None:
    """`evaluate` against a count by hand, for a classifier that says "toxic" of every comment."""
    copies.civilcomments_wilds(tmp_path / "all_data_with_identities.csv")
    task = load(tmp_path, "civilcomments")
    fitted = fit(task, "erm", model="linear", recipe=Recipe("sgd", 0.0, epochs=1))
    with torch.no_grad():
        fitted.stack.set_head(torch.zeros(2, 1), torch.tensor([0.0, 1.0]))
    report = evaluate(fitted, task)
    test = SPLIT == 2
    assert report.average == pytest.approx(Y[test].mean())
    assert report.worst_group.accuracy == 0.0
    assert [group.n for group in report.groups] == [
        int((test & (y == Y) & MENTIONED[:, k]).sum()) for y in (0, 1) for k in range(8)
    ]
    assert report.reweighted_average is None


def test_overlapping_groups_are_hidden_as_others_are(tmp_path: Path) -> None:
    copies.civilcomments_wilds(tmp_path / "all_data_with_identities.csv")
    task = load(tmp_path, "civilcomments").for_regime("none")
    for split in task.splits.values():
        assert split.membership is None
        with pytest.raises(HiddenGroupsError):
            task.scored_groups(split)


def test_four_groups(tmp_path: Path) -> None:
    copies.civilcomments_wilds(tmp_path / "all_data_with_identities.csv")
    task = load(tmp_path, "civilcomments-4")
    assert task.scored_group_names == (
        "not toxic, no identity",
        "not toxic, identity",
        "toxic, no identity",
        "toxic, identity",
    )
    assert task.scored_groups(task.train).tolist() == (2 * Y + MENTIONED.any(1))[SPLIT == 0].tolist()


def suite_tables() -> dict[str, pd.DataFrame]:
    """What the benchmark suites make of the comments, by pandas, in their order."""
    table = pd.DataFrame(MENTIONED.astype(int), columns=list(copies.IDENTITIES))
    table["y"], table["split"] = Y, SPLIT
    table["text"] = [copies.comment(i) for i in range(len(table))]
    coarse, fine = (
        [table[table.split == 0].assign(a=lambda t: 1 - t[list(copies.IDENTITIES)].any(axis=1))],
        [],
    )
    for split in (2, 0, 1):
        for k, name in enumerate(copies.IDENTITIES):
            part = table[(table.split == split) & (table[name] == 1)].assign(a=k)
            fine.append(part)
            coarse += [part] if split else []
    return {"coarse": pd.concat(coarse), "fine": pd.concat(fine)}


def write_suite(root: Path, *, shuffled: bool = False) -> None:
    for grain, table in suite_tables().items():
        order = np.random.default_rng(0).permutation(len(table)) if shuffled else np.arange(len(table))
        cells = [(int(table.split.iloc[i]), int(table.y.iloc[i]), int(table.a.iloc[i])) for i in order]
        copies.suite_metadata(root / f"metadata_civilcomments_{grain}.csv", order.tolist(), cells)
        texts = [[text] for text in table.text]
        copies.write_csv(root / "civilcomments" / f"civilcomments_{grain}.csv", ["comment_text"], texts)


@pytest.mark.parametrize("grain", ["coarse", "fine"])
@pytest.mark.parametrize("layout", ["suite", "wilds"])
def test_a_row_per_comment_and_identity(tmp_path: Path, grain: str, layout: str) -> None:
    if layout == "suite":
        write_suite(tmp_path)
    else:
        copies.civilcomments_wilds(tmp_path / "all_data_with_identities.csv")
    name = f"civilcomments-{grain}"
    (copy,) = [copy for copy in recognise(tmp_path) if copy.name == name]
    table = suite_tables()[grain]
    assert isinstance(copy.examples, Texts)
    assert list(copy.examples.texts) == table.text.tolist()
    assert copy.split.tolist() == table.split.tolist()
    wanted = [
        copies.IDENTITIES[a] if split or grain == "fine" else ("identity", "no identity")[a]
        for split, a in zip(table.split, table.a, strict=True)
    ]
    assert [copy.attribute_names[a] for a in copy.attribute] == wanted
    assert load(tmp_path, name).overlapping_names == ()


def test_the_suites_training_attribute_is_not_the_others(tmp_path: Path) -> None:
    """Numbered y * 2 + a, as public code does, identity 2 of one class falls on identity 0 of the other."""
    write_suite(tmp_path)
    task = load(tmp_path, "civilcomments-coarse")
    assert task.n_attributes == 10
    assert task.test is not None
    assert set(task.train.attribute.tolist()) == {8, 9}
    assert set(task.test.attribute.tolist()) == set(range(8))
    none = ~MENTIONED.any(1) & (SPLIT == 0)
    assert int((task.train.attribute == 9).sum()) == int(none.sum())


def test_a_row_of_the_suites_names_its_comment(tmp_path: Path) -> None:
    write_suite(tmp_path, shuffled=True)
    (copy,) = [copy for copy in recognise(tmp_path) if copy.name == "civilcomments-fine"]
    table = suite_tables()["fine"]
    order = np.random.default_rng(0).permutation(len(table))
    assert isinstance(copy.examples, Texts)
    assert list(copy.examples.texts) == table.text.iloc[order].tolist()
    assert copy.y.tolist() == table.y.iloc[order].tolist()


def test_counts(tmp_path: Path) -> None:
    copies.civilcomments_wilds(tmp_path / "all_data_with_identities.csv")
    for name in ("civilcomments", "civilcomments-4", "civilcomments-coarse"):
        with pytest.raises(DataError, match="269,038 were published"):
            load_task(name, root=tmp_path, encoder="minilm")


def test_wrong_values(tmp_path: Path) -> None:
    path = tmp_path / "all_data_with_identities.csv"
    copies.civilcomments_wilds(path)
    text = path.read_text()
    path.write_text(text.replace(",val,", ",valid,"))
    with pytest.raises(DataError, match="'valid' in row"):
        recognise(tmp_path)
    path.write_text(text.replace(",0.49,", ",7,"))
    with pytest.raises(DataError, match="runs from 0 to 7"):
        recognise(tmp_path)
