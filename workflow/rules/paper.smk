# The records as text and figures below paper/generated/<study>/, then PDF, check and seal.


rule text:
    # The manuscript too: only what it asks for is written, and checklists point to its labels.
    input:
        results=report_inputs(),
        manifest=layout.manifest,
        manuscript=MANUSCRIPT,
        sources=paper_files(
            "literature.yaml", "earlier_looks.yaml", "checklists/*.yaml", "templates/*.j2"
        ),
    output:
        macros=[layout.generated / "macros.tex", layout.generated / "audit.tex"],
        tables=[layout.generated / "tables" / f"{name}.tex" for name in TABLES],
        companions=[layout.companions / name for name in COMPANIONS],
    log:
        log_file("text"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("text", STUDY, __version__),
    shell:
        "python -m hybridlungvit text 2> {log:q}"


rule figures:
    input:
        results=report_inputs(),
    output:
        [layout.generated / "figures" / f"{name}.pdf" for name in FIGURES],
    log:
        log_file("figures"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("figures", STUDY),
    shell:
        "python -m hybridlungvit figures 2> {log:q}"


rule galleries:
    input:
        gradcam=layout.gradcam(study.reference),
        examples=layout.mask_examples,
    output:
        [layout.generated / "figures" / f"{name}.pdf" for name in GALLERIES],
    log:
        log_file("galleries"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("galleries", *study.data.classes),
        labels=[variant.label for variant in study.variants.values()],
    shell:
        "python -m hybridlungvit galleries 2> {log:q}"


rule pdf:
    input:
        macros=rules.text.output.macros,
        tables=rules.text.output.tables,
        figures=rules.figures.output,
        galleries=rules.galleries.output,
        masks=rules.mask_benchmark.output if BENCHMARKED else [],
        manuscript=MANUSCRIPT,
    output:
        layout.pdf,
    log:
        log_file("pdf"),
    conda:
        "../envs/tex.yaml"
    params:
        rerun_with("pdf"),
    shell:
        "python -m hybridlungvit pdf 2> {log:q}"


rule page:
    # Pictures too, where the cache of images is: predictions, hence results, were made after it.
    input:
        results=report_inputs(),
        companions=rules.text.output.companions,
        sources=paper_files("page/*"),
    output:
        layout.page,
    log:
        log_file("page"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("page", STUDY, __version__),
    shell:
        "python -m hybridlungvit page 2> {log:q}"


rule check_paper:
    # What it has to say is for people: it goes to the screen as well as to the log.
    input:
        pdf=rules.pdf.output,
        text=rules.text.output,
        results=report_inputs(),
        readme="README.md" if Path("README.md").is_file() else [],
        allowed=paper_files("allowed_numbers.yaml"),
    output:
        layout.check,
    log:
        log_file("check_paper"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("check-paper"),
    shell:
        "python -m hybridlungvit check-paper 2>&1 | tee {log:q}"


rule seal:
    input:
        files=sealed_files(study, layout),
        check=layout.check,
    output:
        layout.seal,
    log:
        log_file("seal"),
    conda:
        "../envs/analysis.yaml"
    params:
        rerun_with("seal"),
    shell:
        "python -m hybridlungvit seal 2> {log:q}"
