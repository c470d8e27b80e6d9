# Macros, tables and figures into paper/generated/<study>/, then the PDF.


rule macros:
    input:
        results=report_inputs(),
        text=manuscript(),  # only what it asks for is written
        code=code(*TEXT_CODE),
    output:
        layout.generated / "macros.tex",
    log:
        log_file("macros"),
    benchmark:
        benchmark_file("macros")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        study=value_sha256(study.model_dump(mode="json", exclude={"data_root"})),
    shell:
        "python -m hybridlungvit macros 2> {log:q}"


rule tables:
    input:
        results=report_inputs(),
        literature=paper_files("literature.yaml", "references.bib"),
        code=code(*TEXT_CODE),
    output:
        [reported(layout.generated / "tables" / f"{name}.tex", "tables") for name in TABLES],
    log:
        log_file("tables"),
    benchmark:
        benchmark_file("tables")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        study=value_sha256(study.model_dump(mode="json", exclude={"data_root"})),
    shell:
        "python -m hybridlungvit tables 2> {log:q}"


rule figures:
    input:
        results=report_inputs(),
        code=code(
            "explain/cases",
            "reporting/check_origins",
            "reporting/explanation",
            "reporting/facts",
            "reporting/figures",
            "reporting/statistics_*",
            "reporting/style",
        ),
    output:
        layout.figure_record,
        [reported(layout.generated / "figures" / f"{name}.pdf", "figures") for name in FIGURES],
    log:
        log_file("figures"),
    benchmark:
        benchmark_file("figures")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        study=value_sha256(study.model_dump(mode="json", exclude={"data_root"})),
    shell:
        "python -m hybridlungvit figures 2> {log:q}"


rule galleries:
    input:
        gradcam=layout.gradcam(study.reference),
        examples=layout.mask_examples,
        code=code("reporting/galleries", "reporting/style"),
    output:
        [reported(layout.generated / "figures" / f"{name}.pdf", "figures") for name in GALLERIES],
    log:
        log_file("galleries"),
    benchmark:
        benchmark_file("galleries")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "python -m hybridlungvit galleries 2> {log:q}"


rule companions:
    # The manuscript's sources too: answers of the checklists point to its labels.
    input:
        results=report_inputs(),
        audit=[layout.audit, layout.audit_results],
        manifest=layout.manifest,
        text=[*manuscript(), *paper_files("checklists/*.yaml", "templates/*.j2")],
        code=code(
            *TEXT_CODE,
            "reporting/all_metrics",
            "reporting/audit_report",
            "reporting/checklists",
            "reporting/companions",
            "reporting/typed_numbers",
        ),
    output:
        [reported(layout.companions / name, "companions") for name in COMPANIONS],
    log:
        log_file("companions"),
    benchmark:
        benchmark_file("companions")
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        study=value_sha256(study.model_dump(mode="json", exclude={"data_root"})),
    shell:
        "python -m hybridlungvit companions 2> {log:q}"


rule pdf:
    input:
        macros=rules.macros.output,
        tables=rules.tables.output,
        figures=rules.figures.output,
        galleries=rules.galleries.output,
        audit=rules.audit_report.output,
        masks=rules.mask_benchmark.output if ANNOTATED else [],
        text=manuscript(),
        code=code("reporting/manuscript", "reporting/pdf"),
    output:
        pdf=reported(layout.pdf, "paper", "paper"),
        record=layout.pdf_record,
    log:
        log_file("pdf"),
    benchmark:
        benchmark_file("pdf")
    conda:
        "../envs/tex.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "python -m hybridlungvit pdf 2> {log:q}"


rule check_paper:
    input:
        pdf=rules.pdf.output,
        companions=rules.companions.output,
        results=report_inputs(),
        readme="README.md" if Path("README.md").is_file() else [],
        allowed=os.path.relpath(BASE / "paper" / "allowed_numbers.yaml"),
        code=code("reporting"),
    output:
        layout.check,
    log:
        log_file("check_paper"),
    benchmark:
        benchmark_file("check_paper")
    conda:
        "../envs/analysis.yaml"
    threads: 4
    resources:
        mem_mb=1000,
        runtime=30,
    shell:
        "python -m hybridlungvit check-paper --workers {threads} 2> {log:q}"
