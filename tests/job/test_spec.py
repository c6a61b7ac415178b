"""The job file: what is read from it, what is refused and in which words, what decides results."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vehclust_dask.errors import UsageError
from vehclust_dask.job.counts import parse_counts
from vehclust_dask.job.spec import (
    ClusterSpec,
    DescriptorSpec,
    JobSpec,
    NeighboursSpec,
    ReduceSpec,
    ReportSpec,
    SourceSpec,
    TruthSpec,
    job_digest,
    load_job,
)

JOBS = sorted((Path(__file__).resolve().parents[2] / "jobs").glob("*.yaml"))

WHOLE = r"""
name: veriwild
seed: 0
data:
  descriptors: {osnet: data/descriptors/osnet.pickle, vdc_color: data/descriptors/vdc_color.pickle}
  paths: data/images_paths.csv
  photos: data/raw_data/veriwild.zip          # or a folder; optional
  group: 'veriwild/\d+/(\d+)/'                # optional: vehicle id
memory: {per_task: 1GiB}
studies:
  osnet-150:
    descriptors: [osnet]
    scale: standard
    reduce: {method: pca, n_components: 150}
    cluster:
      km:   {method: kmeans, n_clusters: "2..50"}
      mbk:  {method: minibatch-kmeans, n_clusters: [10, 30]}
      dml:  {method: kmeans, n_clusters: 30, engine: dask-ml}
    featured: km/30
report: {photos_per_sheet: 50}
"""


def small() -> dict[str, Any]:
    """Return the smallest job with a clustering, to be changed at one place."""
    return {
        "name": "small",
        "data": {"descriptors": {"osnet": "osnet.npy", "color": "color.npy"}, "paths": "p.csv"},
        "studies": {
            "one": {
                "descriptors": "osnet",
                "reduce": {"n_components": 4},
                "cluster": {"km": {"method": "kmeans", "n_clusters": [2, 5]}},
            }
        },
    }


def put(job: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """Return the job with one value put at a place written with slashes."""
    job = copy.deepcopy(job)
    *parents, last = where.split("/")
    inside = job
    for word in parents:
        inside = inside.setdefault(word, {})
    inside[last] = value
    return job


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Return a function from text or records to a loaded job."""

    def loaded(job: str | dict[str, Any], workdir: str = "/w") -> JobSpec:
        text = job if isinstance(job, str) else yaml.safe_dump(job, sort_keys=False)
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return load_job(path, workdir=workdir)

    return loaded


def test_load__reads_a_whole_job(load: Any) -> None:
    job = load(WHOLE)
    here = Path.cwd()
    (study,) = job.studies
    assert (job.name, job.seed, job.per_task_bytes) == ("veriwild", 0, 2**30)
    assert job.data.descriptors == (
        DescriptorSpec("osnet", (SourceSpec(str(here / "data/descriptors/osnet.pickle")),)),
        DescriptorSpec("vdc_color", (SourceSpec(str(here / "data/descriptors/vdc_color.pickle")),)),
    )
    assert job.data.paths == (str(here / "data/images_paths.csv"),)
    assert job.data.group == r"veriwild/\d+/(\d+)/"
    assert (job.data.dataset, job.data.on_nan, job.data.compress) == ("veriwild", "refuse", "none")
    assert (job.data.truth, job.data.block_rows, job.data.synthetic) == (None, None, False)
    assert study.reduce == ReduceSpec("pca", 150, None, None, "gram", "vehclust")
    assert study.cluster == (
        ClusterSpec("km", "kmeans", tuple(range(2, 51)), "vehclust", "best-of-sample"),
        ClusterSpec("mbk", "minibatch-kmeans", (10, 30), "vehclust", "best-of-sample"),
        ClusterSpec("dml", "kmeans", (30,), "dask-ml", "k-means||", n_init=1),
    )
    assert study.featured == ("km", 30)
    assert job.report == ReportSpec(50, "featured")


