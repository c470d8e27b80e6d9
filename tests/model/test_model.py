"""Stem, hybrid, plain control and test-time augmentation."""

import os
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import SMALL, small_hybrid, small_plain
from safetensors.torch import save_file

from hybridlungvit.config import study_from
from hybridlungvit.io import StudyError
from hybridlungvit.model import HybridLungViT, PlainViT, build_model
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.model.stem import Stem
from hybridlungvit.model.tokens import cut_positions

TINY_STEM, OPTIONS = SMALL["stem"], SMALL["stem_options"]
DISTILLED = "deit_tiny_distilled_patch16_224"


pytestmark = pytest.mark.usefixtures("seeded")


def batch(size=3):
    """Normalised images, and masks whose lungs lie left of the centre."""
    masks = torch.zeros(size, 32, 32, dtype=torch.bool)
    masks[:, 8:24, 2:16] = True
    return torch.randn(size, 3, 32, 32), masks


# Forward and backward


@pytest.mark.parametrize(("segmentation", "grid"), [(False, 1), (True, 3)])
def test_hybrid_returns_logits_attention_and_segmentation_if_asked(segmentation, grid):
    output = small_hybrid(segmentation=segmentation, token_grid=grid)(*batch())
    assert output.logits.shape == (3, 2)
    assert output.attention.shape == (3, 2 * grid**2)
    assert torch.allclose(output.attention.sum(1), torch.ones(3), atol=1e-6)
    assert (output.attention >= 0).all()
    assert (output.segmentation.shape == (3, 32, 32)) if segmentation else not output.segmentation


@pytest.mark.parametrize("readout", ["timm", "class_and_mean"])
def test_plain_control_ignores_masks_and_reads_class_token_and_mean_patch(readout):
    model, (images, masks) = small_plain(readout=readout), batch()
    tokens = model.stem.vit.forward_features(images)
    parts = [tokens[:, 0], tokens[:, 1:].mean(1)]
    read = torch.cat(parts[: 1 + (readout != "timm")], dim=1)
    output = model(images, masks)
    assert torch.allclose(output.logits, model.classify(read), atol=1e-6)
    assert output.attention is None and output.segmentation is None
    assert torch.equal(output.logits, model(images, ~masks).logits)


def test_attention_is_the_softmax_it_claims_to_be():
    attend = small_hybrid(heads=1).fusion.cross_attention[0]
    query, tokens = torch.randn(2, 16), torch.randn(2, 8, 16)
    key, value = attend.key_value(tokens).chunk(2, 2)
    mixed = F.scaled_dot_product_attention(attend.query(query)[:, None], key, value)
    answer, weights = attend(query, tokens)
    assert torch.allclose(answer, attend.output(mixed[:, 0]), atol=1e-6)
    assert torch.allclose(torch.einsum("bn,bnd->bd", weights, value), mixed[:, 0], atol=1e-6)


@pytest.mark.parametrize("make", [small_hybrid, small_plain])
def test_gradients_reach_the_stem_and_all_of_the_head(make):
    model = make().train()
    model(*batch()).logits.square().sum().backward()
    heads = [p for name, p in model.named_parameters() if not name.startswith("stem.")]
    for parameter in (model.stem.vit.patch_embed.proj.weight, *heads):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_midline_is_the_mask_cut_of_a_symmetric_mask():
    images, masks = batch()
    model = small_hybrid(cut="midline")
    expected = model(images, masks).logits
    model.cut = "mask"
    assert torch.equal(model(images, masks | masks.flip(2)).logits, expected)


def test_a_shifted_cut_is_that_of_a_shifted_mask():
    images, masks = batch()
    expected = small_hybrid()
    shifted = small_hybrid(cut_shift=0.25)  # 8 of 32 pixels
    shifted.load_state_dict(expected.state_dict())
    moved = masks.roll(8, dims=2)
    assert torch.equal(expected(images, moved).cuts, cut_positions(moved))
    assert torch.equal(shifted(images, masks).cuts, cut_positions(moved))
    assert torch.equal(shifted(images, masks).logits, expected(images, moved).logits)
    assert small_hybrid(cut_shift=-0.5)(images, masks).cuts.tolist() == [0, 0, 0]


