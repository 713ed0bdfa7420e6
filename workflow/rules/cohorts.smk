onstart:
    # A copy from a web server that a killed run left may be half of its file, and would be taken for the whole one.
    shutil.rmtree(Path(workflow.storage_settings.local_storage_prefix) / "http", ignore_errors=True)


rule check_manifest:
    """Check the manifest of a hospital whose images lie in archives, before the first archive is read."""
    input:
        manifest=lookup(dpath="{cohort}/manifest", within=COHORTS),
        label_map=LABEL_MAP,
        # An external hospital's arrival is noted before its first image is read.
        arrival=lookup(dpath="{cohort}", within=ARRIVALS),
    output:
        checked="results/<study>/cohorts/{cohort}/checked.json",
    log:
        "results/<study>/logs/check_manifest/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/check_manifest/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(SHARDED) or "(?!)",
    localrule: True
    conda:
        "../../envs/check_manifest.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("cohorts.check"),
        options=options("allow_identifiers", "classes"),
        label_map="--label-map" if LABEL_MAP else "",
    shell:
        "python -m marrowflow cohorts.check --options {params.options:q} --cohort {wildcards.cohort}"
        " --manifest {input.manifest:q} {params.label_map} {input.label_map:q} --out {output.checked:q} 2> {log:q}"


rule measure_shard:
    """Measure the images of one archive, once; a remote one is fetched for the job and not kept."""
    input:
        manifest=lookup(dpath="{cohort}/manifest", within=COHORTS),
        archive=archive_of,
        # Nothing is fetched for a manifest that is not in order. (Not `ancient`: where the check runs again, Snakemake would
        # overlook that the archive is newer.)
        checked="results/<study>/cohorts/{cohort}/checked.json",
    output:
        measured="results/<study>/cohorts/{cohort}/shards/{shard}.parquet",
    log:
        "results/<study>/logs/measure_shard/{cohort}/{shard}.log",
    benchmark:
        "results/<study>/benchmarks/measure_shard/{cohort}/{shard}.tsv"
    wildcard_constraints:
        cohort="|".join(SHARDED) or "(?!)",
    conda:
        "../../envs/measure_shard.yaml"
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("cohorts.measure"),
    shell:
        "python -m marrowflow cohorts.measure --manifest {input.manifest:q} --archive {input.archive:q}"
        " --threads {threads} --out {output.measured:q} 2> {log:q}"


rule ingest_cohort:
    """Take in one hospital: check its manifest, decode every image once, list exclusions with reasons."""
    input:
        manifest=lookup(dpath="{cohort}/manifest", within=COHORTS),
        label_map=LABEL_MAP,
        # An external hospital's arrival is noted before its first image is read.
        arrival=lookup(dpath="{cohort}", within=ARRIVALS),
        measured=shards_of("results/<study>/cohorts/{cohort}/shards/{shard}.parquet"),
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
        mem_mb=growing(2000),
        runtime=growing(120),
    params:
        code=code("cohorts.intake"),
        options=options("classes", "intake"),
        label_map="--label-map" if LABEL_MAP else "",
    shell:
        "python -m marrowflow cohorts.intake --options {params.options:q} --cohort {wildcards.cohort}"
        " --manifest {input.manifest:q} {params.label_map} {input.label_map:q} --threads {threads}"
        " --measured {input.measured:q} --out {output.inventory:q} 2> {log:q}"
