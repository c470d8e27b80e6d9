# From images to paper/<study>.pdf and its page, paper/<study>.html. The study is chosen by
# --configfile; the full one is the default.
from pathlib import Path

if not workflow.overwrite_configfiles:

    configfile: str(Path(workflow.basedir) / "config" / "kermany.yaml")


include: "workflow/rules/common.smk"


rule all:
    # What lies between is named too: a job that failed has removed it, and what came of it may
    # still be there. The command makes a job of this, without which a finished study would start
    # without the checks below.
    default_target: True
    input:
        layout.pdf,
        layout.page,
        layout.check,
        [layout.companions / name for name in COMPANIONS],
        layout.seal,
        sealed_files(study, layout),
        report_inputs(),
        stored_predictions,
    log:
        log_file("all"),
    localrule: True
    conda:
        "workflow/envs/analysis.yaml"
    shell:
        ": 2> {log:q}"


onstart:
    check_before_start()


onsuccess:
    say_what_was_made()


onerror:
    say_why([log] if isinstance(log, str) else log)


include: "workflow/rules/data.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/paper.smk"


rule sealed:
    # What `hybridlungvit adopt` takes as current; the paper is computed from it.
    input:
        sealed_files(study, layout),
