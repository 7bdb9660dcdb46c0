"""Columns become features as scikit-learn's own transformers would make them, before and after saving."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from table_files import people, write_csv, write_pictures

from unrote.errors import DataError, OptionError, TableWarning, UnknownNameError
from unrote.tables import Dates, Numbers, Preprocessor, Strings, Table, choose_kinds, read_table
from unrote.tables import inputs as inputs_module
from unrote.tables.columns import Unusable
from unrote.tables.inputs import MixedInputs


def fitted(table: Table, rows: Any = None, **options: Any) -> Preprocessor:
    kinds = choose_kinds(table, **options)
    return Preprocessor.fit(table, kinds, np.arange(len(table)) if rows is None else rows)


def features(preprocessor: Preprocessor, table: Table) -> np.ndarray:
    found = preprocessor.transform(table)
    return found[torch.arange(len(table))].numpy()


def restored(preprocessor: Preprocessor) -> Preprocessor:
    record, tensors = preprocessor.state()
    return Preprocessor.restore(json.loads(json.dumps(record)), tensors)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return read_table(write_csv(tmp_path / "people.csv", people(300)), as_text={"label", "colour"})


class TestAgainstScikitLearn:
    def test_numbers(self) -> None:
        random = np.random.default_rng(0)
        x = random.normal(5, 3, (400, 6))
        x[random.random(x.shape) < [0, 0.2, 0, 0.5, 0, 0.01]] = np.nan
        table = Table("t", {f"c{j}": Numbers(x[:, j]) for j in range(6)})
        train = np.arange(300)
        wanted = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        wanted.fit(x[train])
        found = features(fitted(table, train), table)
        np.testing.assert_allclose(found, wanted.transform(x), atol=1e-6)

    def test_numbers_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wide or long tables are done piece by piece, which changes nothing."""
        random = np.random.default_rng(0)
        table = Table("t", {f"c{j}": Numbers(random.normal(size=100)) for j in range(7)})
        whole = features(fitted(table), table)
        monkeypatch.setattr("unrote.tables.parts._BLOCK_VALUES", 250)
        monkeypatch.setattr("unrote.tables.parts.CHUNK", 33)
        np.testing.assert_allclose(features(fitted(table), table), whole, atol=1e-6)

    def test_categories(self) -> None:
        random = np.random.default_rng(0)
        names = np.array([f"v{k}" for k in random.zipf(1.6, 1000) % 40], object)
        table = Table("t", {"c": Strings.of(names.tolist())})
        train = np.arange(800)
        wanted = OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist", sparse_output=False)
        wanted.fit(names[train].reshape(-1, 1))
        found = features(fitted(table, train), table)
        truth = wanted.transform(names.reshape(-1, 1))
        assert found.shape == truth.shape
        assert sorted(map(tuple, found.T)) == sorted(map(tuple, truth.T))

    def test_texts(self, table: Table) -> None:
        notes = people(300)["note"]
        found = features(fitted(table, without=set(table.columns) - {"note"}), table)
        vectorizer = TfidfVectorizer(min_df=2, max_features=2000, sublinear_tf=True, strip_accents="unicode")
        np.testing.assert_allclose(found, vectorizer.fit_transform(notes).toarray(), atol=1e-6)