def test_load__is_hashable_and_repeatable(load: Any) -> None:
    assert hash(load(WHOLE)) == hash(load(WHOLE))
    assert load(WHOLE) == load(WHOLE)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_load__reads_every_job_of_the_house(path: Path) -> None:
    job = load_job(path, workdir="/w")
    assert json.loads(json.dumps(job.canonical())) == job.canonical()
    used = {name for study in job.studies for name in study.descriptors}
    assert used <= {descriptor.name for descriptor in job.data.descriptors}
    if job.data.synthetic:
        assert job.data.dataset == "demo"
        assert job.data.descriptors[0].sources[0].file.startswith("/w/demo/")


def test_load__finds_the_jobs_of_the_house() -> None:
    assert {"demo.yaml", "veriwild.yaml", "published_table.yaml"} <= {path.name for path in JOBS}


def test_jobs__demo_runs_both_engines_on_one_reduced_set() -> None:
    job = load_job(JOBS[[path.name for path in JOBS].index("demo.yaml")], workdir="/w")
    study = next(study for study in job.studies if study.reduce.engine == "dask-ml")
    assert {spec.engine for spec in study.cluster} == {"vehclust", "dask-ml"}
    assert len({spec.n_clusters for spec in study.cluster}) == 1


@pytest.mark.parametrize(
    ("given_as", "sources"),
    [
        ("a.npy", (SourceSpec("/d/a.npy"),)),
        (["a.npy", "/x/b.npy"], (SourceSpec("/d/a.npy"), SourceSpec("/x/b.npy"))),
        ({"file": "a.npz", "key": "X"}, (SourceSpec("/d/a.npz", "X"),)),
        (
            [{"file": "a.npz", "key": "X"}, "b.npy"],
            (SourceSpec("/d/a.npz", "X"), SourceSpec("/d/b.npy")),
        ),
        ("s3://bucket/a.zarr", (SourceSpec("s3://bucket/a.zarr"),)),
        ("{workdir}/a.npy", (SourceSpec("/w/a.npy"),)),
        ("../a.npy", (SourceSpec("/a.npy"),)),
    ],
)
def test_descriptors__take_files_keys_and_parts(
    load: Any, given_as: Any, sources: tuple[SourceSpec, ...]
) -> None:
    job = put(put(small(), "data/folder", "/d"), "data/descriptors/osnet", given_as)
    assert load(job).data.descriptors[0].sources == sources


def test_folder__may_be_a_url_or_below_the_workdir(load: Any) -> None:
    assert load(put(small(), "data/folder", "s3://b/d/")).data.paths == ("s3://b/d/p.csv",)
    inside = put(small(), "data/folder", "{workdir}/demo")
    assert load(inside, "gs://b/w/").data.paths == ("gs://b/w/demo/p.csv",)
    assert load(inside, "work").data.paths == (str(Path.cwd() / "work/demo/p.csv"),)


def test_workdir__stands_before_the_folder_even_when_relative(load: Any) -> None:
    job = put(put(small(), "data/folder", "/d"), "data/paths", "{workdir}/p.csv")
    assert load(job, "work").data.paths == (str(Path.cwd() / "work/p.csv"),)


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        ("t.csv", TruthSpec("/d/t.csv", ())),
        ({"file": "t.csv", "columns": ["type", "color"]}, TruthSpec("/d/t.csv", ("type", "color"))),
        ({"file": "t.csv", "columns": "type"}, TruthSpec("/d/t.csv", ("type",))),
    ],
)
def test_truth__takes_a_file_or_columns(load: Any, given_as: Any, expected: TruthSpec) -> None:
    job = put(put(small(), "data/folder", "/d"), "data/truth", given_as)
    assert load(job).data.truth == expected


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        (None, ("pca", None, 0.9, 200)),
        ("pca", ("pca", None, 0.9, 200)),
        ("none", ("none", None, None, None)),
        (150, ("pca", 150, None, None)),
        (0.9, ("pca", None, 0.9, None)),
        ({"variance": 1}, ("pca", None, 1.0, None)),
        ({"variance": 0.9, "max_components": 200}, ("pca", None, 0.9, 200)),
        ({"n_components": 150, "max_components": 200}, ("pca", 150, None, 200)),
        ({"method": "none"}, ("none", None, None, None)),
    ],
)
def test_reduce__takes_every_form(load: Any, given_as: Any, expected: tuple[Any, ...]) -> None:
    reduce = load(put(small(), "studies/one/reduce", given_as)).studies[0].reduce
    assert dataclasses.astuple(reduce) == (*expected, "gram", "vehclust")


