"""Models in the layout of the model hub: saved, loaded, and refused in one sentence."""

import json
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from hybridlungvit.io import StudyError
from hybridlungvit.model import HybridLungViT, PlainViT

SIZE = {"image_size": 32, "stem": "deit_tiny_patch16_224",
        "stem_options": {"depth": 1, "patch_size": 8, "embed_dim": 24, "num_heads": 2}}  # fmt: skip
SMALL = SIZE | {"d_model": 8, "heads": 2, "token_grid": 2, "map_size": 8, "encoder_layers": 1}
MODELS = {
    HybridLungViT: SMALL | {"segmentation": True, "cut": "midline", "cut_shift": 0.1},
    PlainViT: SIZE | {"readout": "class_and_mean"},
}


@pytest.fixture(params=list(MODELS), ids=lambda model: model.__name__)
def saved(request, tmp_path):
    """A model and the folder it was saved to."""
    model = request.param(**MODELS[request.param]).eval()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_a_saved_model_comes_back_with_its_outputs(saved):
    model, folder = saved
    assert {path.name for path in folder.iterdir()} >= {
        "config.json", "model.safetensors", "README.md"
    }  # fmt: skip
    again = type(model).from_pretrained(folder)
    images, masks = torch.randn(2, 3, 32, 32), torch.rand(2, 32, 32) > 0.5
    for before, after in zip(model(images, masks), again(images, masks), strict=True):
        assert (before is None and after is None) or torch.equal(before, after)
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert ModelCard.load(folder / "README.md").data.license == "mit"


def test_what_else_the_config_tells_is_kept_and_no_path_is(tmp_path):
    stem = HybridLungViT(**SMALL).stem.vit.state_dict()
    save_file(stem, tmp_path / "secret.safetensors")
    model = HybridLungViT(**SMALL, pretrained=str(tmp_path / "secret.safetensors"))
    model.save_pretrained(tmp_path / "a", config=model._hub_mixin_config | {"study": "x"})
    (tmp_path / "secret.safetensors").unlink()
    HybridLungViT.from_pretrained(str(tmp_path / "a")).save_pretrained(tmp_path / "b")
    text = (tmp_path / "b" / "config.json").read_text()
    assert text == (tmp_path / "a" / "config.json").read_text()
    assert json.loads(text)["study"] == "x"
    assert "secret" not in text


def test_a_name_on_the_hub_is_fetched_without_the_stems_weights(saved, monkeypatch):
    model, folder = saved
    download = Mock(return_value=str(folder))
    monkeypatch.setattr("hybridlungvit.model.hub.snapshot_download", download)
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail())
    again = type(model).from_pretrained("somebody/lungs", revision="v1")
    files = ["config.json", "model.safetensors"]
    download.assert_called_once_with("somebody/lungs", allow_patterns=files, revision="v1")
    assert torch.equal(again.classify.weight, model.classify.weight)


def test_pushing_uploads_what_is_saved(saved, monkeypatch):
    model, _ = saved
    api, uploaded = Mock(), {}
    api.create_repo.return_value.repo_id = "somebody/lungs"
    api.upload_folder = lambda repo_id, folder_path, **_: uploaded.update(
        {repo_id: sorted(path.name for path in folder_path.iterdir())}
    )
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda token: api)
    model.push_to_hub("somebody/lungs")
    assert uploaded == {"somebody/lungs": ["README.md", "config.json", "model.safetensors"]}


@pytest.mark.parametrize(
    "change",
    [
        {"d_model": "wide"}, {"stem": "nope"}, {"cut": "odd"}, {"stem_options": [1]},
        {"stem_options": {"depth": 10**7}}, {"encoder_layers": 10**7},
        {"d_model": 10**9, "heads": 1}, {"image_size": 10**6}, {"image_size": None},
        {"d_model": 16}, {"segmentation": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_with_wrong_values_is_refused_in_one_sentence(tmp_path, change):
    HybridLungViT(**SMALL).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StudyError, match="does not fit this version") as refused:
        HybridLungViT.from_pretrained(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", None, "config.json: cannot be read"),
        ("config.json", b"[" * 100_000, "config.json: cannot be read"),
        ("config.json", b"\xff", "config.json: cannot be read"),
        ("config.json", b"[]", "holds no JSON object"),
        ("model.safetensors", None, "model.safetensors: cannot be read"),
        ("model.safetensors", slice(-100), "model.safetensors: cannot be read"),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, name, content, expected):
    HybridLungViT(**SMALL).save_pretrained(tmp_path)
    file = tmp_path / name
    whole = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(whole[content] if isinstance(content, slice) else content)
    with pytest.raises(StudyError, match=expected) as refused:
        HybridLungViT.from_pretrained(tmp_path)
    assert "\n" not in str(refused.value)


def test_another_class_and_what_is_neither_folder_nor_name_are_refused(tmp_path):
    PlainViT(**SIZE).save_pretrained(tmp_path)
    with pytest.raises(StudyError, match="does not fit"):
        HybridLungViT.from_pretrained(tmp_path)
    with pytest.raises(StudyError, match=r"no/such/folder: no such folder, and the model hub"):
        HybridLungViT.from_pretrained("no/such/folder")
