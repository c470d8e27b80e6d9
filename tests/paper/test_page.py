"""The results page without a browser: its parts, its pictures and what it refuses."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, opened
from PIL import Image

from hybridlungvit.companions.cite import citation
from hybridlungvit.config import load_study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import StudyError, write_json
from hybridlungvit.paper import page, page_images
from hybridlungvit.paper.results import read_results
from hybridlungvit.paths import Layout

STUDY = "kermany-cpu"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The published study, whose page goes elsewhere and has the quick sections alone."""
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda vl_version: "")
    for name in ("thresholds", "curves", "images"):
        monkeypatch.delitem(page.SECTIONS, name)
    paper = tmp_path / "paper"
    paper.mkdir()
    for source in (REPOSITORY / "paper").iterdir():
        if source.suffix != ".html":
            (paper / source.name).symlink_to(source)
    layout = Layout(STUDY, results=REPOSITORY / "results", paper=paper)
    return load_study(REPOSITORY / "config" / f"{STUDY}.yaml"), layout


def test_the_page_states_verdicts_citation_and_companions_in_the_same_bytes_again(
    published, monkeypatch, caplog
):
    study, layout = published
    page.write_page(study, layout)
    text = layout.page.read_text()
    results = read_results(study, layout)
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text))
    counts = {"higher": 0, "lower": 0, "equivalent": 0, "neither": 0}
    for difference in results.differences.values():
        counts[difference["verdict"].split()[0]] += 1
    counts["undecided"] = counts.pop("neither")
    for word, count in counts.items():
        said = f"{count} of {len(results.differences)} {word}" if count else f"one {word}"
        assert said in plain
    for name, words in (("model_card", "Intended use"), ("tripod_ai", "TRIPOD")):
        assert words in (layout.companions / f"{name}.md").read_text()
        assert words in plain
    sentence = citation(study, study.reference, layout).partition("\n\n")[0]
    assert page.SECTIONS["cite"][1](results)["data"][study.reference] == sentence
    for (variant, seed), run in results.runs.items():
        for digest in (run["code_sha256"], run["weights_sha256"], run["model_sha256"]):
            assert f'title="{digest}"' in text, (variant, seed)
    assert not re.search(r'(?:src|href)="(?!#|data:)', text), "the file loads nothing"
    assert """content="default-src 'none'; img-src data:;""" in text  # nor could it
    first = layout.page.read_bytes()
    assert caplog.text == ""
    monkeypatch.setattr(page, "LARGEST", 1000)
    page.write_page(study, layout)
    assert layout.page.read_bytes() == first
    assert f"has {len(first):,} bytes" in caplog.text


def test_images_of_a_companion_are_not_fetched(published, monkeypatch):
    study, layout = published
    read = Path.read_text
    image = "# Card\n\n![picture](http://elsewhere/x.png)\n"
    monkeypatch.setattr(
        Path, "read_text", lambda p, **k: image if p.name == "model_card.md" else read(p, **k)
    )
    documents = dict(page.SECTIONS["companions"][1](read_results(study, layout))["documents"])
    assert "picture" in documents["Card"] and "<img" not in documents["Card"]


@pytest.mark.parametrize("changed", [{"margin": 0.02}, {"family": ["midline"]}])
def test_comparisons_under_other_terms_are_refused(published, changed):
    study, layout = published
    other = study.model_copy(update={"statistics": study.statistics.model_copy(update=changed)})
    with pytest.raises(StudyError, match=r"comparisons\.json: compared with the .*Run `compare`"):
        read_results(other, layout)


def test_what_a_page_lacks_is_named_and_the_earlier_page_stays(published, monkeypatch):
    study, layout = published
    layout.page.write_text("earlier")
    folder = layout.paper / "page"
    folder.unlink()
    shutil.copytree(REPOSITORY / "paper" / "page", folder)
    (folder / "runs.html").write_text("{% for row in rows %}")
    with pytest.raises(StudyError, match=r"runs\.html: .*endfor"):
        page.write_page(study, layout)
    (folder / "runs.html").write_text("{{ unknown }}")
    with pytest.raises(StudyError, match="'unknown' is undefined"):
        page.write_page(study, layout)
    monkeypatch.setattr(Layout, "companions", layout.paper / "nowhere")
    with pytest.raises(StudyError, match=r"nowhere/model_card\.md: .*Run `text`"):
        page.write_page(study, layout)
    assert layout.page.read_text() == "earlier"
    assert [path.name for path in layout.paper.glob(".*")] == []


def decoded(text, mode):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert(mode))


def area(outline, detail):
    """The share of the square inside an SVG path of straight lines, by the shoelace formula."""
    total = 0.0
    for part in outline.strip("MZ").split("ZM"):
        x, y = np.array([point.split() for point in part.split("L")], float).T
        total += abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return total / detail**2


def test_pictures_show_the_images_the_lungs_and_the_heat(study, layout, monkeypatch):
    manifest, cache = opened(layout)
    rows = np.flatnonzero(manifest.split == "test")[::-1]
    paths = manifest.path[rows].tolist()
    heat = np.zeros((1, 32, 32), np.float16)
    heat[0, :16] = 1
    layout.gradcam("no_seg").parent.mkdir()
    scores = np.linspace(0, 1, len(paths))[None]
    scored = pd.DataFrame({"path": paths}), scores
    monkeypatch.setattr(page_images, "scores_on", lambda *_: scored)
    stored = {"path": np.array(paths[2:3]), "heat": heat}
    np.savez(layout.gradcam("no_seg"), **stored, probability=scores[0, 3:4])
    assert page_images.pictures(study, layout, paths)["heat"] == {}, "maps of another model"
    twice = {name: np.repeat(value, 2, axis=0) for name, value in stored.items()}  # by two rules
    np.savez(layout.gradcam("no_seg"), **twice, probability=scores[0, [2, 2]])
    shown = page_images.pictures(study, layout, paths)
    assert list(shown["heat"]) == [2]
    opacity = decoded(shown["heat"][2], "RGBA")[..., 3].astype(float)
    assert opacity[: len(opacity) // 3].min() == pytest.approx(255 * page_images.STRENGTH, abs=1)
    assert opacity[-len(opacity) // 3 :].max() == 0
    assert len(shown["thumbnails"]) == len(shown["outlines"]) == len(rows)
    for i, (row, mask) in enumerate(zip(rows, cache.masks(rows), strict=True)):
        picture = decoded(shown["thumbnails"][i], "L").astype(float)
        assert np.abs(picture - cache.images[row]).mean() < 8  # what JPEG leaves
        assert area(shown["outlines"][i], shown["detail"]) == pytest.approx(mask.mean(), abs=0.02)


def test_without_the_images_of_this_manifest_there_are_no_pictures(study, layout):
    paths = read_manifest(layout.manifest).path.tolist()
    stored = {path.name: path.resolve() for path in layout.images.parent.iterdir()}
    layout.images.parent.unlink()
    nothing = page_images.pictures(study, layout, paths)
    assert nothing["thumbnails"] == nothing["outlines"] == []
    assert nothing["heat"] == {}
    layout.images.parent.mkdir()
    for name, path in stored.items():
        (layout.images.parent / name).symlink_to(path)
    assert page_images.pictures(study, layout, paths)["thumbnails"]
    layout.cache_record.unlink()
    write_json(layout.cache_record, {"manifest_sha256": "0" * 64})
    assert page_images.pictures(study, layout, paths)["thumbnails"] == []
