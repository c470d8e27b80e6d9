# Images, made, fetched or given → manifest → cache of images and masks → what the masks are worth.

if PHANTOM:

    rule phantom:
        output:
            layout.phantom / "lungs.csv",  # written with the folder: a file's content can be compared
        log:
            log_file("phantom"),
        conda:
            "../envs/train.yaml"
        threads: 2
        params:
            rerun_with("phantom", value_sha256(study.data.phantom.model_dump())),
        shell:
            "python -m hybridlungvit phantom --workers {threads} 2> {log:q}"


if DOWNLOADED:

    rule download:
        output:
            layout.download,  # not the images: Snakemake would delete them before another try
        log:
            log_file("download"),
        conda:
            "../envs/train.yaml"
        resources:
            runtime=240,
        params:
            rerun_with(
                "download", study.data.url, study.data.checksum, str(image_root(study, layout))
            ),
        shell:
            "python -m hybridlungvit download 2> {log:q}"


rule manifest:
    input:
        phantom=layout.phantom / "lungs.csv" if PHANTOM else [],
        patients=patients_table,
        download=layout.download if DOWNLOADED else [],
    output:
        layout.manifest,
    log:
        log_file("manifest"),
    conda:
        "../envs/train.yaml"
    threads: 8
    params:
        rerun_with("manifest", DATA),
        patients=content(study.data.patients_file),
    shell:
        "python -m hybridlungvit manifest --workers {threads} 2> {log:q}"


rule cache:
    input:
        manifest=layout.manifest,
    output:
        images=layout.images,
        masks=layout.masks,
        table=layout.mask_table,
        record=layout.cache_record,
    log:
        log_file("cache"),
    conda:
        "../envs/train.yaml"
    threads: 8
    resources:
        mem_mb=4000,
    params:
        rerun_with("cache", study.data.image_size),
        masks=masks_hash,
    shell:
        "python -m hybridlungvit cache --workers {threads} 2> {log:q}"


rule quality:
    input:
        manifest=layout.manifest,
        images=layout.images,
        table=layout.mask_table,
        annotations=lambda wildcards: ANNOTATIONS,
    output:
        layout.mask_quality,
        layout.mask_examples,
    log:
        log_file("quality"),
    conda:
        "../envs/train.yaml"
    params:
        rerun_with("quality", STATISTICS),
        annotations=content(study.data.annotations),
    shell:
        "python -m hybridlungvit quality 2> {log:q}"


if BENCHMARKED:

    rule mask_benchmark:
        input:
            manifest=layout.manifest,
            annotations=lambda wildcards: ANNOTATIONS,
        output:
            layout.generated / "tables" / "mask_benchmark.tex",
        log:
            log_file("mask_benchmark"),
        conda:
            "../envs/train.yaml"
        params:
            rerun_with(MASK_BENCHMARK),
            annotations=content(study.data.annotations),
            script=os.path.relpath(MASK_BENCHMARK),
            arguments=mask_benchmark_arguments,
        shell:
            "python {params.script:q} {params.arguments:q} --annotations {input.annotations:q}"
            " --manifest {input.manifest:q} --table {output:q} 2> {log:q}"
