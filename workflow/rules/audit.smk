# The audit of the data: leaks before any training, then all that is reported beside the results.


rule leaks:
    # No code here: an edited detector is no reason to train again. `audit` repeats the check.
    input:
        manifest=layout.manifest,
        images=layout.images,
    output:
        layout.leaks,
    log:
        log_file("leaks"),
    benchmark:
        benchmark_file("leaks")
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "python -m hybridlungvit leaks 2> {log:q}"


rule audit:
    input:
        manifest=layout.manifest,
        images=layout.images,
    output:
        reported(layout.audit, "metrics"),
    log:
        log_file("audit"),
    benchmark:
        benchmark_file("audit")
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code("audit"),
        identity=value_sha256(base_recipe.data_identity()),
        statistics=value_sha256(study.statistics.model_dump()),
    shell:
        "python -m hybridlungvit audit 2> {log:q}"


rule audit_results:
    input:
        manifest=layout.manifest,
        predictions=[layout.predictions(study.reference, seed) for seed in study.seeds],
    output:
        reported(layout.audit_results, "metrics"),
    log:
        log_file("audit_results"),
    benchmark:
        benchmark_file("audit_results")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        code=code("audit-results"),
        statistics=value_sha256(study.statistics.model_dump()),
        reference=study.reference,
    shell:
        "python -m hybridlungvit audit-results 2> {log:q}"
