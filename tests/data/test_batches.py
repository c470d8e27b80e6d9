"""Which images an epoch draws, and the masks that control variants get instead of their own."""

import pickle

import numpy as np
import pytest
import torch
from conftest import opened
from hypothesis import given
from hypothesis import strategies as st

from hybridlungvit.data.augment import derive_seed
from hybridlungvit.data.batches import (
    CachedBatches,
    class_shares,
    control_masks,
    draw_order,
    load_batches,
)
from hybridlungvit.training.losses import class_weights


def test_other_masks_are_another_patients_of_the_same_split(cached):
    manifest, cache = opened(cached)
    other = control_masks(cache, manifest, "other")
    rows = np.arange(len(manifest))
    assert np.array_equal(other.masks(rows), cache.masks(other.mask_rows))
    patients, splits = manifest.patient.to_numpy(), manifest.split.to_numpy()
    assert (patients[other.mask_rows] != patients).all()
    assert (splits[other.mask_rows] == splits).all()
    again = control_masks(cache, manifest, "other")
    assert np.array_equal(again.mask_rows, other.mask_rows), "the same for every seed and variant"
    assert np.array_equal(other.images, cache.images)


def test_random_columns_lie_in_the_middle_half_and_know_nothing_of_the_mask(cached):
    manifest, cache = opened(cached)
    masks = control_masks(cache, manifest, "random").masks(np.arange(len(manifest)))
    assert (masks.any(axis=1).sum(axis=1) == 1).all() and masks.sum() == 32 * len(manifest)
    columns = masks.any(axis=1).argmax(axis=1)
    assert columns.min() >= 8 and columns.max() < 24 and len(set(columns)) > 8
    cuts = [mask.any(axis=0) @ np.arange(32) for mask in cache.masks(np.arange(len(manifest)))]
    assert abs(np.corrcoef(columns, cuts)[0, 1]) < 0.3


@pytest.mark.parametrize("mask", ["own", "other", "random"])
def test_another_process_gets_the_names_of_mapped_files_not_their_content(cached, mask):
    manifest, cache = opened(cached)
    chosen = control_masks(cache, manifest, mask)
    content = pickle.dumps(chosen)
    assert len(content) < cache.packed_masks.nbytes / 2 < cache.images.nbytes
    copy = pickle.loads(content)
    assert isinstance(copy.images, np.memmap)
    assert np.array_equal(copy.masks([3, 5]), chosen.masks(np.array([3, 5])))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_every_sample_once_in_order_and_leave_the_global_stream(cached, workers):
    manifest, cache = opened(cached)
    rows = np.flatnonzero(manifest.split == "train")
    labels = manifest.label.to_numpy()[rows]
    torch.manual_seed(0)
    parts = list(load_batches(CachedBatches(cache, rows, labels, 7), workers, pinned=False))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert {len(images) for images, _, _ in parts[:-1]} == {7}
    found = [torch.cat(part).numpy() for part in zip(*parts, strict=True)]
    for values, expected in zip(
        found, (cache.images[rows], cache.masks(rows), labels), strict=True
    ):
        assert np.array_equal(values, expected)


def test_an_unweighted_epoch_is_a_permutation_of_its_own():
    orders = [draw_order(None, 50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == draw_order(None, 50, 0, 0).tolist()


def test_equal_shares_are_the_balanced_class_weights():
    labels = torch.tensor([0, 1, 1, 1, 0, 1])
    assert torch.equal(class_shares(labels, (0.5, 0.5)), class_weights(labels)[labels])


@pytest.mark.parametrize("share", [0.25, 0.8])
def test_the_sampler_draws_classes_by_their_shares(share):
    labels = torch.tensor([0] * 900 + [1] * 100)
    order = draw_order(class_shares(labels, (1 - share, share)), len(labels), 0, 0)
    assert labels[order].float().mean().item() == pytest.approx(share, abs=0.05)


@given(st.lists(st.lists(st.integers(0, 2**70), min_size=1, max_size=4), min_size=2, max_size=6))
def test_seeds_of_distinct_parts_are_distinct(parts):
    distinct = {tuple(part) for part in parts}
    seeds = {derive_seed(*part) for part in distinct}
    assert len(seeds) == len(distinct) and max(seeds) < 2**63
