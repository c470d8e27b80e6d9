"""Training: resumed, repeated and refused runs, the frozen stem, and the records."""

import copy
import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import beside
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from hybridlungvit.config import Augmentation, Training, study_from
from hybridlungvit.data.cache import open_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.score import load_run
from hybridlungvit.io import StudyError, file_sha256, write_json
from hybridlungvit.model import build_model
from hybridlungvit.runtime import device_name
from hybridlungvit.training import loop as training_loop
from hybridlungvit.training import losses, record, trainer
from hybridlungvit.training.loop import _finished, train
from hybridlungvit.training.record import run_key, tensors_sha256, weights_sha256
from hybridlungvit.training.trainer import Trainer

VARIANT = "seg_0.1"  # every part of the loss
CPU = torch.device("cpu")


def outcome(layout, variant=VARIANT, seed=0):
    run = layout.run(variant, seed)
    return (run / "model.safetensors").read_bytes(), (run / "history.csv").read_bytes()


@pytest.fixture(scope="module")
def whole(study, cached, tmp_path_factory):
    """An uninterrupted run; tests must not alter it."""
    layout = beside(cached, tmp_path_factory.mktemp("whole") / "results")
    train(study, VARIANT, 0, layout)
    return layout


def interrupt_at(monkeypatch, *epochs):
    """Raise KeyboardInterrupt after the training of each of these epochs, once."""
    left, run_epoch = list(epochs), Trainer.run_epoch

    def interrupted(self, epoch):
        result = run_epoch(self, epoch)
        if epoch in left:
            left.remove(epoch)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Trainer, "run_epoch", interrupted)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(study, layout, whole, monkeypatch):
    interrupt_at(monkeypatch, 0, 1, 2)
    for epoch in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(study, VARIANT, 0, layout)
        assert not layout.run(VARIANT, 0).exists()
        names = [f.name for f in layout.work(VARIANT, 0).glob("*epoch-*")]
        assert names == ([f"epoch-{epoch:04d}"] if epoch else [])
    train(study, VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)


def test_a_run_killed_before_its_records_writes_them_when_run_again(
    study, layout, whole, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_loop, "write_run", killed)
        train(study, VARIANT, 0, layout)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", killed)
        train(study, VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)


def test_a_draft_of_a_checkpoint_is_ignored(study, layout, whole, monkeypatch):
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(study, VARIANT, 0, layout)
    (checkpoint,) = layout.work(VARIANT, 0).glob("epoch-0001")
    draft = checkpoint.with_name(".epoch-0002")
    draft.mkdir()
    (draft / "state.pt").write_bytes(b"half")
    train(study, VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)


def test_a_resumed_run_remembers_the_plateau(tiny, layout, monkeypatch):
    tiny["training"] |= {"epochs": 4, "plateau_patience": 1}
    aucs = iter([0.7, 0.6, 0.5, 0.4])
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"val_auc": next(aucs)})
    interrupt_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(study_from(tiny, "x"), "no_seg", 0, layout)
    train(study_from(tiny, "x"), "no_seg", 0, layout)
    history = pd.read_csv(layout.run("no_seg", 0) / "history.csv")
    assert history.learning_rate.tolist() == [1e-3, 2e-4, 2e-4, 1e-4]


def test_another_seed_gives_another_model(study, layout, whole):
    train(study, VARIANT, 1, layout)
    assert outcome(layout, seed=1)[0] != outcome(whole)[0]
    assert outcome(layout, seed=1)[1] != outcome(whole)[1]


def test_two_runs_are_identical_whatever_the_loader_and_the_global_state(tiny, layout, whole):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - a stream the training must not depend on
    tiny["compute"]["loader_workers"] = 1
    train(study_from(tiny, "x"), VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)


def test_epochs_flush_subnormals(study, layout, monkeypatch):
    products, run_epoch = [], Trainer.run_epoch

    def observed(self, epoch):
        products.append((torch.tensor([1e-30]) * 1e-10).item())
        return run_epoch(self, epoch)

    monkeypatch.setattr(Trainer, "run_epoch", observed)
    train(study, VARIANT, 0, layout)
    assert products and max(products) == 0
    assert (torch.tensor([1e-30]) * 1e-10).item() > 0


