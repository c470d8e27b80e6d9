# Grad-CAM: the cases a fixed rule chooses, lung focus on all test images, and checks of the maps.


rule gradcam:
    input:
        manifest=layout.manifest,
        images=layout.images,
        masks=layout.masks,
        model=lambda wildcards: layout.run(study.trained_as(wildcards.variant), study.seeds[0])
        / "model.safetensors",
        predictions=lambda wildcards: layout.predictions(wildcards.variant, study.seeds[0]),
    output:
        layout.gradcam("{variant}"),
    log:
        log_file("gradcam/{variant}"),
    benchmark:
        benchmark_file("gradcam/{variant}")
    conda:
        "../envs/train.yaml"
    threads: compute.threads
    resources:
        mem_mb=compute.memory_mb,
        runtime=30,
        gpu=GPU,
    params:
        code=code("gradcam"),
        threshold=lambda wildcards: study.recipe(wildcards.variant).evaluation.threshold,
        batch_size=study.explanation.batch_size,
    shell:
        "python -m hybridlungvit gradcam --variant {wildcards.variant:q} 2> {log:q}"


rule focus:
    input:
        manifest=layout.manifest,
        images=layout.images,
        masks=layout.masks,
        model=lambda wildcards: layout.run(study.trained_as(wildcards.variant), study.seeds[0])
        / "model.safetensors",
        predictions=lambda wildcards: layout.predictions(wildcards.variant, study.seeds[0]),
    output:
        rows=layout.focus("{variant}"),
        record=layout.focus("{variant}").with_suffix(".json"),
    log:
        log_file("focus/{variant}"),
    benchmark:
        benchmark_file("focus/{variant}")
    conda:
        "../envs/train.yaml"
    threads: compute.threads
    resources:
        mem_mb=compute.memory_mb,
        runtime=60,
        gpu=GPU,
    params:
        code=code("focus"),
        threshold=lambda wildcards: study.recipe(wildcards.variant).evaluation.threshold,
        explanation=value_sha256(study.explanation.model_dump()),
        statistics=value_sha256(study.statistics.model_dump()),
    shell:
        "python -m hybridlungvit focus --variant {wildcards.variant:q} 2> {log:q}"


rule saliency:
    input:
        manifest=layout.manifest,
        images=layout.images,
        masks=layout.masks,
        model=lambda wildcards: [
            layout.run(study.trained_as(wildcards.variant), seed) / "model.safetensors"
            for seed in study.seeds
        ],
        predictions=lambda wildcards: layout.predictions(wildcards.variant, study.seeds[0]),
    output:
        layout.saliency("{variant}"),
    log:
        log_file("saliency/{variant}"),
    benchmark:
        benchmark_file("saliency/{variant}")
    conda:
        "../envs/train.yaml"
    threads: compute.threads
    resources:
        mem_mb=compute.memory_mb,
        runtime=60,
        gpu=GPU,
    params:
        code=code("saliency"),
        threshold=lambda wildcards: study.recipe(wildcards.variant).evaluation.threshold,
        explanation=value_sha256(study.explanation.model_dump()),
        statistics=value_sha256(study.statistics.model_dump()),
    shell:
        "python -m hybridlungvit saliency --variant {wildcards.variant:q} 2> {log:q}"