@pytest.mark.parametrize(
    ("n_clusters", "featured", "expected"),
    [
        ("2..50", None, ("km", 30)),
        ([5], None, ("km", 5)),
        ([20, 40], None, ("km", 20)),
        ([20, 35], None, ("km", 35)),
        ("2..50", "km", ("km", 30)),
        ("2..50", "km/7", ("km", 7)),
    ],
)
def test_featured__is_named_or_nearest_to_thirty(
    load: Any, n_clusters: Any, featured: Any, expected: tuple[str, int]
) -> None:
    job = put(small(), "studies/one/cluster/km/n_clusters", n_clusters)
    job = put(job, "studies/one/cluster/later", {"method": "kmeans", "n_clusters": 30})
    assert load(put(job, "studies/one/featured", featured)).studies[0].featured == expected


def test_study__may_end_with_its_curve_and_a_job_with_the_conversion(load: Any) -> None:
    study = load(put(small(), "studies/one/cluster", None)).studies[0]
    assert (study.cluster, study.featured) == ((), None)
    assert load(put(small(), "studies", None)).studies == ()


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        (None, None),
        (48, NeighboursSpec(48)),
        ({}, NeighboursSpec(32)),
        ({"n": 10, "metric": "cosine"}, NeighboursSpec(10, "cosine")),
        ({"method": "cells", "n_cells": 99}, NeighboursSpec(32, method="cells", n_cells=99)),
    ],
)
def test_neighbours__take_a_number_or_a_mapping(
    load: Any, given_as: Any, expected: NeighboursSpec | None
) -> None:
    assert load(put(small(), "studies/one/neighbours", given_as)).studies[0].neighbours == expected


@pytest.mark.parametrize("word", ["none", "~", "null", ""])
def test_scale__none_and_null_both_mean_no_scaling(load: Any, word: str) -> None:
    text = WHOLE.replace("scale: standard", f"scale: {word}")
    assert load(text).studies[0].scale == "none"


def test_yaml__numbers_and_merges_mean_what_they_look_like(load: Any) -> None:
    text = WHOLE.replace(
        'km:   {method: kmeans, n_clusters: "2..50"}',
        "km: &km {method: kmeans, n_clusters: 2..50, tol: 1e-6}\n      again: {<<: *km, tol: 1.}",
    )
    km, again, *_ = load(text).studies[0].cluster
    assert km.n_clusters == again.n_clusters == tuple(range(2, 51))
    assert (km.tol, again.tol) == (1e-6, 1.0)


# --- the grammar of counts -----------------------------------------------------------------

count = st.integers(1, 400)
spaces = st.sampled_from(["", " ", "  "])


@st.composite
def count_terms(draw: st.DrawFn) -> tuple[str, set[int]]:
    """Return a term of the grammar and the counts it names."""
    first, n_more, step = draw(count), draw(st.integers(0, 60)), draw(st.integers(1, 9))
    space = draw(spaces)
    form = draw(st.sampled_from(["one", "range", "stepped"]))
    if form == "one":
        return f"{space}{first}{space}", {first}
    last = first + n_more
    if form == "range":
        return f"{space}{first}{space}..{space}{last}", {first + i for i in range(n_more + 1)}
    named = {k for k in range(1, last + 1) if k >= first and (k - first) % step == 0}
    return f"{first}..{last} {space}step {step}{space}", named


