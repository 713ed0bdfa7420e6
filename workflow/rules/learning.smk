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


rule combine_development:
    """Average what an ensemble's members answered for the patients that none of them was trained on."""
    input:
        tables=members_of("results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet"),
    output:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet",
    log:
        "results/<study>/logs/combine_development/{protocol}/{model}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/combine_development/{protocol}/{model}/{colour}.tsv"
    wildcard_constraints:
        model="|".join(STUDY.ensembles) or "(?!)",
    localrule: True
    conda:
        "../../envs/combine_development.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("learning.combine"),
        options=options("classes"),
    shell:
        "python -m marrowflow learning.combine --options {params.options:q} --tables {input.tables:q}"
        " --index-test {wildcards.model}-{wildcards.colour} --out {output.raw:q} 2> {log:q}"


rule lock_choices:
    """Fit calibration and thresholds on out-of-fold predictions, once; nothing external is read."""
    input:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet",
    output:
        lock=report(
            "results/<study>/locked/{protocol}/{model}/{colour}/threshold.json",
            caption="../report/threshold.rst",
            category="Locked choices",
            labels={"model": "{model}", "colour": "{colour}", "protocol": "{protocol}"},
        ),
        predictions="results/<study>/predictions/{protocol}/{model}/{colour}/development/predictions.parquet",
        uncalibrated="results/<study>/predictions/{protocol}/{model}/{colour}/development/uncalibrated.parquet",
    log:
        "results/<study>/logs/lock_choices/{protocol}/{model}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/lock_choices/{protocol}/{model}/{colour}.tsv"
    localrule: True
    conda:
        "../../envs/lock_choices.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("learning.lock"),
        options=options("calibration", "classes", "endpoints", "scheme", "threshold", "units"),
    shell:
        "python -m marrowflow learning.lock --options {params.options:q} --raw {input.raw:q}"
        " --index-test {wildcards.model}-{wildcards.colour} --protocol {wildcards.protocol}"
        " --out {output.lock:q} --predictions {output.predictions:q} --uncalibrated {output.uncalibrated:q} 2> {log:q}"


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


rule apply_lock:
    """Apply an index test's locked choices to one external hospital; an ensemble's members are averaged first."""
    input:
        tables=members_of("results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/raw.parquet"),
        lock="results/<study>/locked/{protocol}/{model}/{colour}/threshold.json",
    output:
        predictions="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/predictions.parquet",
        uncalibrated="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/uncalibrated.parquet",
    log:
        "results/<study>/logs/apply_lock/{protocol}/{model}/{colour}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/apply_lock/{protocol}/{model}/{colour}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(EXTERNAL) or "(?!)",
    localrule: True
    conda:
        "../../envs/apply_lock.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("learning.combine"),
        options=options("classes"),
    shell:
        "python -m marrowflow learning.combine --options {params.options:q} --tables {input.tables:q}"
        " --lock {input.lock:q} --index-test {wildcards.model}-{wildcards.colour}"
        " --out {output.predictions:q} --uncalibrated {output.uncalibrated:q} 2> {log:q}"


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
