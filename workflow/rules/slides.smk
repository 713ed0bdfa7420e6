# The front half of a study of whole slides: tissue, tiles, features, bags, and networks that learn from a slide's label.


rule ingest_slides:
    """Take in one hospital's slides: check its manifest, open every slide, list exclusions with reasons."""
    input:
        manifest=lookup(dpath="{cohort}/manifest", within=COHORTS),
        label_map=LABEL_MAP,
        # An external hospital's arrival is noted before its first slide is read.
        arrival=lookup(dpath="{cohort}", within=ARRIVALS),
    output:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
    log:
        "results/<study>/logs/ingest_slides/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/ingest_slides/{cohort}.tsv"
    conda:
        "../../envs/ingest_slides.yaml"
    threads: 4
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    params:
        code=code("slides.intake"),
        options=options("classes", "intake"),
        label_map="--label-map" if LABEL_MAP else "",
    shell:
        "python -m marrowflow slides.intake --options {params.options:q} --cohort {wildcards.cohort}"
        " --manifest {input.manifest:q} {params.label_map} {input.label_map:q} --threads {threads}"
        " --out {output.inventory:q} 2> {log:q}"


rule survey_slides:
    """Look at one hospital's slides from afar: tissue, region masks, small pictures."""
    input:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
    output:
        tissue="results/<study>/slides/{cohort}/tissue.csv",
        pictures=directory("results/<study>/slides/{cohort}/pictures"),
    log:
        "results/<study>/logs/survey_slides/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/survey_slides/{cohort}.tsv"
    conda:
        "../../envs/survey_slides.yaml"
    threads: 4
    resources:
        # Four slides of 100,000 x 80,000 pixels at a sixteenth.
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        code=code("slides.survey"),
        options=options("tissue"),
        images=lookup(dpath="{cohort}/folder", within=COHORTS),
        regions="" if STUDY.slides.regions == "never" else "--regions",
    shell:
        "python -m marrowflow slides.survey --options {params.options:q} --inventory {input.inventory:q}"
        " --images {params.images:q} {params.regions} --threads {threads} --pictures {output.pictures:q}"
        " --out {output.tissue:q} 2> {log:q}"


rule place_tiles:
    """Lay the tiles of one magnification over one hospital's slides."""
    input:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        tissue="results/<study>/slides/{cohort}/tissue.csv",
        pictures="results/<study>/slides/{cohort}/pictures",
    output:
        slides="results/<study>/tiles/{cohort}/{colour}/slides.csv",
        tiles="results/<study>/tiles/{cohort}/{colour}/tiles.parquet",
        overviews=directory("results/<study>/tiles/{cohort}/{colour}/overviews"),
    log:
        "results/<study>/logs/place_tiles/{cohort}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/place_tiles/{cohort}/{colour}.tsv"
    conda:
        "../../envs/place_tiles.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("slides.place"),
        options=options("tiling"),
        images=lookup(dpath="{cohort}/folder", within=COHORTS),
        within="--within" if STUDY.slides.regions == "always" else "",
    shell:
        "python -m marrowflow slides.place --options {params.options:q} --inventory {input.inventory:q}"
        " --images {params.images:q} --tissue {input.tissue:q} --pictures {input.pictures:q} {params.within}"
        " --overviews {output.overviews:q} --slides {output.slides:q} --out {output.tiles:q} 2> {log:q}"


rule picture_slides:
    """Pack a small picture of each slide with its tiles, for the reports; a slide's colour is left as it is."""
    input:
        slides="results/<study>/tiles/{cohort}/{colour}/slides.csv",
        overviews="results/<study>/tiles/{cohort}/{colour}/overviews",
        pictures="results/<study>/slides/{cohort}/pictures",
    output:
        pixels="results/<study>/images/{cohort}/{colour}/pixels.npy",
        index="results/<study>/images/{cohort}/{colour}/index.parquet",
        store="results/<study>/images/{cohort}/{colour}/store.json",
        appearance="results/<study>/images/{cohort}/{colour}/appearance.parquet",
    log:
        "results/<study>/logs/picture_slides/{cohort}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/picture_slides/{cohort}/{colour}.tsv"
    localrule: True
    conda:
        "../../envs/picture_slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(20),
    params:
        code=code("slides.picture"),
        options=options("tiling"),
        folder=subpath(output.store, parent=True),
    shell:
        "python -m marrowflow slides.picture --options {params.options:q} --placed {input.slides:q}"
        " --overviews {input.overviews:q} --pictures {input.pictures:q} --out {params.folder:q} 2> {log:q}"


