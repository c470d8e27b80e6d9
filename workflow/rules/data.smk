# Images, made, fetched or given → manifest → cache of images and masks.

if study.data.source == "phantom":

    rule phantom:
        input:
            code=code("data/phantom*"),
        output:
            directory(layout.phantom),
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
            identity=value_sha256(study.data.phantom.model_dump()),
        shell:
            "python -m hybridlungvit phantom --workers {threads} 2> {log:q}"


if DOWNLOADED:

    rule download:
        input:
            code=code("data/archive", "data/download", "data/remote", "data/sources"),
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
            url=study.data.url,
            checksum=study.data.checksum,
            mnist_size=study.data.mnist_size,
        shell:
            "python -m hybridlungvit download 2> {log:q}"


rule manifest:
    input:
        phantom=layout.phantom if study.data.source == "phantom" else [],
        download=layout.download if DOWNLOADED else [],
        code=code("data/sources", "data/decode", "data/manifest"),
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
        identity=value_sha256(base_recipe.data_identity()),
        root=lambda wildcards: study.data_root,  # a function: braces in a path are no wildcards
    shell:
        "python -m hybridlungvit manifest --workers {threads} 2> {log:q}"


rule cache:
    input:
        manifest=layout.manifest,
        code=code("data/cache", "data/decode", "data/masks", "data/mask_template"),
    output:
        images=layout.images,
        masks=layout.masks,
        table=layout.mask_table,
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
        image_size=study.data.image_size,
    shell:
        "python -m hybridlungvit cache --workers {threads} 2> {log:q}"


rule quality:
    input:
        manifest=layout.manifest,
        table=layout.mask_table,
        annotations=annotations_file(),
        code=code(
            "evaluation/mask_quality",
            "evaluation/agreement",
            "evaluation/annotated",
            *STATISTICS_CODE,
        ),
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
        statistics=value_sha256(study.statistics.model_dump()),
    shell:
        "python -m hybridlungvit quality 2> {log:q}"


if ANNOTATED:

    rule mask_benchmark:
        input:
            annotations=annotations_file(),
            script=os.path.relpath(BASE / "benchmarks" / "masks.py"),
            code=code(
                "data/masks",
                "data/mask_template",
                "evaluation/a*",
                "reporting/booktabs",
            ),
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
        shell:
            "python {input.script:q} --data {params.data:q} --annotations {params.annotations:q}"
            " --half {params.half:q} --level {params.level} --table {output:q} 2> {log:q}"


rule examples:
    input:
        manifest=layout.manifest,
        images=layout.images,
        table=layout.mask_table,
        code=code("data/examples"),
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
    shell:
        "python -m hybridlungvit examples 2> {log:q}"
