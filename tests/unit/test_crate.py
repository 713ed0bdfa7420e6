"""A run is described by files whose checksums another reader can verify."""

import json

from marrowflow.config import load_study
from marrowflow.crate import describe_run
from marrowflow.files import sha256_of


def test_a_run_is_described_with_its_checksums(tmp_path):
    result = tmp_path / "report" / "index.html"
    result.parent.mkdir()
    result.write_text("<p>hello</p>")
    study = load_study(
        {"study": {"key": "s", "title": "T"}, "classes": ["a", "b"], "models": {"m": {"network": "x"}}}
    )
    crate = tmp_path / "ro-crate-metadata.json"
    describe_run(study, [result], tmp_path, tmp_path / "configuration.json", crate)
    entities = {e["@id"]: e for e in json.loads(crate.read_text())["@graph"]}
    assert entities["report/index.html"]["sha256"] == sha256_of(result)
    assert {e["@id"] for e in entities["./"]["hasPart"]} == {"report/index.html", "configuration.json"}
    assert json.loads((tmp_path / "configuration.json").read_text())["study"]["key"] == "s"
