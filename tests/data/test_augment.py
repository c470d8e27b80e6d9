"""Training views and mixing: against torchvision, by closed form, and by their seeds."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from hybridlungvit.config import Augmentation
from hybridlungvit.data.augment import (
    ExposureOperations,
    Views,
    apply_views,
    change_exposure,
    draw_views,
    mix_batch,
    to_input,
)

STILL = Augmentation(
    crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, rotation=0, brightness=0, contrast=0
)


def radiographs(count=4, side=32):
    """Smooth random images, which interpolate alike everywhere, and masks with a shape."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    images = (smooth[:, 0].clamp(0, 1) * 255).to(torch.uint8)
    return images, images > 140


def view(augmentation, count=4):
    return draw_views(augmentation, count, torch.Generator().manual_seed(0))


def changed(**values):
    return STILL.model_copy(update=values)


def test_a_certain_mirror_is_the_mirror_image():
    images, masks = radiographs()
    seen, moved = apply_views(images, masks, view(changed(flip=1)))
    assert torch.allclose(seen, images.flip(2) / 255, atol=1e-5)
    assert torch.equal(moved, masks.flip(2))


def test_a_turn_is_torchvisions_turn():
    images, masks = radiographs()
    views = view(changed(rotation=30))
    seen, _ = apply_views(images, masks, views)
    angles = torch.rad2deg(torch.atan2(views.affine[:, 1, 0], views.affine[:, 0, 0])).tolist()
    assert max(map(abs, angles)) > 5
    for image, angle, turned in zip(images, angles, seen, strict=True):
        expected = tv.rotate(
            image[None].float() / 255, angle, interpolation=v2.InterpolationMode.BILINEAR
        )[0]
        assert torch.allclose(turned[4:-4, 4:-4], expected[4:-4, 4:-4], atol=2e-3)


def test_a_crop_is_torchvisions_crop():
    """A crop on whole pixels, doubled: both interpolate between the same pixels."""
    images, masks = radiographs(1)
    side, top, left, size = 32, 6, 11, 16
    x, y = (2 * (left + size / 2) / side - 1), (2 * (top + size / 2) / side - 1)
    affine = torch.tensor([[[size / side, 0, x], [0, size / side, y]]])
    seen, _ = apply_views(images, masks, Views(affine, torch.ones(1), torch.ones(1)))
    expected = tv.resized_crop(
        images.float() / 255, top, left, size, size, [side, side], antialias=False
    )
    inner = slice(1, -1)  # torchvision does not see beyond the crop's edge
    assert torch.allclose(seen[:, inner, inner], expected[:, inner, inner], atol=1e-5)


def test_crops_and_mirrors_come_as_asked_and_stay_inside():
    views = view(changed(crop_scale=(0.5, 0.9), crop_ratio=(0.8, 1.25), flip=0.3), 5000)
    width, height = views.affine[:, 0, 0], views.affine[:, 1, 1]
    assert (width < 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    width = width.abs()
    area, aspect = width * height, width / height
    free = (width < 1) & (height < 1)
    assert (width <= 1).all() and (height <= 1).all() and free.float().mean() > 0.9
    assert 0.5 - 1e-6 <= area[free].min() < 0.51 and 0.89 < area[free].max() <= 0.9 + 1e-6
    assert 0.8 - 1e-6 <= aspect[free].min() < 0.81 and 1.24 < aspect[free].max() <= 1.25 + 1e-6
    for size, centre in ((width, views.affine[:, 0, 2]), (height, views.affine[:, 1, 2])):
        assert (centre.abs() + size <= 1 + 1e-6).all()
        assert centre.mean().abs() < 0.01 and centre.std() > 0.05


@pytest.mark.parametrize("what", ["brightness", "contrast"])
def test_exposure_is_torchvisions(what):
    images, masks = radiographs()
    views = view(changed(**{what: 0.4}))
    factors = getattr(views, what)
    assert (factors >= 0.6).all() and (factors <= 1.4).all() and factors.std() > 0.05
    seen, moved = apply_views(images, masks, views)
    adjust = getattr(tv, f"adjust_{what}")
    for image, factor, result in zip(images, factors.tolist(), seen, strict=True):
        expected = adjust(image[None].float() / 255, factor)[0]
        assert torch.allclose(result, expected, atol=1e-4)
    assert torch.equal(moved, masks)


def test_the_mask_moves_with_its_image():
    _, masks = radiographs(16, 64)
    images = masks.to(torch.uint8) * 255
    augmentation = Augmentation(brightness=0, contrast=0, rotation=20)
    seen, moved = apply_views(images, masks, view(augmentation, 16))
    assert not torch.equal(moved, masks)
    assert torch.equal(seen > 0.5, moved)


# RandAugment, MixUp and CutMix


def test_exposure_operations_leave_every_pixel_in_its_place():
    """A bright spot in the middle stays the brightest or darkest part, wherever geometry would."""
    images = torch.full((40, 33, 33), 0.4)
    images[:, 12:21, 12:21] = 0.8
    torch.manual_seed(0)
    seen = change_exposure(images, ExposureOperations(2, 20))
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1
    kinds = set()
    for image in seen:
        inside, outside = image[14:19, 14:19], torch.cat([image[:10], image[23:]])
        assert inside.std() < 1e-3 and outside.std() < 1e-3
        kinds.add(round(inside.mean().item(), 2))
    assert len(kinds) > 5, "operations differ from image to image"


@pytest.mark.parametrize("kind", [v2.MixUp, v2.CutMix])
def test_images_and_masks_are_mixed_alike_as_torchvision_mixes_each_of_them(kind):
    images, masks = radiographs()
    scaled, labels = images / 255, torch.tensor([0, 1, 0, 1])
    mixer = kind(alpha=1.0, num_classes=2)
    torch.manual_seed(3)
    seen, mask, targets = mix_batch(mixer, scaled, masks, labels)
    for found, given in ((seen, scaled), (mask, masks.float())):
        torch.manual_seed(3)
        expected, shares = mixer(given.unsqueeze(1), labels)
        assert torch.equal(found, expected.squeeze(1))
        assert torch.equal(targets, shares)
    assert not torch.equal(seen, scaled)


def test_input_is_normalised_as_the_stem_expects():
    images = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.5, 0.2, 0.1)))
    for given in (images, images / 255):
        inputs = to_input(given, mean, std)
        assert inputs.shape == (1, 3, 1, 2)
        assert inputs[0, :, 0, 0].tolist() == pytest.approx([-1, -2, -3])
        assert inputs[0, :, 0, 1].tolist() == pytest.approx([1, 3, 7])
