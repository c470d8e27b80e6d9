# Images → manifest → cache of images and masks.

if study.data.source == "phantom":

    rule phantom:
        input:
            config=ancient(layout.config),
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
            "python -m hybridlungvit phantom --config {input.config:q} --workers {threads} 2> {log:q}"


rule resolve:
    output:
        layout.config,
    log:
        log_file("resolve"),
    benchmark:
        benchmark_file("resolve")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        values=json.dumps(study.model_dump(mode="json")),
    shell:
        "python -m hybridlungvit resolve --values {params.values:q} --output {output:q} 2> {log:q}"


rule manifest:
    input:
        config=ancient(layout.config),
        phantom=layout.phantom if study.data.source == "phantom" else [],
        code=code("data/sources", "data/manifest"),
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
        root=study.data_root,
    shell:
        "python -m hybridlungvit manifest --config {input.config:q} --workers {threads} 2> {log:q}"


rule cache:
    input:
        config=ancient(layout.config),
        manifest=layout.manifest,
        code=code("data/cache", "data/masks"),
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
        "python -m hybridlungvit cache --config {input.config:q} --workers {threads} 2> {log:q}"


rule examples:
    input:
        config=ancient(layout.config),
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
        "python -m hybridlungvit examples --config {input.config:q} 2> {log:q}"
