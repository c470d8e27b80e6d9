"""Training: resumed, repeated and refused runs, the frozen stem, and the records."""

import copy
import hashlib
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import REPOSITORY, TINY, beside, interrupted, opened
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from hybridlungvit.config import read_yaml, study_from
from hybridlungvit.data import batches
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.score import load_run
from hybridlungvit.io import StudyError
from hybridlungvit.model import build_model
from hybridlungvit.runtime import device_name
from hybridlungvit.training import loop as training_loop
from hybridlungvit.training import losses, record, trainer
from hybridlungvit.training.loop import train
from hybridlungvit.training.record import run_key, tensors_sha256, weights_sha256
from hybridlungvit.training.trainer import Trainer

VARIANT = "seg_0.1"  # every part of the loss
CPU = torch.device("cpu")


def outcome(layout):
    run = layout.run(VARIANT, 0)
    return (run / "model.safetensors").read_bytes(), (run / "history.csv").read_bytes()


def run_record(layout, variant=VARIANT):
    return json.loads((layout.run(variant, 0) / "run.json").read_text())


@pytest.fixture(scope="module")
def whole(study, cached, tmp_path_factory):
    """An uninterrupted run; tests must not alter it."""
    layout = beside(cached, tmp_path_factory.mktemp("whole") / "results")
    train(study, VARIANT, 0, layout)
    return layout


def interrupt_at(monkeypatch, *epochs):
    """Raise KeyboardInterrupt after the training of each of these epochs, once."""
    left, run_epoch = list(epochs), Trainer.run_epoch

    def watched(self, epoch):
        result = run_epoch(self, epoch)
        if epoch in left:
            left.remove(epoch)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Trainer, "run_epoch", watched)


def rest(self, epoch):
    """An epoch without steps, for what depends on the course of epochs alone."""
    self.start_epoch(epoch)
    return {"classification": 0.5}


def test_a_run_interrupted_in_each_epoch_and_at_its_end_ends_as_an_uninterrupted_one(
    study, layout, whole, monkeypatch
):
    commits = iter("abcde")  # each attempt finds another one checked out
    monkeypatch.setattr(training_loop, "code_commit", lambda: next(commits))
    interrupt_at(monkeypatch, 0, 1, 2)
    for epoch in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(study, VARIANT, 0, layout)
        assert not layout.run(VARIANT, 0).exists()
        assert (layout.work(VARIANT, 0) / "checkpoint.pt").exists() == (epoch > 0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_loop, "write_run", interrupted)
        train(study, VARIANT, 0, layout)
    monkeypatch.setattr(Trainer, "run_epoch", interrupted)  # only the records are left to write
    train(study, VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)
    assert run_record(layout)["code_commit"] == "b", "that of the first epoch's attempt"


def test_two_runs_are_identical_whatever_the_loader_and_the_global_state(tiny, layout, whole):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - a stream the training must not depend on
    tiny["compute"]["loader_workers"] = 1
    train(study_from(tiny, "x"), VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)


def test_the_best_epoch_is_kept_though_later_ones_are_worse(study, layout, monkeypatch):
    aucs, states, products, run_epoch = iter([0.6, 0.9, 0.7]), [], [], Trainer.run_epoch

    def observed(self, epoch):
        products.append((torch.tensor([1e-30]) * 1e-10).item())
        return run_epoch(self, epoch)

    def validate(self, *_):
        states.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return {"val_auc": next(aucs)}

    monkeypatch.setattr(Trainer, "run_epoch", observed)
    monkeypatch.setattr(Trainer, "validate", validate)
    train(study, VARIANT, 0, layout)
    kept = load_file(layout.run(VARIANT, 0) / "model.safetensors")
    agree = [all(torch.equal(kept[k], v) for k, v in state.items()) for state in states]
    assert agree == [False, True, False]
    assert products == [0, 0, 0], "a training takes subnormals for zero"
    assert (torch.tensor([1e-30]) * 1e-10).item() > 0


# Stem


def assembled(study, layout, model=None, variant=VARIANT):
    """A trainer at the start of a run."""
    recipe, (manifest, cache) = study.recipe(variant), opened(layout)
    rows = {name: np.flatnonzero(manifest.split == name) for name in ("train", "val")}
    labels = {name: manifest.label.to_numpy()[index] for name, index in rows.items()}
    model = model or build_model(recipe, pretrained=True)
    return Trainer(recipe, 0, torch.device("cpu"), model, cache, rows, labels)


