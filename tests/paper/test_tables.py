"""The tables, and that each of them is marked and shown once."""

from types import SimpleNamespace

import pytest
from explained import explained, interval

from hybridlungvit.companions.checklists import typed_numbers
from hybridlungvit.config import study_from
from hybridlungvit.paper import contents, figures, galleries, tables
from hybridlungvit.paper.format import source_names
from hybridlungvit.paper.results import StudyResults


@pytest.mark.parametrize(
    ("kind", "names", "writer"),
    [
        ("table", contents.TABLES, tables),
        ("figure", contents.FIGURES, figures),
        ("gallery", contents.GALLERIES, galleries),
    ],
)
def test_every_marked_function_is_imported_by_its_writer_and_has_a_caption(kind, names, writer):
    assert writer.MAKERS is contents.MAKERS  # the writer's module has imported them all
    assert sorted(contents.MAKERS[kind]) == sorted(names)  # a name is taken once
    for name, function in contents.MAKERS[kind].items():
        caption = function.__doc__.partition("\n\n")[0]
        assert len(caption.split()) > 3, name
        assert typed_numbers(caption) == [], name


def test_the_share_of_seeds_is_that_of_the_variance():
    record = {"se_patients": 0.03, "se_seeds": 0.04, "sd": 0.05}
    assert tables.seed_share(record) == pytest.approx(64)
    assert tables.seed_share(record | {"sd": None}) is None
    assert tables.seed_share(record | {"se_patients": None}) is None


def test_what_a_run_tells_of_its_machine_is_no_tex():
    run = {"device": "cpu", "threads": r"\x", "python": r"\input{y}", "system": "%", "packages": {}}
    run |= dict.fromkeys(("code_commit", "code_sha256", "manifest_sha256"), r"\z")
    cells = dict(tables._environment(run | {"weights_sha256": None}))
    assert cells["Python"] == r"\textbackslash{}input\{y\}, \%"
    assert cells["Threads"] == r"\textbackslash{}x"
    assert cells["Training code"] == r"\texttt{\textbackslash{}z}"


def difference(p_value_adjusted):
    calls = {"only_a": 3, "only_b": 1, "p_exact": 0.6, "p_clustered": 0.7}
    return interval(-0.02) | {
        "p_value": 0.01,
        "p_value_adjusted": p_value_adjusted,
        "p_equivalence": 0.7,
        "p_equivalence_adjusted": p_value_adjusted and 0.9,
        "degrees_of_freedom": 4.25,
        "at_bound": ["seeds"],
        "detectable": 0.04,
        "verdict": "lower than",
        "delong": {"estimate": -0.015, "error": 0.01, "p_value": 0.0004},
        "mcnemar": {"fixed": calls},
    }


def test_exploratory_comparisons_are_marked(study):
    results = SimpleNamespace(
        study=study,
        level="95",
        differences={"seg_0.1": difference(0.02), "no_tta": difference(None)},
    )
    table, _, footer = tables.comparisons(results)
    assert table["$p$ (Holm)"].tolist() == ["0.020", r"0.010\rlap{$^*$}"]
    assert table["Equivalence $p$ (Holm)"].tolist() == ["0.900", r"0.700\rlap{$^*$}"]
    assert table["df"].tolist() == [r"4.2\rlap{$^\dagger$}"] * 2
    assert "estimated as zero" in footer[0] and "exploratory" in footer[1]
    assert table["DeLong $p$"].tolist() == ["$<0.001$"] * 2
    assert table["Only right"].tolist() == ["3 / 1"] * 2
    del results.differences["no_tta"]
    results.differences["seg_0.1"] |= {"at_bound": [], "degrees_of_freedom": None}
    table, _, footer = tables.comparisons(results)
    assert (table["df"].tolist(), footer) == ([r"$\infty$"], ())


@pytest.mark.parametrize(("seeds", "rows"), [([0, 1], 2), ([0], 1)])
def test_the_ensemble_has_a_row_of_its_own_where_there_are_several_seeds(tiny, seeds, rows):
    headline = {"auc": interval(0.9) | {"sd": 0.01}}
    ensemble = {"auc": interval(0.92, 0.05)}
    results = SimpleNamespace(
        study=study_from(tiny | {"seeds": seeds}, "x"), level="95", differences={},
        metrics={"no_seg": {"headline": headline, "ensemble": ensemble}},
    )  # fmt: skip
    table, _, _ = tables.main(results)
    assert len(table) == rows
    assert table.iloc[-1, 1] == ["0.900 (0.800 to 1.000)", "0.920 (0.870 to 0.970)"][rows - 1]


def test_the_focus_table_prints_lone_and_missing_values(study):
    table, columns = tables.focus(explained(study))
    assert len(columns) == table.shape[1]
    level = 100 * study.statistics.level
    own = table[rf"Own lungs ({level:g}\,\% CI)"].tolist()
    assert own == ["", "1.50 (1.40 to 1.60)", "1.23 (--)", "--", "", "0.80 (0.70 to 0.90)"]
    assert table["Own minus another's"][2] == "$-0.500$ (--)"
    assert table["Test images"].tolist() == [
        r"\emph{HybridLungViT}",
        r"\enspace All",
        r"\enspace Normal, right",
        r"\enspace Normal, wrong",
        r"\addlinespace \emph{Plain DeiT}",
        r"\enspace All",
    ]


def test_bounds_of_quarters_have_three_digits():
    text = tables._three_digits
    assert text("0.102 to 0.15") == "0.102 to 0.150"
    assert text("0 to 1") == "0.00 to 1.00"
    assert text("9.5 to 123") == "9.50 to 123"
    for name in ("Bacterial", "NORMAL2-IM"):
        assert text(name) == name


def test_images_whose_patients_are_told_are_not_called_kermanys(tiny):
    def called(**settings):
        data = {"source": "folder", "image_size": 32} | settings
        return source_names(study_from(tiny | {"data": data}, "x").data)

    assert "Kermany" in called()[0]
    for own in ({"patients": "(p[0-9]+)"}, {"classes": ("healthy", "TB")}):
        assert "radiographs of two classes" in called(**own)[0]
        assert "Kermany" not in " ".join(called(**own))


def test_classes_are_called_in_print_as_in_the_config(tiny):
    def called(*classes):
        values = tiny | {"data": {"source": "folder", "classes": classes, "image_size": 32}}
        study = study_from(values, "x")
        fields = dict.fromkeys(StudyResults.__dataclass_fields__) | {"study": study}
        results = StudyResults(**fields)
        names = ("NORMAL", "pneumonia", "all", "macro avg")
        return study.data.class_words, [results.class_name(name) for name in names]

    common = ["All", "Macro avg"]
    kermany = (("normal", "pneumonia"), ["Normal", "Pneumonia", *common])
    assert called("NORMAL", "PNEUMONIA") == kermany
    assert called("healthy", "TB") == (("healthy", "TB"), ["Healthy", "TB", *common])
    words = ("no finding", "COVID-19")
    assert called("no_finding", "COVID-19") == (words, ["No finding", "COVID-19", *common])
