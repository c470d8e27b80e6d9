# Predictions of every run, then metrics with intervals and paired comparisons.


rule score:
    input:
        manifest=layout.manifest,
        images=layout.images,
        masks=layout.masks,
        model=checkpoint,
    output:
        predictions=layout.predictions("{variant}", "{seed}"),
        record=layout.predictions("{variant}", "{seed}").with_suffix(".json"),
    log:
        log_file("score/{variant}-seed-{seed}"),
    benchmark:
        benchmark_file("score/{variant}-seed-{seed}")
    conda:
        "../envs/train.yaml"
    threads: compute.threads
    resources:
        mem_mb=compute.memory_mb,
        runtime=60,
        gpu=GPU,
    params:
        code=code("score"),
        identity=lambda wildcards: study.prediction_hash(wildcards.variant),
    shell:
        "python -m hybridlungvit score --variant {wildcards.variant:q}"
        " --seed {wildcards.seed:q} 2> {log:q}"


rule metrics:
    input:
        predictions=variant_predictions,
        manifest=layout.manifest,
        masks=layout.mask_table,
    output:
        reported(layout.metrics("{variant}"), "metrics", "metrics", result="{variant}"),
    log:
        log_file("metrics/{variant}"),
    benchmark:
        benchmark_file("metrics/{variant}")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        code=code("metrics"),
        statistics=value_sha256(study.statistics.model_dump()),
        threshold=lambda wildcards: study.recipe(wildcards.variant).evaluation.threshold,
    shell:
        "python -m hybridlungvit metrics --variant {wildcards.variant:q} 2> {log:q}"


rule compare:
    input:
        predictions=all_predictions(),
        manifest=layout.manifest,
        other=other_files(other, layout) if other else [],
    output:
        reported(layout.comparisons, "metrics"),
    log:
        log_file("compare"),
    benchmark:
        benchmark_file("compare")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        code=code("compare"),
        statistics=value_sha256(study.statistics.model_dump()),
        reference=study.reference,
        thresholds=[study.recipe(v).evaluation.threshold for v in study.variants],
        other=value_sha256(other.model_dump()) if other else None,
    shell:
        "python -m hybridlungvit compare 2> {log:q}"
