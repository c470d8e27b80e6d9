# Images, made, fetched or given → manifest → cache of images and masks.

if study.data.source == "phantom":

    rule phantom:
        output:
            layout.phantom / "lungs.csv",  # written with the folder: a file's content can be compared
        log:
            log_file("phantom"),
        benchmark:
            benchmark_file("phantom")
        conda:
            "../envs/train.yaml"
        threads: 2
        resources:
            mem_mb=1000,
            runtime=30,
        params:
            code=code("phantom"),
            identity=value_sha256(study.data.phantom.model_dump()),
        shell:
            "python -m hybridlungvit phantom --workers {threads} 2> {log:q}"


if DOWNLOADED:

    rule download:
        output:
            layout.download,  # not the images: Snakemake would delete them before another try
        log:
            log_file("download"),
        benchmark:
            benchmark_file("download")
        conda:
            "../envs/train.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=240,
        params:
            code=code("download"),
            url=study.data.url,
            checksum=study.data.checksum,
            mnist_size=study.data.mnist_size,
        shell:
            "python -m hybridlungvit download 2> {log:q}"


rule manifest:
    input:
        phantom=layout.phantom / "lungs.csv" if study.data.source == "phantom" else [],
        patients=study.data.patients_file or [],
        download=layout.download if DOWNLOADED else [],
    output:
        layout.manifest,
    log:
        log_file("manifest"),
    benchmark:
        benchmark_file("manifest")
    conda:
        "../envs/train.yaml"
    threads: 8
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code("manifest"),
        identity=value_sha256(base_recipe.data_identity()),
        root=lambda wildcards: study.data_root,  # a function: braces in a path are no wildcards
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
    benchmark:
        benchmark_file("cache")
    conda:
        "../envs/train.yaml"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code("cache"),
        image_size=study.data.image_size,
        masks=lambda wildcards: masks_hash(),
    shell:
        "python -m hybridlungvit cache --workers {threads} 2> {log:q}"


rule quality:
    input:
        manifest=layout.manifest,
        table=layout.mask_table,
        annotations=annotations_file(),
    output:
        reported(layout.mask_quality, "metrics"),
    log:
        log_file("quality"),
    benchmark:
        benchmark_file("quality")
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        code=code("quality"),
        statistics=value_sha256(study.statistics.model_dump()),
    shell:
        "python -m hybridlungvit quality 2> {log:q}"


if ANNOTATED:

    rule mask_benchmark:
        input:
            annotations=annotations_file(),
        output:
            reported(layout.generated / "tables" / "mask_benchmark.tex", "tables"),
        log:
            log_file("mask_benchmark"),
        benchmark:
            benchmark_file("mask_benchmark")
        conda:
            "../envs/train.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            **mask_benchmark_arguments(),
            code=code(MASK_BENCHMARK),
            script=os.path.relpath(MASK_BENCHMARK),
        shell:
            "python {params.script:q} --data {params.data:q} --annotations {params.annotations:q}"
            " --half {params.half:q} --level {params.level} --table {output:q} 2> {log:q}"


rule examples:
    input:
        manifest=layout.manifest,
        images=layout.images,
        table=layout.mask_table,
    output:
        layout.mask_examples,
    log:
        log_file("examples"),
    benchmark:
        benchmark_file("examples")
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("examples"),
    shell:
        "python -m hybridlungvit examples 2> {log:q}"
