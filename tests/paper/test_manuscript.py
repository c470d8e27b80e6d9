"""Reading TeX: comments, groups, commands, and the macros a text uses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlungvit.io import StudyError
from hybridlungvit.paper.manuscript import argument_end, commands, read_source, used_keys

nested = st.recursive(
    st.text(st.sampled_from("ab \\%"), max_size=4).map(lambda t: t.replace("\\", "\\{")),
    lambda part: st.lists(part, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=12,
)


def source(tmp_path, text):
    path = tmp_path / "a.tex"
    path.write_text(text, encoding="utf-8")
    return read_source(path)


@given(nested, nested)
def test_a_group_ends_where_its_braces_balance(inside, behind):
    text = "{" + inside + "}"
    assert argument_end(text + behind, 0) == len(text)
    assert argument_end(text[:-1], 0) is None


def test_comments_go_and_lines_stay(tmp_path):
    read = source(tmp_path, "one % 1\n50\\% stay % go\n\\\\% line end\nlast")
    assert read.text == "one \n50\\% stay \n\\\\\nlast"
    assert str(read.problem(read.text.index("last"), "x")).endswith("a.tex:4: x")


def test_commands_carry_all_their_arguments(tmp_path):
    text = (
        "\\result{auc}{no_seg} \\results{no} \\result[x]{f1}\n {seg_0.1} \\result{a} "
        "\\newcommand\\result[2]{#1} \\result*{b{c}}{d}"
    )
    uses = list(commands(source(tmp_path, text), ("result",), 2))
    assert [c.arguments for c in uses] == [("auc", "no_seg"), ("f1", "seg_0.1"), ("b{c}", "d")]
    assert text[uses[0].start : uses[0].end] == "\\result{auc}{no_seg}"


def test_macros_are_found_in_every_branch(tmp_path):
    (tmp_path / "sections").mkdir()
    (tmp_path / "main.tex").write_text("\\given{title} % \\given{comment}\n")
    (tmp_path / "sections" / "a.tex").write_text(
        "\\ifgivenis{loss}{focal}{\\given{gamma}}{\\ifverdict{midline}{a}{b}{\\result{auc}{x}}}"
        "\\referenceresult{f1}\\ifcompared{y}{\\variantname{y}\\difference{y}}{}"
    )
    of_study = {"title", "loss", "gamma", "result/auc/x", "result/f1"}
    assert used_keys(tmp_path) == of_study | {"outcome/midline", "difference/y", "name/y"}


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "a.tex"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match=r"a\.tex: cannot be read .*UTF-8"):
        read_source(path)