def test_without_a_cut_no_mask_matters_and_both_sets_are_the_whole_image():
    images, masks = batch()
    model, seen = small_hybrid(cut="none"), []
    model.fusion.register_forward_pre_hook(lambda _, sets: seen.append(sets))
    assert torch.equal(model(images, masks).logits, model(images, ~masks).logits)
    left, right, whole = seen[0]
    assert torch.equal(left, whole) and torch.equal(right, whole)


def test_each_query_of_the_fusion_starts_from_the_last_answer():
    fusion = small_hybrid(fusion_layers=2).fusion
    sets = [torch.randn(2, 4, 16) for _ in range(3)]
    embedding, attention = fusion(*sets)
    left, right, whole = (tokens + fusion.positions[i] for i, tokens in enumerate(sets))
    lungs = torch.cat([fusion.left_encoder(left), fusion.right_encoder(right)], dim=1)
    whole = torch.cat([fusion.class_token.expand(2, -1, -1), whole], dim=1)
    query = fusion.global_encoder(whole)[:, 0]
    for attend, norm in zip(fusion.cross_attention, fusion.norms, strict=True):
        answer, weights = attend(query, lungs)
        query = norm(query + answer)
    assert torch.allclose(embedding, query, atol=1e-6)
    assert torch.allclose(attention, weights, atol=1e-6)


@pytest.mark.parametrize("pooling", ["side", "lung"])
def test_pooled_tokens_are_projected_and_under_grad_cam_the_map_to_the_same_logits(pooling):
    model, (images, masks) = small_hybrid(dropout=0, pooling=pooling), batch()
    trained, explained = model.train()(images, masks), model.eval()(images, masks)
    with torch.inference_mode():
        scored = model(images, masks)
    for output in (trained, scored):
        assert torch.allclose(output.logits, explained.logits, atol=1e-5)
        assert torch.equal(output.cuts, explained.cuts)


def test_the_segmentation_head_rests_where_nobody_reads_it():
    model, (images, masks) = small_hybrid(segmentation=True), batch()
    model.segment.forward = None  # calling it would fail
    assert model(images, masks, segment=False).segmentation is None


def test_models_of_one_seed_share_the_weights_of_the_parts_they_have_in_common():
    states = []
    for change in ({}, {"segmentation": True}, {"fusion_layers": 2}, {"d_model": 24}):
        torch.manual_seed(3)
        states.append(small_hybrid(**change).state_dict())
    base, segmented, queries, wide = states
    assert all(torch.equal(segmented[name], value) for name, value in base.items())
    parts = ("stem.", "project.", "classify.", "fusion.left")
    assert all(torch.equal(queries[k], v) for k, v in base.items() if k.startswith(parts))
    assert all(torch.equal(wide[k], v) for k, v in base.items() if k.startswith("stem."))
    torch.manual_seed(4)
    assert not torch.equal(small_hybrid().state_dict()["classify.weight"], base["classify.weight"])


# Freezing


def test_a_frozen_stem_has_no_dropout_until_it_is_unfrozen():
    noisy = OPTIONS | {"drop_path_rate": 0.5, "proj_drop_rate": 0.5}
    stem, (images, _) = Stem(TINY_STEM, 32, options=noisy), batch()
    stem.freeze(True)
    stem.train()
    assert not any(module.training for module in stem.vit.modules())
    assert torch.equal(stem(images).patches, stem(images).patches)
    stem.freeze(False)
    assert all(module.training for module in stem.vit.modules())
    assert not torch.equal(stem(images).patches, stem(images).patches)
    stem.eval()
    stem.freeze(False)
    assert not any(module.training for module in stem.vit.modules())


# Weights


def save(vit, path):
    state = {key: value.contiguous() for key, value in vit.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state} if path.stem == "wrapped" else state, path)
    return path


def timm_model(name=TINY_STEM, size=32, **options):
    """A random timm model of 1000 classes, its tokens far from zero."""
    vit = timm.create_model(name, img_size=size, **(OPTIONS | options)).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return vit


