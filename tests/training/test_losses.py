"""Losses against closed forms and literal versions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.utils.class_weight import compute_class_weight

from hybridlungvit.config import Training
from hybridlungvit.model import ModelOutput
from hybridlungvit.model.tokens import cut_positions
from hybridlungvit.training.losses import (
    attention_loss,
    class_weights,
    classification_loss,
    loss_parts,
    lung_dice,
    lung_shares,
    segmentation_losses,
)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=50).filter(lambda v: len(set(v)) == 2))
def test_class_weights_are_scikit_learns_balanced_ones(labels):
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=np.array(labels))
    assert class_weights(torch.tensor(labels)).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mask", [[True, False, False, True], [0.7, 0.0, 0.3, 1.0]])
def test_segmentation_of_whole_and_of_mixed_masks_by_hand(mask):
    logits = [2.0, -1.0, 0.5, 0.0]
    p = [1 / (1 + math.exp(-x)) for x in logits]
    pairs = list(zip(p, mask, strict=True))
    bce = -sum(m * math.log(q) + (1 - m) * math.log(1 - q) for q, m in pairs) / 4
    dice = 1 - (2 * sum(q * m for q, m in pairs) + 1) / (sum(p) + sum(mask) + 1)
    found = segmentation_losses(*(torch.tensor(v).view(1, 2, 2) for v in (logits, mask)))
    assert found.item() == pytest.approx(0.5 * bce + 0.5 * dice, rel=1e-6)


def literal_shares(mask, cut, grid):
    """Lung pixels counted cell by cell; sides must divide into the grid."""
    side = len(mask)
    counts = []
    for start, stop in ((0, math.floor(cut + 0.5)), (math.ceil(cut - 0.5), side)):
        assert side % grid == 0 and (stop - start) % grid == 0
        high, wide = side // grid, (stop - start) // grid
        for i in range(grid):
            for j in range(grid):
                rows = mask[i * high : (i + 1) * high]
                cell = [row[start + j * wide : start + (j + 1) * wide] for row in rows]
                counts.append(sum(map(sum, cell)))
    total = sum(counts)
    return [c / total if total else 1 / len(counts) for c in counts]


@given(st.integers(1, 4), st.integers(2, 5), st.data(), st.floats(0, 0.6), st.integers(0, 99))
def test_lung_shares_are_counted_pixels(grid, cells, data, density, seed):
    side = grid * cells
    columns = data.draw(st.lists(st.integers(1, cells - 1), min_size=2, max_size=2))
    cuts = torch.tensor([float(grid * c) for c in columns])
    masks = torch.rand(2, side, side, generator=torch.Generator().manual_seed(seed)) < density
    shares = lung_shares(masks, cuts, grid)
    for i in range(2):
        expected = literal_shares(masks[i].tolist(), cuts[i].item(), grid)
        assert shares[i].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_column_cut_in_the_middle_is_counted_on_both_sides():
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 0, 1] = mask[0, 1, 0] = True  # the shared column and the left one
    shares = lung_shares(mask, torch.tensor([1.5]), 1)
    assert shares[0].tolist() == pytest.approx([2 / 3, 1 / 3])


@given(st.integers(2, 25), st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_lung_shares_sum_to_one(side, grid, density, seed):
    masks = torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed)) < density
    shares = lung_shares(masks, cut_positions(masks), grid)
    assert shares.shape == (3, 2 * grid**2)
    assert (shares >= 0).all()
    assert shares.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    empty = lung_shares(torch.zeros_like(masks), cut_positions(masks), grid)
    assert empty.unique().tolist() == pytest.approx([1 / (2 * grid**2)])


@given(st.integers(0, 999))
def test_attention_loss_is_the_divergence_of_the_attention_from_the_shares(seed):
    rng = np.random.default_rng(seed)
    attention = rng.dirichlet(np.ones(6), 4)
    shares = np.hstack([rng.dirichlet(np.ones(4), 4), np.zeros((4, 2))])  # cells without lung
    expected = np.mean([entropy(p, q) for p, q in zip(shares, attention, strict=True)])
    found = attention_loss(torch.from_numpy(attention), torch.from_numpy(shares)).item()
    assert found == pytest.approx(expected, rel=1e-6)
    assert found > 1e-3
    equal = attention_loss(torch.from_numpy(shares), torch.from_numpy(shares)).item()
    assert equal == pytest.approx(0, abs=1e-12)


def output(attention=True, segmentation=True):
    generator = torch.Generator().manual_seed(3)
    return ModelOutput(
        torch.tensor([[1.0, -0.5], [0.2, 0.7], [-1.5, 2.0]]),
        torch.rand(3, 8, generator=generator).softmax(1) if attention else None,
        torch.randn(3, 8, 8, generator=generator) if segmentation else None,
        cut_positions(MASKS),
    )


LABELS = torch.tensor([0, 0, 1])
TARGETS = F.one_hot(LABELS, 2).float()
MASKS = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4)) < 0.4


@pytest.mark.parametrize(
    "settings",
    [{"label_smoothing": 0}, {"label_smoothing": 0.1}]
    + [{"loss": "focal", "focal_gamma": gamma, "label_smoothing": 0} for gamma in (0, 1, 2)],
)
@pytest.mark.parametrize("weights", [None, [0.75, 1.5]])
def test_cross_entropy_and_focal_loss_by_hand(settings, weights):
    training, given_weights = Training(**settings), weights or [1, 1]
    gamma, total, weight = settings.get("focal_gamma", 0), 0.0, 0.0
    for logits, label in zip(output().logits.tolist(), LABELS.tolist(), strict=True):
        log_sum = math.log(sum(map(math.exp, logits)))
        for c in (0, 1):
            target = (1 - training.label_smoothing) * (c == label) + training.label_smoothing / 2
            focus = (1 - math.exp(logits[c] - log_sum)) ** gamma
            total += given_weights[c] * target * focus * (log_sum - logits[c])
        weight += given_weights[label]
    tensor = None if weights is None else torch.tensor(weights)
    parts = loss_parts(output(segmentation=False), TARGETS, MASKS, training, tensor)
    assert parts["classification"].item() == pytest.approx(total / weight, rel=1e-5)


@pytest.mark.parametrize(
    ("lambdas", "has", "expected"),
    [
        ((0, 0), (True, False), {"classification"}),
        ((0.1, 0), (True, True), {"classification", "segmentation"}),
        ((0, 0.2), (True, False), {"classification", "attention"}),
        ((0.1, 0.2), (True, True), {"classification", "segmentation", "attention"}),
        ((0.1, 0.2), (False, False), {"classification"}),
    ],
)
def test_loss_parts_follow_config_and_model(lambdas, has, expected):
    training = Training(lambda_seg=lambdas[0], lambda_att=lambdas[1])
    assert set(loss_parts(output(*has), TARGETS, MASKS, training, None)) == expected


def test_loss_parts_carry_their_weights():
    once = loss_parts(output(), TARGETS, MASKS, Training(lambda_seg=1, lambda_att=1), None)
    some = loss_parts(output(), TARGETS, MASKS, Training(lambda_seg=0.3, lambda_att=0.2), None)
    assert some["classification"].item() == once["classification"].item()
    assert some["segmentation"].item() == pytest.approx(0.3 * once["segmentation"].item())
    assert some["attention"].item() == pytest.approx(0.2 * once["attention"].item())
    losses = segmentation_losses(output().segmentation, MASKS)
    assert once["segmentation"].item() == losses.mean().item()
    shares = lung_shares(MASKS, cut_positions(MASKS), 2)
    assert once["attention"].item() == attention_loss(output().attention, shares).item()


def test_a_mixed_target_costs_what_its_parts_cost():
    training = Training(label_smoothing=0.1)
    share = torch.tensor([[0.3], [0.8], [0.5]])
    mixed = share * TARGETS + (1 - share) * TARGETS.flip(1)
    logits = output().logits
    parts = [
        F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
        for labels in (LABELS, 1 - LABELS)
    ]
    expected = (share[:, 0] * parts[0] + (1 - share[:, 0]) * parts[1]).mean()
    found = classification_loss(logits, mixed, training, None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@given(st.integers(1, 9), st.integers(0, 99))
def test_lung_dice_counts_pixels(side, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, side, side, generator=generator)
    masks = torch.rand(3, side, side, generator=generator) < 0.3
    logits[2], masks[2] = -1, False  # nothing there, nothing found
    for found, logit, mask in zip(lung_dice(logits, masks), logits, masks, strict=True):
        pairs = list(zip(logit.flatten().tolist(), mask.flatten().tolist(), strict=True))
        both = sum(x >= 0 and m for x, m in pairs)
        total = sum(x >= 0 for x, _ in pairs) + sum(m for _, m in pairs)
        assert found.item() == pytest.approx(2 * both / total if total else 1)
