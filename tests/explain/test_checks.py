"""Lung focus, similarity of maps, randomisation, removal of pixels, and painted attention."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst

from hybridlungvit.config import study_from
from hybridlungvit.data.augment import to_input
from hybridlungvit.evaluation.score import score
from hybridlungvit.explain import stage
from hybridlungvit.explain.cases import (
    COMPARED_SEEDS,
    focus_variants,
    read_focus,
    read_saliency,
    subsample,
)
from hybridlungvit.explain.faithfulness import (
    check_faithfulness,
    margin_changes,
    random_heat,
    removal_order,
)
from hybridlungvit.explain.focus import (
    central_boxes,
    focus_table,
    lowest_row,
    lung_focus,
    summarise,
)
from hybridlungvit.explain.gradcam import (
    TestImages,
    gradcam_maps,
    heat_of,
    paint_attention,
    spare_gradients,
)
from hybridlungvit.explain.similarity import derangement, mean_intervals, rank_correlation, ssim
from hybridlungvit.io import StudyError, read_json
from hybridlungvit.model import build_model
from hybridlungvit.model.tokens import LungTokens
from hybridlungvit.training.loop import train

# The ROAD code of grad-cam compares torch with numpy in a way that numpy frowns upon.
pytestmark = [
    pytest.mark.usefixtures("seeded"),
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),
]
rng = np.random.default_rng(0)


def lungs(count):
    masks = np.zeros((count, 32, 32), bool)
    for i in range(count):
        masks[i, 6 + i : 26, 4 : 14 + i] = True
    return masks


# Focus


def test_focus_is_undefined_without_heat_or_region():
    heat, masks = np.ones((2, 4, 4)), np.ones((2, 4, 4), bool)
    heat[0], masks[1] = 0, False
    assert np.isnan(lung_focus(heat, masks)).all()


@given(st.floats(0.001, 1), st.integers(5, 40))
def test_central_boxes_are_centred_and_have_the_area(area, side):
    (box,) = central_boxes(np.array([area]), side)
    assert box.mean() == pytest.approx(area)
    assert box.min() >= 0 and box.max() <= 1 + 1e-12
    assert np.allclose(box, box[::-1]) and np.allclose(box, box.T)


def test_a_central_box_covers_the_pixels_by_hand():
    (wide,) = central_boxes(np.array([9 / 16]), 4)  # 3 of 4 pixels a side: half a pixel over
    edge = np.array([0.5, 1, 1, 0.5])
    assert np.allclose(wide, np.outer(edge, edge))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=20), st.integers(0, 5))
def test_partners_are_a_seeded_derangement_across_patients(names, seed):
    names = np.array(names)
    partner = derangement(names, seed)
    assert sorted(partner) == list(range(len(names)))
    assert (partner != np.arange(len(names))).all()
    assert np.array_equal(partner, derangement(names, seed))
    _, counts = np.unique(names, return_counts=True)
    if 2 * counts.max() <= len(names):
        assert (names[partner] != names).all()


def predictions():
    places = range(6)
    return pd.DataFrame(
        {
            "path": [f"test/{i}" for i in places],
            "patient": [f"p{i}" for i in places],
            "label": [0, 0, 0, 1, 1, 1],
            "probability": [0.1, 0.2, 0.8, 0.9, 0.7, 0.3],
        }
    )


def test_the_focus_table_is_the_literal_ratio_on_own_and_borrowed_masks():
    table, masks = predictions(), lungs(6)
    heat = rng.random(masks.shape).astype(np.float32)
    found = focus_table(table, heat, masks, seed=3)
    for column, borrowed in (
        ("focus", masks),
        ("focus_shuffled", masks[derangement(table.patient.to_numpy(), 3)]),
    ):
        for i, (warm, mask) in enumerate(zip(heat.astype(float), borrowed, strict=True)):
            assert found[column][i] == pytest.approx(warm[mask].sum() / warm.sum() / mask.mean())
    assert found.area_share.tolist() == [mask.mean() for mask in masks]
    assert np.allclose(found.heat_share, found.focus * found.area_share)
    assert found.path.equals(table.path)


def test_groups_are_the_classes_and_the_calls_at_the_threshold(study):
    table = predictions().assign(focus=[1, 2, 3, 4, 5, 6.0], focus_shuffled=1.0, focus_box=0.5)
    groups = {(g["class"], g["called"]): g for g in summarise(table, study, 0.75)}
    means = {key: group["focus"]["estimate"] for key, group in groups.items()}
    assert means == {
        ("all", "all"): 3.5, ("normal", "all"): 2, ("normal", "right"): 1.5, ("normal", "wrong"): 3,
        ("pneumonia", "all"): 5, ("pneumonia", "right"): 4, ("pneumonia", "wrong"): 5.5,
    }  # fmt: skip
    assert groups["all", "all"]["over_shuffled"]["estimate"] == 2.5
    assert groups["all", "all"]["over_box"]["estimate"] == 3
    assert groups["normal", "wrong"]["focus"]["low"] is None  # one patient alone
    assert groups["normal", "right"]["focus"]["low"] == 1
    assert summarise(table, study, 0.65)[-1]["focus"]["estimate"] == 6


def test_images_without_heat_are_counted_and_left_out(study):
    table = predictions().assign(focus=[np.nan, 2, 3, 4, 5, 6], focus_shuffled=1.0, focus_box=1.0)
    table.loc[0, ["focus_shuffled", "focus_box"]] = np.nan
    overall = summarise(table, study, 0.5)[0]
    assert (overall["images"], overall["undefined"]) == (5, 1)
    assert overall["focus"]["estimate"] == 4
    empty = summarise(table.iloc[:1], study, 0.5)[0]
    assert empty["focus"] == {"estimate": None, "low": None, "high": None}
    json.dumps(empty, allow_nan=False)


def test_intervals_resample_whole_patients(study):
    values = np.array([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]])
    table = pd.DataFrame({"patient": list("aaabbb"), "label": 0})
    given = study.statistics.model_copy(update={"resamples": 2000})
    (interval,) = mean_intervals(values, table, given)
    assert (interval["low"], interval["estimate"], interval["high"]) == (0, 0.5, 1)
    (open_,) = mean_intervals(values, table.assign(label=[0] * 3 + [1] * 3), given)
    assert open_ == {"estimate": 0.5, "low": None, "high": None}  # one patient of each class
    (narrow,) = mean_intervals(values, table.assign(patient=list("abcdef")), given)
    assert 0 < narrow["low"] < 0.5 < narrow["high"] < 1


# Similarity


def literal_ssim(a, b):
    """Wang et al. 2004, equation 13, window by window."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for y in range(5, a.shape[0] - 5):
        for x in range(5, a.shape[1] - 5):
            p, q = (m[y - 5 : y + 6, x - 5 : x + 6] for m in (a, b))
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p = (window * (p - mean_p) ** 2).sum()
            var_q = (window * (q - mean_q) ** 2).sum()
            cov = (window * (p - mean_p) * (q - mean_q)).sum()
            top = (2 * mean_p * mean_q + 1e-4) * (2 * cov + 9e-4)
            values.append(top / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4)))
    return np.mean(values)


