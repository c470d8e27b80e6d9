"""The command line: one sub-command for each rule of the workflow, then those for its results."""

import io
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hybridlungvit.config import Study, load_study, read_yaml, reference, require_folder
from hybridlungvit.io import StudyError, blaming_records
from hybridlungvit.paths import Layout
from hybridlungvit.runtime import out_of_memory, start_logging

# One flat list in the order of the workflow, however long: a command is found where its rule is.
# Stages are imported inside their command: torch takes seconds to load, and most need none.
app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
Config = Annotated[
    Path, typer.Option(help="Study file, YAML or JSON.", envvar="HYBRIDLUNGVIT_CONFIG")
]
VariantName = Annotated[str, typer.Option(help="A variant of the study.")]
Seed = Annotated[int, typer.Option(help="A seed of the study.")]
StudyName = Annotated[str, typer.Option(help="A study: config/STUDY.yaml.")]
MAIN_STUDY = "kermany-frozen"  # which opens the README
Workers = Annotated[int, typer.Option(min=1, help="Processes to use.")]


def _open(
    config: Path, variant: str | None = None, seed: int | None = None
) -> tuple[Study, Layout]:
    study = load_study(config)
    if variant is not None and variant not in study.variants:
        raise StudyError(f"{config}: no variant {variant!r}; it has {', '.join(study.variants)}.")
    if seed is not None and seed not in study.seeds:
        raise StudyError(f"{config}: no seed {seed}; it has {study.seeds}.")
    layout = Layout(study.study)
    require_folder(layout)
    return study, layout


def _open_on_gpu(config: Path, variant: str, seed: int | None = None) -> tuple[Study, Layout]:
    """As ``_open``, and claims a GPU, if there is any, for what computes with a model."""
    from hybridlungvit.gpus import claim_gpu

    study, layout = _open(config, variant, seed)
    claim_gpu(study.compute)
    return study, layout


@app.command()
def phantom(config: Config, workers: Workers = 1) -> None:
    """Generate the synthetic chest X-rays of a phantom study."""
    from hybridlungvit.phantom import write_dataset

    study, layout = _open(config)
    write_dataset(layout.phantom, study.data.phantom, workers)


@app.command()
def download(config: Config) -> None:
    """Fetch the study's public images, without a login."""
    from hybridlungvit.data.download import REMOTE, download_source

    study, layout = _open(config)
    if study.data.source not in REMOTE:
        raise StudyError(f"{config}: data.source is {study.data.source!r}; nothing to download.")
    download_source(study, layout)


@app.command()
def manifest(config: Config, workers: Workers = 1) -> None:
    """List, check and split the images."""
    from hybridlungvit.data.manifest import build_manifest
    from hybridlungvit.data.sources import image_root

    study, layout = _open(config)
    build_manifest(image_root(study, layout), study.data, layout.manifest, workers)


@app.command()
def cache(config: Config, workers: Workers = 1) -> None:
    """Decode every image and compute every lung mask, once."""
    from hybridlungvit.data.cache import build_cache
    from hybridlungvit.data.sources import image_root

    study, layout = _open(config)
    data = study.data
    build_cache(image_root(study, layout), layout, data.image_size, workers, data.masks)


@app.command()
def quality(config: Config) -> None:
    """Check the study's lung masks, by class and against known lungs, and choose examples."""
    from hybridlungvit.data.sources import image_root
    from hybridlungvit.masks.quality import write_examples, write_quality

    study, layout = _open(config)
    root = image_root(study, layout)
    write_examples(root, study, layout)
    write_quality(root, study, layout)


@app.command()
def leaks(config: Config) -> None:
    """Fail if a patient or an image stands both inside and outside the test set."""
    from hybridlungvit.audit.stage import write_leaks

    write_leaks(*_open(config))


@app.command()
def audit(config: Config) -> None:
    """Measure copies, shortcuts, shift and the price of leakage; fails on a leak, as `leaks`."""
    from hybridlungvit.audit.stage import write_audit

    write_audit(*_open(config))


@app.command()
def features(config: Config, variant: VariantName, threads: Workers = 1) -> None:
    """Compute what a frozen stem makes of every image, once, for the trainings of its head."""
    from hybridlungvit.training.frozen import build_features

    study, layout = _open_on_gpu(config, variant)
    build_features(study, variant, layout, threads)


@app.command()
def train(config: Config, variant: VariantName, seed: Seed) -> None:
    """Train one variant with one seed; resumes after an interruption."""
    from hybridlungvit.training.loop import train as run

    study, layout = _open_on_gpu(config, variant, seed)
    run(study, variant, seed, layout)


@app.command()
def score(config: Config, variant: VariantName) -> None:
    """Predict the validation and test images with a training, for all variants that share it."""
    from hybridlungvit.evaluation.score import score_family

    study, layout = _open_on_gpu(config, variant)
    score_family(study, study.trained_as(variant), layout)


