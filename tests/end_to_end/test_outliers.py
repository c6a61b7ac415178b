"""Outliers on real workers: the same bytes on one and on two, photos included."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.end_to_end.conftest import Case, digests, place_file, run_cli, run_of

pytestmark = pytest.mark.cluster

STUDIES = """
studies:
  osnet:
    descriptors: [a]
    reduce: {method: pca, n_components: 8}
    cluster:
      km: {method: kmeans, n_clusters: 3, n_init: 2}
    outliers: {n_neighbors: 8, isolation_forest: {n_estimators: 20, sample: 1000}, rules: {lof: 1.5}}
"""


def test_outliers__are_the_same_bytes_on_one_worker_and_two(case: Case, tmp_path: Path) -> None:
    job = case.job(
        tmp_path / "out.yaml", name="out", data="  photos: photos.zip\n", studies=STUDIES
    )
    found = []
    for workers in (1, 2):
        place = place_file(tmp_path / f"{workers}.yaml", workers, "dashboard: off")
        workdir = tmp_path / f"work-{workers}"
        done = run_cli("run", job, "--workdir", workdir, "--cluster", place, "--quiet")
        assert done.code == 0, done.err
        found.append(digests(workdir))
    assert found[0] == found[1]
    kinds = {Path(name).parts[1].rsplit("-", 1)[0] for name in found[0] if name.startswith("steps")}
    assert {"lof", "isolation", "duplicates", "photo-scores", "neighbours"} <= kinds
    folder = run_of(tmp_path / "work-2", "out")
    table = pd.read_parquet(folder / "tables" / "outliers-osnet.parquet")
    assert (table["excluded"] == (table["lof"] >= 1.5)).all()
    assert table["glare"].notna().all()
    assert (folder / "figures" / "outliers-osnet.png").exists()