def test_ssim_is_that_of_the_paper():
    first, second = rng.random((2, 17, 21))
    for other in (second, 0.7 * first + 0.3 * second, 1 - first):
        assert ssim(first, other) == pytest.approx(literal_ssim(first, other), abs=1e-12)
    assert ssim(first, first) == pytest.approx(1, abs=1e-12)


def test_ranks_alone_are_correlated_and_a_constant_map_agrees_with_none():
    first = rng.random((9, 9))
    assert rank_correlation(first, np.exp(5 * first)) == pytest.approx(1)
    assert rank_correlation(first, np.zeros((9, 9))) == 0


# Attention


@given(st.integers(4, 24), st.integers(1, 5), st.data())
def test_painted_attention_keeps_its_sum_on_each_side(side, grid, data):
    cut = data.draw(st.integers(1, 2 * side - 1)) / 2
    weights = np.random.default_rng(side).random((1, 2 * grid**2))
    (painted,) = paint_attention(weights, [cut], side)
    assert painted.sum() == pytest.approx(weights.sum())
    weights[:, grid**2 :] = 0
    (half,) = paint_attention(weights, [cut], side)
    assert half.sum() == pytest.approx(weights.sum())
    assert (half[:, int(np.ceil(cut)) :] == 0).all()
    # Equal weights: an even map on each side, whatever the cells.
    (even,) = paint_attention(np.full((1, 2 * grid**2), 1 / (2 * grid**2)), [cut], side)
    assert np.allclose(even[:, : int(cut)], 0.5 / (side * cut))
    assert np.allclose(even[:, int(np.ceil(cut)) :], 0.5 / (side * (side - cut)))