@pytest.mark.parametrize("lowers", ["all", "stem"])
def test_the_learning_rate_falls_when_the_stem_is_unfrozen(tiny, cached, lowers):
    tiny["training"] |= {"unfreeze_lowers": lowers, "unfreeze_factor": 0.25, "freeze_epochs": 2}
    ready = assembled(study_from(tiny, "x"), cached)
    head, stem = ready.optimizer.param_groups
    assert set(stem["params"]) == set(ready.model.stem.parameters())
    assert {*head["params"], *stem["params"]} == set(ready.model.parameters())
    rates = []
    for epoch in range(3):
        ready.start_epoch(epoch)
        rates.append((head["lr"], stem["lr"]))
    before, after = ((1e-3, 1e-3), (2.5e-4, 2.5e-4)) if lowers == "all" else [(1e-3, 2.5e-4)] * 2
    assert rates == [before, before, after]
    head["lr"] = 1e-5  # as a plateau may have lowered it
    ready.start_epoch(2)
    assert ready.rate == 1e-5


def test_the_stem_rests_while_frozen_and_learns_afterwards(study, cached):
    ready = assembled(study, cached)
    for epoch, frozen in ((0, True), (1, False)):
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
    weights = tmp_path / "secret folder" / "stem.safetensors"
    weights.parent.mkdir()
    save_file(vit.state_dict(), weights)
    tiny["training"]["freeze_epochs"] = "all"
    tiny["model"]["pretrained"] = str(weights)
    train(study_from(tiny, "x"), "no_seg", 0, layout)
    file = layout.run("no_seg", 0) / "model.safetensors"
    trained, content = load_file(file), file.read_bytes()
    for name, value in vit.state_dict().items():
        assert torch.equal(trained[f"stem.vit.{name}"], value)
    assert b"stem.safetensors" in content and b"secret folder" not in content
    run = run_record(layout, "no_seg")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (run["pretrained"], run["weights_sha256"]) == ("file", digest)


def test_attention_is_compared_with_the_lungs_at_the_models_own_cut(tiny, cached, monkeypatch):
    tiny["model"]["cut"] = "midline"
    cuts, shares = [], losses.lung_shares
    monkeypatch.setattr(losses, "lung_shares", lambda m, c, g: (cuts.append(c), shares(m, c, g))[1])
    ready = assembled(study_from(tiny, "x"), cached)
    ready.run_epoch(0)
    assert torch.cat(cuts).unique().tolist() == [16]


def test_each_epoch_and_seed_has_draws_views_and_images_of_its_own(tiny, cached):
    tiny["augmentation"] = {
        "crop_scale": (1, 1), "crop_ratio": (1, 1), "flip": 0, "rotation": 0, "brightness": 0,
        "contrast": 0,
    }  # fmt: skip
    still = study_from(tiny, "x").augmentation
    ready = assembled(study_from(TINY, "x"), cached)
    moved = ready.recipe.augmentation
    dropout, views, images = set(), set(), set()
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0)):
        ready.seed = seed
        ready.start_epoch(epoch)
        dropout.add(torch.rand(1).item())
        for found, augmentation in ((views, moved), (images, still)):
            ready.recipe = ready.recipe.model_copy(update={"augmentation": augmentation})
            inputs = next(ready.batches(epoch)).inputs
            found.add(tuple(inputs.mean((1, 2, 3)).sort().values.tolist()))
    assert len(dropout) == len(views) == len(images) == 4, "the last pair is the first again"


OPTIONS = read_yaml(REPOSITORY / "config" / "options.yaml")["variants"]


def test_each_of_the_example_options_reaches_the_training_and_repeats(tiny, cached):
    study, seen = study_from(tiny | {"variants": tiny["variants"] | OPTIONS}, "x"), set()
    assert set(study.trained_variants()) > set(OPTIONS)
    drawing = ("mixup", "cutmix", "randaugment", "class_shares")  # with draws of their own
    for variant in ("no_seg", *OPTIONS):
        epochs = []
        for state in (0, 1) if variant in drawing else (0,):
            torch.manual_seed(0)
            ready = assembled(study, cached, variant=variant)
            torch.manual_seed(state)  # on which no epoch may depend
            epochs.append(ready.run_epoch(0))
        assert np.isfinite(list(epochs[0].values())).all()
        assert epochs[0] == epochs[-1]
        seen.add(epochs[0]["classification"])
    assert len(seen) == len(OPTIONS) + 1