def test_the_best_epoch_is_kept_though_later_ones_are_worse(study, layout, monkeypatch):
    aucs, states = iter([0.6, 0.9, 0.7]), []

    def validate(self, *_):
        states.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return {"val_auc": next(aucs)}

    monkeypatch.setattr(Trainer, "validate", validate)
    train(study, VARIANT, 0, layout)
    kept = load_file(layout.run(VARIANT, 0) / "model.safetensors")
    agree = [all(torch.equal(kept[k], v) for k, v in state.items()) for state in states]
    assert agree == [False, True, False]


# Stem


def assembled(study, layout, model=None, variant=VARIANT):
    """A trainer at the start of a run."""
    recipe, manifest = study.recipe(variant), read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, recipe.data.image_size)
    rows = {name: np.flatnonzero(manifest.split == name) for name in ("train", "val")}
    labels = {name: manifest.label.to_numpy()[index] for name, index in rows.items()}
    model = model or build_model(recipe, pretrained=True)
    return Trainer(recipe, 0, torch.device("cpu"), model, cache, rows, labels)


@pytest.mark.parametrize("lowers", ["all", "stem"])
def test_the_learning_rate_falls_when_the_stem_is_unfrozen(tiny, cached, lowers):
    tiny["training"] |= {"unfreeze_lowers": lowers, "unfreeze_factor": 0.25, "freeze_epochs": 2}
    ready = assembled(study_from(tiny, "x"), cached)
    stem = {id(p) for p in ready.model.stem.parameters()}
    grouped = [id(p) for g in ready.optimizer.param_groups for p in g["params"]]
    assert sorted(grouped) == sorted(map(id, ready.model.parameters()))
    rates = []
    for epoch in range(4):
        ready.start_epoch(epoch)
        rates.append({id(p) in stem: g["lr"] for g in ready.optimizer.param_groups
                      for p in g["params"]})  # fmt: skip
    before, after = {False: 1e-3, True: 1e-3}, {False: 2.5e-4, True: 2.5e-4}
    if lowers == "stem":
        before = after = {False: 1e-3, True: 2.5e-4}
    assert rates == [before, before, after, after]


def test_a_plateau_that_went_lower_is_not_undone_by_unfreezing(study, cached):
    ready = assembled(study, cached)
    ready.optimizer.param_groups[0]["lr"] = 1e-5
    ready.start_epoch(1)
    assert ready.rate == 1e-5


def test_first_step_is_the_learning_rate_of_each_group(tiny, cached):
    """Adam's first step is lr in each coordinate: the sign of the gradient."""
    tiny["training"] |= {"weight_decay": 0, "batch_size": 60, "freeze_epochs": 0}
    tiny["training"]["unfreeze_lowers"] = "stem"
    ready = assembled(study_from(tiny, "x"), cached)
    before = {k: v.clone() for k, v in ready.model.state_dict().items()}
    ready.run_epoch(0)
    for name, value in ready.model.state_dict().items():
        step = 1e-3 * (0.2 if name.startswith("stem.") else 1)
        assert (value - before[name]).abs().max().item() == pytest.approx(step, rel=1e-2)


def test_the_stem_rests_while_frozen_and_learns_afterwards(study, cached):
    ready = assembled(study, cached)
    for epoch, frozen in ((0, True), (1, False), (2, False)):
        before = [p.detach().clone() for p in ready.model.stem.parameters()]
        head = ready.model.classify.weight.detach().clone()
        ready.run_epoch(epoch)
        after = ready.model.stem.parameters()
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(same) if frozen else not any(same)
        assert not torch.equal(head, ready.model.classify.weight)


def test_a_stem_frozen_throughout_keeps_the_weights_it_was_given(tiny, layout, tmp_path):
    options = {"img_size": 32, "depth": 1, "patch_size": 8}
    vit = timm.create_model("deit_tiny_patch16_224", num_classes=0, **options)
    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    tiny["training"]["freeze_epochs"] = "all"
    tiny["model"]["pretrained"] = str(tmp_path / "w.safetensors")
    train(study_from(tiny, "x"), "no_seg", 0, layout)
    trained = load_file(layout.run("no_seg", 0) / "model.safetensors")
    for name, value in vit.state_dict().items():
        assert torch.equal(trained[f"stem.vit.{name}"], value)
    run = json.loads((layout.run("no_seg", 0) / "run.json").read_text())
    digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert (run["pretrained"], run["weights_sha256"]) == ("file", digest)


