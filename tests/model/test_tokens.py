"""Lung tokens: the two small matrices do what interpolating, cutting and pooling would do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal import LiteralTokens

from hybridlungvit.model.tokens import LungTokens, cut_positions

sizes = st.integers(1, 9)


@st.composite
def settings_of_tokens(draw):
    """(feature size, map size, image size, grid), image sides even and odd."""
    feature_size = draw(sizes), draw(sizes)
    return feature_size, draw(st.integers(1, 14)), draw(st.integers(2, 30)), draw(st.integers(1, 5))


def random_features(feature_size, batch, seed, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *feature_size, generator=generator)


def assert_agrees(shape, cuts, seed):
    """Tokens and gradients of a weighted sum of them are those of the literal definition."""
    feature_size, map_size, image_size, grid = shape
    features = random_features(feature_size, len(cuts), seed).requires_grad_()
    found = LungTokens(*shape)(features, cuts)
    expected = LiteralTokens(map_size, image_size, grid)(features, cuts)
    assert all(tokens.shape == (len(cuts), grid**2, 3) for tokens in found)
    weights = torch.randn(3, *expected[0].shape, generator=torch.Generator().manual_seed(9))
    found, expected = torch.stack(found), torch.stack(expected)
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)
    a, b = (torch.autograd.grad((t * weights).sum(), features)[0] for t in (found, expected))
    assert torch.allclose(a, b, atol=1e-4, rtol=1e-5)


@given(settings_of_tokens(), st.data(), st.integers(0, 99))
def test_tokens_and_gradients_equal_the_literal_definition(shape, data, seed):
    side = shape[2]
    halves = data.draw(st.lists(st.integers(1, 2 * side - 1), min_size=1, max_size=4))
    assert_agrees(shape, torch.tensor(halves) / 2, seed)


@pytest.mark.parametrize(
    ("shape", "cuts"),
    [
        (((3, 4), 7, 20, 3), torch.arange(1, 40) / 2),  # every cut of an even and an odd side
        (((3, 4), 7, 21, 3), torch.arange(1, 42) / 2),
        (((14, 14), 56, 224, 4), torch.tensor([0.5, 90, 112, 130.5, 223.5])),
    ],
)
def test_all_cuts_and_a_real_size_equal_the_literal_definition(shape, cuts):
    assert_agrees(shape, cuts, seed=0)


def random_masks(side, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(3, side, side, generator=generator) < 0.3
    columns = {"empty": [], "left": slice(side // 2), "right": slice(side // 2, side)}
    columns |= {"both": slice(side), "first column": [0], "last column": [-1]}
    kept = torch.zeros(side, dtype=torch.bool)
    kept[columns[kind]] = True
    masks[..., columns[kind]] |= "column" in kind
    return masks & kept


kinds = st.sampled_from(["both", "empty", "left", "right", "first column", "last column"])


def assert_mirrored(tokens, features, masks, atol):
    """Mirroring image and mask swaps the sides and mirrors each."""
    left, right, whole = tokens(features, cut_positions(masks), masks)
    mirrored = tokens(features.flip(3), cut_positions(masks.flip(2)), masks.flip(2))
    for found, expected in zip(mirrored, (right, left, whole), strict=True):
        expected = expected.unflatten(1, (tokens.grid, tokens.grid)).flip(2).flatten(1, 2)
        assert torch.allclose(found, expected, atol=atol, rtol=0)


@given(settings_of_tokens(), kinds, st.integers(0, 999))
def test_mirroring_swaps_the_sides_and_mirrors_each(shape, kind, seed):
    masks = random_masks(shape[2], kind, seed)
    assert_mirrored(LungTokens(*shape), random_features(shape[0], 3, seed), masks, 1e-6)


@given(settings_of_tokens(), kinds, st.integers(0, 999))
def test_lung_tokens_average_the_lung_pixels_of_their_cell(shape, kind, seed):
    feature_size, map_size, image_size, grid = shape
    masks = random_masks(image_size, kind, seed)
    features, cuts = random_features(feature_size, 3, seed), cut_positions(masks)
    tokens = LungTokens(*shape, pooling="lung")
    left, right, whole = tokens(features, cuts, masks)
    expected = LiteralTokens(map_size, image_size, grid).lungs(features, cuts, masks)
    for found, literal in zip((left, right), expected, strict=True):
        assert torch.allclose(found, literal, atol=1e-5, rtol=0)
    assert torch.equal(whole, LungTokens(*shape)(features, cuts)[2])
    assert_mirrored(tokens, features, masks, 1e-5)


def test_lung_tokens_of_a_real_size_equal_the_definition():
    masks = random_masks(224, "both", 1)
    features, cuts = random_features((14, 14), 3, 1), torch.tensor([90, 112.5, 130])
    found = LungTokens((14, 14), 56, 224, 4, "lung")(features, cuts, masks)[:2]
    expected = LiteralTokens(56, 224, 4).lungs(features, cuts, masks)
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(found, expected, strict=True))


@settings(max_examples=200)
@given(st.integers(1, 40), kinds, st.integers(0, 9999))
def test_cut_is_the_rounded_mean_of_the_lung_pixels(side, kind, seed):
    masks = random_masks(side, kind, seed)
    for mask, cut in zip(masks, cut_positions(masks).tolist(), strict=True):
        centres = [x + 0.5 for row in mask.tolist() for x, inside in enumerate(row) if inside]
        doubled = round(2 * sum(centres))  # 2·n·mean, an integer
        mean, tie = side / 2, side % 2 == 1
        if centres:
            mean = doubled / 2 / len(centres)
            tie = (doubled - len(centres)) % (2 * len(centres)) == 0
        assert cut == (mean if tie else math.floor(mean + 0.5))
