"""Sources that must fit together before anything is converted, and the rows they give."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.job.conftest import N_ROWS, Site
from vehclust_dask.errors import BadInput
from vehclust_dask.job.dataset import Dataset, convert, find_converted
from vehclust_dask.job.spec import load_job


def converted(site: Site, **data: Any) -> tuple[Dataset, list[str]]:
    """Convert in this process; return the data set and what was said."""
    said: list[str] = []
    spec = load_job(site.job(data=data, studies={}), workdir=str(site.workdir))
    return convert(spec.data, site.workdir, say=said.append), said


def refused(site: Site, reason: str, **data: Any) -> None:
    """Check the refusal, and that no part can be seen."""
    with pytest.raises(BadInput, match=reason):
        converted(site, **data)
    assert not list(site.workdir.rglob("part-*"))


def photos(site: Site, rows: list[int]) -> str:
    with zipfile.ZipFile(site.folder / "photos.zip", "w") as members:
        for i in rows:
            with members.open(site.paths[i], "w") as out:
                Image.new("RGB", (8, 6)).save(out, "JPEG")
    return "photos.zip"


def values(dataset: Dataset, name: str) -> np.ndarray:
    matrix = dataset.sets[name]
    return np.concatenate([matrix.read(i) for i in range(matrix.grid.n_blocks)])


def test_convert__gives_the_values_of_every_set(site: Site) -> None:
    dataset, said = converted(site)
    assert said == ["a: 300 x 6 converted", "b: 300 x 5 converted"]
    assert np.array_equal(values(dataset, "a"), site.A)
    assert np.array_equal(values(dataset, "b"), site.B)
    assert dataset.samples["path"].tolist() == site.paths
    assert dataset.n_rows == N_ROWS


def test_convert__goes_by_the_paths_a_set_brings(site: Site) -> None:
    order = np.random.default_rng(2).permutation(N_ROWS)
    site.save_dict("a.pickle", [site.paths[i] for i in order], site.A[order])
    site.save_dict("b.pickle", site.paths, site.B)
    dataset, _ = converted(site, descriptors={"a": "a.pickle", "b": "b.pickle"}, paths=None)
    assert dataset.samples["path"].tolist() == [site.paths[i] for i in order]
    assert np.array_equal(values(dataset, "a"), site.A[order])
    assert np.array_equal(values(dataset, "b"), site.B[order])


def test_convert__takes_the_rows_the_paths_name_of_a_set_that_knows_more(site: Site) -> None:
    order = np.random.default_rng(2).permutation(N_ROWS)
    site.save_dict("a.pickle", [site.paths[i] for i in order], site.A[order])
    site.write_paths(site.paths[40:140])
    dataset, _ = converted(site, descriptors={"a": "a.pickle"})
    assert np.array_equal(values(dataset, "a"), site.A[40:140])


def test_convert__digest_depends_on_values_alone(site: Site) -> None:
    site.save_dict("a.pickle", site.paths, site.A)
    digests = [
        converted(site, dataset="x")[0].digest,
        converted(site, dataset="y", descriptors={"b": "b.npy", "a": "a.pickle"})[0].digest,
    ]
    assert digests[0] == digests[1]
    site.save("b.npy", site.B + 1)
    assert converted(site, dataset="z")[0].digest != digests[0]


def test_samples_digest__depends_on_what_is_known(site: Site) -> None:
    first = converted(site)[0].samples_digest
    assert converted(site)[0].samples_digest == first
    assert converted(site, truth="truth.csv")[0].samples_digest != first
    assert converted(site, group=r"w/\d/(\d+)/")[0].samples_digest != first
    site.write_paths(site.paths[::-1])
    assert converted(site)[0].samples_digest != first


def test_find_converted__finds_all_or_nothing(site: Site) -> None:
    spec = load_job(site.job(), workdir=str(site.workdir)).data
    assert find_converted(spec, site.workdir, say=str) is None
    converted(site, descriptors={"a": "a.npy"})
    assert find_converted(spec, site.workdir, say=str) is None
    whole, _ = converted(site)
    found = find_converted(spec, site.workdir, say=str)
    assert found is not None
    assert found.sets == whole.sets


def test_convert__refuses_sets_of_other_rows(site: Site) -> None:
    site.save("b.npy", site.B[:-1])
    refused(site, "b has 299 rows but a has 300: row i must be the same photo in every set")


def test_convert__refuses_paths_of_other_rows(site: Site) -> None:
    site.write_paths(site.paths[:-1])
    refused(site, "the paths name 299 rows but a has 300")


def test_convert__refuses_parts_of_other_widths(site: Site) -> None:
    refused(site, "the files of a have 5 and 6 columns", descriptors={"a": ["a.npy", "b.npy"]})


@pytest.mark.parametrize("files", [["paths.csv"], ["p1.csv", "p2.csv"]])
def test_convert__refuses_a_path_that_stands_twice(site: Site, files: list[str]) -> None:
    twice = [*site.paths[:-1], site.paths[0]]
    site.write_paths(twice)
    site.write_paths(twice[:200], "p1.csv")
    site.write_paths(twice[200:], "p2.csv")
    refused(site, site.paths[0], paths=files)


def test_convert__refuses_a_path_in_two_files_of_a_set(site: Site) -> None:
    site.save_dict("a1.pickle", site.paths[:200], site.A[:200])
    site.save_dict("a2.pickle", site.paths[199:299], site.A[199:299])
    data = {"descriptors": {"a": ["a1.pickle", "a2.pickle"]}, "paths": None}
    refused(site, f"'{site.paths[199]}' is in two files of a set", **data)


def test_convert__tells_of_missing_photos_and_refuses_none_at_all(site: Site) -> None:
    _, said = converted(site, photos=photos(site, list(range(300))))
    assert not [line for line in said if "missing" in line]
    _, said = converted(site, photos=photos(site, [i for i in range(300) if i not in (7, 9)]))
    assert [line for line in said if "missing" in line] == [
        f"2 of 300 photos are missing, the first is {site.paths[7]}"
    ]
    with zipfile.ZipFile(site.folder / "photos.zip", "w") as members:
        members.writestr("other/1.jpg", b"x")
    with pytest.raises(BadInput, match=r"none of the 300 paths is in .*photos.zip"):
        converted(site, photos="photos.zip")


def test_convert__leaves_other_parts_where_a_source_is_damaged(site: Site) -> None:
    converted(site)
    before = sorted(p.name for p in site.workdir.rglob("part-*"))
    content = (site.folder / "a.npy").read_bytes()
    Path(site.folder / "a.npy").write_bytes(content[:-100])
    with pytest.raises(BadInput, match=r"a\.npy"):
        converted(site)
    assert sorted(p.name for p in site.workdir.rglob("part-*")) == before
