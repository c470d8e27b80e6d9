# Grad-CAM: lung focus on all test images and, of the reference, cases that a fixed rule chooses, with
# all variants' maps of them, and checks. Of the reference the first seeds are looked at, of others the first.

for explained in focus_variants(study):
    reference = explained == study.reference

    rule:
        name:
            f"explain_{explained}"
        input:
            manifest=layout.manifest,
            images=layout.images,
            masks=layout.masks,
            models=weights(explained)[: COMPARED_SEEDS if reference else 1],
            others=[weights(v)[0] for v in other_variants(study, explained)] if reference else [],
            predictions=layout.predictions(explained, study.seeds[0]),
        output:
            rows=layout.focus(explained),
            record=layout.focus(explained).with_suffix(".json"),
            reference=[layout.gradcam(explained), layout.saliency(explained)] if reference else [],
        log:
            log_file(f"explain/{explained}"),
        conda:
            "../envs/train.yaml"
        threads: compute.threads
        resources:
            mem_mb=compute.memory_mb,
            gpu=GPU,
        params:
            rerun_with("explain", STATISTICS, value_sha256(study.explanation.model_dump())),
            threshold=study.recipe(explained).evaluation.threshold,
            variant=explained,
        shell:
            "python -m hybridlungvit explain --variant {params.variant:q} 2> {log:q}"