rule extract_features:
    """See each tile of one hospital's slides once by the network that is not trained; goes on where it was killed."""
    input:
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        slides="results/<study>/tiles/{cohort}/{colour}/slides.csv",
        tiles="results/<study>/tiles/{cohort}/{colour}/tiles.parquet",
        weights=EXTRACTOR,
    output:
        bags="results/<study>/bags/{cohort}/{colour}/bags.parquet",
    log:
        "results/<study>/logs/extract_features/{cohort}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/extract_features/{cohort}/{colour}.tsv"
    conda:
        "../../envs/extract_features.yaml"
    threads: STUDY.slides.extractor.threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        # Not growing: tried again, it goes on from what it has seen.
        runtime=1440,
    params:
        code=code("slides.extract"),
        options=options("extractor", "tiling"),
        images=lookup(dpath="{cohort}/folder", within=COHORTS),
        state=f"results/{STUDY.study.key}/state/extract_features/{{cohort}}/{{colour}}",
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow slides.extract --options {params.options:q} --inventory {input.inventory:q}"
        " --images {params.images:q} --placed {input.slides:q} --tiles {input.tiles:q} --features {params.features:q}"
        " --state {params.state:q} --threads {threads} --out {output.bags:q} 2> {log:q}"


rule train_slides:
    """Train one aggregator on one fold; a killed job resumes from its state."""
    input:
        folds="results/<study>/splits/{protocol}/folds.parquet",
        gate="results/<study>/splits/{protocol}/gate.json",
        bags=collect("results/<study>/bags/{cohort}/{{colour}}/bags.parquet", cohort=DEVELOPMENT),
    output:
        weights="results/<study>/training/{protocol}/{model}/{colour}/{fold}/model.safetensors",
        history="results/<study>/training/{protocol}/{model}/{colour}/{fold}/history.csv",
        card="results/<study>/training/{protocol}/{model}/{colour}/{fold}/card.json",
        cost="results/<study>/training/{protocol}/{model}/{colour}/{fold}/cost.json",
    log:
        "results/<study>/logs/train_slides/{protocol}/{model}/{colour}/{fold}.log",
    benchmark:
        "results/<study>/benchmarks/train_slides/{protocol}/{model}/{colour}/{fold}.tsv"
    wildcard_constraints:
        model="|".join(STUDY.networks),
    conda:
        "../../envs/train_slides.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=720,
    params:
        code=code("slides.train"),
        options=options("aggregation", "classes", "instances", "training", "within"),
        folder=subpath(output.weights, parent=True),
        state=f"results/{STUDY.study.key}/state/train_slides/{{protocol}}/{{model}}/{{colour}}/{{fold}}",
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow slides.train --options {params.options:q} --fold {wildcards.fold}"
        " --protocol {wildcards.protocol} --folds {input.folds:q} --bags {input.bags:q}"
        " --features {params.features:q} --state {params.state:q} --out {params.folder:q} 2> {log:q}"


rule predict_slides:
    """Let every fold's aggregator answer for the patients it was not trained on."""
    input:
        models=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/model.safetensors"),
        cards=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/card.json"),
        folds="results/<study>/splits/{protocol}/folds.parquet",
        inventories=collect("results/<study>/cohorts/{cohort}/inventory.parquet", cohort=DEVELOPMENT),
        bags=collect("results/<study>/bags/{cohort}/{{colour}}/bags.parquet", cohort=DEVELOPMENT),
    output:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/out_of_fold.parquet",
    log:
        "results/<study>/logs/predict_slides/{protocol}/{model}/{colour}.log",
    benchmark:
        "results/<study>/benchmarks/predict_slides/{protocol}/{model}/{colour}.tsv"
    wildcard_constraints:
        model="|".join(STUDY.networks),
    conda:
        "../../envs/predict_slides.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        code=code("slides.predict"),
        options=options("classes", "training"),
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow slides.predict --options {params.options:q} --models {input.models:q}"
        " --folds {input.folds:q} --inventories {input.inventories:q} --bags {input.bags:q}"
        " --features {params.features:q} --index-test {wildcards.model}-{wildcards.colour} --out {output.raw:q} 2> {log:q}"


rule predict_external_slides:
    """Let the aggregators of all folds answer for one external hospital's slides, uncalibrated."""
    input:
        models=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/model.safetensors"),
        cards=folds_of("results/<study>/training/{protocol}/{model}/{colour}/{fold}/card.json"),
        gate="results/<study>/external/{cohort}/gate.json",
        inventory="results/<study>/cohorts/{cohort}/inventory.parquet",
        bags="results/<study>/bags/{cohort}/{colour}/bags.parquet",
    output:
        raw="results/<study>/predictions/{protocol}/{model}/{colour}/{cohort}/raw.parquet",
    log:
        "results/<study>/logs/predict_external_slides/{protocol}/{model}/{colour}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/predict_external_slides/{protocol}/{model}/{colour}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(EXTERNAL) or "(?!)",
        model="|".join(STUDY.networks),
    conda:
        "../../envs/predict_external_slides.yaml"
    threads: training_threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        code=code("slides.predict_external"),
        options=options("classes", "training"),
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow slides.predict_external --options {params.options:q} --models {input.models:q}"
        " --inventory {input.inventory:q} --bags {input.bags:q} --features {params.features:q}"
        " --index-test {wildcards.model}-{wildcards.colour} --out {output.raw:q} 2> {log:q}"