# Stopping


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
        ({"epochs": 4, "plateau_patience": 1}, [0.7, 0.6, 0.5, 0.4], [1e-3, 2e-4, 2e-4, 1e-4]),
        # Without progress a run stops early.
        (
            {"epochs": 9, "patience": 2, "freeze_epochs": 0},
            [0.6, 0.7, 0.7, 0.65],
            [1e-3, 1e-3, 1e-3, 5e-4],
        ),
        # A stem that is never unfrozen has nothing to wait for, and a tie is no progress.
        (
            {"epochs": 9, "patience": 2, "freeze_epochs": "all", "plateau_patience": 9},
            [0.6, 0.8, 0.7, 0.8],
            [1e-3] * 4,
        ),
    ],
)
def test_the_learning_rate_falls_at_a_plateau_that_a_resumed_run_remembers(
    tiny, layout, monkeypatch, caplog, changes, aucs, rates
):
    caplog.set_level("INFO")
    tiny["training"] |= {"plateau_patience": 0} | changes
    study, left = study_from(tiny, "x"), iter(aucs)
    monkeypatch.setattr(Trainer, "run_epoch", rest)
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"val_auc": next(left)})
    interrupt_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(study, "no_seg", 0, layout)
    train(study, "no_seg", 0, layout)
    history = pd.read_csv(layout.run("no_seg", 0) / "history.csv")
    assert history.learning_rate.tolist() == rates
    run = run_record(layout, "no_seg")
    kept = aucs.index(max(aucs)) + 1
    assert (run["best_epoch"], run["epochs_run"]) == (kept, len(aucs))
    assert run["best_val_auc"] == max(aucs) and f"kept epoch {kept}" in caplog.text
    assert ("stopped after" in caplog.text) == (len(aucs) < changes["epochs"])
    for before, after in itertools.pairwise(rates):
        fall = f"AUC rests: learning rate {after:g} from {before:g} on"
        assert (fall in caplog.text) == (after == before / 2)
    frozen = changes.get("freeze_epochs", tiny["training"]["freeze_epochs"])
    if frozen in (0, "all"):
        assert "the stem learns" not in caplog.text
    else:
        assert f"the stem learns from epoch {frozen + 1} on; learning rate" in caplog.text


# What goes wrong


def test_a_loss_that_is_not_finite_names_the_epoch_and_keeps_the_checkpoint(
    study, layout, whole, monkeypatch
):
    parts, calls = trainer.loss_parts, []

    def broken(*values):
        calls.append(None)
        good = parts(*values)
        return good if len(calls) < 4 else good | {"classification": torch.tensor(float("nan"))}

    with (
        monkeypatch.context() as patch,
        pytest.raises(StudyError, match=r"epoch 2, .*loss is not finite"),
    ):
        patch.setattr(trainer, "loss_parts", broken)
        train(study, VARIANT, 0, layout)
    assert len(calls) == 4, "the fourth batch is in the second epoch"
    assert len(torch.load(layout.work(VARIANT, 0) / "checkpoint.pt")["history"]) == 1
    train(study, VARIANT, 0, layout)
    assert outcome(layout) == outcome(whole)


def test_weights_that_explode_in_the_last_step_are_told_in_words(tiny, layout):
    tiny["training"] |= {"learning_rate": 1e30, "batch_size": 60, "freeze_epochs": 0}
    with pytest.raises(StudyError, match="epoch 1"):
        train(study_from(tiny, "x"), "no_seg", 0, layout)


def test_a_scaled_loss_may_overflow_but_not_for_long(tiny, cached, monkeypatch):
    tiny["training"]["batch_size"] = 2
    ready = assembled(study_from(tiny, "x"), cached)
    ready.scaler = torch.amp.GradScaler("cpu")
    step, before = ready.step, {k: v.clone() for k, v in ready.model.state_dict().items()}

    def overflowing(first, count):
        number = itertools.count()

        def stepped(batch):
            if first <= next(number) < first + count:
                batch = batch._replace(inputs=batch.inputs * torch.inf)
            return step(batch)

        monkeypatch.setattr(ready, "step", stepped)

    overflowing(2, trainer.SKIPPED - 1)
    assert np.isfinite(list(ready.run_epoch(1).values())).all()
    assert all(values.isfinite().all() for values in ready.model.state_dict().values())
    assert any(not torch.equal(v, before[k]) for k, v in ready.model.state_dict().items())
    overflowing(2, trainer.SKIPPED)
    with pytest.raises(StudyError, match=r"epoch 2, by step \d+: the loss is not finite"):
        ready.run_epoch(1)