@pytest.mark.parametrize("cut", [3.0, 6.0, 9.0])
def test_a_painted_token_is_where_the_model_pools_it_from(cut):
    side, grid = 12, 3  # cells are whole pixels here, on both sides
    pool = LungTokens((side, side), side, side, grid)  # at image size nothing is interpolated
    features = torch.zeros(1, 1, side, side, requires_grad=True)
    left, right, _ = pool(features, torch.tensor([cut]))
    tokens = torch.cat([left, right], dim=1)[0, :, 0]  # (2·g²,)
    for token in range(2 * grid**2):
        (origin,) = torch.autograd.grad(tokens[token], features, retain_graph=True)
        weights = np.zeros((1, 2 * grid**2))
        weights[0, token] = 1
        painted = paint_attention(weights, [cut], side)[0]
        assert np.allclose(painted, origin[0, 0].numpy(), atol=1e-6)


@given(st.integers(1, 5), st.data())
def test_the_lowest_row_is_that_of_the_painted_map(grid, data):
    token = data.draw(st.integers(0, 2 * grid**2 - 1))
    attention = np.full((1, 2 * grid**2), 0.1, np.float32)
    attention[0, token] = 0.5
    side = 12 * grid
    [painted] = paint_attention(attention, np.array([side / 2]), side)
    height = np.unravel_index(painted.argmax(), painted.shape)[0]
    assert lowest_row(attention).tolist() == [height >= side - 12]


# Randomisation


def scrambled(study, variant):
    """A model whose every parameter differs from any initialisation."""
    torch.manual_seed(7)
    model = build_model(study.recipe(variant), pretrained=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 + 0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture
def tests_of_noise():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 32, 32), dtype=torch.uint8, generator=generator)
    return TestImages(predictions(), images, torch.from_numpy(lungs(6)))


