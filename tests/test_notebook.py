"""The notebook runs from its first to its last cell, as a plain script."""

import runpy
import shutil
from pathlib import Path

import cv2
import pandas as pd
import pytest
from conftest import REPOSITORY
from sklearn.metrics import roc_auc_score

from hybridlungvit.predict import predict_images


def test_the_notebook_runs_without_data_or_network(
    exported, phantoms, tmp_path, monkeypatch, capsys
):
    results = tmp_path / "here" / "results" / "kermany-cpu"
    shutil.copytree(exported, results / "model")
    committed = REPOSITORY / "results" / "kermany-cpu" / "predictions"
    (results / "predictions").symlink_to(committed)
    monkeypatch.chdir(tmp_path / "here")
    shutil.copy(next((phantoms / "test" / "PNEUMONIA").iterdir()), "image.jpeg")
    names = runpy.run_path(str(REPOSITORY / "notebooks" / "predict.py"))
    predict_images(
        [Path("image.jpeg")], "results/kermany-cpu/model", output=Path("t.csv"), phantoms=True
    )
    row = pd.read_csv("t.csv").loc[0]
    assert names["probability"] == pytest.approx(row.probability, abs=2e-6)
    assert 0 < names["with_own_mask"] < 1
    assert cv2.imread("overlay.png").shape[1] > 2 * cv2.imread("image.jpeg").shape[1]
    table = pd.read_csv(committed / "no_seg" / "seed-45.csv")
    table = table[table.split == "test"]
    estimate = roc_auc_score(table.label, table.probability)
    assert names["auc"].estimate == pytest.approx(estimate)
    assert f"AUC {estimate:.3f} (95 % CI" in capsys.readouterr().out
