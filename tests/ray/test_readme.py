"""docs/ tell the truth: a run from Python, and what other tools read of it."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from tests.unit.test_readme import snippets


@pytest.mark.usefixtures("ray_session")
def test_a_run_from_python_and_what_other_tools_read_of_it(
    pictures: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "photos")
    shutil.copytree(model_dir, "segformer")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    # As one script, in the order of the pages: that of torch uses what that of datasets has loaded.
    found: dict[str, Any] = {}
    for name in ("JobConfig", "duckdb", "datasets", "pandas as pd\nfrom PIL", "torch"):
        (snippet,) = (
            text
            for text in snippets("python")
            if f"import {name}" in text and "BatchPredictor" not in text
        )
        exec(snippet, found)
    assert found["receipt"].maps == 24
    assert isinstance(found["mostly_sky"], list)
    assert all(0.5 < share <= 1 for _, share in found["mostly_sky"])
    assert len(found["maps"]) == len(found["table"]) == 24
    assert found["first"].size == (found["maps"][0]["width"], found["maps"][0]["height"])
    assert np.array_equal(found["class_ids"], np.asarray(found["first"]))
    assert found["tensors"][0]["map"].shape == found["class_ids"].shape
