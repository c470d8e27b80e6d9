"""Published results: what the file may say, and how the table sets them beside the study's own."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from hybridlungvit.config import study_from
from hybridlungvit.io import StudyError
from hybridlungvit.paper.booktabs import tabular
from hybridlungvit.paper.literature import earlier_looks, literature, read_literature
from hybridlungvit.paths import Layout

ROW = {
    "method": "ResNet & friends",
    "cite": "somebody2020",
    "data": "28 px",
    "test_images": 1234,
    "split_by": "not stated",
    "auc": 0.9,
    "accuracy": 0.85,
    "read": "its results section",
}


@pytest.fixture
def layout(tmp_path):
    (tmp_path / "references.bib").write_text("@article{somebody2020,\n  year = {2020}\n}\n")
    return Layout("tiny", paper=tmp_path)


def write(layout, *rows):
    text = yaml.safe_dump({"rows": list(rows)}, sort_keys=False)
    (layout.paper / "literature.yaml").write_text(text)


def without(*keys):
    return {key: value for key, value in ROW.items() if key not in keys}


def results(study, layout, patients=("a", "b")):
    auc = {"estimate": 0.91234, "low": 0.88, "high": 0.93}
    headline = {"auc": auc, "accuracy": {"estimate": 0.8, "low": 0.7, "high": 0.9}}
    return SimpleNamespace(
        study=study,
        layout=layout,
        manifest=pd.DataFrame({"patient": patients}),
        reference={"headline": headline, "images": 2345},
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROW | {"cite": "nobody1999"}, r"rows.0 \(ResNet & .*\): cite 'nobody1999' is no entry"),
        (without("read"), r"rows.0.read: Field required"),
        (ROW | {"read": ""}, r"rows.0.read"),
        (without("auc"), r"ResNet & friends: a value is left out without a note"),
        (ROW | {"auc": 96.8}, r"rows.0.auc: .*\(found 96.8\)"),
        (ROW | {"split_by": "yes"}, r"rows.0.split_by: .*'patients', 'images' or 'not stated'"),
        (ROW | {"acuracy": 0.9}, r"rows.0.acuracy: unknown key"),
    ],
)
def test_a_bad_row_is_named(layout, row, words):
    write(layout, row)
    with pytest.raises(StudyError, match=rf"literature.yaml: .*{words}"):
        read_literature(layout)


def test_missing_files_are_named(layout):
    with pytest.raises(StudyError, match=r"literature.yaml: cannot be read"):
        read_literature(layout)
    write(layout, ROW)
    (layout.paper / "references.bib").unlink()
    with pytest.raises(StudyError, match=r"references.bib: cannot be read"):
        read_literature(layout)


def test_the_table_keeps_the_study_apart_and_explains_gaps(layout, study):
    gap = without("auc") | {"note": "No AUC & no more."}
    write(layout, ROW, gap, gap)
    shown = tabular(*literature(results(study, layout))).splitlines()
    published = [line for line in shown if r"\citet{somebody2020}" in line]
    assert published[0].startswith(r"ResNet \& friends & ")
    assert published[0].endswith(r"28 px & 1,234 & n.s. & 0.900 & 0.850 \\")
    assert all(r"friends\textsuperscript{a} & " in line for line in published[1:])
    assert r"& -- & 0.850 \\" in published[1]
    own = next(line for line in shown if "this study" in line)
    assert r"0.912 (0.880 to 0.930) & 0.800 \\" in own
    assert shown[shown.index(own) - 1] == r"\midrule"
    assert shown.index(own) > shown.index(published[2])
    text = "\n".join(shown)
    assert text.count(r"\bottomrule") == 1
    assert text.count("No AUC") == 1
    assert r"\textsuperscript{a}~No AUC \& no more." in text


@pytest.mark.parametrize(
    ("data", "patients", "expected"),
    [
        ({"source": "folder", "image_size": 32}, ("a", "b"),
         "radiographs, 32 px & 2,345 & patients"),
        ({"source": "pneumoniamnist", "image_size": 64, "mnist_size": 64}, ("image:1", "image:2"),
         "PneumoniaMNIST, 64 px & 2,345 & images"),  # no patient in the names
    ],
)  # fmt: skip
def test_the_studys_row_tells_its_data_and_split(layout, tiny, data, patients, expected):
    write(layout, ROW)
    table, _, footer = literature(results(study_from(tiny | {"data": data}, "x"), layout, patients))
    assert expected in footer[0]
    assert len(re.findall("&", footer[0])) == len(table.columns) - 1


LOOK = {"models": "a & b", "settings": "32 px", "aucs": [0.9, 0.95]}


def looks(layout, study, *rows):
    (layout.paper / "earlier_looks.yaml").write_text(yaml.safe_dump({"rows": list(rows)}))
    return earlier_looks(results(study, layout))[0]


def test_earlier_looks_leave_out_the_study_at_hand(layout, study):
    own = LOOK | {"after": [study.study], "commit": "0123abc"}
    former = own | {"after": ["another"]}
    table = looks(layout, study, LOOK, own, former)
    assert table["Records"].tolist() == ["none kept", r"\texttt{0123abc}"]
    assert table["Test AUC"].tolist() == ["0.900 to 0.950"] * 2
    assert table["Models"][0] == r"A \& b"
    assert looks(layout, study).empty


@pytest.mark.parametrize(
    "wrong", [{"aucs": []}, {"aucs": [96]}, {"commit": "HEAD"}, {"model": "x"}]
)
def test_a_bad_look_is_named(layout, study, wrong):
    with pytest.raises(StudyError, match=r"earlier_looks.yaml: rows.0"):
        looks(layout, study, LOOK | wrong)
