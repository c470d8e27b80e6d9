# Grad-CAM for the cases a fixed rule chooses from the test predictions.


rule gradcam:
    input:
        manifest=layout.manifest,
        images=layout.images,
        masks=layout.masks,
        model=lambda wildcards: layout.run(study.trained_as(wildcards.variant), study.seeds[0])
        / "model.safetensors",
        predictions=lambda wildcards: layout.predictions(wildcards.variant, study.seeds[0]),
        code=code("explain"),
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
        threshold=lambda wildcards: study.recipe(wildcards.variant).evaluation.threshold,
    shell:
        "python -m hybridlungvit gradcam --variant {wildcards.variant:q} 2> {log:q}"
