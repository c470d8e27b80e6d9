"""Lung masks: geometry on a drawn chest, the mirror property, and never failing."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hybridlungvit.masks import mean_x, template
from hybridlungvit.masks.agreement import dice
from hybridlungvit.masks.fit import lung_mask, lung_mask_with_confidence


def chest(size=224, shift=0.0, scale=1.0, opaque=False):
    """A child's chest out of ellipses, and its true lungs: uint8 (S, S), bool (S, S)."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    x, y = (x - 0.5 - shift) / scale, (y - 0.5) / scale

    def ellipse(cx, cy, rx, ry):
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1

    body = ellipse(0, 0.2, 0.47, 0.75) | ellipse(0, -0.5, 0.2, 0.3)
    left = ellipse(-0.05, 0.32, 0.31, 0.62) & (x < -0.06) & (y < 0.25 - 0.2 * x)
    right = ellipse(0.05, 0.32, 0.31, 0.62) & (x > 0.06) & (y < 0.25 + 0.2 * x)
    image = np.where(body, 150.0, 5.0)
    image[left | right] = 80
    image[right & opaque] = 125
    image[(left | right) & (np.sin(60 * (y - 0.3 * np.abs(x))) > 0.3)] += 20  # ribs
    image[ellipse(0.08, 0.12, 0.13, 0.2)] = 160  # heart, counts as lung
    image[body & (np.abs(x) < 0.05)] = 190
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    image = cv2.GaussianBlur(image + noise, (0, 0), size / 224)
    return np.clip(image, 0, 255).astype(np.uint8), left | right


def texture(shape, sigma, seed):
    noise = np.random.default_rng(seed).random(shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def assert_two_lungs(mask, shape):
    assert mask.shape == shape and mask.dtype == np.bool_ and mask.any()
    if min(shape) >= 8:
        half = shape[1] // 2
        assert mask[:, :half].any() and mask[:, -half:].any() and not mask.all()


PRIOR = template.draw(template.FRAME_MEAN, (224, 224)).astype(bool)


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.05, 0.9), (-0.04, 1.1)])
def test_finds_the_drawn_lungs(shift, scale, opaque):
    image, truth = chest(shift=shift, scale=scale, opaque=opaque)
    mask = lung_mask(image)
    assert dice(mask, truth) > max(0.88, dice(PRIOR, truth))
    assert abs(mean_x(mask) - mean_x(truth)) < 3 / 224


def test_follows_a_tilted_child():
    image, truth = chest()
    turn = cv2.getRotationMatrix2D((112, 112), 5, 1)
    tilted = cv2.warpAffine(image, turn, (224, 224))
    lungs = cv2.warpAffine(truth.astype(np.uint8), turn, (224, 224)).astype(bool)
    assert dice(lung_mask(tilted), lungs) > max(0.83, dice(lung_mask(image), lungs))


@pytest.mark.parametrize("size", [64, 500, 1200])
def test_resolution_does_not_matter(size):
    small = lung_mask(chest(224)[0]).astype(np.uint8)
    expected = cv2.resize(small, (size, size), interpolation=cv2.INTER_NEAREST).astype(bool)
    assert dice(lung_mask(chest(size)[0]), expected) > 0.93


def test_depth_gain_and_memory_layout_do_not_matter():
    image, _ = chest()
    mask = lung_mask(image)
    assert dice(lung_mask(image.astype(np.uint16) * 257), mask) > 0.97
    assert dice(lung_mask(image // 2 + 40), mask) > 0.95
    assert np.array_equal(mask, lung_mask(np.asfortranarray(image)))
    assert np.array_equal(mask, lung_mask(np.dstack([image, image])[..., 1]))


@pytest.mark.parametrize("size", [31, 224])
@pytest.mark.parametrize("shift", [-0.06, 0.03])
def test_mirrored_image_gives_mirrored_mask(size, shift):
    image, _ = chest(size, shift)
    result, mirrored = map(lung_mask_with_confidence, (image, image[:, ::-1]))
    assert np.array_equal(mirrored.mask, result.mask[:, ::-1])
    assert mirrored.confidence == result.confidence


@pytest.mark.parametrize("seed", range(3))
def test_symmetric_image_gives_symmetric_mask(seed):
    half = texture((224, 112), 4, seed)
    mask = lung_mask(np.hstack([half, half[:, ::-1]]))
    assert dice(mask, mask[:, ::-1]) > 0.99
    assert mean_x(mask) == pytest.approx(0.5, abs=0.5 / 224)


def test_most_unusual_frames_still_show_two_lungs():
    for seed in range(20):
        signs = np.random.default_rng(seed).choice([-1, 1], 7)
        frame = template.FRAME_MEAN + signs * template.FRAME_LIMIT * template.FRAME_SD
        frame = (frame + template.FRAME_MARGIN).astype(np.float32)
        assert_two_lungs(template.draw(frame, (64, 64)).view(bool), (64, 64))


IMAGES = st.tuples(st.integers(1, 90), st.integers(1, 90)).flatmap(
    lambda shape: st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays.arrays(dtype, shape, fill=st.integers(0, np.iinfo(dtype).max))
    )
)
TEXTURES = st.builds(
    texture,
    st.tuples(st.integers(2, 300), st.integers(2, 300)), st.floats(0.3, 40), st.integers(0, 2**16),
)  # fmt: skip


@settings(derandomize=True, max_examples=100)
@given(st.one_of(IMAGES, TEXTURES))
def test_never_fails_and_mirrors_on_any_image(image):
    before = image.copy()
    result, mirrored = map(lung_mask_with_confidence, (image, image[:, ::-1]))
    assert np.array_equal(image, before)
    assert_two_lungs(result.mask, image.shape)
    assert 0.0 <= result.confidence <= 1.0
    assert mirrored.confidence == pytest.approx(result.confidence)
    if min(image.shape) >= 32:
        assert dice(mirrored.mask, result.mask[:, ::-1]) > 0.95


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("shape", [(224, 224), (32, 32), (5, 9), (20, 900), (900, 20)])
def test_constant_image_falls_back_to_the_prior(level, shape):
    result = lung_mask_with_confidence(np.full(shape, level, np.uint8))
    assert result.confidence == 0.0
    assert_two_lungs(result.mask, shape)
    assert shape != (224, 224) or dice(result.mask, PRIOR) > 0.9


def test_confidence_orders_a_chest_before_what_is_none():
    image, _ = chest()
    noise = np.random.default_rng(1).integers(0, 256, image.shape, np.uint8)
    good, faint, none = (
        lung_mask_with_confidence(each).confidence for each in (image, chest(opaque=True)[0], noise)
    )
    assert good > 0.5
    assert good >= faint > none
    for other in (255 - image, image.T, image[:, :80], image[::-1]):
        assert lung_mask_with_confidence(other).confidence < good


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.uint8), np.zeros((0, 5), np.uint8), np.zeros((9, 9))]
)
def test_rejects_what_is_not_a_grey_image(image):
    with pytest.raises(ValueError, match="grey"):
        lung_mask(image)


def test_outline_normals_point_outwards():
    points, normals, weights = template.outline()
    polygon = (points * 1000).astype(np.float32)[:, None]
    for point, normal in zip(points, normals, strict=True):
        outside, inside = ((point + s * 0.02 * normal) * 1000 for s in (1, -1))
        assert cv2.pointPolygonTest(polygon, tuple(map(float, outside)), False) < 0
        assert cv2.pointPolygonTest(polygon, tuple(map(float, inside)), False) > 0
    assert weights.sum() == pytest.approx(1)