def test_attention_is_compared_with_the_lungs_at_the_models_own_cut(tiny, cached, monkeypatch):
    tiny["model"]["cut"] = "midline"
    cuts, shares = [], losses.lung_shares
    monkeypatch.setattr(losses, "lung_shares", lambda m, c, g: (cuts.append(c), shares(m, c, g))[1])
    ready = assembled(study_from(tiny, "x"), cached)
    ready.run_epoch(0)
    assert torch.cat(cuts).unique().tolist() == [16]


def test_each_epoch_and_seed_has_a_random_stream_of_its_own(study, cached):
    ready, draws = assembled(study, cached), set()
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        ready.seed = seed
        ready.start_epoch(epoch)
        draws.add(torch.rand(1).item())
    ready.start_epoch(0)
    assert torch.rand(1).item() in draws and len(draws) == 4


def first_inputs(ready, epoch):
    return next(ready.batches(epoch)).inputs


def test_each_epoch_and_seed_has_views_of_its_own(study, cached):
    ready = assembled(study, cached)
    other = copy.copy(ready)
    other.seed = 1
    still = Augmentation(
        crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, rotation=0, brightness=0, contrast=0
    )
    assert torch.equal(first_inputs(ready, 0), first_inputs(ready, 0))
    inputs = [first_inputs(*which) for which in ((ready, 0), (ready, 1), (other, 0))]
    assert not any(torch.equal(inputs[i], inputs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for trainer_ in (ready, other):
        trainer_.recipe = trainer_.recipe.model_copy(update={"augmentation": still})
    means = {tuple(first_inputs(r, e).mean((1, 2, 3)).sort().values.tolist())
             for r, e in ((ready, 0), (ready, 1), (other, 0))}  # fmt: skip
    assert len(means) == 3, "the sampler draws other images"


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("training", {"loss": "focal"}),
        ("augmentation", {"mix": "mixup"}),
        ("augmentation", {"mix": "cutmix", "mix_alpha": 1.0}),
        ("augmentation", {"randaugment": 2}),
    ],
)
def test_the_optional_recipes_train_and_repeat(tiny, layout, tmp_path, whole, section, changes):
    tiny["training"]["epochs"] = 1
    tiny[section] = tiny.get(section, {}) | changes
    again = beside(layout, tmp_path / "again")
    for folder in (layout, again):
        train(study_from(tiny, "x"), VARIANT, 0, folder)
    assert outcome(layout) == outcome(again)
    first = pd.read_csv(whole.run(VARIANT, 0) / "history.csv").iloc[0]
    mine = pd.read_csv(layout.run(VARIANT, 0) / "history.csv").iloc[0]
    assert np.isfinite(mine).all()
    assert mine.classification != first.classification, "the setting reaches the training"


# Stopping


@pytest.mark.parametrize(
    ("aucs", "changes", "expected"),
    [
        ([], {"epochs": 3, "patience": 1}, False),
        ([0.5], {"epochs": 3, "patience": 1}, False),
        ([0.5, 0.6, 0.7], {"epochs": 3, "patience": 5}, True),
        ([0.7, 0.6], {"epochs": 9, "patience": 2}, False),
        ([0.7, 0.6, 0.6], {"epochs": 9, "patience": 2}, True),
        ([0.7, 0.7, 0.7], {"epochs": 9, "patience": 2}, True),
        ([0.7, 0.6, 0.8], {"epochs": 9, "patience": 2}, False),
        ([0.7, 0.6, 0.8, 0.7, 0.8], {"epochs": 9, "patience": 2}, True),
        ([0.7, 0.6, 0.6, 0.6], {"epochs": 9, "patience": 2, "freeze_epochs": 3}, False),
        ([0.7, 0.6, 0.6, 0.6, 0.6], {"epochs": 9, "patience": 2, "freeze_epochs": 3}, True),
        ([0.7, 0.6, 0.6], {"epochs": 9, "patience": 2, "freeze_epochs": "all"}, True),
    ],
)
def test_training_stops_at_the_last_epoch_or_without_progress(aucs, changes, expected):
    history = [{"epoch": i + 1, "val_auc": auc} for i, auc in enumerate(aucs)]
    assert _finished(history, Training(**({"freeze_epochs": 0} | changes))) == expected