rule embed_slides:
    """Slide vectors of one hospital in the index test that is reported first, by its aggregator of fold 0."""
    input:
        primary="results/<study>/locked/primary.json",
        models=collect(
            "results/<study>/training/{protocol}/{test.model}/{test.colour}/0/{part}",
            protocol=PROTOCOLS[0],
            test=NETWORKS,
            part=["model.safetensors", "card.json"],
        ),
        folds=f"results/<study>/splits/{PROTOCOLS[0]}/folds.parquet",
        bags=collect("results/<study>/bags/{{cohort}}/{colour}/bags.parquet", colour=STUDY.views),
    output:
        embedding="results/<study>/embeddings/{cohort}/embedding.parquet",
    log:
        "results/<study>/logs/embed_slides/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/embed_slides/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(COHORTS),
    conda:
        "../../envs/embed_slides.yaml"
    threads: max(network.training.threads for network in STUDY.networks.values())
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        code=code("slides.embed"),
        options=options("classes", "members", "threads"),
        features=f"results/{STUDY.study.key}/features",
    shell:
        "python -m marrowflow slides.embed --options {params.options:q} --primary {input.primary:q}"
        " --models {input.models:q} --bags {input.bags:q} --folds {input.folds:q} --features {params.features:q}"
        " --out {output.embedding:q} 2> {log:q}"


rule explain_slides:
    """Show what the aggregators attended to in the slides that the reports print, beside networks of random weights."""
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
        inventories=inventories_of,
        tissue=hospitals_of("results/<study>/slides/{hospital}/tissue.csv"),
        pictures=hospitals_of("results/<study>/slides/{hospital}/pictures"),
        bags=hospitals_of(
            collect("results/<study>/bags/{{hospital}}/{colour}/bags.parquet", colour=STUDY.views)
        ),
        weights=EXTRACTOR,
    output:
        cases="results/<study>/explanations/{protocol}/{cohort}/cases.csv",
        maps=directory("results/<study>/explanations/{protocol}/{cohort}/maps"),
    log:
        "results/<study>/logs/explain_slides/{protocol}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/explain_slides/{protocol}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(["development", *EXTERNAL]),
    conda:
        "../../envs/explain_slides.yaml"
    threads: STUDY.slides.extractor.threads
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        code=code("slides.explain"),
        options=options(
            "classes",
            "endpoints",
            "errors_shown",
            "extractor",
            "map_overlap",
            "members",
            "tilings",
            "units",
        ),
        images=folders_of,
        within="--within" if STUDY.slides.regions == "always" else "",
        state=f"results/{STUDY.study.key}/state/explain_slides/{{protocol}}/{{cohort}}",
        features=f"results/{STUDY.study.key}/features",
        folder=subpath(output.cases, parent=True),
    shell:
        "python -m marrowflow slides.explain --options {params.options:q} --primary {input.primary:q}"
        " --predictions {input.predictions:q} --locks {input.locks:q} --folds {input.folds:q} --models {input.models:q}"
        " --inventories {input.inventories:q} --tissue {input.tissue:q} --images {params.images:q} --bags {input.bags:q}"
        " --features {params.features:q} --state {params.state:q} {params.within} --threads {threads} --out {params.folder:q} 2> {log:q}"


rule view_slides:
    """Make pages on which readers zoom into the slides that the reports show, with their maps."""
    input:
        cases="results/<study>/explanations/{protocol}/{cohort}/cases.csv",
        maps="results/<study>/explanations/{protocol}/{cohort}/maps",
        inventories=inventories_of,
    output:
        pages=directory("results/<study>/viewer/{protocol}/{cohort}"),
    log:
        "results/<study>/logs/view_slides/{protocol}/{cohort}.log",
    benchmark:
        "results/<study>/benchmarks/view_slides/{protocol}/{cohort}.tsv"
    wildcard_constraints:
        cohort="|".join(["development", *EXTERNAL]),
    conda:
        "../../envs/view_slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        code=code("viewer.build"),
        options=options("study"),
        images=folders_of,
    shell:
        "python -m marrowflow viewer.build --options {params.options:q} --cases {input.cases:q}"
        " --inventories {input.inventories:q} --images {params.images:q} --out {output.pages:q} 2> {log:q}"