@pytest.mark.parametrize(
    ("name", "prefix", "file"),
    [(TINY_STEM, 1, "w.safetensors"), (TINY_STEM, 1, "w.pth"), (DISTILLED, 2, "wrapped.pth")],
)
@torch.inference_mode()
def test_stem_is_timms_own_model(tmp_path, name, prefix, file):
    vit, (images, _) = timm_model(name), batch()
    stem = Stem(name, 32, save(vit, tmp_path / file), OPTIONS).eval()
    tokens = vit.forward_features(images)
    assert tokens.shape[1] == prefix + 16
    features = stem(images).map(stem.grid)
    assert features.shape == (3, stem.dim, 4, 4)
    for place in range(16):
        assert torch.equal(features[:, :, place // 4, place % 4], tokens[:, prefix + place])
    assert torch.equal(stem(images).pooled, vit.forward_head(tokens, pre_logits=True))


def test_a_patch_behind_convolutions_is_told_in_pixels_of_the_image():
    stem = Stem("vit_tiny_r_s16_p8_224", 64, False, {"depth": 1})
    assert (stem.grid, stem.patch) == ((2, 2), 32)


# Published weights are not ours to ship and a test must need no network: .ci/run names a file.
PUBLISHED = os.environ.get("HYBRIDLUNGVIT_TEST_WEIGHTS", "")


@pytest.mark.skipif(not PUBLISHED, reason="HYBRIDLUNGVIT_TEST_WEIGHTS names no DeiT-Tiny weights")
@pytest.mark.parametrize("size", [224, 128])
def test_published_weights_give_what_timm_gives(size):
    overlay = {"file": PUBLISHED}
    own = timm.create_model(
        TINY_STEM, pretrained=True, pretrained_cfg_overlay=overlay, img_size=size
    ).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    stem = Stem(TINY_STEM, size, PUBLISHED).eval()
    with torch.inference_mode():
        tokens = own.forward_features(images)
        assert torch.equal(stem(images).patches, tokens[:, 1:])
        assert torch.equal(stem(images).pooled, own.forward_head(tokens, True))


@pytest.mark.parametrize(("name", "prefix"), [(TINY_STEM, 1), (DISTILLED, 2)])
@torch.inference_mode()
def test_position_embeddings_are_resampled_to_another_image_size(tmp_path, name, prefix):
    vit = timm_model(name)
    stem = Stem(name, 48, save(vit, tmp_path / "w.safetensors"), OPTIONS).eval()
    old, new = vit.pos_embed, stem.vit.pos_embed
    assert torch.equal(new[:, :prefix], old[:, :prefix])
    grid = old[:, prefix:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)
    assert torch.allclose(new[:, prefix:], grid.flatten(2).transpose(1, 2), atol=1e-6)
    assert torch.equal(stem.vit.patch_embed.proj.weight, vit.patch_embed.proj.weight)
    assert stem(torch.randn(1, 3, 48, 48)).map(stem.grid).shape == (1, stem.dim, 6, 6)


@pytest.mark.parametrize(
    ("name", "size", "options", "words"),
    [
        ("deit_tiny_patch16_244", 32, {}, r"'deit_tiny_patch16_244'.* deit_tiny_patch16_224"),
        ("deit", 32, {}, r"'deit'; try one of deit_\w+, deit_"),
        (TINY_STEM, 36, OPTIONS, r"data.image_size: 36 .* patch 8"),
        (TINY_STEM, 32, {"depthh": 1}, r"stem_options\.depthh: .* did you mean 'depth'"),
    ],
)
def test_a_stem_that_cannot_be_built_is_refused_by_what_is_wrong(name, size, options, words):
    with pytest.raises(StudyError, match=f"(?s){words}"):
        Stem(name, size, options=options)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("deit_small_patch16_224", OPTIONS, 32),
        (TINY_STEM, {"depth": 3, "patch_size": 8}, 32),
        (TINY_STEM, {"depth": 1, "patch_size": 8}, 32),
        ("resnet10t", {}, 32),
        (DISTILLED, {"depth": 1}, 224),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, name, options, size):
    path = save(timm.create_model(name, **options), tmp_path / "other.pth")
    own = OPTIONS if size == 32 else options
    with pytest.raises(StudyError, match=r"other.pth: these are no weights of 'deit_tiny"):
        Stem(TINY_STEM, size, path, own)


def test_weights_of_a_model_that_pools_its_patches_are_whole(tmp_path):
    """timm then keeps the last norm under the name of one that belongs to the classifier."""
    options = OPTIONS | {"global_pool": "avg"}
    torch.manual_seed(1)
    made = timm.create_model(TINY_STEM, img_size=32, **options)
    torch.nn.init.normal_(made.fc_norm.weight)
    read = Stem(TINY_STEM, 32, save(made, tmp_path / "w.pth"), options)
    assert torch.equal(read.vit.fc_norm.weight, made.fc_norm.weight)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    made = timm_model()
    made.state_dict()["blocks.0.mlp.fc1.bias"][3] = value
    with pytest.raises(StudyError, match=r"w.pth: blocks.0.mlp.fc1.bias holds .* not finite"):
        Stem(TINY_STEM, 32, save(made, tmp_path / "w.pth"), OPTIONS)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    "dump", [torch.save, lambda evil, path: path.write_bytes(pickle.dumps(evil))]
)
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, dump):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    dump(Malicious(str(trace)), path)
    with pytest.raises(StudyError, match=r"evil.pth.*refused"):
        Stem(TINY_STEM, 32, path, OPTIONS)
    assert not trace.exists()


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("damage", ["missing", 0, 0.5, [1, 2], {"model": 3}])
def test_weights_that_are_missing_truncated_or_no_state_dict_are_named(tmp_path, file, damage):
    path = save(timm_model(), tmp_path / file)
    if damage == "missing":
        path.unlink()
    elif isinstance(damage, int | float):
        path.write_bytes(path.read_bytes()[: int(damage * path.stat().st_size)])
    else:
        torch.save(damage, path)
    with pytest.raises(StudyError, match=file):
        Stem(TINY_STEM, 32, path, OPTIONS)