def test_a_run_without_progress_stops_early_and_says_why(tiny, layout, monkeypatch, caplog):
    tiny["training"] |= {"epochs": 9, "patience": 2, "plateau_patience": 0, "freeze_epochs": 0}
    aucs = iter([0.6, 0.7, 0.7, 0.65, 0.9])
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"val_auc": next(aucs)})
    with caplog.at_level("INFO"):
        train(study_from(tiny, "x"), "no_seg", 0, layout)
    history = pd.read_csv(layout.run("no_seg", 0) / "history.csv")
    assert history.val_auc.tolist() == [0.6, 0.7, 0.7, 0.65]
    assert history.learning_rate.tolist() == [1e-3, 1e-3, 1e-3, 5e-4]
    run = json.loads((layout.run("no_seg", 0) / "run.json").read_text())
    assert (run["best_epoch"], run["epochs_run"], run["best_val_auc"]) == (2, 4, 0.7)
    for words in ("learning rate 0.0005 from 0.001", "stopped after epoch 4", "kept epoch 2"):
        assert words in caplog.text


@pytest.mark.parametrize(
    ("changes", "aucs", "rates"),
    [
        # Neither patience nor plateau count before the unfreezing.
        (
            {"epochs": 6, "patience": 2, "freeze_epochs": 3},
            [0.9, 0.5, 0.5, 0.6, 0.6],
            [1e-3, 1e-3, 1e-3, 2e-4, 1e-4],
        ),
        # The smallest rise counts for the plateau as for the kept epoch.
        ({"epochs": 5, "freeze_epochs": 0}, [0.9 + 2e-5 * k for k in range(5)], [1e-3] * 5),
    ],
)
def test_the_learning_rate_falls_at_a_plateau_after_the_unfreezing(
    tiny, layout, monkeypatch, changes, aucs, rates
):
    tiny["training"] |= {"plateau_patience": 0} | changes
    left = iter(aucs)
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"val_auc": next(left)})
    train(study_from(tiny, "x"), "no_seg", 0, layout)
    history = pd.read_csv(layout.run("no_seg", 0) / "history.csv")
    assert history.learning_rate.tolist() == rates


# What goes wrong


def test_a_loss_that_is_not_finite_names_the_epoch_and_keeps_the_checkpoint(
    study, layout, whole, monkeypatch
):
    parts, calls = trainer.loss_parts, []

    def broken(*values):
        calls.append(None)
        good = parts(*values)
        return good if len(calls) < 4 else good | {"classification": torch.tensor(float("nan"))}

    with monkeypatch.context() as patch, pytest.raises(StudyError, match=r"epoch 2, .*loss is nan"):
        patch.setattr(trainer, "loss_parts", broken)
        train(study, VARIANT, 0, layout)
    assert len(calls) == 4, "the fourth batch is in the second epoch"
    assert [f.name for f in layout.work(VARIANT, 0).glob("*epoch-*")] == ["epoch-0001"]
    train(study, VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)


def test_weights_that_explode_in_the_last_step_are_told_in_words(tiny, layout):
    tiny["training"] |= {"learning_rate": 1e30, "batch_size": 60, "freeze_epochs": 0}
    with pytest.raises(StudyError, match="epoch 1"):
        train(study_from(tiny, "x"), "no_seg", 0, layout)


