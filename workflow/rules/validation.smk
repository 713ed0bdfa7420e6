# How an external hospital differs from those that were developed on.


rule measure_shift:
    """How one external hospital differs from development: case mix, quality, colour, features; can a classifier tell."""
    input:
        development_inventories=collect(
            "results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT
        ),
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        development_appearance=collect(
            "results/<study>/images/{cohort}/{colour}/appearance.parquet",
            cohort=DEVELOPMENT,
            colour=STUDY.views,
        ),
        appearance=collect(
            "results/<study>/images/{{cohort}}/{colour}/appearance.parquet", colour=STUDY.views
        ),
        development_embeddings=collect(
            "results/<study>/embeddings/{cohort}/embedding.parquet", cohort=DEVELOPMENT
        ),
        embedding="results/<study>/embeddings/{cohort}/embedding.parquet",
    output:
        domain=report(
            "results/<study>/shift/{cohort}/domain.csv",
            caption="../report/shift.rst",
            category="Shift",
            labels={"cohort": "{cohort}"},
        ),
        characteristics="results/<study>/shift/{cohort}/characteristics.csv",
        projection="results/<study>/shift/{cohort}/projection.csv",
        components="results/<study>/shift/{cohort}/components.csv",
        colour="results/<study>/shift/{cohort}/colour.csv",
    log:
        "results/<study>/logs/measure_shift/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/measure_shift/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(EXTERNAL) or "(?!)",
    conda:
        "../../envs/measure_shift.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        code=code("statistics.shift"),
        options=options("accuracy", "classes", "subgroups"),
        folder=subpath(output.domain, parent=True),
    shell:
        "python -m marrowflow statistics.shift --options {params.options:q}"
        " --development-inventories {input.development_inventories:q} --inventory {input.inventory:q}"
        " --development-appearance {input.development_appearance:q} --appearance {input.appearance:q}"
        " --development-embeddings {input.development_embeddings:q} --embedding {input.embedding:q}"
        " --out {params.folder:q} 2> {log:q}"