# Test-time augmentation


@pytest.mark.parametrize("make", [small_hybrid, small_plain])
def test_tta_gives_an_image_and_its_mirror_the_same_probability(make):
    model = make()
    images = torch.randint(0, 256, (4, 32, 32), dtype=torch.uint8)
    _, masks = batch(4)
    mirrored = images.flip(2), masks.flip(2)
    found = pneumonia_probability(model, images, masks, tta=True)
    assert torch.allclose(pneumonia_probability(model, *mirrored, tta=True), found, atol=1e-6)
    single = [
        pneumonia_probability(model, *pair, tta=False) for pair in ((images, masks), mirrored)
    ]
    assert (single[0] - single[1]).abs().max() > 1e-3
    assert torch.allclose(found, (single[0] + single[1]) / 2, atol=1e-12)


def test_probability_is_the_softmax_of_the_pneumonia_logit():
    model = small_plain()
    images = torch.randint(0, 256, (4, 32, 32), dtype=torch.uint8)
    _, masks = batch(4)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = (images[:, None] / 255 - mean[:, None, None]) / std[:, None, None]
    normal, pneumonia = model(inputs, masks).logits.double().unbind(1)
    found = pneumonia_probability(model, images, masks, tta=False)
    assert found.dtype == torch.float64
    assert torch.allclose(found, 1 / (1 + (normal - pneumonia).exp()), atol=1e-6)


# Recipes


def test_build_model_hands_every_setting_on(tiny):
    tiny["model"] |= {"d_model": 24, "token_grid": 3, "heads": 3, "encoder_layers": 2}
    tiny["model"] |= {"dropout": 0.3, "cut": "midline", "map_size": 5, "fusion_layers": 2}
    tiny["model"] |= {"pooling": "lung", "cut_shift": 0.25}
    study, variants = study_from(tiny, "x"), ("no_seg", "seg_0.1", "plain_deit")
    base, model, control = (build_model(study.recipe(v), pretrained=False) for v in variants)
    assert isinstance(base, HybridLungViT) and isinstance(control, PlainViT)
    assert base.segment is None
    assert (control.stem.grid, len(control.stem.vit.blocks)) == ((4, 4), 1)
    assert model.cut == "midline"
    assert model.project.out_features == 24
    assert model.fusion.positions.shape == (3, 1, 9, 24)
    assert [layer.heads for layer in model.fusion.cross_attention] == [3, 3]
    assert model.fusion.cross_attention[0].dropout.p == 0.3
    assert (model.tokens.pooling, model.shift) == ("lung", 8)
    assert len(model.fusion.left_encoder.layers) == 2
    assert (model.segment.map_size, model.segment.image_size) == (5, 32)


def test_build_model_reads_weights_only_when_asked(tiny, tmp_path):
    vit = timm_model(depth=1)
    tiny["model"]["pretrained"] = str(save(vit, tmp_path / "w.safetensors"))
    recipe = study_from(tiny, "x").recipe("no_seg")
    with_weights = build_model(recipe, pretrained=True).stem.vit.cls_token
    assert torch.equal(with_weights, vit.cls_token)
    assert not torch.equal(build_model(recipe, pretrained=False).stem.vit.cls_token, vit.cls_token)