def test_a_damaged_checkpoint_names_its_folder(study, layout, monkeypatch):
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(study, "plain_deit", 0, layout)
    (folder,) = layout.work("plain_deit", 0).glob("epoch-0001")
    for name in ("state.pt", "model.safetensors", "best.safetensors"):
        file = folder / name
        whole_file = file.read_bytes()
        for damaged in (None, whole_file[: len(whole_file) // 2]):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            with pytest.raises(StudyError, match=f"{folder}: damaged .* Delete this folder"):
                train(study, "plain_deit", 0, layout)
        file.write_bytes(whole_file)
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(StudyError, match=f"(?s){folder.parent}: damaged .* Delete this folder"):
        train(study, "plain_deit", 0, layout)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_missing_from_a_split_is_named(study, layout, split):
    table = read_manifest(layout.manifest)
    table.loc[table.split == split, "label"] = 1
    layout.manifest.unlink()
    table.to_csv(layout.manifest, index=False)
    shared = layout.images.parent.resolve()
    layout.images.parent.unlink()
    shutil.copytree(shared, layout.images.parent)
    write_json(layout.cache_record, {"manifest_sha256": file_sha256(layout.manifest)})
    with pytest.raises(StudyError, match=f"manifest.csv: split {split} lacks"):
        train(study, VARIANT, 0, layout)


# Records


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_run_json_tells_where_the_model_comes_from(study, whole):
    folder = whole.run(VARIANT, 0)
    run = json.loads((folder / "run.json").read_text())
    assert (run["study"], run["variant"], run["seed"]) == ("tiny", VARIANT, 0)
    assert run["manifest_sha256"] == sha256(whole.manifest)
    assert run["model_sha256"] == sha256(folder / "model.safetensors")
    assert run["config_sha256"] == study.training_hash(VARIANT)
    assert (run["pretrained"], run["weights_sha256"]) == (False, None)
    weights = load_file(folder / "model.safetensors")
    assert run["parameters"] == sum(v.numel() for v in weights.values())
    stem = sum(v.numel() for k, v in weights.items() if k.startswith("stem."))
    assert run["stem_parameters"] == stem
    assert run["stem"] == {"patch": 8, "dim": 192}
    assert (run["threads"], run["packages"]["torch"]) == (1, torch.__version__.split("+")[0])
    assert (run["torch_build"], run["packages"]["timm"]) == (torch.__version__, timm.__version__)
    assert (run["device_kind"], run["device"]) == ("cpu", device_name(CPU))
    history = pd.read_csv(folder / "history.csv")
    assert run["epochs_run"] == len(history) == 3
    assert run["best_epoch"] == history.epoch[history.val_auc.idxmax()]
    timing = pd.read_csv(folder / "timing.csv")
    assert run["wall_seconds"] == pytest.approx(timing.seconds.sum())
    assert len(timing) == 3
    assert (timing.peak_memory_mb.between(50, 50_000)).all()


def test_validation_measures_are_those_of_scikit_learn(study, whole):
    model = load_run(study, VARIANT, 0, whole)
    ready = assembled(study, whole, model)
    probability, labels = ready.probabilities("val", tta=False), ready.labels["val"]
    found = ready.validate(0)
    assert found["val_auc"] == pytest.approx(roc_auc_score(labels, probability), abs=1e-12)
    best = json.loads((whole.run(VARIANT, 0) / "run.json").read_text())["best_val_auc"]
    assert found["val_auc"] == pytest.approx(best, abs=1e-9)
    assert found["val_accuracy"] == accuracy_score(labels, probability >= 0.5)
    assert found["val_loss"] == pytest.approx(log_loss(labels, probability), abs=1e-12)


def test_history_has_a_column_for_each_part_of_the_loss(whole):
    history = pd.read_csv(whole.run(VARIANT, 0) / "history.csv")
    losses = ["classification", "segmentation", "attention"]
    measures = ["val_auc", "val_accuracy", "val_loss", "val_segmentation", "val_dice"]
    assert list(history.columns) == ["epoch", "learning_rate", *losses, *measures]
    assert history.notna().all(axis=None)


def test_tensorboard_gets_the_history_once_though_an_epoch_is_repeated(
    study, layout, whole, monkeypatch
):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    interrupt_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(study, VARIANT, 0, layout)
    train(study, VARIANT, 0, layout)
    events = reader.EventAccumulator(str(layout.events(VARIANT, 0))).Reload()
    history = pd.read_csv(layout.run(VARIANT, 0) / "history.csv")
    for name in set(history.columns) - {"epoch"}:
        points = events.Scalars(f"history/{name}")
        assert [p.step for p in points] == [1, 2, 3]
        assert np.allclose([p.value for p in points], history[name], rtol=1e-6)
    assert len(events.Scalars("timing/images_per_second")) == 3


def test_training_needs_no_tensorboard(study, layout, monkeypatch):
    monkeypatch.setattr("hybridlungvit.training.loop.find_spec", lambda _: None)
    train(study, "plain_deit", 0, layout)
    assert not layout.events("plain_deit", 0).exists()


def test_a_finished_run_leaves_its_four_files_and_no_checkpoint(whole):
    names = {file.name for file in whole.run(VARIANT, 0).iterdir()}
    assert names == {"model.safetensors", "history.csv", "timing.csv", "run.json"}
    assert not whole.work(VARIANT, 0).exists()


# Identity


def hub(monkeypatch, *changes):
    """timm's hub played by a model of fixed weights; ``changes`` alter them in place."""
    create = timm.create_model

    def created(name, pretrained=False, **options):
        vit = create(name, pretrained=False, **options)
        if pretrained:
            generator = torch.Generator().manual_seed(5)
            for value in vit.state_dict().values():
                value.copy_(torch.rand(value.shape, generator=generator))
            for change in changes:
                change(vit.state_dict())
        return vit

    monkeypatch.setattr(timm, "create_model", created)


def literal_fingerprint(state):
    text = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        text.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        text.update(bytes(value.flatten().numpy()))
    return text.hexdigest()


def fingerprint(tiny, variant="no_seg"):
    recipe = study_from(tiny, "x").recipe(variant)
    return weights_sha256(recipe, build_model(recipe, pretrained=True).stem)


def test_hub_weights_are_known_by_every_loaded_tensor(tiny, monkeypatch):
    tiny["model"]["pretrained"] = True
    with monkeypatch.context() as patch:
        hub(patch)
        first = fingerprint(tiny)
        assert first == fingerprint(tiny, "plain_deit"), "the same stem under another head"
        stem = build_model(study_from(tiny, "x").recipe("no_seg"), pretrained=True).stem
        assert first == literal_fingerprint(stem.state_dict())
    others = set()
    for name in ("cls_token", "pos_embed", "blocks.0.mlp.fc2.bias", "norm.weight"):
        with monkeypatch.context() as patch:
            hub(patch, lambda state, name=name: state[name].view(-1)[-1:].mul_(1.0001))
            others.add(fingerprint(tiny))
    assert len(others - {first}) == 4


def test_the_fingerprint_tells_shapes_types_and_names_apart():
    values = torch.arange(6.0)
    stems = [
        {"a": values},
        {"b": values},
        {"a": values.reshape(2, 3)},
        {"a": values.view(torch.int32)},
        {"a": values[:4], "b": values[4:]},
    ]
    assert len({tensors_sha256(stem) for stem in stems}) == 5
    strided = torch.stack([values, values], 1)[:, 0]
    assert tensors_sha256({"a": strided}) == tensors_sha256({"a": values})
    assert tensors_sha256({"a": values, "b": values[0]}) == tensors_sha256(
        {"b": values[0], "a": values}
    )


def test_hub_weights_stand_in_the_record_and_random_ones_do_not(tiny, layout, monkeypatch):
    hub(monkeypatch)
    tiny["model"]["pretrained"] = True
    tiny["training"]["epochs"] = 1
    train(study_from(tiny, "x"), "no_seg", 0, layout)
    run = json.loads((layout.run("no_seg", 0) / "run.json").read_text())
    assert (run["pretrained"], run["weights_sha256"]) == (True, fingerprint(tiny))
    tiny["model"]["pretrained"] = False
    assert fingerprint(tiny) is None


def test_the_key_changes_with_all_that_decides_a_checkpoint(tiny, monkeypatch):
    def key(seed=0, manifest="a", weights="b", device=CPU):
        return run_key(study_from(tiny, "x").recipe("no_seg"), seed, manifest, weights, device)

    first = key()
    assert first == key()
    assert all(type(k) is type(v) is str for k, v in first.items())
    changed = [(key(seed=1), {"seed"}), (key(manifest="b"), {"manifest"})]
    changed += [(key(weights=None), {"weights"})]
    tiny["compute"] |= {"loader_workers": 2, "device": "auto"}
    tiny["evaluation"] = {"threshold": 0.4}
    assert key() == first, "neither changes a bit; the device in use counts, not the one asked for"
    for section, setting, value in (
        ("training", "learning_rate", 2e-3),
        ("model", "dropout", 0.2),
        ("augmentation", "flip", 0.1),
        ("compute", "threads", 2),
    ):
        before = tiny.get(section, {})
        tiny[section] = before | {setting: value}
        changed.append((key(), {f"{section}.{setting}"}))
        tiny[section] = before
    for module, name, value, part in (
        (record, "code_sha256", lambda *_: "other code", "code"),
        (torch, "__version__", "2.9.0", "torch"),
        (timm, "__version__", "1.0.20", "timm"),
        (record, "device_name", lambda _: "another processor", "device"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            changed.append((key(), {part}))
    monkeypatch.setattr(record, "device_name", lambda _: first["device"].partition(" ")[2])
    changed.append((key(device=torch.device("cuda")), {"device"}))
    for other, parts in changed:
        assert {part for part in first if first[part] != other.get(part)} == parts


def stopped(values, layout, monkeypatch):
    """A run stopped in its second epoch, its checkpoint untouched by what comes after."""
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(study_from(values, "x"), "no_seg", 0, layout)
    (checkpoint,) = layout.work("no_seg", 0).glob("epoch-*")
    return checkpoint, {file.name: file.read_bytes() for file in checkpoint.iterdir()}


def other_learning_rate(tiny, patch):
    tiny["training"]["learning_rate"] = 2e-3
    return "training.learning_rate 0.001 there, 0.002 here"


def other_torch(tiny, patch):
    here = torch.__version__
    patch.setattr(torch, "__version__", "99.1.0")
    return f"torch {here} there, 99.1.0 here"


def other_timm_and_device(tiny, patch):
    timm_, cpu = timm.__version__, device_name(CPU)
    patch.setattr(timm, "__version__", "99.2.0")
    patch.setattr(record, "device_name", lambda _: "a GPU")
    return f"timm {timm_} there, 99.2.0 here; device cpu {cpu} there, cpu a GPU here"


def other_hub_weights(tiny, patch):
    there = fingerprint(tiny)
    hub(patch, lambda state: state["cls_token"].mul_(2))
    return f"weights {there[:12]} there, {fingerprint(tiny)[:12]} here."


def no_weights(tiny, patch):
    there = fingerprint(tiny)
    tiny["model"]["pretrained"] = False
    return f"model.pretrained true there, false here; weights {there[:12]} there, none here"


def another_option(tiny, patch):
    tiny["model"]["stem_options"]["qkv_bias"] = True
    return "model.stem_options.qkv_bias none there, true here"


CHANGES = (
    other_learning_rate, other_torch, other_timm_and_device, other_hub_weights, no_weights,
    another_option,
)  # fmt: skip


def test_a_checkpoint_that_does_not_fit_is_told_by_what_differs(tiny, layout, monkeypatch):
    hub(monkeypatch)
    tiny["model"]["pretrained"] = True
    checkpoint, content = stopped(tiny, layout, monkeypatch)
    for change in CHANGES:
        values = copy.deepcopy(tiny)
        with monkeypatch.context() as patch:
            expected = change(values, patch)
            with pytest.raises(StudyError) as told:
                train(study_from(values, "x"), "no_seg", 0, layout)
        message = str(told.value)
        assert message.startswith(f"{checkpoint}: ") and expected in message
        assert message.count(" there, ") == expected.count(" there, "), "and nothing else"
        assert f"Restore that, or delete {checkpoint.parent} to train from the start" in message
        assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == content
    moved = layout.work("no_seg", 1) / checkpoint.name
    shutil.copytree(checkpoint, moved)
    with pytest.raises(StudyError, match=f"{moved}: .*: seed 0 there, 1 here"):
        train(study_from(tiny, "x"), "no_seg", 1, layout)
    train(study_from(tiny, "x"), "no_seg", 0, layout)
    assert len(pd.read_csv(layout.run("no_seg", 0) / "history.csv")) == 3


def test_a_deleted_checkpoint_lets_the_changed_training_start(tiny, layout, tmp_path, monkeypatch):
    checkpoint, _ = stopped(tiny, layout, monkeypatch)
    tiny["training"]["learning_rate"] = 2e-3
    shutil.rmtree(checkpoint.parent)
    other = beside(layout, tmp_path / "other")
    for folder in (layout, other):
        train(study_from(tiny, "x"), "no_seg", 0, folder)
    assert outcome(layout, "no_seg") == outcome(other, "no_seg")