class TestRestored:
    def test_bitwise(self, table: Table) -> None:
        preprocessor = fitted(table, np.arange(200), without={"label"})
        again = restored(preprocessor)
        np.testing.assert_array_equal(features(again, table), features(preprocessor, table))
        assert again.n_features == preprocessor.n_features == features(again, table).shape[1]

    @settings(max_examples=25)
    @given(
        x=arrays(
            np.float64,
            st.tuples(st.integers(2, 30), st.integers(1, 4)),
            elements=st.one_of(st.just(np.nan), st.floats(-1e100, 1e100)),
        )
    )
    def test_any_numbers(self, x: np.ndarray) -> None:
        """Gaps, constants and huge numbers: always finite features, and the same after saving."""
        columns = {f"c{j}": Numbers(x[:, j]) for j in range(x.shape[1])}
        table = Table("t", columns)
        preprocessor = Preprocessor.fit(table, dict.fromkeys(columns, "number"), np.arange(len(x)))
        found = features(preprocessor, table)
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 100
        np.testing.assert_array_equal(features(restored(preprocessor), table), found)

    @settings(max_examples=25)
    @given(st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=40))
    def test_any_strings(self, strings: list[str | None]) -> None:
        table = Table("t", {"c": Strings.of(strings)})
        preprocessor = Preprocessor.fit(table, {"c": "category"}, np.arange(len(strings)))
        found = features(preprocessor, table)
        assert set(found.sum(1).tolist()) == {1.0}
        np.testing.assert_array_equal(features(restored(preprocessor), table), found)
        new = Table("t", {"c": Strings.of(["never seen", None])})
        with pytest.warns(TableWarning, match="'never seen'"):
            assert np.isfinite(features(preprocessor, new)).all()

    def test_pictures(self, tmp_path: Path) -> None:
        table = read_table(write_pictures(tmp_path / "p"), picture_size=12)
        preprocessor = fitted(table, np.arange(0, 24, 2), without={"class"})
        found = features(preprocessor, table)
        assert found.shape == (24, 3, 12, 12)
        np.testing.assert_allclose(found[::2].mean((0, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(found[::2].std((0, 2, 3)), 1, atol=1e-4)
        np.testing.assert_array_equal(features(restored(preprocessor), table), found)


class TestNewData:
    def test_columns_in_another_order(self, table: Table) -> None:
        preprocessor = fitted(table, without={"label"})
        turned = Table("new", dict(reversed(table.columns.items())))
        np.testing.assert_array_equal(features(preprocessor, turned), features(preprocessor, table))

    def test_missing_columns_are_named(self, table: Table) -> None:
        preprocessor = fitted(table, without={"label"})
        left = {name: column for name, column in table.columns.items() if name not in ("city", "age")}
        with pytest.raises(DataError, match="new lacks columns 'age', 'city'"):
            preprocessor.transform(Table("new", left))

    def test_columns_left_out_in_training_are_not_wanted(self, table: Table) -> None:
        preprocessor = fitted(table, without={"label", "colour"})
        left = {name: table[name] for name in preprocessor.kinds}
        np.testing.assert_array_equal(
            features(preprocessor, Table("new", left)), features(preprocessor, table)
        )

    def test_extra_columns_are_pointed_out(self, table: Table) -> None:
        preprocessor = fitted(table, without={"label"})
        with pytest.warns(TableWarning, match="1 column that the model was not trained on ignored: 'extra'"):
            found = preprocessor.transform(Table("new", {**table.columns, "extra": table["age"]}))
        np.testing.assert_array_equal(found.numpy(), features(preprocessor, table))

    def test_words_among_numbers(self, table: Table) -> None:
        preprocessor = fitted(table, without={"label"})
        ages = Strings.of(["30", "old", None, *["40"] * 297])
        with pytest.warns(
            TableWarning, match="1 of 300 values of column 'age' are not numbers.*row 2: 'old'"
        ):
            found = preprocessor.transform(Table("new", {**table.columns, "age": ages}))
        gone = Strings.of(["30", None, None, *["40"] * 297])
        np.testing.assert_array_equal(
            found.numpy(), features(preprocessor, Table("new", {**table.columns, "age": gone}))
        )

    def test_infinity_and_lists_are_refused(self, table: Table) -> None:
        preprocessor = fitted(table, without={"label"})
        endless = Numbers(np.full(300, np.inf))
        with pytest.raises(DataError, match="'age' has infinite values"):
            preprocessor.transform(Table("new", {**table.columns, "age": endless}))
        with pytest.raises(DataError, match="'city' holds no category, as it did in training, but lists"):
            preprocessor.transform(Table("new", {**table.columns, "city": Unusable(300, "lists")}))


def test_large_tables_stay_sparse(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessor = fitted(table, without={"label"})
    dense = features(preprocessor, table)
    monkeypatch.setattr(inputs_module, "DENSE_VALUES", 0)
    mixed = preprocessor.transform(table)
    assert isinstance(mixed, MixedInputs)
    index = torch.tensor([[3, 1], [0, 299]])
    np.testing.assert_array_equal(mixed[index].numpy(), dense[index.numpy()])
    assert mixed.shape == dense.shape[1:]


class TestKinds:
    def test_as_a_person_would(self, table: Table) -> None:
        assert choose_kinds(table, without={"label"}) == {
            "age": "number",
            "visits": "number",
            "city": "category",
            "job": "category",
            "note": "text",
            "joined": "date",
            "colour": "category",
        }

    @pytest.mark.parametrize(
        ("column", "why"),
        [
            (Numbers(np.full(100, 7.0)), "all values are the same"),
            (Numbers(np.full(100, np.nan)), "all values are missing"),
            (Numbers(np.arange(100)), "it numbers the rows"),
            (Numbers(np.arange(1.0, 101)), "it numbers the rows"),
            (Strings.of(["same"] * 100), "all values are the same"),
            (Strings.of([f"id-{k}" for k in range(100)]), "nearly every value is different"),
            (Dates(np.full(100, np.datetime64("2020-01-01", "s"))), "all values are the same"),
        ],
    )
    def test_useless_columns_are_left_out(self, column: Any, why: str) -> None:
        table = Table("t", {"useless": column, "good": Numbers(np.arange(100) % 7)})
        with pytest.warns(TableWarning, match=f"left out column 'useless': {why}"):
            assert list(choose_kinds(table)) == ["good"]

    def test_mostly_numbers(self) -> None:
        table = Table("t", {"n": Strings.of([*map(str, range(1, 100)), "n/k"])})
        with pytest.warns(
            TableWarning, match="1 of 100 values of column 'n' are not numbers.*row 100: 'n/k'"
        ):
            assert choose_kinds(table) == {"n": "number"}

    def test_given_kinds(self, table: Table) -> None:
        kinds = choose_kinds(table, without={"label"}, given={"visits": "category", "note": "category"})
        assert kinds["visits"] == kinds["note"] == "category"
        with pytest.raises(OptionError, match="none of its values is a number"):
            choose_kinds(table, given={"city": "number"})
        with pytest.raises(OptionError, match="kind 'colour'"):
            choose_kinds(table, given={"city": "colour"})
        with pytest.raises(UnknownNameError, match="did you mean 'city'"):
            choose_kinds(table, given={"cty": "category"})

    def test_lists_and_infinity_are_refused(self) -> None:
        with pytest.raises(DataError, match="column 'l' has lists, which no model here takes"):
            choose_kinds(Table("t", {"l": Unusable(3, "lists")}))
        with pytest.raises(DataError, match=r"'n' has 1 infinite.*row 2"):
            choose_kinds(Table("t", {"n": Numbers(np.array([1, np.inf, 2]))}))

    def test_nothing_left(self) -> None:
        table = Table("t", {"a": Numbers(np.ones(5)), "y": Numbers(np.arange(5))})
        with pytest.warns(TableWarning), pytest.raises(DataError, match="no column to learn from"):
            choose_kinds(table, without={"y"})

    def test_text_without_shared_words(self) -> None:
        table = Table("t", {"s": Strings.of([f"a{k} b{k} c{k}" for k in range(60)])})
        with pytest.raises(DataError, match="'s' has no word that two texts share"):
            fitted(table)


def test_numbers_too_large_to_scale() -> None:
    table = Table("t", {"n": Numbers(np.array([1e200, -1e200, 1e300]))})
    with pytest.raises(DataError, match="'n' has numbers too large"):
        fitted(table)


def test_dates_give_numbers() -> None:
    moments = np.array(["2020-02-03T06:00", "2021-12-31T18:00", "NaT", "1969-07-20T20:00"], "datetime64[s]")
    table = Table("t", {"d": Dates(moments)})
    found = features(fitted(table), table)
    raw = np.array([[18295.25, 2, 0, 6], [18992.75, 12, 4, 18], [np.nan] * 4, [-164.1666666, 7, 6, 20]])
    wanted = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    np.testing.assert_allclose(found, wanted.fit_transform(raw), atol=1e-5)
