rule correct_shard:
    """Correct the colour of one archive's images by one recipe, and pack the pixels as a part of the hospital's store."""
    input:
        measured="results/<study>/cohorts/{cohort}/shards/{shard}.parquet",
        archive=archive_of,
        target=lookup(dpath="{colour}", within=TARGETS),
    output:
        # All parts together are as large as the hospital's store, and go when that is whole.
        pixels=temp("results/<study>/state/parts/{cohort}/{colour}/{shard}/pixels.npy"),
        index=temp("results/<study>/state/parts/{cohort}/{colour}/{shard}/index.parquet"),
        store=temp("results/<study>/state/parts/{cohort}/{colour}/{shard}/store.json"),
        appearance=temp("results/<study>/state/parts/{cohort}/{colour}/{shard}/appearance.parquet"),
    log:
        "results/<study>/logs/correct_shard/{cohort}/{colour}/{shard}.log",
    benchmark:
        "results/<study>/benchmarks/correct_shard/{cohort}/{colour}/{shard}.tsv"
    wildcard_constraints:
        cohort="|".join(SHARDED) or "(?!)",
    # Before the next archive is measured, so that one is fetched once, used up and deleted.
    priority: 1
    conda:
        "../../envs/correct_shard.yaml"
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        code=code("images.shard"),
        options=options("images", "recipe"),
        folder=subpath(output.store, parent=True),
    shell:
        "python -m marrowflow images.shard --options {params.options:q} --measured {input.measured:q}"
        " --archive {input.archive:q} --threads {threads} --out {params.folder:q} 2> {log:q}"


rule correct_cohort:
    """Correct one hospital's colour by one recipe, and pack the pixels."""
    input:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        target=lookup(dpath="{colour}", within=TARGETS),
        parts=shards_of("results/<study>/state/parts/{cohort}/{colour}/{shard}/store.json"),
        pieces=shards_of(
            [
                "results/<study>/state/parts/{cohort}/{colour}/{shard}/pixels.npy",
                "results/<study>/state/parts/{cohort}/{colour}/{shard}/index.parquet",
                "results/<study>/state/parts/{cohort}/{colour}/{shard}/appearance.parquet",
            ]
        ),
    output:
        pixels="results/<study>/images/{cohort}/{colour}/pixels.npy",
        index="results/<study>/images/{cohort}/{colour}/index.parquet",
        store="results/<study>/images/{cohort}/{colour}/store.json",
        appearance="results/<study>/images/{cohort}/{colour}/appearance.parquet",
    log:
        "results/<study>/logs/correct_cohort/{cohort}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/correct_cohort/{cohort}/{colour}.tsv"
    conda:
        "../../envs/correct_cohort.yaml"
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        code=code("images.correct"),
        options=options("images", "recipe"),
        images=lookup(dpath="{cohort}/images", within=COHORTS),
        folder=subpath(output.store, parent=True),
    shell:
        "python -m marrowflow images.correct --options {params.options:q} --inventory {input.inventory:q}"
        " {params.images:q} {input.parts:q} --threads {threads} --out {params.folder:q} 2> {log:q}"


rule plan_augmentation:
    """Draw the plan of one fold's training images, after the split."""
    input:
        folds="results/<study>/splits/{protocol}/folds.parquet",
    output:
        plan="results/<study>/augmentation/{protocol}/{fold}/plan.parquet",
    log:
        "results/<study>/logs/plan_augmentation/{protocol}/{fold}.log",
    benchmark:
        "results/<study>/benchmarks/plan_augmentation/{protocol}/{fold}.tsv"
    conda:
        "../../envs/plan_augmentation.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("images.augment"),
        options=options("augmentation", "classes"),
    shell:
        "python -m marrowflow images.augment --options {params.options:q} --folds {input.folds:q}"
        " --fold {wildcards.fold} --out {output.plan:q} 2> {log:q}"


rule draw_contact_sheet:
    """Draw what the augmentation plan does to an image of each class."""
    input:
        plan="results/<study>/augmentation/sound/0/plan.parquet",
        stores=collect("results/<study>/images/{cohort}/{{colour}}/{part}", cohort=DEVELOPMENT, part=STORE),
        pixels=ancient(collect("results/<study>/images/{cohort}/{{colour}}/pixels.npy", cohort=DEVELOPMENT)),
    output:
        sheet=report(
            "results/<study>/augmentation/contact_sheet_{colour}.png",
            caption="../report/contact_sheet.rst",
            category="Augmentation",
            labels={"figure": "contact sheet", "colour": "{colour}"},
        ),
    log:
        "results/<study>/logs/draw_contact_sheet/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/draw_contact_sheet/{colour}.tsv"
    conda:
        "../../envs/draw_contact_sheet.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(20),
    params:
        code=code("images.contact_sheet"),
        options=options("augmentation", "classes"),
    shell:
        "python -m marrowflow images.contact_sheet --options {params.options:q} --plan {input.plan:q}"
        " --stores {input.stores:q} --out {output.sheet:q} 2> {log:q}"


rule materialise_plan:
    """Write the pictures of one fold's plan as files, for those who want files; no other rule reads them."""
    input:
        plan="results/<study>/augmentation/{protocol}/{fold}/plan.parquet",
        stores=collect("results/<study>/images/{cohort}/{{colour}}/{part}", cohort=DEVELOPMENT, part=STORE),
        pixels=ancient(collect("results/<study>/images/{cohort}/{{colour}}/pixels.npy", cohort=DEVELOPMENT)),
    output:
        pictures=directory("results/<study>/augmentation/{protocol}/{fold}/pictures_{colour}"),
    log:
        "results/<study>/logs/materialise_plan/{protocol}/{colour}/{fold}.log",
    benchmark:
        "results/<study>/benchmarks/materialise_plan/{protocol}/{colour}/{fold}.tsv"
    conda:
        "../../envs/materialise_plan.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        code=code("images.materialise"),
        options=options("augmentation"),
    shell:
        "python -m marrowflow images.materialise --options {params.options:q} --plan {input.plan:q}"
        " --stores {input.stores:q} --out {output.pictures:q} 2> {log:q}"
