# What was fixed on development data, sealed, and packed for a second hospital.


rule seal_development:
    """Seal what was fixed on development data: checksums of all choices and networks, and when; nothing external is read."""
    input:
        primary="results/<study>/locked/primary.json",
        locks=collect(
            "results/<study>/locked/{protocol}/{test.model}/{test.colour}/threshold.json",
            protocol=PROTOCOLS,
            test=INDEX_TESTS,
        ),
        networks=WEIGHT_FILES,
        cards=CARDS,
        stores=collect(
            "results/<study>/images/{cohort}/{colour}/store.json", cohort=DEVELOPMENT, colour=STUDY.views
        ),
        folds=collect("results/<study>/splits/{protocol}/folds.parquet", protocol=PROTOCOLS),
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
    output:
        seal=report(
            "results/<study>/locked/seal.json",
            caption="../report/seal.rst",
            category="Locked choices",
            labels={"choice": "seal of all that was fixed"},
        ),
    log:
        "results/<study>/logs/seal_development.log",
    benchmark:
        "results/<study>/benchmarks/seal_development.tsv"
    conda:
        "../../envs/seal_development.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        code=code("choices.seal"),
        # The steps that other hospitals' images pass through are sealed too.
        intake=code("slides.intake" if STUDY.slides else "cohorts.intake"),
        correct=code("slides.extract" if STUDY.slides else "images.correct"),
        predict=code("slides.predict_external" if STUDY.slides else "learning.predict_external"),
        combine=code("learning.combine"),
        root=subpath(output.seal, ancestor=2),
        notes=f"results/{STUDY.study.key}/state/seal",
    shell:
        "python -m marrowflow choices.seal --root {params.root:q} --primary {input.primary:q} --locks {input.locks:q}"
        " --networks {input.networks:q} --stores {input.stores:q} --folds {input.folds:q}"
        " --inventories {input.inventories:q} --notes {params.notes:q} --out {output.seal:q} 2> {log:q}"


rule note_arrival:
    """Note when an external hospital was first taken up; its intake waits for the note."""
    input:
        manifest=lookup(dpath="{cohort}/manifest", within=COHORTS),
    output:
        arrival="results/<study>/external/{cohort}/arrival.json",
    log:
        "results/<study>/logs/note_arrival/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/note_arrival/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(EXTERNAL) or "(?!)",
    localrule: True
    conda:
        "../../envs/note_arrival.yaml"
    threads: 1
    resources:
        mem_mb=growing(500),
        runtime=growing(5),
    params:
        code=code("cohorts.arrival"),
        note=f"results/{STUDY.study.key}/state/arrivals/{{cohort}}.json",
    shell:
        "python -m marrowflow cohorts.arrival --cohort {wildcards.cohort} --manifest {input.manifest:q}"
        " --note {params.note:q} --out {output.arrival:q} 2> {log:q}"


rule package_model:
    """Pack the index test that is reported first into a folder that another hospital applies by itself."""
    input:
        primary="results/<study>/locked/primary.json",
        # Which one is known only when it runs. The sound protocol's, whatever the study reports first.
        locks=collect(
            "results/<study>/locked/sound/{test.model}/{test.colour}/threshold.json", test=INDEX_TESTS
        ),
        networks=collect(
            "results/<study>/training/sound/{test.model}/{test.colour}/{fold}/model.safetensors",
            test=NETWORKS,
            fold=FOLDS["sound"],
        ),
        cards=collect(
            "results/<study>/training/sound/{test.model}/{test.colour}/{fold}/card.json",
            test=NETWORKS,
            fold=FOLDS["sound"],
        ),
        stores=collect(
            "results/<study>/images/{cohort}/{colour}/store.json", cohort=DEVELOPMENT, colour=STUDY.views
        ),
        metrics=collect(
            "results/<study>/accuracy/sound/{test.model}/{test.colour}/development/metrics.csv",
            test=INDEX_TESTS,
        ),
        targets=[target for target in TARGETS.values() if target],
        label_map=LABEL_MAP,
    output:
        package="results/<study>/package/package.json",
        checksums="results/<study>/package/checksums.sha256",
        card="results/<study>/package/card.json",
    log:
        "results/<study>/logs/package_model.log",
    benchmark:
        "results/<study>/benchmarks/package_model.tsv"
    conda:
        "../../envs/package_model.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        code=code("learning.package"),
        # The code that is packed.
        apply=code("learning.apply"),
        accuracy=code("statistics.accuracy"),
        options=options(
            "accuracy",
            "classes",
            "colour",
            "endpoints",
            "images",
            "intake",
            "members",
            "models",
            "study",
            "texts",
            "units",
        ),
        label_map="--label-map" if LABEL_MAP else "",
        folder=subpath(output.package, parent=True),
    shell:
        "python -m marrowflow learning.package --options {params.options:q} --primary {input.primary:q}"
        " --locks {input.locks:q} --networks {input.networks:q} --stores {input.stores:q} --metrics {input.metrics:q}"
        " {params.label_map} {input.label_map:q} --out {params.folder:q} 2> {log:q}"
