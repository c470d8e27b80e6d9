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
    conda:
        "../envs/train.yaml"
    shell:
        "python -m hybridlungvit leaks 2> {log:q}"


rule audit:
    input:
        manifest=layout.manifest,
        images=layout.images,
    output:
        layout.audit,
    log:
        log_file("audit"),
    conda:
        "../envs/train.yaml"
    params:
        rerun_with("audit", DATA, STATISTICS),
    shell:
        "python -m hybridlungvit audit 2> {log:q}"


rule audit_results:
    input:
        manifest=layout.manifest,
        masks=layout.mask_table,
        predictions=predictions(study.reference),
    output:
        layout.audit_results,
    log:
        log_file("audit_results"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("audit-results", STATISTICS, study.reference),
        order=study.seeds,
    shell:
        "python -m hybridlungvit audit-results 2> {log:q}"