@given(st.lists(count_terms(), min_size=1, max_size=5))
def test_counts__are_the_sorted_union_of_their_terms(terms: list[tuple[str, set[int]]]) -> None:
    wanted = set().union(*(named for _, named in terms))
    assert parse_counts(",".join(text for text, _ in terms)) == tuple(sorted(wanted))


@given(st.sets(st.integers(1, 10**6), min_size=1, max_size=50), st.randoms(use_true_random=False))
def test_counts__do_not_depend_on_order_or_repetition(
    counts: set[int], shuffler: random.Random
) -> None:
    words = [str(k) for k in counts] * 2
    shuffler.shuffle(words)
    assert parse_counts(",".join(words)) == tuple(sorted(counts))


@given(st.text(alphabet="0123456789., step-x", max_size=20))
def test_counts__are_refused_or_positive_sorted_and_unique(text: str) -> None:
    try:
        counts = parse_counts(text)
    except ValueError:
        return
    assert counts == tuple(sorted(set(counts)))
    assert counts[0] >= 1


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("30", (30,)),
        ("2..5", (2, 3, 4, 5)),
        ("2..50 step 16", (2, 18, 34, 50)),
        ("2..10 step 5", (2, 7)),
        ("2,3,4,10..12", (2, 3, 4, 10, 11, 12)),
    ],
)
def test_counts__by_hand(text: str, counts: tuple[int, ...]) -> None:
    assert parse_counts(text) == counts


@pytest.mark.parametrize(
    "given_as", [30, [30], "30", [30, "30"], ["30..30"]], ids=lambda value: repr(value)
)
def test_n_clusters__takes_every_form(load: Any, given_as: Any) -> None:
    job = load(put(small(), "studies/one/cluster/km/n_clusters", given_as))
    assert job.studies[0].cluster[0].n_clusters == (30,)


# --- refusals ------------------------------------------------------------------------------

