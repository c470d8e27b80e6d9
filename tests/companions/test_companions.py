"""Checklists that must be answered, texts without a typed number, and the README's answer."""

import pytest
import yaml
from conftest import REPOSITORY

from hybridlungvit.companions.cards import render
from hybridlungvit.companions.checklists import ITEMS, checklist_rows, read_checklist, typed_numbers
from hybridlungvit.companions.readme import answer
from hybridlungvit.evaluation.paired import EQUIVALENT, HIGHER, LOWER, UNDECIDED
from hybridlungvit.io import StudyError, write_text
from hybridlungvit.paper.contents import CHECKLISTS
from hybridlungvit.paths import Layout


@pytest.fixture
def paper(tmp_path):
    """A manuscript of one section, and a checklist that is answered in full."""
    layout = Layout("tiny", results=tmp_path / "results", paper=tmp_path / "paper")
    write_text(layout.paper / "sections" / "data.tex", "\\section{Data}\n\\label{sec:data}\n")
    write_text(layout.paper / "references.bib", "@article{somebody2024,\n}\n")
    write_text(tmp_path / "LICENSE", "")
    write_text(tmp_path / "results" / "tiny" / "audit.json", "{}")
    item = {"topic": "data", "answer": "They are named.", "where": ["sec:data", "LICENSE"]}
    items = {number: dict(item) for number in ITEMS["claim2024"]}
    items["7"]["where"] = ["results/{study}/audit.json"]
    items["34"] = {"topic": "trial", "not_applicable": "It is none."}
    return layout, {"title": "CLAIM", "cite": "somebody2024", "items": items}


def save(layout, checklist):
    text = yaml.safe_dump(checklist, sort_keys=False)
    write_text(layout.paper / "checklists" / "claim2024.yaml", text)


def test_an_answered_checklist_is_printed_item_by_item(paper):
    layout, checklist = paper
    checklist["items"]["1"]["phantom"] = "They are drawn."
    save(layout, checklist)
    rows = checklist_rows(read_checklist("claim2024", layout), layout, synthetic=False)
    assert [row["number"] for row in rows] == ITEMS["claim2024"]
    assert rows[0]["answer"] == "They are named."
    assert rows[0]["places"] == ["sec:data", "`LICENSE`"]
    assert rows[6]["places"] == ["`results/tiny/audit.json`"]
    assert rows[33]["answer"] == "Not applicable: It is none."
    synthetic = checklist_rows(read_checklist("claim2024", layout), layout, synthetic=True)
    assert [row["answer"] for row in synthetic[:2]] == ["They are drawn.", "They are named."]
    own = checklist_rows(read_checklist("claim2024", layout), layout, synthetic=False, own=True)
    assert "who ran it has to answer" in own[0]["answer"]
    assert own[1]["answer"] == "They are named."


@pytest.mark.parametrize(
    ("item", "change", "words"),
    [
        ("5", {"answer": None}, "items.5: unanswered: give `answer`"),
        ("5", {"where": []}, "items.5: its answer points nowhere"),
        ("5", {"where": ["sec:nowhere"]}, "items.5: no label 'sec:nowhere'"),
        ("5", {"where": ["results/{study}/gone.json"]}, "items.5: no file 'results/tiny/gone"),
        ("5", {"answer": "We used 624 images."}, "items.5: the number '624' is typed"),
        ("5", {"phantom": "An AUC of 0.95."}, r"items.5: the number '0.95' is typed"),
        ("5", {"awnser": "They are."}, "items.5.awnser: unknown key; did you mean 'answer'"),
        ("17", None, "items.17: unanswered: the item is missing"),
        ("45", {"topic": "x", "not_applicable": "y"}, "items.45: .* no such item"),
        (None, {"cite": "nobody1999"}, "cite 'nobody1999' is no entry"),
    ],
)
def test_a_bad_answer_names_its_item(paper, item, change, words):
    layout, checklist = paper
    items = checklist["items"]
    if item is None:
        checklist |= change
    elif change is None:
        del items[item]
    else:
        items[item] = items.get(item, {}) | change
    save(layout, checklist)
    with pytest.raises(StudyError, match=rf"claim2024.yaml: {words}"):
        read_checklist("claim2024", layout)