@pytest.mark.parametrize("variant", ["seg_0.1", "plain_deit"])
def test_the_cascade_randomises_from_head_to_stem(study, variant):
    model = scrambled(study, variant)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    done, named = set(), stage.stages(model)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    steps = stage.randomised(model, study.recipe(variant), seed=0)
    for (name, keys), (found, changed) in zip(named, steps, strict=True):
        assert found == name
        assert keys and not done & set(keys)
        done |= set(keys)
        for key, value in changed.state_dict().items():
            assert torch.equal(value, before[key]) != (key in done), (name, key)
    assert all(key.startswith("segment.") for key in before.keys() - done)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state), "it draws from its seed alone"
    for seed, same in ((0, True), (1, False)):
        *_, (_, again) = stage.randomised(model, study.recipe(variant), seed)
        pairs = zip(again.state_dict().values(), changed.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == same


def test_stages_go_from_the_classifier_to_the_embedding(tiny):
    tiny["model"]["stem_options"] |= {"depth": 3}
    deep = study_from(tiny, "tiny")
    blocks = ["block 3", "block 2", "block 1", "embedding"]
    names = [name for name, _ in stage.stages(build_model(deep.recipe("no_seg"), False))]
    assert names == ["classifier", "cross-attention", "token encoders", "projection", *blocks]
    plain = dict(stage.stages(build_model(deep.recipe("plain_deit"), False)))
    assert list(plain) == ["classifier", *blocks]
    assert "stem.vit.norm.weight" in plain["block 3"]
    assert {"stem.vit.pos_embed", "stem.vit.cls_token"} <= set(plain["embedding"])


@pytest.mark.parametrize("variant", ["no_seg", "plain_deit"])
def test_sparing_gradients_changes_no_map(study, tests_of_noise, variant):
    model = scrambled(study, variant)
    expected = gradcam_maps(model, tests_of_noise.images, tests_of_noise.masks, target=1)
    spared = spare_gradients(copy.deepcopy(model))
    assert not any(p.requires_grad for p in spared.stem.vit.patch_embed.parameters())
    assert np.allclose(heat_of(spared, tests_of_noise, 4), expected, atol=1e-5)


def test_maps_of_an_unchanged_model_pass_for_a_failed_sanity_check(
    study, tests_of_noise, monkeypatch
):
    model = spare_gradients(scrambled(study, "no_seg"))
    heat = heat_of(model, tests_of_noise, 6)
    count = len(stage.stages(model))
    monkeypatch.setattr(stage, "randomised", lambda *_: iter([("same", model)] * count))
    record = stage.check_sanity(study, "no_seg", model, tests_of_noise, heat)
    assert all(part[key]["low"] > 0.999 for part in record["stages"] for key in ("rank", "ssim"))
    assert record["verdict"] == "above"


def test_agreement_of_equal_and_of_unrelated_seeds(study, tests_of_noise):
    one, two = np.random.default_rng(1).random((2, 6, 32, 32)).astype(np.float32)
    same = stage.check_agreement(np.stack([one, one, one]), tests_of_noise, study)
    assert same["pairs"] == 3
    assert [same["seeds"][key]["estimate"] for key in ("rank", "ssim")] == pytest.approx([1, 1])
    assert same["others"]["rank"]["estimate"] == pytest.approx(0, abs=0.05)
    assert same["verdict"] == "above"
    unrelated = stage.check_agreement(np.stack([one, two]), tests_of_noise, study)
    assert unrelated["seeds"]["rank"]["estimate"] == pytest.approx(0, abs=0.05)
    assert stage.check_agreement(one[None], tests_of_noise, study) is None


def test_stability_is_the_largest_relative_distance_of_noisy_maps(
    study, tests_of_noise, monkeypatch
):
    monkeypatch.setattr(stage, "DRAWS", 3)
    model = spare_gradients(scrambled(study, "no_seg"))
    heat = heat_of(model, tests_of_noise, 6)
    heat[5] = 0  # a map without heat has no norm to compare with
    record = stage.check_stability(model, tests_of_noise, heat, study)
    assert record["undefined"] == 1
    assert record["gain"]["estimate"] == pytest.approx(
        record["noise"]["estimate"] - record["others"]["estimate"]
    )
    generator = torch.Generator().manual_seed(study.explanation.seed)
    worst = [0.0] * 5
    for _ in range(stage.DRAWS):
        noise = 0.04 * torch.rand((6, 32, 32), generator=generator) - 0.02
        noisy = (tests_of_noise.images / 255 + noise).clip(0, 1)
        for i in range(5):
            [moved] = gradcam_maps(model, noisy[i : i + 1], tests_of_noise.masks[i : i + 1], 1)
            distance = np.sqrt(((moved - heat[i]) ** 2).sum() / (heat[i] ** 2).sum())
            worst[i] = max(worst[i], float(distance))
    assert record["noise"]["estimate"] == pytest.approx(np.mean(worst), rel=1e-3)
    monkeypatch.setattr(stage, "NOISE", 0.0)
    still = stage.check_stability(model, tests_of_noise, heat_of(model, tests_of_noise, 6), study)
    assert still["noise"]["estimate"] == pytest.approx(0, abs=1e-4)
    assert still["verdict"] == "below"


# Faithfulness


def test_removal_order_ranks_heat_and_breaks_ties_by_the_second_map():
    heat = np.array([[[0.0, 0.9], [0.0, 0.0]]])
    ties = np.array([[[0.3, 0.0], [0.1, 0.2]]])
    assert removal_order(heat, ties).tolist() == [[[0.5, 0.75], [0.0, 0.25]]]


def test_random_heat_is_smooth_and_seeded():
    maps = random_heat(2, (4, 4), 32, seed=0)
    assert maps.shape == (2, 32, 32)
    assert np.array_equal(maps, random_heat(2, (4, 4), 32, seed=0))
    assert not np.allclose(maps[0], maps[1])
    assert np.abs(np.diff(maps, axis=2)).max() < 0.2  # a grid step of at most 1 over 8 pixels


def bright_corner(study):
    """A model that reads nothing but the mean of the upper left quarter."""

    class Corner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = build_model(study.recipe("no_seg"), pretrained=False).stem

        def forward(self, inputs, masks, segment):
            value = inputs[:, :, :16, :16].mean(dim=(1, 2, 3))
            logits = torch.stack([-value, value], dim=1)
            return type("Output", (), {"logits": logits})

    return Corner()


def corner_images():
    images = torch.zeros(6, 32, 32, dtype=torch.uint8)
    images[:, :16, :16] = 200
    return TestImages(predictions(), images, torch.from_numpy(lungs(6)))


def test_removing_what_a_model_reads_lowers_its_log_odds_more_than_chance(study):
    tests, model = corner_images(), bright_corner(study)
    heat = np.zeros((6, 32, 32), np.float32)
    heat[:, :16, :16] = 1
    toward, away = (check_faithfulness(study, model, tests, h) for h in (heat, 1 - heat))
    assert (toward["verdict"], away["verdict"]) == ("below", "above")
    assert toward["removed"] == [0.2, 0.5]
    assert toward["random"] == away["random"]


def test_changes_are_those_of_road_on_each_image(study):
    tests, model = corner_images(), bright_corner(study)
    order = removal_order(random_heat(6, (4, 4), 32, 1), random_heat(6, (4, 4), 32, 2))
    found = margin_changes(model, tests, order, [0.2, 0.5], study)
    assert np.array_equal(found, margin_changes(model, tests, order, [0.2, 0.5], study))

    def margin(grey):
        logits = model(to_input(grey[:, 0], model.stem.mean, model.stem.std), None, False).logits
        return logits[:, 1] - logits[:, 0]

    for i in range(6):
        grey = tests.images[i : i + 1, None].float() / 255
        for j, share in enumerate((0.2, 0.5)):
            road = ROADMostRelevantFirst(100 * (1 - share))
            (expected,) = road(grey, order[i : i + 1], [lambda output: output], margin)
            assert found[i, j] == pytest.approx(float(expected), abs=0.02)  # up to ROAD's noise
    assert (found[:, 0] != 0).any()


# Stages


def test_the_subsample_is_seeded_and_within_the_test_set(tiny):
    study = study_from(tiny, "tiny")
    rows = subsample(study, 30)
    assert len(set(rows)) == 8 and rows.max() < 30
    assert np.array_equal(rows, np.sort(rows))
    assert np.array_equal(rows, subsample(study, 30))
    other = study_from(tiny | {"explanation": {"subsample": 8, "seed": 1}}, "tiny")
    assert not np.array_equal(subsample(other, 30), rows)
    assert subsample(study, 5).tolist() == [0, 1, 2, 3, 4]


def test_focus_is_measured_for_reference_and_plain_control(study, tiny):
    assert focus_variants(study) == ["no_seg", "plain_deit"]
    tiny["variants"].pop("plain_deit")
    assert focus_variants(study_from(tiny, "tiny")) == ["no_seg"]


@pytest.mark.slow
def test_stages_write_the_same_bits_twice_and_refuse_other_settings(tiny, layout):
    for other in ("seg_0.1", "plain_deit"):  # neither is trained here
        tiny["variants"].pop(other)
    study = study_from(tiny, "tiny")
    for seed in study.seeds:
        train(study, "no_seg", seed, layout)
        score(study, "no_seg", seed, layout)
    stage.explain(study, "no_seg", layout)
    focus = layout.focus("no_seg")
    paths = [focus, focus.with_suffix(".json"), layout.saliency("no_seg"), layout.gradcam("no_seg")]
    first = [path.read_bytes() for path in paths]
    stage.explain(study, "no_seg", layout)
    assert [path.read_bytes() for path in paths] == first
    record, checks = read_json(paths[1]), read_json(paths[2])
    rows = pd.read_csv(paths[0])
    tests = pd.read_csv(layout.predictions("no_seg", 0)).query("split == 'test'")
    assert rows.path.tolist() == tests.path.tolist()
    assert rows.probability.tolist() == tests.probability.tolist()
    assert record["groups"][0]["focus"]["estimate"] == pytest.approx(rows.focus.mean())
    assert 0 <= record["lowest_row"]["peaks"]["estimate"] <= 1
    assert record["lowest_row"]["share"] == 1 / study.model.token_grid
    assert checks["images"] == 8
    assert checks["stability"]["noise"]["estimate"] > 0
    assert checks["agreement"]["pairs"] == 1
    assert list(checks["model_sha256"]) == [str(s) for s in study.seeds[:COMPARED_SEEDS]]

    assert read_focus(study, layout)["no_seg"]["groups"] == record["groups"]
    assert read_saliency(study, layout)["sanity"] == checks["sanity"]
    other = study_from(tiny | {"explanation": {"subsample": 5}}, "tiny")
    with pytest.raises(StudyError, match=r"explanation.*Run `explain --variant no_seg` again"):
        read_saliency(other, layout)
    predictions = layout.predictions("no_seg", 0)
    predictions.write_text(predictions.read_text() + "\n")
    with pytest.raises(StudyError, match="made from predictions"):
        read_focus(study, layout)