KM = "studies/one/cluster/km"
REFUSED = [
    ("naem", 1, ": unknown key 'naem'; did you mean 'name'?"),
    ("name", None, ": name: is missing"),
    ("name", "a/b", ": name: 'a/b' cannot name a folder"),
    ("name", "..", ": name: '..' cannot name a folder"),
    ("name", "x" * 101, "100 characters at most"),
    ("name", 7, ": name: got 7, expected text; put it in quotes"),
    ("name", " ", ": name: got ' ', expected text that is not empty"),
    ("seed", -1, ": seed: got -1, expected a whole number from 0 to 4294967295"),
    ("seed", 2**32, ": seed: got 4294967296, expected a whole number from 0"),
    ("seed", True, ": seed: got true, expected a whole number"),
    ("seed", 1.5, ": seed: got 1.5, expected a whole number"),
    ("memory", {"per_tsk": 1}, ": memory: unknown key 'per_tsk'; did you mean 'per_task'?"),
    ("memory/per_task", "1XB", ": memory.per_task: '1XB' is no size"),
    ("memory/per_task", 0, ": memory.per_task: 0 is no positive number of bytes"),
    ("memory/per_task", "1e400", ": memory.per_task: "),
    ("memory/per_task", [1], ": memory.per_task: got a list, expected a size such as 1GiB"),
    ("data", None, ": data.descriptors: is missing"),
    ("data", "osnet.npy", ": data: got 'osnet.npy', expected a mapping with dataset, folder"),
    ("data/descriptor", {}, ": data: unknown key 'descriptor'; did you mean 'descriptors'?"),
    ("data/descriptors", {}, ": data.descriptors: is missing; name at least one set"),
    ("data/descriptors", ["a"], ": data.descriptors: got a list, expected a mapping from"),
    ("data/descriptors/osnet", None, ": data.descriptors.osnet: names no file"),
    ("data/descriptors/osnet", [], ": data.descriptors.osnet: names no file"),
    ("data/descriptors/os net", "a", ": data.descriptors: 'os net' cannot name a folder"),
    ("data/descriptors/OSNET", "a", "'osnet' and 'OSNET' differ only in case"),
    ("data/descriptors/osnet", [["a"]], ".osnet[0]: got a list, expected text"),
    ("data/descriptors/osnet", {"key": "X"}, ": data.descriptors.osnet.file: is missing"),
    ("data/descriptors/osnet", {"fil": "X"}, "unknown key 'fil'; did you mean 'file'?"),
    ("data/descriptors/osnet", [{"file": "a", "key": 5}], ".osnet[0].key: got 5, expected text"),
    ("data/paths", [3], ": data.paths[0]: got 3, expected text"),
    ("data/folder", "{wrkdir}/a", "'{wrkdir}' is no placeholder; did you mean '{workdir}'?"),
    ("data/group", "(", ": data.group: '(' is no regular expression"),
    ("data/group", "veriwild", ": data.group: 'veriwild' has 0 groups, expected one pair"),
    ("data/group", "(a)(b)", ": data.group: '(a)(b)' has 2 groups"),
    ("data/truth", {"columns": ["a"]}, ": data.truth.file: is missing"),
    ("data/truth", {"file": "t", "columns": ["a", "a"]}, ".truth.columns: 'a' stands here twice"),
    ("data/on_nan", "dropp", "'dropp' is not known; did you mean 'drop'?"),
    ("data/compress", "gzip", ": data.compress: 'gzip' is not known; allowed: none, zstd"),
    ("data/compress", True, ": data.compress: true is not known; allowed: none, zstd"),
    ("data/block_rows", 0, ": data.block_rows: got 0, expected a whole number of 1 or more"),
    ("data/synthetic", "yes", ": data.synthetic: got 'yes', expected true or false"),
    ("data/dataset", "a b", ": data.dataset: 'a b' cannot name a folder"),
    ("studies", ["one"], ": studies: got a list, expected a mapping from study names"),
    ("studies/o ne", {}, ": studies: 'o ne' cannot name a folder"),
    ("studies/two", {}, ": studies.two.descriptors: is missing; name one or more of osnet, color"),
    ("studies/one/descriptors", "osnt", "'osnt' is not known; did you mean 'osnet'?"),
    ("studies/one/descriptors", ["osnet", "osnet"], ".descriptors: 'osnet' stands here twice"),
    ("studies/one/scale", "standart", ".scale: 'standart' is not known; did you mean 'standard'?"),
    ("studies/one/scale", "None", ".scale: 'None' is not known; did you mean 'none'?"),
    ("studies/one/reduce", {"n_componets": 3}, "'n_componets'; did you mean 'n_components'"),
    ("studies/one/reduce", "umap", ": studies.one.reduce: 'umap' is not known; allowed: none, pca"),
    ("studies/one/reduce", 0, ": studies.one.reduce: got 0, expected a whole number of 1"),
    ("studies/one/reduce", 1.5, "got 1.5, expected a share of the variance above 0 and at most 1"),
    ("studies/one/reduce", True, ": studies.one.reduce: got true, expected a mapping"),
    ("studies/one/reduce", {"n_components": 0}, ".n_components: got 0, expected a whole number"),
    ("studies/one/reduce", {"variance": 0}, ".variance: got 0, expected a share"),
    ("studies/one/reduce", {"variance": 90}, ".variance: got 90, expected a share"),
    ("studies/one/reduce", {"n_components": 3, "variance": 0.9}, "both n_components and variance"),
    ("studies/one/reduce", {"max_components": 9}, ".max_components: needs n_components or"),
    (
        "studies/one/reduce",
        {"n_components": 9, "max_components": 5},
        "=9 is above max_components=5",
    ),
    ("studies/one/reduce", {"method": "none", "solver": "qr"}, ".solver: has no meaning with"),
    ("studies/one/reduce", {"variance": 0.9, "engine": "dask-ml"}, "write n_components"),
    (
        "studies/one/reduce",
        {"n_components": 3, "engine": "dask-ml", "solver": "qr"},
        ".solver: belongs to engine vehclust",
    ),
    (KM, None, ": studies.one.cluster.km.method: is missing"),
    (KM, "kmeans", ": studies.one.cluster.km: got 'kmeans', expected a mapping with method"),
    (
        f"{KM}/method",
        "wards",
        ".method: 'wards' is not known; did you mean 'ward'?",
    ),
    (
        f"{KM}/method",
        "optics",
        ".method: 'optics' is not known; allowed: dbscan, gaussian-mixture, hdbscan",
    ),
    (f"{KM}/n_cluster", 3, ".km: unknown key 'n_cluster'; did you mean 'n_clusters'?"),
    (f"{KM}/n_clusters", None, ".n_clusters: is missing; write 30"),
    (f"{KM}/n_clusters", [], ".n_clusters: is missing"),
    (f"{KM}/n_clusters", 0, ".n_clusters: got 0, expected a whole number of 1 or more"),
    (f"{KM}/n_clusters", [3, 2.5], ".n_clusters[1]: got 2.5, expected a whole number"),
    (f"{KM}/n_clusters", "2-50", ".n_clusters: '2-50' is no count; write 30"),
    (f"{KM}/n_clusters", "50..2", ".n_clusters: '50..2' runs backwards; write 2..50"),
    (f"{KM}/n_clusters", "0..5", ".n_clusters: '0..5': counts and steps begin at 1"),
    (f"{KM}/n_clusters", "2..9 step 0", ": counts and steps begin at 1"),
    (f"{KM}/n_clusters", "1..999999999", ".n_clusters: names 999999999 counts, 1000 at most"),
    (f"{KM}/n_clusters", ["1..600", "601..1200"], ".n_clusters: names 1200 counts, 1000 at most"),
    (f"{KM}/engine", "dask", ".engine: 'dask' is not known; did you mean 'dask-ml'?"),
    (f"{KM}/init", "random", ".init: 'random' is not known; allowed: best-of-sample, k-means||"),
    (f"{KM}/n_init", 0, ".n_init: got 0, expected a whole number of 1 or more"),
    (f"{KM}/max_iter", 0, ".max_iter: got 0, expected a whole number of 1 or more"),
    (f"{KM}/tol", -1, ".tol: got -1, expected a number of 0 or more"),
    (f"{KM}/tol", "small", ".tol: got 'small', expected a number of 0 or more"),
    (f"{KM}/batch_size", 10, ".batch_size: has no meaning for method kmeans; take it out"),
    (
        KM,
        {"method": "minibatch-kmeans", "n_clusters": 3, "tol": 0.1},
        ".tol: has no meaning for method minibatch-kmeans; take it out",
    ),
    (
        KM,
        {"method": "ward", "n_clusters": 3, "tol": 0.1},
        ".tol: has no meaning for method ward; take it out",
    ),
    (f"{KM}/n_neighbors", 9, ".n_neighbors: has no meaning for method kmeans; take it out"),
    (
        KM,
        {"method": "quick-kmeans", "n_clusters": 3, "max_iter": 10},
        ".max_iter: has no meaning for method quick-kmeans; take it out",
    ),
    (
        KM,
        {"method": "quick-kmeans", "n_clusters": 3, "engine": "dask-ml"},
        ".engine: dask-ml has no quick-kmeans",
    ),
    (
        KM,
        {"method": "kmeans", "n_clusters": 3, "engine": "dask-ml", "n_init": 10},
        ".n_init: engine dask-ml starts k-means once",
    ),
    (
        KM,
        {"method": "kmeans", "n_clusters": 3, "engine": "dask-ml", "init": "best-of-sample"},
        ".init: 'best-of-sample' is not known; allowed: k-means||",
    ),
    ("studies/one/neighbours", 0, ".neighbours: got 0, expected a whole number of 1 or more"),
    ("studies/one/neighbours", "many", ".neighbours: got 'many', expected a whole number"),
    ("studies/one/neighbours", {"method": "cell"}, ".method: 'cell' is not known; did you mean"),
    ("studies/one/neighbours", {"n_probe": 4}, ".n_probe: has no meaning for exact lists; take"),
    (
        "studies/one/neighbours",
        {"method": "cells", "n_probe": 4, "n_cells": 3},
        ".n_probe: 4 is above n_cells=3; lower it",
    ),
    ("studies/one/neighbours", {"m": 3}, ".neighbours: unknown key 'm'; "),
    ("studies/one/neighbours", {"metric": "cosin"}, ".metric: 'cosin' is not known; did you mean"),
    ("studies/one/featured", "kn/5", ".featured: 'kn' is no clustering of this study; did you"),
    ("studies/one/featured", "km/6", ".featured: 'km' is not made for k=6; k is one of 2, 5"),
    ("studies/one/featured", "km/five", ".featured: 'km' is not made for k=five"),
    ("studies/one/featured", 5, ".featured: got 5, expected text"),
    (
        "report/sheets",
        "featurd",
        ": report.sheets: 'featurd' is not known; did you mean 'featured'",
    ),
    ("report/photos_per_sheet", 0, ": report.photos_per_sheet: got 0, expected a whole number"),
]