@app.command()
def metrics(config: Config, variant: VariantName) -> None:
    """Compute a variant's metrics with bootstrap intervals."""
    from hybridlungvit.evaluation.evaluate import evaluate_variant

    study, layout = _open(config, variant)
    evaluate_variant(study, variant, layout)


@app.command()
def compare(config: Config) -> None:
    """Compare every variant with the reference, paired."""
    from hybridlungvit.evaluation.compare import compare_variants

    compare_variants(*_open(config))


@app.command()
def audit_results(config: Config) -> None:
    """Set the reference's AUC beside the audit: on validation, and without doubtful patients."""
    from hybridlungvit.audit.results import write_audit_results

    write_audit_results(*_open(config))


@app.command()
def explain(config: Config, variant: VariantName) -> None:
    """Compute a variant's Grad-CAM, its lung focus and, for the reference, cases and checks."""
    from hybridlungvit.explain.stage import explain as run

    study, layout = _open_on_gpu(config, variant)
    run(study, variant, layout)


@app.command()
def text(config: Config) -> None:
    """Write the paper's numbers as TeX macros, its tables, and the files that go with it."""
    from hybridlungvit.companions.cards import write_companions
    from hybridlungvit.paper.macros import write_macros
    from hybridlungvit.paper.tables import write_tables

    study, layout = _open(config)
    with blaming_records():
        write_macros(study, layout)
        write_tables(study, layout)
        write_companions(study, layout)


@app.command()
def figures(config: Config) -> None:
    """Draw the figures of the paper."""
    from hybridlungvit.paper.figures import write_figures

    with blaming_records():
        write_figures(*_open(config))


@app.command()
def galleries(config: Config) -> None:
    """Draw the figures that show images."""
    from hybridlungvit.paper.galleries import write_galleries

    write_galleries(*_open(config))


@app.command()
def page(config: Config) -> None:
    """Write all results as one HTML file, paper/STUDY.html."""
    from hybridlungvit.paper.page import write_page

    with blaming_records():
        write_page(*_open(config))


@app.command()
def pdf(config: Config) -> None:
    """Compile the paper."""
    from hybridlungvit.paper.pdf import build_pdf

    build_pdf(*_open(config))


@app.command()
def check_paper(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as JSON.")] = False,
) -> None:
    """Fail on a typed number, an unsupported claim, an estimate outside its interval."""
    from hybridlungvit.paper.check import check_paper as run

    with blaming_records():
        run(*_open(config), as_json)


@app.command()
def seal(config: Config) -> None:
    """Write the checksums of the results that the paper is made from without computing them."""
    from hybridlungvit.seal import write_seal

    write_seal(*_open(config))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def adopt(context: typer.Context, config: Config) -> None:
    """Take over finished results of another folder or machine, so that nothing is trained again.

    Call it where they were copied to. Their checksums are compared first, and the code, config and
    manifest of every run; the paper is computed anew when the study is called. What else the study
    was called with follows: further config files, and `-- --config weights=PATH`.
    """
    named = [Path(word.rpartition("=")[2]) for word in context.args]
    for file in [config, *(path for path in named if path.suffix in (".yaml", ".yml", ".json"))]:
        read_yaml(file)  # before Snakemake, which may run code in it
    command = [sys.executable, "-m", "snakemake", "sealed", "--touch", "--forceall", "--cores", "1"]
    sys.exit(subprocess.call([*command, "--quiet", "all", "--configfile", config, *context.args]))


@app.command()
def check_config(files: Annotated[list[Path], typer.Argument(help="YAML or JSON.")]) -> None:
    """Fail on a config file that Snakemake must not read, as it may run code in it."""
    for file in files:
        read_yaml(file)


@app.command()
def arxiv(config: Config) -> None:
    """Pack the paper's sources into a tarball that compiles by itself."""
    from hybridlungvit.paper.pdf import pack_sources

    pack_sources(*_open(config))


@app.command()
def diff(
    study: StudyName = MAIN_STUDY,
    against: Annotated[str, typer.Option(help="Git revision of the earlier paper.")] = "HEAD",
) -> None:
    """Mark what changed in the paper since a git revision, in paper/STUDY-diff.pdf."""
    from hybridlungvit.companions.diff import write_diff

    write_diff(*_open(Path("config") / f"{study}.yaml"), against)


@app.command()
def readme(study: StudyName = MAIN_STUDY) -> None:
    """Write a study's main table and first page into the README."""
    from hybridlungvit.companions.readme import write_readme

    with blaming_records():
        write_readme(*_open(Path("config") / f"{study}.yaml"))


@app.command()
def verify(
    study: StudyName = MAIN_STUDY,
    against: Annotated[
        str, typer.Option(help="Git revision, or folder with the published metrics.")
    ] = "HEAD",
    every: Annotated[bool, typer.Option("--all", help="Show every number.")] = False,
) -> None:
    """Compare your own full run with the published numbers; fails where one is different."""
    from hybridlungvit.companions.verify import verify as run

    with blaming_records():
        run(*_open(Path("config") / f"{study}.yaml"), against, every)


