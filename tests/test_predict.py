"""Predictions for a user's images, and the sentence to cite."""

import io

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save_file
from torch import ones

from hybridlungvit.configfile import study_from
from hybridlungvit.errors import StudyError
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.predict import score
from hybridlungvit.predict import COLUMNS, load_checkpoint, predict_images
from hybridlungvit.reporting.cite import citation
from hybridlungvit.training.loop import train


@pytest.fixture
def trained(tiny, layout):
    tiny["training"]["epochs"] = 1
    tiny["seeds"] = [0]
    study = study_from(tiny, "tiny")
    train(study, "no_seg", 0, layout)
    return study, layout


def test_predictions_equal_those_of_the_workflow(trained, phantoms, capsys, tmp_path):
    study, layout = trained
    scored = score(study, "no_seg", 0, layout)
    rows = scored[scored.split == "test"].head(3)
    checkpoint = layout.run("no_seg", 0) / "model.safetensors"
    capsys.readouterr()
    predict_images([phantoms / path for path in rows.path], checkpoint, tmp_path / "cam")
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert tuple(table.columns) == COLUMNS
    assert table.probability.to_numpy() == pytest.approx(rows.probability.to_numpy(), abs=2e-6)
    assert (table.call == np.where(table.probability >= 0.5, "pneumonia", "normal")).all()
    assert len(list((tmp_path / "cam").glob("*.png"))) == 3


def test_an_unreadable_image_prints_no_row(trained, phantoms, capsys, tmp_path):
    _, layout = trained
    bad = tmp_path / "bad.jpeg"
    bad.write_bytes(b"no image")
    good = next((phantoms / "test" / "NORMAL").iterdir())
    checkpoint = layout.run("no_seg", 0) / "model.safetensors"
    capsys.readouterr()
    with pytest.raises(StudyError, match=r"bad\.jpeg"):
        predict_images([good, bad], checkpoint, None)
    assert capsys.readouterr().out == ""


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": ones(2)}, other)
    with pytest.raises(StudyError, match="no recipe"):
        load_checkpoint(other)
    with pytest.raises(StudyError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_the_checkpoint_names_no_folder(tiny, layout, tmp_path):
    weights = tmp_path / "secret folder" / "stem.pth"
    tiny["training"]["epochs"] = 1
    tiny["seeds"] = [0]
    study = study_from(tiny, "tiny")
    train(study, "no_seg", 0, layout)
    first, _ = load_checkpoint(layout.run("no_seg", 0) / "model.safetensors")
    weights.parent.mkdir()
    save_file(first.stem.vit.state_dict(), weights.with_suffix(".safetensors"))
    tiny["weights"] = str(weights.with_suffix(".safetensors"))
    study = study_from(tiny, "tiny")
    train(study, "no_seg", 0, layout)
    content = (layout.run("no_seg", 0) / "model.safetensors").read_bytes()
    assert b"stem.safetensors" in content
    assert b"secret folder" not in content


def test_the_sentence_carries_estimate_interval_and_scope(trained):
    study, layout = trained
    score(study, "no_seg", 0, layout)
    auc = evaluate_variant(study, "no_seg", layout)["headline"]["auc"]
    text = citation(study, "no_seg", layout)
    assert f"{auc['estimate']:.3f} (95% CI {auc['low']:.3f} to {auc['high']:.3f}" in text
    assert "bootstrap over patients, 200 resamples" in text
    assert "no clinical result" in text
    assert "@software" in text


def test_citing_an_unknown_result_says_where_it_should_be(study, layout):
    with pytest.raises(StudyError, match=r"metrics/no_seg\.json"):
        citation(study, "no_seg", layout)
