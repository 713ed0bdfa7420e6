# How an external hospital differs from those that were developed on, and where the networks looked.


rule embed_cohort:
    """Features of one hospital's images in the index test that is reported first, by its network of fold 0."""
    input:
        primary="results/<study>/locked/primary.json",
        models=collect(
            "results/<study>/training/{protocol}/{test.model}/{test.colour}/0/{part}",
            protocol=PROTOCOLS[0],
            test=NETWORKS,
            part=["model.safetensors", "card.json"],
        ),
        folds=f"results/<study>/splits/{PROTOCOLS[0]}/folds.parquet",
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        stores=collect("results/<study>/images/{{cohort}}/{colour}/{part}", colour=STUDY.colour, part=STORE),
        pixels=ancient(collect("results/<study>/images/{{cohort}}/{colour}/pixels.npy", colour=STUDY.colour)),
    output:
        embedding="results/<study>/embeddings/{cohort}/embedding.parquet",
    log:
        "results/<study>/logs/embed_cohort/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/embed_cohort/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(COHORTS),
    conda:
        "../../envs/embed_cohort.yaml"
    # Which network it is, is known when the job runs; its card says how many of these it takes.
    threads: max(model.training.threads for model in STUDY.models.values())
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        code=code("learning.embed"),
        options=options("classes", "members"),
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow learning.embed --options {params.options:q} --primary {input.primary:q}"
        " --models {input.models:q} --folds {input.folds:q} --inventory {input.inventory:q} --stores {input.stores:q}"
        " --features {params.features:q} --out {output.embedding:q} 2> {log:q}"


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
            colour=STUDY.colour,
        ),
        appearance=collect(
            "results/<study>/images/{{cohort}}/{colour}/appearance.parquet", colour=STUDY.colour
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
