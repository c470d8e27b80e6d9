# One training for each variant and seed. Checkpoints live outside the outputs, so that an
# interrupted job resumes: see Layout.work.


rule features:
    # Of a stem that never learns, once for all trainings of its head; resumes, like a training.
    input:
        leaks=layout.leaks,
        manifest=layout.manifest,
        images=layout.images,
        weights=pretrained_weights,
    output:
        layout.features("{variant}") / "features.json",
    log:
        log_file("features/{variant}"),
    conda:
        "../envs/train.yaml"
    threads: 8
    resources:
        mem_mb=compute.memory_mb,
        runtime=compute.runtime_minutes,
        gpu=GPU,
    params:
        rerun_with("features"),
        identity=lambda wildcards: value_sha256(study.recipe(wildcards.variant).feature_identity()),
        weights=weights_content,
    shell:
        "python -m hybridlungvit features --variant {wildcards.variant:q}"
        " --threads {threads} 2> {log:q}"


rule train:
    input:
        leaks=layout.leaks,  # no training before the data have passed
        manifest=layout.manifest,
        images=layout.images,
        masks=layout.masks,
        weights=pretrained_weights,
        features=lambda wildcards: stored_features(wildcards.variant),
    output:
        model=layout.run("{variant}", "{seed}") / "model.safetensors",
        history=layout.run("{variant}", "{seed}") / "history.csv",
        timing=layout.run("{variant}", "{seed}") / "timing.csv",
        record=layout.run("{variant}", "{seed}") / "run.json",
    log:
        log_file("train/{variant}-seed-{seed}"),
    conda:
        "../envs/train.yaml"
    threads: compute.threads
    resources:
        mem_mb=compute.memory_mb,
        runtime=compute.runtime_minutes,
        gpu=GPU,
    params:
        rerun_with("train"),
        identity=lambda wildcards: study.training_hash(wildcards.variant),
        weights=weights_content,
    shell:
        "python -m hybridlungvit train --variant {wildcards.variant:q}"
        " --seed {wildcards.seed:q} 2> {log:q}"
