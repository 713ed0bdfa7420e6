rule correct_cohort:
    """Correct one hospital's colour by one recipe, and pack the pixels."""
    input:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        target=lookup(dpath="{colour}", within=TARGETS),
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
        mem_mb=2000,
        runtime=240,
    params:
        code=code("images.correct"),
        options=options("images", "recipe"),
        images=lookup(dpath="{cohort}/folder", within=COHORTS),
        folder=subpath(output.store, parent=True),
    shell:
        "python -m marrowflow images.correct --options {params.options:q} --inventory {input.inventory:q}"
        " --images {params.images:q} --threads {threads} --out {params.folder:q} 2> {log:q}"


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
        mem_mb=1000,
        runtime=20,
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
        mem_mb=1000,
        runtime=20,
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
        mem_mb=2000,
        runtime=120,
    params:
        code=code("images.materialise"),
        options=options("augmentation"),
    shell:
        "python -m marrowflow images.materialise --options {params.options:q} --plan {input.plan:q}"
        " --stores {input.stores:q} --out {output.pictures:q} 2> {log:q}"
