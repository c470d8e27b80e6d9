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
        code=code(
            "audit/copies",
            "audit/leakage",
            "audit/patients",
            "audit/predictability",
            "audit/stage",
            "evaluation/agreement",
            "evaluation/annotated",
            "evaluation/compare",
            "evaluation/mask_quality",
            *STATISTICS_CODE,
        ),
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
        identity=value_sha256(base_recipe.data_identity()),
        statistics=value_sha256(study.statistics.model_dump()),
    shell:
        "python -m hybridlungvit audit 2> {log:q}"


rule audit_results:
    input:
        manifest=layout.manifest,
        predictions=[layout.predictions(study.reference, seed) for seed in study.seeds],
        code=code("audit/results", "audit/patients", *STATISTICS_CODE),
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
        statistics=value_sha256(study.statistics.model_dump()),
        reference=study.reference,
    shell:
        "python -m hybridlungvit audit-results 2> {log:q}"


rule audit_report:
    input:
        manifest=layout.manifest,
        masks=layout.mask_quality,
        audit=layout.audit,
        results=layout.audit_results,
        text=manuscript(),
        code=code(
            *TEXT_CODE, "evaluation/subgroups", "explain/similarity", "reporting/audit_report"
        ),
    output:
        layout.generated / "audit.tex",
        [reported(layout.generated / "tables" / f"{name}.tex", "tables") for name in AUDIT_TABLES],
        reported(layout.generated / "figures" / "audit.pdf", "figures"),
    log:
        log_file("audit_report"),
    benchmark:
        benchmark_file("audit_report")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        study=value_sha256(study.model_dump(mode="json", exclude={"data_root"})),
    shell:
        "python -m hybridlungvit audit-report 2> {log:q}"
