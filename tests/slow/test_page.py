"""The results page in a browser: Debian's Chromium, headless, without a network."""

import re
import shutil

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import REPOSITORY
from playwright.sync_api import sync_playwright

from hybridlungvit.companions.cite import citation
from hybridlungvit.config import load_study
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.operating import GRID, RATES, VALUES, sweep_thresholds
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.paper.format import heading
from hybridlungvit.paper.page import LARGEST, PREVALENCES, THRESHOLDS, write_page
from hybridlungvit.paper.results import read_results
from hybridlungvit.paths import Layout

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
]
STUDY = "kermany-cpu"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    paper = tmp_path_factory.mktemp("page") / "paper"
    paper.mkdir()
    for name in ("page", "generated"):
        (paper / name).symlink_to(REPOSITORY / "paper" / name)
    return Layout(STUDY, results=REPOSITORY / "results", paper=paper)


@pytest.fixture(scope="module")
def results(layout):
    return read_results(load_study(REPOSITORY / "config" / f"{STUDY}.yaml"), layout)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def written(results, layout):
    write_page(results.study, layout)
    return layout.page


@pytest.fixture(scope="module")
def opened(browser, written):
    """Opens a page until its charts are drawn; fails on any message, error or request."""
    complaints = []

    def load(path=written, viewport=DESKTOP, scheme="light"):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: complaints.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(box => box.querySelector('svg'))"
        )
        return tab

    yield load
    assert [text for text in complaints if not text.startswith(("data:", "file:"))] == []


@pytest.fixture(scope="module")
def tab(opened):
    """The page at the size of a desk, for tests that touch a section each."""
    return opened()


def printed(value, digits=3):
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def cells(tab, table):
    """The texts of a table's body, row by row."""
    return tab.eval_on_selector_all(
        f"{table} tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.innerText.trim()))"
    )


