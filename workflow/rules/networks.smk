# Networks on images: trained, asked, and where they looked.


rule train_fold:
    """Train one network on one fold; a killed job resumes from its state."""
    input:
        folds="results/<study>/splits/{protocol}/folds.parquet",
        gate="results/<study>/splits/{protocol}/gate.json",
        plan="results/<study>/augmentation/{protocol}/{fold}/plan.parquet",
        stores=collect("results/<study>/images/{cohort}/{{colour}}/{part}", cohort=DEVELOPMENT, part=STORE),
        pixels=ancient(collect("results/<study>/images/{cohort}/{{colour}}/pixels.npy", cohort=DEVELOPMENT)),
        weights=lookup(dpath="{model}", within=WEIGHTS),
    output:
        weights="results/<study>/training/{protocol}/{model}/{colour}/{fold}/model.safetensors",
        history="results/<study>/training/{protocol}/{model}/{colour}/{fold}/history.csv",
        card="results/<study>/training/{protocol}/{model}/{colour}/{fold}/card.json",
        cost="results/<study>/training/{protocol}/{model}/{colour}/{fold}/cost.json",
    log:
        "results/<study>/logs/train_fold/{protocol}/{model}/{colour}/{fold}.log",
    benchmark:
        "results/<study>/benchmarks/train_fold/{protocol}/{model}/{colour}/{fold}.tsv"
    wildcard_constraints:
        model="|".join(STUDY.models),
    conda:
        "../../envs/train_fold.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        # Not growing: tried again, training goes on from its state.
        runtime=720,
    params:
        code=code("learning.train"),
        options=options("augmentation", "classes", "heads", "model"),
        folder=subpath(output.weights, parent=True),
        state=f"results/{STUDY.study.key}/state/train_fold/{{protocol}}/{{model}}/{{colour}}/{{fold}}",
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow learning.train --options {params.options:q} --fold {wildcards.fold}"
        " --protocol {wildcards.protocol}"
        " --folds {input.folds:q} --plan {input.plan:q} --stores {input.stores:q}"
        " --state {params.state:q} --features {params.features:q} --out {params.folder:q} 2> {log:q}"


rule predict_development:
    """Let every fold's network answer for the patients it was not trained on."""
    input:
        models=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/model.safetensors"),
        cards=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/card.json"),
        folds="results/<study>/splits/{protocol}/folds.parquet",
        plans=folds_of("results/<study>/augmentation/{protocol}/{fold}/plan.parquet"),
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
        stores=collect("results/<study>/images/{cohort}/{{colour}}/{part}", cohort=DEVELOPMENT, part=STORE),
        pixels=ancient(collect("results/<study>/images/{cohort}/{{colour}}/pixels.npy", cohort=DEVELOPMENT)),
    output:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet",
    log:
        "results/<study>/logs/predict_development/{protocol}/{model}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/predict_development/{protocol}/{model}/{colour}.tsv"
    wildcard_constraints:
        model="|".join(STUDY.models),
    conda:
        "../../envs/predict_development.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        code=code("learning.predict"),
        options=options("augmentation", "classes", "model"),
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow learning.predict --options {params.options:q} --models {input.models:q}"
        " --folds {input.folds:q} --plans {input.plans:q} --inventories {input.inventories:q} --stores {input.stores:q}"
        " --features {params.features:q} --index-test {wildcards.model}-{wildcards.colour} --out {output.raw:q} 2> {log:q}"


rule predict_external:
    """Let the networks of all folds answer for one external hospital, uncalibrated."""
    input:
        models=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/model.safetensors"),
        cards=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/card.json"),
        gate="results/<study>/external/{cohort}/gate.json",
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        store=collect("results/<study>/images/{{cohort}}/{{colour}}/{part}", part=STORE),
        pixels=ancient("results/<study>/images/{cohort}/{colour}/pixels.npy"),
    output:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/raw.parquet",
    log:
        "results/<study>/logs/predict_external/{protocol}/{model}/{colour}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/predict_external/{protocol}/{model}/{colour}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(EXTERNAL) or "(?!)",
        model="|".join(STUDY.models),
    conda:
        "../../envs/predict_external.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        code=code("learning.predict_external"),
        options=options("classes", "model"),
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow learning.predict_external --options {params.options:q} --models {input.models:q}"
        " --inventory {input.inventory:q} --store {input.store:q} --features {params.features:q}"
        " --index-test {wildcards.model}-{wildcards.colour} --out {output.raw:q} 2> {log:q}"


rule explain_cohort:
    """Show where the networks looked in the cases that the reports print, beside networks of random weights."""
    input:
        primary="results/<study>/locked/primary.json",
        predictions=collect(
            "results/<study>/predictions/{{protocol}}/{test.model}/{test.colour}/{{cohort}}/predictions.parquet",
            test=INDEX_TESTS,
        ),
        locks=collect(
            "results/<study>/locked/{{protocol}}/{test.model}/{test.colour}/threshold.json", test=INDEX_TESTS
        ),
        folds="results/<study>/splits/{protocol}/folds.parquet",
        models=folds_of(
            collect(
                "results/<study>/training/{{protocol}}/{test.model}/{test.colour}/{{fold}}/model.safetensors",
                test=NETWORKS,
            )
        ),
        stores=collect(
            "results/<study>/images/{hospital}/{colour}/{part}",
            hospital=lookup(
                dpath="{cohort}", within={"development": DEVELOPMENT, **{name: name for name in EXTERNAL}}
            ),
            colour=STUDY.colour,
            part=STORE,
        ),
        pixels=ancient(
            collect(
                "results/<study>/images/{hospital}/{colour}/pixels.npy",
                hospital=lookup(
                    dpath="{cohort}",
                    within={"development": DEVELOPMENT, **{name: name for name in EXTERNAL}},
                ),
                colour=STUDY.colour,
            )
        ),
    output:
        cases="results/<study>/explanations/{protocol}/{cohort}/cases.csv",
        maps=directory("results/<study>/explanations/{protocol}/{cohort}/maps"),
    log:
        "results/<study>/logs/explain_cohort/{protocol}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/explain_cohort/{protocol}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(["development", *EXTERNAL]),
    conda:
        "../../envs/explain_cohort.yaml"
    threads: max(model.training.threads for model in STUDY.models.values())
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        code=code("learning.explain"),
        options=options("classes", "endpoints", "errors_shown", "members", "threads", "units"),
        folder=subpath(output.cases, parent=True),
    shell:
        "python -m marrowflow learning.explain --options {params.options:q} --primary {input.primary:q}"
        " --predictions {input.predictions:q} --locks {input.locks:q} --folds {input.folds:q}"
        " --models {input.models:q} --stores {input.stores:q} --out {params.folder:q} 2> {log:q}"


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