@pytest.mark.parametrize(
    ("where", "value", "sentence"), REFUSED, ids=[f"{r[0]}={r[1]!r}"[:70] for r in REFUSED]
)
def test_load__refuses_with_file_place_and_remedy(
    load: Any, where: str, value: Any, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(put(small(), where, value))
    message = str(caught.value)
    assert sentence in message
    assert "job.yaml: " in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("word", ["group", "truth", "photos"])
def test_data__may_leave_the_paths_to_a_set_that_brings_its_own(load: Any, word: str) -> None:
    job = put(put(small(), "data/paths", None), f"data/{word}", "(x)")
    assert load(job).data.paths == ()


def test_featured__needs_a_clustering(load: Any) -> None:
    job = put(put(small(), "studies/one/cluster", None), "studies/one/featured", "km/5")
    with pytest.raises(UsageError, match=r"studies\.one\.featured: .* the study has none"):
        load(job)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds nothing, expected a mapping"),
        ("- a", "holds a list, expected a mapping"),
        ("a: [1", "line 1, column 6: while parsing a flow sequence, expected ',' or ']'"),
        ("a:\n\tb: 1", "line 2, column 1: while scanning for the next token, found character"),
        ("name: a\nname: b", "line 2, column 1: the key 'name' stands here twice; keep one"),
        ("a: {b: 1, 'b': 2}", "line 1, column 11: the key 'b' stands here twice"),
        ("? [a]\n: 1", "line 1, column 3: a key must be a word"),
        ("a: 1\n---\nb: 1", "expected a single document in the stream, but found another"),
        ("a: !!python/name:os.system x", "line 1, column 4: the tag"),
        ("a: *b", "line 1, column 4: found undefined alias"),
        ("a: {workdir}/demo", 'a value that begins with {workdir} needs quotes: "{workdir}/..."'),
        ("a: \x07", "holds a character that YAML forbids (character 3)"),
        ("[" * 9000, "is nested too deeply"),
        ("30: a", "the key 30 is not text; put it in quotes"),
        ("true: a", "the key true is not text; put it in quotes"),
        ("name: a\ndata:\n  folder: {workdir}", "data.folder: got a mapping, expected text; put"),
    ],
)
def test_yaml__that_breaks_is_told_in_one_sentence(load: Any, text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load__names_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml: cannot be read \(No such file"):
        load_job(tmp_path / "absent.yaml", workdir="/w")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(UsageError, match=r"latin\.yaml: is not UTF-8 text \(byte 9\)"):
        load_job(tmp_path / "latin.yaml", workdir="/w")


# --- what decides results ------------------------------------------------------------------


def shuffled(value: Any, shuffler: random.Random) -> Any:
    """Return the same records with every mapping's keys in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, shuffler)) for key, item in value.items()]
        shuffler.shuffle(items)
        return dict(items)
    return value


@settings(deadline=None, max_examples=40)  # it writes files
@given(st.randoms(use_true_random=False))
def test_digest__does_not_depend_on_the_order_of_keys(
    tmp_path_factory: pytest.TempPathFactory, shuffler: random.Random
) -> None:
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    job = yaml.safe_load(WHOLE)
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    before = load_job(path, workdir="/w")
    path.write_text(yaml.safe_dump(shuffled(job, shuffler), sort_keys=False))
    after = load_job(path, workdir="/w")
    assert job_digest(after) == job_digest(before)
    assert json.dumps(after.canonical()) == json.dumps(before.canonical())


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("name", "other"),
        ("data/dataset", "small"),
        ("memory/per_task", "2GiB"),
        ("report", {"photos_per_sheet": 9, "sheets": "all"}),
        ("data/synthetic", True),
        ("data/compress", "zstd"),
        ("seed", 0),
        ("studies/one/scale", "none"),
        ("studies/one/featured", "km/5"),
        (f"{KM}/n_clusters", "5, 2"),
        (f"{KM}/tol", 0.0001),
    ],
)
def test_digest__ignores_what_decides_no_result(load: Any, where: str, value: Any) -> None:
    job = put(small(), "data/dataset", "small")
    assert job_digest(load(put(job, where, value))) == job_digest(load(job))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("seed", 1),
        ("data/dataset", "other"),
        ("data/descriptors/osnet", "other.npy"),
        ("data/descriptors/osnet", {"file": "osnet.npy", "key": "X"}),
        ("data/descriptors/osnet", ["color.npy", "osnet.npy"]),
        ("data/folder", "/elsewhere"),
        ("data/paths", ["p.csv", "q.csv"]),
        ("data/group", "(a)"),
        ("data/truth", "t.csv"),
        ("data/on_nan", "drop"),
        ("data/block_rows", 64),
        ("studies/two", {"descriptors": "osnet"}),
        ("studies/one/descriptors", ["color", "osnet"]),
        ("studies/one/scale", "l2"),
        ("studies/one/reduce", "none"),
        ("studies/one/reduce/solver", "qr"),
        ("studies/one/reduce/max_components", 8),
        (f"{KM}/n_clusters", [2, 5, 6]),
        (f"{KM}/n_init", 3),
        (f"{KM}/max_iter", 30),
        (f"{KM}/tol", 0),
        (f"{KM}/init", "k-means||"),
        ("studies/one/featured", "km/2"),
    ],
)
def test_digest__changes_with_what_decides_results(load: Any, where: str, value: Any) -> None:
    job = put(small(), "data/dataset", "small")
    assert job_digest(load(put(job, where, value))) != job_digest(load(job))


def test_digest__ignores_comments_and_style(load: Any) -> None:
    restyled = WHOLE.replace("seed: 0", "seed: 0   # a remark").replace('"2..50"', "2..50")
    assert job_digest(load(restyled)) == job_digest(load(WHOLE))


@pytest.mark.parametrize("workdir", ["/w", "/other/place/", "s3://bucket/w", "work"])
def test_digest__does_not_depend_on_where_the_workdir_lies(load: Any, workdir: str) -> None:
    job = put(small(), "data/folder", "{workdir}/demo")
    canonical = load(job, workdir).canonical()
    assert canonical["data"]["paths"] == ["{workdir}/demo/p.csv"]
    assert job_digest(load(job, workdir)) == job_digest(load(job, "/w"))


def test_canonical__keeps_files_that_only_begin_like_the_workdir(load: Any) -> None:
    job = put(small(), "data/folder", "/work2")
    assert load(job, "/work").canonical()["data"]["paths"] == ["/work2/p.csv"]


def test_canonical__is_plain_and_sorted(load: Any) -> None:
    canonical = load(WHOLE).canonical()
    assert json.dumps(canonical) == json.dumps(canonical, sort_keys=True)
    assert json.loads(json.dumps(canonical)) == canonical
    assert set(job_digest(load(WHOLE))) <= set("0123456789abcdef")