def test_the_number_of_items_is_that_of_the_articles():
    assert len(ITEMS["claim2024"]) == 44
    assert len(ITEMS["tripod_ai"]) == 52  # 27 with their parts
    assert {"1", "3c", "12g", "18f", "27c"} <= set(ITEMS["tripod_ai"])
    assert set(ITEMS) == set(CHECKLISTS)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_the_papers_own_checklists_follow_the_articles(name):
    """Whether they are answered is looked at whenever a study's text is written."""
    text = (REPOSITORY / "paper" / "checklists" / f"{name}.yaml").read_text()
    assert list(yaml.safe_load(text)["items"]) == ITEMS[name]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("An AUC of 0.95 on {{ n }} images", ["0.95"]),
        ("624 images", ["624"]),
        ("{{ value | round(3) }}", ["3"]),
        ("{{ 0.95 }}", ["0.95"]),
        ("{{ '96 %' }}", ["96"]),
        ("{% if n > 1 %}s{% endif %}", ["1"]),
        ("F1 and {{ n }} of {{ m }} patients", []),
        ("{# a comment with 3 #}{% if true %}yes{% endif %}", []),
    ],
)
def test_typed_numbers_are_found(template, expected):
    assert typed_numbers(template) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("an AUC of 0.95", "the number '0.95' is typed"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{% if %}", "line 1: Expected an expression"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_template_is_named(tmp_path, template, words):
    layout = Layout("tiny", paper=tmp_path)
    if template is not None:
        write_text(tmp_path / "templates" / "model_card.md.j2", template)
    with pytest.raises(StudyError, match=rf"model_card.md.j2: .*{words}"):
        render(layout, "model_card", {})


def compared(verdict, detectable):
    return {"verdict": verdict, "detectable": detectable, "margin": 0.01}


def test_the_answer_turns_what_a_control_shows_into_words_on_the_part_it_goes_without():
    differences = {
        "midline": compared(EQUIVALENT, 0.0049),
        "seg_0.1": compared(LOWER, 0.5),
        "frozen_stem": compared(LOWER, 0.012),
        "plain_deit": compared(HIGHER, 0.03),
        "global_only": compared(UNDECIDED, 0.006),
    }
    assert answer(differences) == (
        "On this test set the lung cut is **equivalent** (within 0.01) to a cut at the image's "
        "centre; the fusion **worse** than a linear head; the split into left and right "
        "**undecided** against the whole image on both sides; fine-tuning **better** than a "
        "frozen stem. The smallest differences in AUC that the study can detect are 0.005, 0.030, "
        "0.006 and 0.012 (80 % power, unadjusted)."
    )


def test_where_every_part_is_worth_nothing_the_answer_is_no():
    differences = {v: compared(EQUIVALENT, 0.007) for v in ("midline", "plain_deit")}
    assert answer(differences) == (
        "**No**, as far as this test set can tell. The full model is **equivalent**, within 0.01 "
        "of AUC, to the control with a cut at the image's centre in place of the lung cut; with a "
        "linear head in place of the fusion. The smallest differences in AUC that the study can "
        "detect are 0.007 and 0.007 (80 % power, unadjusted)."
    )


def test_the_answer_of_one_comparison_and_of_none():
    assert answer({"plain_deit": compared(UNDECIDED, 0.02)}) == (
        "On this test set the fusion is **undecided** against a linear head. The smallest "
        "difference in AUC that the study can detect is 0.020 (80 % power, unadjusted)."
    )
    single_seed = answer({"plain_deit": compared(UNDECIDED, None)})
    assert single_seed == "On this test set the fusion is **undecided** against a linear head."
    assert answer({"seg_0.1": compared(LOWER, 0.5)}) == ""
    bounded = answer({"plain_deit": compared(UNDECIDED, 0.02) | {"at_bound": ["patients"]}})
    assert "unadjusted; optimistic where a variance is estimated as zero)." in bounded
    # Not the answer to whether it helps to know where the lungs are.
    assert "**No**" not in answer({"frozen_stem": compared(EQUIVALENT, 0.01)})