def slide(tab, name, step):
    tab.locator(f"#{name}").fill(str(step))


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_is_small_fits_the_screen_and_is_accessible(written, opened, viewport, scheme):
    assert written.stat().st_size < LARGEST
    tab = opened(viewport=viewport, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    tab.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    found = Axe().run(tab).response["violations"]
    grave = [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")]
    assert grave == []


def test_the_switch_of_the_theme_changes_what_is_drawn(tab):
    colour = "getComputedStyle(document.querySelector('#levels svg text')).fill"
    before = tab.evaluate(colour)
    tab.click("#theme")
    assert tab.evaluate(colour) != before
    assert tab.inner_text("#theme") == "Light"


def test_sliders_show_the_numbers_of_the_records(tab, results):
    prevalences = sorted({*PREVALENCES, *results.study.statistics.prevalences})
    for variant, record in results.metrics.items():
        tab.select_option("#thresholds-variant", variant)
        slide(tab, "threshold", THRESHOLDS.tolist().index(record["threshold"]))
        slide(tab, "prevalence", 0)
        fixed = record["points"]["fixed"]
        shown = cells(tab, "#rates")
        for row, name in zip(shown, (*RATES, *VALUES), strict=True):
            wanted = [printed(fixed[name][key]) for key in ("estimate", "low", "high")]
            assert row[1:3] == [wanted[0], f"{wanted[1]} to {wanted[2]}"], (variant, name)
        counts = {"tn": 0.0, "fp": 0.0, "fn": 0.0, "tp": 0.0}
        for seed in record["seeds"].values():
            counts = {name: n + seed["confusion"][name] for name, n in counts.items()}
        for name, total in counts.items():
            shown = tab.inner_text(f"#{name}").split()[0]
            assert shown == printed(total / len(record["seeds"]), 1)
        for values in fixed["prevalences"]:
            slide(tab, "prevalence", prevalences.index(values["prevalence"]) + 1)
            for row, name in zip(cells(tab, "#rates")[2:4], ("ppv", "npv"), strict=True):
                wanted = [printed(values[name][key]) for key in ("estimate", "low", "high")]
                assert row[1:3] == [wanted[0], f"{wanted[1]} to {wanted[2]}"], (variant, name)


def test_sliders_show_the_numbers_of_the_library_at_other_thresholds(tab, results, layout):
    study = results.study
    table, scores = scores_on(study, study.reference, layout)
    clusters = PatientClusters.of(table.label.to_numpy(), table.patient.to_numpy())
    prevalences = sorted({*PREVALENCES, *study.statistics.prevalences})
    steps, q = (0, 29, 97), 2
    tab.select_option("#thresholds-variant", study.reference)
    swept = sweep_thresholds(
        clusters, scores, THRESHOLDS[list(steps)], [prevalences[q]], study.statistics
    )
    for i, step in enumerate(steps):
        slide(tab, "threshold", step)
        slide(tab, "prevalence", q + 1)
        wanted = [*swept[0][i], *swept[1][i, 1]]
        for row, (estimate, low, high) in zip(cells(tab, "#rates"), wanted, strict=True):
            between = "no interval" if np.isnan(low) else f"{printed(low)} to {printed(high)}"
            assert row[1:3] == [printed(estimate), between]
        share = swept[0][i, 0, 0] * 1000 * prevalences[q]
        assert tab.inner_text("#tp").split()[0] == printed(share, 1)


def test_a_curve_tells_its_values_under_the_pointer(tab, results):
    labels = [heading(variant.label) for variant in results.study.variants.values()]
    height = tab.locator("#roc").bounding_box()["height"]
    tab.check("#curves-corner")
    tab.wait_for_function("document.querySelector('#roc svg')?.textContent.includes('0.95')")
    assert tab.locator("#roc").bounding_box()["height"] < 1.1 * height
    tab.locator("#roc").scroll_into_view_if_needed()
    box = tab.locator("#roc svg").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    tip = tab.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    x, y, low, high = (float(number) for number in re.findall(r"\b[01]\.\d{3}\b", tip.inner_text()))
    assert any(label in tip.inner_text() for label in labels)
    assert x in GRID.round(3)
    assert 0 <= low <= y <= high <= 1
    tab.mouse.move(0, 0)


def test_the_table_of_metrics_filters_and_sorts(tab, results):
    aucs = {v: record["headline"]["auc"]["estimate"] for v, record in results.metrics.items()}
    assert [row[3] for row in cells(tab, "#metrics-table")] == [printed(v) for v in aucs.values()]
    head = tab.get_by_role("columnheader", name="Estimate").get_by_role("button")
    for order, backwards in (("ascending", False), ("descending", True)):
        head.click()
        shown = [row[3] for row in cells(tab, "#metrics-table")]
        assert shown == [printed(value) for value in sorted(aucs.values(), reverse=backwards)]
        assert tab.locator(f"#metrics-table th[aria-sort={order}]").count() == 1
    tab.select_option("#metrics-variant", label="Plain DeiT")
    tab.select_option("#metrics-metric", "")
    tab.select_option("#metrics-layer", label="Test, youden threshold")
    record = results.metrics["plain_deit"]["points"]["youden"]
    shown = {row[1]: row[3] for row in cells(tab, "#metrics-table")}
    assert shown["Sensitivity"] == printed(record["sensitivity"]["estimate"])
    assert len(shown) == 11
    tab.select_option("#metrics-variant", "")
    tab.select_option("#metrics-layer", "")
    rows = cells(tab, "#metrics-table")
    assert f"{len(rows)} of {len(rows)} numbers" == tab.inner_text("#metrics-count")


def test_filters_of_images_find_the_errors_that_the_records_count(tab, results, layout):
    def counted(filter_name):
        tab.select_option("#images-filter", filter_name)
        return int(tab.inner_text("#images-count").split()[0])

    for variant, record in results.errors["variants"].items():
        tab.select_option("#images-variant", variant)
        assert counted("every") == record["every_seed"]
        assert counted("any") == record["some_seed"]
        assert counted("some") == record["some_seed"] - record["every_seed"]
        assert counted("none") == results.reference["images"] - record["some_seed"]
    table, scores = scores_on(results.study, variant, layout)
    near = np.abs(scores.mean(axis=0) - record["threshold"]) <= 0.1
    assert counted("near") == near.sum()
    tab.select_option("#images-class", "0")
    assert counted("near") == (near & (table.label == 0).to_numpy()).sum()
    tab.select_option("#images-class", "")
    tab.select_option("#images-filter", "all")
    path = table.path[5]
    tab.fill("#images-search", path)
    assert tab.inner_text("#images-count").startswith("1 of")
    tab.click("#images-cards summary")
    row = tab.locator("#images-cards tr").filter(has_text=results.study.variants[variant].label)
    shown = [text.split()[0] for text in row.locator("td").all_inner_texts()]
    assert shown == [printed(p) for p in scores[:, 5]]


def test_the_sentence_to_cite_is_copied(tab, results, layout):
    tab.select_option("#cite-variant", "midline")
    tab.click("#cite-copy")
    tab.wait_for_function("document.querySelector('#cite-copy').textContent === 'Copied'")
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied == citation(results.study, "midline", layout).partition("\n\n")[0]


def test_numbers_lead_to_their_runs(tab, results):
    label = results.study.variants[results.study.reference].label
    tab.locator("#metrics-table").get_by_label(f"Runs of {label}").first.click()
    assert tab.evaluate("location.hash") == f"#runs-{results.study.reference}"
    row = tab.locator(":target")
    record = results.predictions[results.study.reference, results.study.seeds[0]]
    assert record["predictions_sha256"][:12] in row.inner_text()


def test_the_page_of_a_whole_study_shows_its_images(finished, opened):
    tab = opened(finished / "paper" / "tiny.html")
    tab.select_option("#images-filter", "all")
    tab.wait_for_function("[...document.querySelectorAll('.shot img')].every(i => i.complete)")
    sizes = tab.eval_on_selector_all(".shot > img", "all => all.map(i => i.naturalWidth)")
    assert len(sizes) >= 24
    assert set(sizes) == {32}
    assert tab.locator(".shot svg path").count() >= 24
    tab.check("#images-heat")
    tab.select_option("#images-filter", "heat")
    shown = tab.locator("#images-cards > li").count()
    assert tab.locator(".shot img[alt^='Grad-CAM']").count() == shown > 0
    tab.uncheck("#images-outline")
    assert tab.locator(".shot svg").count() == 0
    assert "synthetic phantoms" in tab.inner_text("header")
