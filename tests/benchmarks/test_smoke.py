"""Every table on a few rows: its sides run, its answers are judged, its page is printed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import (
    compression,
    convert,
    density,
    exponents,
    full_case,
    growth,
    kmeans,
    lof,
    mixture,
    neighbours,
    pairs,
    pca,
    quick_sweep,
    scores,
    silhouette,
    sweep,
    ward,
    workers,
)
from vehclust_dask import place
from vehclust_dask.cache import CACHE
from vehclust_dask.cli import main
from vehclust_dask.job import run
from vehclust_dask.place import OpenPlace

ROWS, WIDTH = 400, 260
Few = Callable[..., list[str]]


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Few:
    """Return the options of a small table; sides run in this process, as they would in a child."""

    def here(
        module: str, name: str, table: pairs.Table, side: pairs.Side, options: pairs.Options
    ) -> Any:
        return pairs.run_side(table, side.name, json.loads(json.dumps(options)))

    monkeypatch.setattr(pairs, "in_child", here)
    monkeypatch.setattr(CACHE, "limit", CACHE.limit)
    features = tmp_path / "real" / "some.pickle"
    features.parent.mkdir()
    rng = np.random.default_rng(0)
    kinds = 3 * rng.standard_normal((8, WIDTH))
    X = kinds[rng.integers(0, 8, ROWS)] + rng.standard_normal((ROWS, WIDTH))
    features.write_bytes(pickle.dumps(X.astype(np.float32), protocol=4))

    def options(*more: object, real: bool = True) -> list[str]:
        words = ["--rounds", "1", "--keep", tmp_path / "kept", *more]
        return [str(w) for w in [*words, *(["--data", features.parent] if real else [])]]

    return options


def check(found: pairs.Found, table: pairs.Table) -> None:
    """Every installed side took part, and its columns are numbers."""
    installed = [side.name for side in table.sides if side.installed]
    assert list(found.rounds) == installed
    values = [value for columns in found.columns.values() for value in columns.values()]
    assert values
    assert all(math.isfinite(value) for value in values)
    for records in found.rounds.values():
        assert records[0].seconds > 0
        assert records[0].peak_mb > 0


def test_pca(few: Few) -> None:
    narrow, wide = pca.run(few("--rows", ROWS, "--slow"))
    check(narrow, pca.TABLES["narrow"])
    check(wide, pca.TABLES["wide"])
    assert narrow.columns[narrow.ours]["error, all kept"] < 1e-4


def test_kmeans(few: Few) -> None:
    (found,) = kmeans.run(few("--rows", ROWS, "--slow"))
    check(found, kmeans.TABLES["kmeans"])
    assert found.columns[found.ours]["inertia / lloyd's - 1"] < 1e-3


def test_sweep(few: Few) -> None:
    (found,) = sweep.run(few("--rows", ROWS, "--last", 5))
    check(found, sweep.TABLES["sweep"])


def test_quick_sweep(few: Few) -> None:
    (found,) = quick_sweep.run(few("--rows", ROWS, "--last", 5))
    check(found, quick_sweep.TABLES["quick"])


def test_mixture(few: Few, monkeypatch: pytest.MonkeyPatch) -> None:
    # Forty rows a component say nothing of 70 columns: rounding would decide.
    monkeypatch.setattr(mixture, "COLUMNS", 8)
    for found, kind in zip(mixture.run(few("--rows", ROWS)), mixture.KINDS, strict=True):
        check(found, mixture.TABLES[kind])
        likelihoods = [columns["mean log-likelihood"] for columns in found.columns.values()]
        assert max(likelihoods) - min(likelihoods) < 0.1


def test_peers__are_all_there_where_nothing_may_be_left_out() -> None:
    modules = (
        pca,
        kmeans,
        sweep,
        quick_sweep,
        scores,
        silhouette,
        convert,
        compression,
        mixture,
        neighbours,
        ward,
        density,
        lof,
    )
    sides = [side for m in modules for table in m.TABLES.values() for side in table.sides]
    missing = sorted({side.needs for side in sides if not side.installed})
    if missing and not os.environ.get("VEHCLUST_TEST_ALL"):
        pytest.skip(f"not installed: {', '.join(missing)} (pip install -e '.[bench]')")
    assert not missing


def test_neighbours(few: Few, capsys: pytest.CaptureFixture[str]) -> None:
    results = neighbours.run(few("--rows", 200, ROWS, 10_000, "--components", 20))
    assert [found.rows for found in results] == [200, ROWS], "no more rows than are there"
    for found in results:
        check(found, neighbours.TABLES["neighbours"])
        assert all(columns["lists equal to ours"] > 0.99 for columns in found.columns.values())
    assert "vehclust: CPU seconds grow as rows ** " in capsys.readouterr().out


def test_neighbours__a_row_is_not_in_its_own_list() -> None:
    lists = np.tile(np.arange(neighbours.M + 1), (neighbours.M + 2, 1))
    found = neighbours.others(lists)
    assert found.shape == (len(lists), neighbours.M)
    assert not (found == np.arange(len(lists))[:, None]).any()


def test_ward(few: Few) -> None:
    for found in ward.run(few("--rows", 200, ROWS, "--components", 20)):
        check(found, ward.TABLES["ward"])
        assert all(c["height, relative difference"] < 1e-9 for c in found.columns.values())
        assert all(c["ARI to ours"] == pytest.approx(1) for c in found.columns.values())


def test_density(few: Few) -> None:
    for found in density.run(few("--rows", ROWS, "--components", 20)):
        table = "hdbscan" if found.ours == density.OUR_HDBSCAN else "dbscan"
        check(found, density.TABLES[table])
        assert all(columns["noise differs"] == 0 for columns in found.columns.values())
        assert all(columns["ARI to ours"] > 0.99 for columns in found.columns.values())


def test_lof(few: Few) -> None:
    (found,) = lof.run(few("--rows", ROWS, "--components", 20))
    check(found, lof.TABLES["lof"])
    assert found.columns[lof.SKLEARN]["factor, relative difference"] < 1e-6


def grown(rows: int, **seconds: float) -> pairs.Found:
    """Return what a table would have found: CPU seconds of its sides."""
    rounds = {side: [pairs.Record(s, s, 1.0, 0.0, 0.0)] for side, s in seconds.items()}
    return pairs.Found(rounds, {}, [], rows)


def test_exponents__are_fitted_and_a_peer_is_extrapolated_as_such() -> None:
    results = [
        grown(1000, vehclust=1.0, peer=1.0),
        grown(2000, vehclust=2.0, peer=4.0),
        grown(4000, vehclust=4.0),
    ]
    ours, theirs = exponents.lines(results, full=100_000)
    assert ours == "- vehclust: CPU seconds grow as rows ** 1.00 (1,000 to 4,000 rows)"
    assert theirs.endswith(
        " ** 2.00 (1,000 to 2,000 rows); at 100,000 rows 2.8 CPU h, extrapolated"
    )


def test_sides__that_hold_too_few_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    record = pairs.Record(1.0, 1.0, 1.0, 0.0, 0.0)
    monkeypatch.setattr(pairs, "in_child", lambda *args: record)
    prepare = pairs.Side("us", lambda options: lambda: None).prepare
    table = pairs.Table(
        (pairs.Side("us", prepare), pairs.Side("peer", prepare, at_most=10)), lambda o, a: {}
    )
    for rows, sides in ((10, ["us", "peer"]), (11, ["us"])):
        one = pairs.Comparison("t", "t", {"rows": rows})
        found = pairs.compare("m", one, table, rounds=1, slow=False)
        assert list(found.rounds) == sides
    assert found.left_out == ["left out: peer: 10 rows at most"]


def test_scores(few: Few) -> None:
    (found,) = scores.run(few("--rows", ROWS))
    check(found, scores.TABLES["scores"])
    assert found.columns[found.ours]["CH, relative difference"] < 1e-4


def test_silhouette(few: Few, monkeypatch: pytest.MonkeyPatch) -> None:
    for found in silhouette.run(few("--rows", ROWS)):
        check(found, silhouette.TABLES["silhouette"])
        assert max(columns["largest error"] for columns in found.columns.values()) < 1e-5
    monkeypatch.setattr(silhouette, "LARGE", ROWS - 1)
    for found in silhouette.run(few("--rows", ROWS)):
        check(found, silhouette.TABLES["large"])


def test_convert(few: Few, capsys: pytest.CaptureFixture[str]) -> None:
    for found in convert.run(few("--rows", ROWS)):
        check(found, convert.TABLES["convert"])
    assert "1,600 x 260 (real, some, 400 rows repeated with 1% noise)" in capsys.readouterr().out


def test_compression(few: Few) -> None:
    (found,) = compression.run(few())
    check(found, compression.TABLES["compression"])


def test_compression__without_features_says_so(
    few: Few, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compression.run(few(real=False)) == []
    assert "left out: no real features" in capsys.readouterr().out


@contextlib.contextmanager
def no_cluster(*args: object, **options: object) -> Iterator[OpenPlace]:
    """Open nothing: verbs then work in this process."""
    yield OpenPlace(None, None, None, 1, 0)


def test_growth(
    few: Few, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(place, "open_place", no_cluster)
    monkeypatch.setattr(growth, "_warm_workers", lambda client: None)
    monkeypatch.setattr(
        growth, "in_child", lambda file, **given: growth.measure_job(str(file), **given)
    )
    found = growth.run(few("--rows", 200, 300, "--last", 3, real=False))
    assert list(found) == [(200, 1), (200, 2), (300, 1), (300, 2)]
    for one in found.values():
        assert set(one.seconds) == {"convert", "pca", "range", "start", "pass", "assign"}
        assert 1 <= one.passes <= growth.PASSES
    assert "seconds on 1 worker / on 2 >= 1.7" in capsys.readouterr().out


def test_workers(
    few: Few, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(place, "open_place", no_cluster)
    monkeypatch.setattr(workers, "_warm_workers", lambda client, blocks: workers._read_once(blocks))
    monkeypatch.setattr(
        workers, "in_child", lambda file, **given: workers.measure_pass(str(file), **given)
    )
    monkeypatch.setattr(workers, "machine_gives", lambda processes: 1.5)
    found = workers.run(few("--rows", 300, 10_000))
    assert list(found) == [(300, 1), (300, 2), (ROWS, 1), (ROWS, 2)]
    assert all(one["seconds"] > 0 and one["peak_mb"] > 0 for one in found.values())
    said = capsys.readouterr().out
    assert "seconds on 1 worker / on 2 >= 1.7" in said
    assert "plain products in two processes at once / in one: 1.50" in said


def test_workers__what_the_machine_gives_is_measured() -> None:
    assert 0 < workers.machine_gives(2, count=2) < math.inf


def test_growth__laps_belong_to_parts_of_the_job() -> None:
    names = (
        "convert-a convert-end pca-a components-grown reduce-grown pca-end kmeans-grown-km-range"
    )
    names += " kmeans-grown-km-sample start-pass-000 kmeans-grown-km-start kmeans-grown-km-pass-000"
    names += " kmeans-grown-km-pass-001 kmeans-grown-km-assign assign-end"
    found = growth.summed([(name, 2.0**i) for i, name in enumerate(names.split())], 1.0)
    assert found.passes == 2
    assert found.seconds == {
        "convert": 3,
        "pca": 4 + 8 + 16 + 32,
        "range": 64,
        "start": 128 + 256 + 512,
        "pass": 1024 + 2048,
        "assign": 4096 + 8192,
    }


def test_full_case(
    few: Few, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(name: str, job: Path, place: Path, workdir: Path) -> full_case.Command:
        words = [name, job, "--workdir", workdir, "--cluster", place, "--quiet"]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return full_case.Command(name, 1.0, 100.0)

    monkeypatch.setattr(run, "open_place", no_cluster)
    monkeypatch.setattr(run, "draw_figures", lambda *args: None)
    monkeypatch.setattr(full_case, "call", call)
    monkeypatch.setattr(
        full_case,
        "SETS",
        {name: full_case.SETS[name] for name in ("vdc_color", "vdc_type")},
    )
    full_case.run(few("--rows", ROWS, "--last", 3, real=False))
    said = capsys.readouterr().out
    assert said.count("| kmeans |") == 2
    assert "goal minutes <= 10" in said


def test_command__runs_sides_in_processes_of_their_own(tmp_path: Path) -> None:
    words = ["--rows", "300", "--rounds", "1", "--keep", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scores", *words],
        cwd=pairs.ROOT,
        env=pairs.child_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "| vehclust |" in done.stdout
    assert "the demo's osnet, synthetic" in done.stdout
    assert "threads)" not in done.stdout, "a side ran on several threads"


def test_environment__lets_blas_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in pairs.CHOOSING:
        monkeypatch.setenv(name, "Haswell")
    environment = pairs.child_environment()
    assert not set(pairs.CHOOSING) & set(environment)
    assert environment["OMP_NUM_THREADS"] == "1"


def test_goal__says_met_missed_or_not_measured() -> None:
    record = [pairs.Record(2.0, 2.0, 1.0, 0.0, 0.0)], [pairs.Record(4.0, 4.0, 1.0, 0.0, 0.0)]
    found = pairs.Found({"a": record[0], "b": record[1]}, {}, [])
    met, missed = pairs.ratio_goal("cpu", "b", 0.6), pairs.ratio_goal("cpu", "b", 0.4)
    absent = pairs.ratio_goal("cpu", "c", 0.4)
    assert met.value(found) == 0.5
    assert [g.verdict(g.value(found)) for g in (met, missed, absent)] == [
        "met",
        "missed",
        "not measured",
    ]
