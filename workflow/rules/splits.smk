rule split_patients:
    """Divide the development patients, or, as published, their images."""
    input:
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
    output:
        folds="results/<study>/splits/{protocol}/folds.parquet",
        counts=report(
            "results/<study>/splits/{protocol}/counts.csv",
            caption="../report/counts.rst",
            category="Splits",
            labels={"table": "class counts per fold", "protocol": "{protocol}"},
        ),
    log:
        "results/<study>/logs/split_patients/{protocol}.log",
    benchmark:
        "results/<study>/benchmarks/split_patients/{protocol}.tsv"
    conda:
        "../../envs/split_patients.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("splits.partition"),
        options=options("augmentation", "classes", "distance", "splits"),
    shell:
        "python -m marrowflow splits.partition --options {params.options:q} --protocol {wildcards.protocol}"
        " --inventories {input.inventories:q} --out {output.folds:q} --counts {output.counts:q} 2> {log:q}"


rule check_leakage:
    """Stop the run when a patient, a picture or a near duplicate stands on two sides of a fold."""
    input:
        folds="results/<study>/splits/{protocol}/folds.parquet",
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
        # Slides are not augmented.
        plans=[] if STUDY.slides else folds_of("results/<study>/augmentation/{protocol}/{fold}/plan.parquet"),
    output:
        gate="results/<study>/splits/{protocol}/gate.json",
    log:
        "results/<study>/logs/check_leakage/{protocol}.log",
    benchmark:
        "results/<study>/benchmarks/check_leakage/{protocol}.tsv"
    conda:
        "../../envs/check_leakage.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("splits.leakage"),
        options=options("distance", "splits"),
    shell:
        "python -m marrowflow splits.leakage --options {params.options:q} --protocol {wildcards.protocol}"
        " --folds {input.folds:q} --inventories {input.inventories:q} --plans {input.plans:q}"
        " --out {output.gate:q} 2> {log:q}"


rule check_external:
    """Stop when an external hospital holds a picture that the networks were developed on."""
    input:
        development=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
        external="results/<study>/cohorts/{cohort}/inventory.parquet",
    output:
        gate="results/<study>/external/{cohort}/gate.json",
    log:
        "results/<study>/logs/check_external/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/check_external/{cohort}.tsv"
    conda:
        "../../envs/check_external.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=code("splits.external_gate"),
        options=options("distance"),
    shell:
        "python -m marrowflow splits.external_gate --options {params.options:q}"
        " --development {input.development:q} --external {input.external:q} --out {output.gate:q} 2> {log:q}"
