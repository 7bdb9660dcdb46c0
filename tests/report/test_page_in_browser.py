"""The page in a real browser: nothing leaves it, what it shows is right, and people can use it."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import SCRIPT, picture_task, record, shortcut, text_task
from table_files import people, write_csv
from toys import planted_task

from unrote.api import evaluate, fit
from unrote.data import Split, Task
from unrote.data.embeddings import TextInputs
from unrote.memorization import influence_matrix, leave_one_out
from unrote.record import Trained, record_run, train_methods
from unrote.report import read_record
from unrote.report.page import render_page
from unrote.tables import make_task, read_table

ROWS = "#list tbody tr"


def write_page(folder: Path, path: Path) -> Path:
    path.write_text(render_page(read_record(folder)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def task() -> Task:
    return text_task()


@pytest.fixture(scope="module")
def trained(folder: Path, task: Task) -> dict[str, Trained]:
    return record(folder / "texts", task)


@pytest.fixture(scope="module")
def texts(folder: Path, trained: dict[str, Trained]) -> Path:
    return write_page(folder / "texts", folder / "texts.html")


def cells(page: Any, title: str) -> list[str]:
    """A column of the list, top to bottom."""
    found: list[str] = page.locator(f'{ROWS} td[data-label="{title}"]').all_inner_texts()
    return [text.split("\n")[0] for text in found]


def numbers(page: Any) -> list[int]:
    """Rows of the training split that are listed, top to bottom."""
    return [int(text.split()[-1]) - 1 for text in page.locator(f"{ROWS} .name").all_inner_texts()]


def figures(page: Any, chart: str) -> list[dict[str, Any]]:
    """What a chart was drawn from, as the chart itself has it."""
    result: list[dict[str, Any]] = page.evaluate(
        "(id) => unrote.views[id].data('figures').map((one) => ({...one}))", chart
    )
    return result


class TestLoading:
    def test_no_message_and_no_request(self, open_page: Any, texts: Path) -> None:
        opened = open_page(texts)
        assert opened.seen.messages == []
        assert [url for url in opened.seen.requests if not url.startswith("data:")] == [
            texts.resolve().as_uri()
        ]

    def test_text_from_the_data_is_shown_and_not_run(self, open_page: Any, texts: Path) -> None:
        page = open_page(texts).page
        page.locator("#search").fill("window.hacked")
        page.locator("#status", has_text="1 to 1 of 1").wait_for()
        assert SCRIPT in page.locator(f"{ROWS} td.what").inner_text()
        assert SCRIPT in page.locator(".sentences").inner_text()
        assert page.evaluate("window.hacked") is None
        assert page.locator("main script, main img[src='x']").count() == 0

    def test_the_policy_lets_nothing_else_run_or_leave(self, open_page: Any, texts: Path) -> None:
        """Should escaping ever fail, an injected script is still not run, and nothing can be sent."""
        opened = open_page(texts)
        opened.page.evaluate(
            """async () => {
                const script = document.createElement("script");
                script.textContent = "window.hacked = 1";
                document.body.append(script);
                await fetch("https://unrote.invalid/").catch(() => {});
            }"""
        )
        assert opened.page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in message for message in opened.seen.messages)
        assert not any("unrote.invalid" in url for url in opened.seen.requests)


class TestCharts:
    def test_accuracy(self, open_page: Any, texts: Path, task: Task, trained: dict[str, Trained]) -> None:
        found = figures(open_page(texts).page, "accuracy")
        for name, one in trained.items():
            shown = [row for row in found if row["method"] == name.upper()]
            wanted = evaluate(one.fitted, task).groups
            assert [(row["group"], row["n"]) for row in shown] == [(group.name, group.n) for group in wanted]
            assert [row["accuracy"] for row in shown] == [group.accuracy for group in wanted]
            assert [(row["low"], row["high"]) for row in shown] == [group.interval for group in wanted]

    def test_curves_end_at_the_accuracy(
        self, open_page: Any, texts: Path, task: Task, trained: dict[str, Trained]
    ) -> None:
        page = open_page(texts).page
        for k, one in enumerate(trained.values()):
            last: dict[tuple[str, str], float] = {}
            for row in figures(page, f"curves-{k}"):
                last[row["split"], row["group"]] = row["accuracy"]
            for split in ("train", "test"):
                for group in evaluate(one.fitted, task, split).groups:
                    assert last[split, group.name] == pytest.approx(group.accuracy)

    def test_self_influence_counts_every_example_once(
        self, open_page: Any, texts: Path, task: Task, trained: dict[str, Trained]
    ) -> None:
        page = open_page(texts).page
        for k, one in enumerate(trained.values()):
            score = leave_one_out(one.fitted, task.train.x, task.train.y).details["self_influence"]
            rows = figures(page, f"spread-{k}")
            for g, name in enumerate(task.group_names):
                own = score[(task.group(task.train) == g).numpy()]
                bins = [row for row in rows if row["group"] == name]
                assert sum(row["count"] for row in bins) == len(own)
                assert sum(row["share"] for row in bins) == pytest.approx(1)
                for row in bins[1:-1]:  # the outer ones also hold what lies beyond
                    within = (own >= row["from"] * (1 + 1e-5)) & (own < row["to"] * (1 - 1e-5))
                    around = (own >= row["from"] * (1 - 1e-5)) & (own < row["to"] * (1 + 1e-5))
                    assert within.sum() <= row["count"] <= around.sum()

    def test_shift(self, open_page: Any, texts: Path, task: Task, trained: dict[str, Trained]) -> None:
        shift, y = trained["mat"].fitted.artefacts["shift"].double().numpy(), task.train.y.numpy()
        own = shift[np.arange(len(y)), y] - shift[np.arange(len(y)), 1 - y]
        group = task.group(task.train).numpy()
        for row in figures(open_page(texts).page, "shift-1"):
            values = own[group == task.group_names.index(row["group"])]
            assert row["q50"] == pytest.approx(np.median(values), abs=1e-4)
            assert row["q05"] == pytest.approx(np.quantile(values, 0.05), abs=1e-4)

    def test_influence_shows_both_examples(
        self, open_page: Any, texts: Path, task: Task, trained: dict[str, Trained], folder: Path
    ) -> None:
        page = open_page(texts).page
        arrays = read_record(folder / "texts").arrays
        rows, columns, test = arrays["influence.train"], arrays["influence.test"], task.test
        assert test is not None
        whole = influence_matrix(trained["erm"].fitted, task.train.x, task.train.y, test.x, test.y)
        found = figures(page, "influence-0")
        assert len(found) == len(rows) * len(columns)
        wanted = np.array([whole[rows[one["row"]], columns[one["column"]]] for one in found]) / 200
        np.testing.assert_allclose([one["influence"] for one in found], wanted, rtol=1e-3, atol=1e-9)
        cell = page.locator("#chart-influence-0 .mark-rect path").nth(len(columns) + 3)
        cell.scroll_into_view_if_needed()
        box = cell.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.locator("#pair h3").first.wait_for()
        place = page.evaluate(
            "(k) => (({row, column}) => [row, column])(unrote.views['influence-0'].data('figures')[k])",
            len(columns) + 3,
        )
        told = page.locator("#pair").inner_text()
        assert f"Training example {rows[place[0]] + 1}" in told
        assert f"test example {columns[place[1]] + 1}" in told.lower()
        assert task.train.x.texts[rows[place[0]]][:60] in told  # type: ignore[attr-defined]

    def test_charts_are_drawn(self, open_page: Any, texts: Path) -> None:
        page = open_page(texts).page
        assert page.locator("#chart-accuracy .mark-symbol path").count() == 2 * 4
        for chart in ("accuracy", "curves-0", "spread-1", "shift-1", "influence-1"):
            box = page.locator(f"#chart-{chart} svg").bounding_box()
            assert box["width"] > 200
            assert box["height"] > 80


class TestList:
    def test_sorting(self, open_page: Any, texts: Path, task: Task, trained: dict[str, Trained]) -> None:
        page = open_page(texts).page
        score = leave_one_out(trained["mat"].fitted, task.train.x, task.train.y).values
        heading = page.locator("#list th", has_text="Memorization, MAT")
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        shown = score[numbers(page)]
        assert len(shown) == 25
        np.testing.assert_allclose(shown, np.sort(score)[::-1][:25], rtol=2e-2, atol=1e-5)
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        np.testing.assert_allclose(score[numbers(page)], np.sort(score)[:25], rtol=2e-2, atol=1e-5)
        assert page.locator("#list th[aria-sort]").count() == 1

    def test_sorting_by_the_menu_is_the_same(self, open_page: Any, texts: Path) -> None:
        page = open_page(texts).page
        page.locator("#list th", has_text="Self-influence, ERM").locator("button").click()
        wanted = numbers(page)
        page.locator("#sort").select_option(label="Label")
        assert numbers(page) != wanted
        page.locator("#sort").select_option(label="Self-influence, ERM, largest first")
        assert numbers(page) == wanted

    def test_filters(self, open_page: Any, texts: Path, task: Task, folder: Path) -> None:
        page, arrays = open_page(texts).page, read_record(folder / "texts").arrays
        minority, wrong = arrays["inferred"] == 1, arrays["held_out"] != arrays["y"]
        wanted = minority & (arrays["y"] == 1)
        assert 0 < wanted.sum() < 25
        page.locator("#filter-inferred").select_option("1")
        page.locator("#filter-label").select_option(label=task.class_names[1])
        assert sorted(numbers(page)) == np.flatnonzero(wanted).tolist()
        assert f"of {wanted.sum()} examples" in page.locator("#status").inner_text()
        page.locator("#filter-inferred").select_option("")
        page.locator("#filter-held-out").select_option("wrong")
        assert sorted(numbers(page)) == np.flatnonzero(wrong & (arrays["y"] == 1)).tolist()
        page.locator("#filter-label").select_option("")
        page.locator("#filter-held-out").select_option("")
        page.locator("#filter-group").select_option(label=task.group_names[1])
        assert sorted(numbers(page)) == np.flatnonzero(arrays["group"] == 1).tolist()

    def test_by_rote_and_search(self, open_page: Any, texts: Path, task: Task, folder: Path) -> None:
        page, arrays = open_page(texts).page, read_record(folder / "texts").arrays
        page.locator("#filter-rote").select_option(label="ERM")
        rote = int((arrays["0.memorization"] > 0.25).sum())
        told = page.locator("#status").inner_text()
        assert (f"of {rote} examples" in told) if rote else ("No example fits" in told)
        page.locator("#filter-rote").select_option("")
        page.locator("#search").fill("BROKEN")
        every = task.train.x.texts  # type: ignore[attr-defined]
        wanted = sum("broken" in text for text in every)
        page.locator("#status", has_text=f"of {wanted} examples").wait_for()

    def test_cells_say_what_the_record_says(
        self, open_page: Any, texts: Path, task: Task, folder: Path
    ) -> None:
        page, arrays = open_page(texts).page, read_record(folder / "texts").arrays
        rows = numbers(page)
        assert cells(page, "Label") == [task.class_names[c] for c in arrays["y"][rows]]
        assert cells(page, "Held out") == [task.class_names[c] for c in arrays["held_out"][rows]]
        assert cells(page, "Inferred") == [("majority", "minority")[g] for g in arrays["inferred"][rows]]

    def test_twenty_thousand(self, open_page: Any, tmp_path: Path) -> None:
        """All can be reached, sorted and searched, and only a page of them is ever in the document."""
        small = text_task(20_000)
        record(tmp_path / "many", small, ("erm",), epochs=1)
        path = write_page(tmp_path / "many", tmp_path / "many.html")
        assert path.stat().st_size < 5_000_000
        page = open_page(path).page
        assert "of 20,000 examples" in page.locator("#status").inner_text()
        assert page.locator(ROWS).count() == 25
        page.locator("#next").click()
        assert "26 to 50 of 20,000" in page.locator("#status").inner_text()
        score = read_record(tmp_path / "many").arrays["0.self_influence"]
        page.locator("#list th", has_text="Self-influence, ERM").locator("button").click()
        np.testing.assert_allclose(score[numbers(page)], np.sort(score)[::-1][:25], rtol=1e-2)
        page.locator("#search").fill("20000")
        page.locator("#status", has_text="1 to 1 of 1").wait_for()
        assert numbers(page) == [19_999]
        assert page.evaluate("document.getElementsByTagName('*').length") < 20_000


class TestForms:
    @pytest.mark.parametrize("kind", ["texts", "pictures", "table", "features"])
    def test_no_overflow_on_a_telephone(
        self, open_page: Any, folder: Path, trained: dict[str, Trained], tmp_path: Path, kind: str
    ) -> None:
        if kind == "texts":
            source = folder / "texts"
        elif kind == "pictures":
            record(source := tmp_path / "run", picture_task(), epochs=2)
        elif kind == "table":
            path = write_csv(tmp_path / "people.csv", {**people(120), "word": ["x" * 200] * 120})
            made = make_task(read_table(path), "label", group="colour")
            record_run(made, train_methods(made, ["erm", "mat", "rwg"], epochs=1), source := tmp_path / "run")
        else:
            task = planted_task()
            record_run(task, {"erm": fit(task, "erm", regime="none")}, source := tmp_path / "run")
        opened = open_page(write_page(source, tmp_path / "page.html"), width=375)
        page = opened.page
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        beyond = page.evaluate(
            """() => [...document.querySelectorAll("body *")]
                .filter((one) => !one.closest(".scroll:not(.wide), .hidden, .skip, svg, thead"))
                .filter((one) => one.getBoundingClientRect().right > 375.5)
                .map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert beyond == []
        assert opened.seen.messages == []

    def test_pictures_are_shown(self, open_page: Any, tmp_path: Path) -> None:
        record(tmp_path / "run", picture_task(), epochs=2)
        page = open_page(write_page(tmp_path / "run", tmp_path / "page.html")).page
        loaded = page.evaluate(
            f"""async () => {{
                const images = [...document.querySelectorAll("{ROWS} img")];
                await Promise.all(images.map((image) => image.decode()));
                return images.map((image) => [image.naturalWidth, image.naturalHeight, image.alt]);
            }}"""
        )
        assert len(loaded) == 25
        assert all((w, h) == (20, 12) and alt for w, h, alt in loaded)

    def test_dark_and_printed(self, open_page: Any, texts: Path) -> None:
        def lightness(page: Any, selector: str, what: str) -> float:
            colour = page.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{what}")
            red, green, blue = map(float, re.findall(r"[\d.]+", colour)[:3])
            return (0.299 * red + 0.587 * green + 0.114 * blue) / 255

        label = "#chart-accuracy .role-axis-label text"
        for scheme, dark in (("light", False), ("dark", True)):
            page = open_page(texts, scheme=scheme).page
            assert (lightness(page, "body", "backgroundColor") < 0.2) == dark
            assert (lightness(page, "body", "color") > 0.8) == dark
            assert (lightness(page, label, "fill") > 0.8) == dark
        page.emulate_media(media="print", color_scheme="dark")
        assert lightness(page, "body", "backgroundColor") > 0.9
        assert lightness(page, label, "fill") < 0.2
        assert not page.locator("#controls").is_visible()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("main section > details:not([open])").count() == 0

    def test_for_screen_readers(self, open_page: Any, texts: Path) -> None:
        page = open_page(texts).page
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("main").count() == page.locator("h1").count() == 1
        unnamed = page.evaluate(
            """() => [
                ...[...document.querySelectorAll("input, select")].filter((one) => !one.labels.length),
                ...[...document.querySelectorAll("button")].filter((one) => !one.textContent.trim()),
                ...[...document.querySelectorAll("img")].filter((one) => !one.hasAttribute("alt")),
                ...[...document.querySelectorAll(".chart")].filter((one) => !one.getAttribute("aria-label")),
                ...[...document.querySelectorAll("table")].filter((one) => !one.caption),
                ...[...document.querySelectorAll("section")].filter(
                    (one) => !document.getElementById(one.getAttribute("aria-labelledby"))),
            ].map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert unnamed == []
        assert page.locator("#status[aria-live=polite]").count() == 1
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((one) => +one.tagName[1])")
        assert levels[0] == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))

    def test_by_keyboard(self, open_page: Any, texts: Path) -> None:
        page = open_page(texts).page
        page.locator("#list th", has_text="Memorization, ERM").locator("button").focus()
        page.keyboard.press("Enter")
        assert page.locator("#list th[aria-sort=descending]").inner_text().startswith("Memorization, ERM")

    def test_missing_parts_are_told(self, open_page: Any, tmp_path: Path) -> None:
        x, y, _ = shortcut(64, 0)
        task = Task("lone", Split(TextInputs(x, ["a"] * 64), y))
        record_run(task, {"erm": fit(task, "erm", model="linear")}, tmp_path / "run")
        opened = open_page(write_page(tmp_path / "run", tmp_path / "page.html"))
        told = " ".join(opened.page.locator(".gap").all_inner_texts())
        for part in (
            "Accuracy",
            "The curve of ERM",
            "The held-out prediction",
            "The inferred group",
            "The influence matrix",
            "The shift",
        ):
            assert f"{part} is not on this page: " in told
        assert opened.page.locator("#filter-inferred").is_visible() is False
        assert opened.page.locator(ROWS).count() == 25
        assert opened.seen.messages == []
