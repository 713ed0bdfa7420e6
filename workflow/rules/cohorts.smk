rule ingest_cohort:
    """Take in one hospital: check its manifest, decode every image once, list exclusions with reasons."""
    input:
        manifest=lookup(dpath="{cohort}/manifest", within=COHORTS),
        label_map=LABEL_MAP,
        # An external hospital's arrival is noted before its first image is read.
        arrival=lookup(dpath="{cohort}", within=ARRIVALS),
    output:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
    log:
        "results/<study>/logs/ingest_cohort/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/ingest_cohort/{cohort}.tsv"
    conda:
        "../../envs/ingest_cohort.yaml"
    threads: 4
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        code=code("cohorts.intake"),
        options=options("classes", "intake"),
        label_map="--label-map" if LABEL_MAP else "",
    shell:
        "python -m marrowflow cohorts.intake --options {params.options:q} --cohort {wildcards.cohort}"
        " --manifest {input.manifest:q} {params.label_map} {input.label_map:q} --threads {threads}"
        " --out {output.inventory:q} 2> {log:q}"
