# Predictions of every run, then metrics with intervals and paired comparisons.

# One job for all seeds of a training and all variants evaluated from it: a start takes seconds.
for owner in study.trained_variants():

    rule:
        name:
            f"score_{owner}"
        input:
            manifest=layout.manifest,
            images=layout.images,
            masks=layout.masks,
            models=weights(owner),
            features=stored_features(owner),
        output:
            predictions=predictions(*evaluated_from(study, owner)),
            records=[
                path.with_suffix(".json") for path in predictions(*evaluated_from(study, owner))
            ],
        log:
            log_file(f"score/{owner}"),
        conda:
            "../envs/train.yaml"
        threads: compute.threads
        resources:
            mem_mb=compute.memory_mb,
            gpu=GPU,
        params:
            rerun_with("score", *map(study.prediction_hash, evaluated_from(study, owner))),
            variant=owner,
        shell:
            "python -m hybridlungvit score --variant {params.variant:q} 2> {log:q}"


rule metrics:
    input:
        predictions=lambda wildcards: predictions(wildcards.variant),
        manifest=layout.manifest,
        masks=layout.mask_table,
    output:
        layout.metrics("{variant}"),
    log:
        log_file("metrics/{variant}"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("metrics", STATISTICS),
        order=study.seeds,
        threshold=lambda wildcards: study.recipe(wildcards.variant).evaluation.threshold,
    shell:
        "python -m hybridlungvit metrics --variant {wildcards.variant:q} 2> {log:q}"


rule compare:
    input:
        predictions=predictions(*study.variants),
        manifest=layout.manifest,
    output:
        layout.comparisons,
    log:
        log_file("compare"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("compare", STATISTICS, study.reference),
        thresholds=[study.recipe(v).evaluation.threshold for v in study.variants],
        order=[*study.variants, *study.seeds],
    shell:
        "python -m hybridlungvit compare 2> {log:q}"