def test_a_damaged_checkpoint_is_named(study, layout, monkeypatch):
    file, whole_file = stopped(study, layout, monkeypatch)
    state = torch.load(file)
    state["model"].pop("classify.bias")
    torch.save(state, other := file.with_name("other.pt"))
    for damaged in (whole_file[: len(whole_file) // 2], b"", other.read_bytes()):
        file.write_bytes(damaged)
        with pytest.raises(StudyError, match=f"(?s){file}: damaged .* Delete this file"):
            train(study, "no_seg", 0, layout)
    full = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(RuntimeError, match="allocate memory"):  # no fault of the checkpoint
        train(study, "no_seg", 0, layout)


def test_a_folder_that_cannot_be_written_is_named(study, layout):
    (layout.root / "work").touch()
    with pytest.raises(StudyError, match=r"work/no_seg/seed-0: cannot be written \(Not a dir"):
        train(study, "no_seg", 0, layout)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_missing_from_a_split_is_named(study, layout, monkeypatch, split):
    table = read_manifest(layout.manifest)
    table.loc[table.split == split, "label"] = 1
    monkeypatch.setattr(batches, "read_manifest", lambda _: table)
    with pytest.raises(StudyError, match=f"manifest.csv: split {split} lacks"):
        train(study, VARIANT, 0, layout)


# Records


def test_run_json_tells_where_the_model_comes_from(study, whole):
    folder, run = whole.run(VARIANT, 0), run_record(whole)
    assert (run["study"], run["variant"], run["seed"]) == ("tiny", VARIANT, 0)
    for key, file in (("manifest", whole.manifest), ("model", folder / "model.safetensors")):
        assert run[f"{key}_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert run["config_sha256"] == study.training_hash(VARIANT)
    assert (run["pretrained"], run["weights_sha256"]) == (False, None)
    sizes = {name: v.numel() for name, v in load_file(folder / "model.safetensors").items()}
    assert run["parameters"] == sum(sizes.values())
    stem = sum(size for name, size in sizes.items() if name.startswith("stem."))
    assert (run["stem_parameters"], run["stem"]) == (stem, {"patch": 8, "dim": 192})
    assert (run["threads"], run["torch_build"]) == (1, torch.__version__)
    assert (run["device_kind"], run["device"]) == ("cpu", device_name(CPU))
    history = pd.read_csv(folder / "history.csv")
    assert run["epochs_run"] == len(history) == 3
    assert run["best_epoch"] == history.epoch[history.val_auc.idxmax()]
    timing = pd.read_csv(folder / "timing.csv")
    assert run["wall_seconds"] == pytest.approx(timing.seconds.sum())
    assert timing.peak_memory_mb.between(50, 50_000).tolist() == [True] * 3


def test_validation_measures_are_those_of_scikit_learn(study, whole):
    model = load_run(study, VARIANT, 0, whole)
    ready = assembled(study, whole, model)
    probability, labels = ready.predict("val", tta=False)[:, 0], ready.labels["val"]
    found = ready.validate(0)
    assert found["val_auc"] == pytest.approx(roc_auc_score(labels, probability), abs=1e-12)
    best = run_record(whole)["best_val_auc"]
    assert found["val_auc"] == pytest.approx(best, abs=1e-9)
    assert found["val_accuracy"] == accuracy_score(labels, probability >= 0.5)
    assert found["val_loss"] == pytest.approx(log_loss(labels, probability), abs=1e-12)


def test_a_finished_run_leaves_its_four_files_and_no_checkpoint(whole):
    names = {file.name for file in whole.run(VARIANT, 0).iterdir()}
    assert names == {"model.safetensors", "history.csv", "timing.csv", "run.json"}
    assert not whole.work(VARIANT, 0).exists()
    history = pd.read_csv(whole.run(VARIANT, 0) / "history.csv")
    losses = ["classification", "segmentation", "attention"]
    measures = ["val_auc", "val_accuracy", "val_loss", "val_segmentation", "val_dice"]
    assert list(history.columns) == ["epoch", "learning_rate", *losses, *measures]
    assert history.notna().all(axis=None)


# Identity


def hub(monkeypatch, bias=0.0):
    """timm's hub played by a model of fixed weights, but for the ``bias`` of its last layer."""
    create = timm.create_model

    def created(name, pretrained=False, **options):
        vit = create(name, pretrained=False, **options)
        if pretrained:
            generator = torch.Generator().manual_seed(5)
            for value in vit.state_dict().values():
                value.copy_(torch.rand(value.shape, generator=generator))
            vit.state_dict()["norm.bias"][-1] = bias
        return vit

    monkeypatch.setattr(timm, "create_model", created)


def fingerprint(tiny, variant="no_seg"):
    recipe = study_from(tiny, "x").recipe(variant)
    return weights_sha256(recipe, build_model(recipe, pretrained=True).stem)


def test_hub_weights_are_known_by_what_is_loaded(tiny, monkeypatch):
    tiny["model"]["pretrained"] = True
    hub(monkeypatch)
    found = fingerprint(tiny)
    assert fingerprint(tiny, "plain_deit") == found, "the same stem under another head"
    hub(monkeypatch, bias=1e-4)
    assert fingerprint(tiny) != found


def test_the_fingerprint_is_of_names_types_shapes_and_values():
    values = torch.arange(6.0)
    digest = hashlib.sha256(b'["a", "torch.float32", [6]]' + bytes(values.numpy())).hexdigest()
    strided = torch.stack([values, values], 1)[:, 0]
    assert tensors_sha256({"a": strided}) == tensors_sha256({"a": values}) == digest
    others = {"a": values.reshape(2, 3)}, {"a": values.view(torch.int32)}, {"b": values}
    parts = {"a": values[:4], "b": values[4:]}
    assert len({digest, *map(tensors_sha256, (*others, parts))}) == 5
    assert tensors_sha256(parts) == tensors_sha256(dict(reversed(parts.items())))


def test_the_key_changes_with_all_that_decides_a_checkpoint(tiny, monkeypatch):
    def key(seed=0, manifest="a", weights="b", device=CPU):
        origin = {"manifest_sha256": manifest, "weights_sha256": weights}
        return run_key(study_from(tiny, "x").recipe("no_seg"), seed, origin, device)

    first = key()
    assert first == key()
    assert all(type(k) is type(v) is str for k, v in first.items())
    changed = [
        (key(seed=1), {"seed"}), (key(manifest="b"), {"manifest"}), (key(weights=None), {"weights"})
    ]  # fmt: skip
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


def stopped(study, layout, monkeypatch):
    """The checkpoint of a run stopped in its second epoch, and its content."""
    monkeypatch.setattr(Trainer, "run_epoch", rest)
    interrupt_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train(study, "no_seg", 0, layout)
    checkpoint = layout.work("no_seg", 0) / "checkpoint.pt"
    return checkpoint, checkpoint.read_bytes()


def test_a_checkpoint_that_does_not_fit_is_told_by_what_differs(tiny, layout, monkeypatch):
    hub(monkeypatch)
    tiny["model"]["pretrained"] = True
    weights, version = fingerprint(tiny), timm.__version__
    checkpoint, content = stopped(study_from(tiny, "x"), layout, monkeypatch)
    other = copy.deepcopy(tiny)
    other["training"]["learning_rate"] = 2e-3
    other["model"]["stem_options"]["qkv_bias"] = True
    with monkeypatch.context() as patch, pytest.raises(StudyError) as told:
        hub(patch, bias=1.0)
        patch.setattr(timm, "__version__", "99.2.0")
        train(study_from(other, "x"), "no_seg", 0, layout)
    start, differences = str(told.value).split(" as it began otherwise: ")
    differences, advice = differences.split(". Restore that, or ")
    assert start.startswith(f"{checkpoint}: ")
    assert advice == "delete this file to train from the start."
    *others, changed = sorted(differences.split("; "))
    assert others == [
        "model.stem_options.qkv_bias none there, true here",
        f"timm {version} there, 99.2.0 here",
        "training.learning_rate 0.001 there, 0.002 here",
    ]
    assert re.fullmatch(rf"weights {weights[:12]} there, [0-9a-f]{{12}} here", changed)
    assert checkpoint.read_bytes() == content
    train(study_from(tiny, "x"), "no_seg", 0, layout)
    run = run_record(layout, "no_seg")
    assert (run["pretrained"], run["weights_sha256"]) == (True, weights)
    assert run["epochs_run"] == 3
