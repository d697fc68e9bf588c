"""docs/ tell the truth: a run from Python, and what other tools read of it."""

from pathlib import Path

import datasets
import pytest

from job import pipeline
from job.config import JobConfig
from tests.unit.test_readme import snippets


@pytest.mark.usefixtures("ray_session")
def test_duckdb_and_datasets_snippets_run(
    pictures: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = JobConfig(
        input=str(pictures), output=str(tmp_path / "maps"), model=str(model_dir), progress="none"
    )
    pipeline.run(config)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    duckdb_snippet, datasets_snippet = (
        next(text for text in snippets("python") if f"import {name}" in text)
        for name in ("duckdb", "datasets")
    )
    found: dict[str, object] = {}
    exec(duckdb_snippet, found)
    assert isinstance(found["mostly_sky"], list)
    assert all(0.5 < share <= 1 for _, share in found["mostly_sky"])
    exec(datasets_snippet, found)
    assert len(found["maps"]) == 24
    assert found["first"].size == (found["maps"][0]["width"], found["maps"][0]["height"])