@app.command()
def power(
    study: StudyName = MAIN_STUDY,
    seeds: Annotated[
        list[int] | None, typer.Option(min=1, help="Seeds of each model; may be repeated.")
    ] = None,
) -> None:
    """Print which differences more seeds would find, from the study's predictions."""
    from hybridlungvit.companions.power import SEEDS, show_power

    show_power(*_open(Path("config") / f"{study}.yaml"), seeds or list(SEEDS))


@app.command()
def masks(
    data: Annotated[Path, typer.Option(help="Folder with train/ and test/.")],
    annotations: Annotated[Path, typer.Option(help="CSV with the columns image, class and mask.")],
    out: Annotated[Path, typer.Option(help="Folder for table.csv and images.csv.")],
    half: Annotated[
        Literal["reporting", "development", "all"],
        typer.Option(
            help="Patients: those on whom no constant was chosen, those on whom some were, or all."
        ),
    ] = "reporting",
) -> None:
    """Measure the lung masks on annotated radiographs."""
    from hybridlungvit.masks.agreement import report_masks

    report_masks(data, annotations, out, half)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Chest X-rays, JPEG or PNG, or folders.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="A model.safetensors, the folder of a run or of an export, or a name on the model "
            "hub; default: the published one."
        ),
    ] = None,
    gradcam: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures: lungs and cut, and Grad-CAM's heat beside them."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="CSV file; default: the screen.")] = None,
    phantoms: Annotated[
        bool, typer.Option("--phantoms", help="Your images are synthetic, as the training's were.")
    ] = False,
) -> None:
    """Predict your own images: one CSV row each. Research software, not a medical device.

    Columns: image; probability of pneumonia; calibrated, the same after temperature scaling on the
    validation images; call, pneumonia from the threshold on; mask_confidence, 0 to 1; cut, where
    left and right lung part, as a share of the width; warning, where mask or image is doubtful;
    study, checkpoint and threshold behind the call. A name that begins with = + - @ or a control
    character has a ' before it, so that spreadsheets take it for text.
    """
    from hybridlungvit.predict import predict_images

    predict_images(images, checkpoint, gradcam, output, phantoms)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="A new folder.")],
    study: StudyName = MAIN_STUDY,
    variant: Annotated[str | None, typer.Option(help="Default: the study's reference.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the study's first.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights in half precision.")] = False,
) -> None:
    """Write a trained run in the layout of the Hugging Face hub: weights, config, model card."""
    from hybridlungvit.companions.export import export_run

    opened, layout = _open(Path("config") / f"{study}.yaml", variant, seed)
    chosen = variant or opened.reference, opened.seeds[0] if seed is None else seed
    export_run(opened, *chosen, layout, out, half)


@app.command()
def keys() -> None:
    """Print every key of a study file with its default and meaning, as Markdown."""
    typer.echo(reference(), nl=False)


@app.command()
def cite(
    study: StudyName = MAIN_STUDY,
    variant: Annotated[str | None, typer.Option(help="Default: the study's reference.")] = None,
) -> None:
    """Print the metric sentence with its interval, and BibTeX."""
    from hybridlungvit.companions.cite import citation

    opened, layout = _open(Path("config") / f"{study}.yaml", variant)
    with blaming_records():
        typer.echo(citation(opened, variant or opened.reference, layout))


OUT_OF_MEMORY = (
    "out of memory (%s). Ways out, in the config: a smaller batch_size (of training, evaluation or "
    "explanation), data.image_size, model.token_grid or model.d_model; a stem that stays frozen "
    "(training.freeze_epochs: all); fewer jobs at a time (--cores). The last checkpoint is kept."
)


def main() -> None:
    """Run the command line; a ``StudyError`` becomes one message and exit status 1."""
    start_logging()
    log = logging.getLogger(__name__)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack signs of a label
        sys.stdout.reconfigure(errors="replace")
    if sys.platform == "win32":
        log.error("Windows is not supported. Run this in WSL (Windows Subsystem for Linux).")
        sys.exit(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    status = 1
    try:
        # Typer answers Ctrl-C and SIGTERM with a returned status, not with an exception.
        status = app(standalone_mode=False) or 0
    except StudyError as error:
        log.error("%s", error)
    except typer.Abort as stop:
        if isinstance(stop.__context__, EOFError):  # Typer takes it for the end of a dialogue
            log.error("a file of the results ends too early. Run the stage that wrote it again.")
        else:
            status = 130
    except KeyboardInterrupt:
        status = 130
    except typer.Exit as stop:
        status = stop.exit_code
    except Exception as error:
        if out_of_memory(error):
            log.error(OUT_OF_MEMORY, str(error).splitlines()[0] if str(error) else "MemoryError")
        elif hasattr(error, "show"):  # usage errors know how to print themselves
            error.show()
            status = 2
        elif isinstance(error, OSError) and error.filename:
            log.error("%s: %s. Mend that and run again.", error.filename, error.strerror)
        else:
            raise
    sys.exit(status)
