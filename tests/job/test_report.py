"""The report of a finished run: pages that fit together and say what the tables say."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from tests.job.conftest import N_ROWS, Site, call


class Page(HTMLParser):
    """What a page points to, and the words on it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            if name == "style" and value:
                self.targets += re.findall(r"url\(([^)]*)\)", value)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def check_links(report: Path) -> int:
    """Check that everything a page points to is a file of the report; return how many there are."""
    n = 0
    for page in report.rglob("*.html"):
        for target in Page(page).targets:
            assert "://" not in target, f"{page.name} leaves the folder: {target}"
            file = unquote(target.partition("#")[0])
            if file:
                assert (page.parent / file).is_file(), f"{page.name}: {target}"
                n += 1
    return n


def test_run__writes_a_report_whose_links_all_resolve(site: Site) -> None:
    folder = site.finished(site.job())
    report = folder / "report"
    assert check_links(report) > 50
    names = {str(f.relative_to(report)) for f in report.rglob("*.html")}
    assert {"index.html", "pca.html", "s/one/k.html", "s/one/clusters.html"} <= names
    assert {f"s/one/c/{c:03d}.html" for c in range(4)} <= names


def test_run__writes_no_report_where_none_is_asked_for(site: Site) -> None:
    job = site.job(report={"pages": False})
    folder = site.finished(job)
    assert not (folder / "report").exists()
    ended = call("report", "small", "--workdir", site.workdir)
    assert ended.code == 0, ended.err
    assert ended.out.strip() == str(folder / "report" / "index.html")
    assert "files" in ended.err


def test_report__says_what_the_tables_say(site: Site) -> None:
    folder = site.finished(site.job())
    labels = pd.read_parquet(folder / "tables" / "labels-one.parquet")
    sizes = np.bincount(labels["km_4"], minlength=4)
    for cluster in range(4):
        page = folder / "report" / "s" / "one" / "c" / f"{cluster:03d}.html"
        text = page.read_text()
        assert f"<dd>{sizes[cluster]} (" in text
        mine = labels[labels["km_4"] == cluster]
        central = mine.sort_values("sq_dist", kind="stable")["path"].tolist()
        border = mine.sort_values("margin", kind="stable")
        at = [text.index(path) for path in central[:5]]
        assert at == sorted(at), "central ones come first, the nearest before all"
        first = border.iloc[0]
        section = text[text.rindex("Border") :]
        assert first["path"] in section
        assert f">{first['second']}</a>" in section


def test_report__is_the_same_bytes_again_and_in_another_place(site: Site) -> None:
    folder = site.finished(site.job())
    before = digests(folder / "report")
    out = site.folder / "elsewhere"
    ended = call("report", "small", "--workdir", site.workdir, "--out", out)
    assert ended.code == 0, ended.err
    assert digests(out) == before
    again = call("report", "small", "--workdir", site.workdir, "--out", out)
    assert again.code == 0
    assert digests(out) == before
    assert not list(site.folder.glob(".elsewhere*"))


def test_report__of_rows_that_are_used_as_they_are_leaves_dropped_ones_out(site: Site) -> None:
    A = site.A.copy()
    A[7, 2] = np.nan
    site.save("a.npy", A)
    studies = {
        "raw": {
            "descriptors": ["a"],
            "reduce": "none",
            "cluster": {"km": {"method": "kmeans", "n_clusters": 3}},
            "featured": "km/3",
        }
    }
    folder = site.finished(site.job(data={"on_nan": "drop"}, studies=studies))
    shown = "".join(f.read_text() for f in (folder / "report" / "s" / "raw" / "c").iterdir())
    assert site.paths[8] in shown or site.paths[9] in shown
    assert site.paths[7] not in shown


def test_report__as_a_zip_unpacks_to_the_same_folder(site: Site, tmp_path: Path) -> None:
    folder = site.finished(site.job())
    ended = call("report", "small", "--workdir", site.workdir, "--zip", "--json")
    record = json.loads(ended.out)
    assert record["files"] == len(digests(folder / "report"))
    with zipfile.ZipFile(record["zip"]) as packed:
        packed.extractall(tmp_path / "sent")
    assert digests(tmp_path / "sent" / "report") == digests(folder / "report")


def test_report__refuses_in_one_sentence(site: Site, tmp_path: Path) -> None:
    folder = site.finished(site.job())
    missing = call("report", "other", "--workdir", site.workdir)
    assert missing.code == 5
    assert "'other' is no run" in missing.err
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    refused = call("report", "small", "--workdir", site.workdir, "--out", other)
    assert refused.code == 2
    assert "holds something else than a report" in refused.err
    assert (other / "thesis.txt").read_text() == "years of work"
    manifest = json.loads((folder / "manifest.json").read_text())
    gone = manifest["studies"]["one"]["steps"][-1]
    shutil.rmtree(site.workdir / "steps" / gone)
    lost = call("report", "small", "--workdir", site.workdir)
    assert lost.code == 5
    assert "no longer there" in lost.err
    assert check_links(folder / "report")


def test_report__of_names_from_outside_is_escaped(site: Site) -> None:
    hostile = '"><script>x()</script>.jpg'
    paths = [*site.paths[:-1], f"w/{hostile}"]
    site.write_paths(paths)
    studies = {
        "one": {
            "descriptors": ["a"],
            "reduce": "none",
            "cluster": {"km": {"method": "kmeans", "n_clusters": N_ROWS // 4}},
            "featured": f"km/{N_ROWS // 4}",
        }
    }
    folder = site.finished(site.job(studies=studies))
    pages = [f.read_text() for f in (folder / "report").rglob("*.html")]
    assert any("&lt;script&gt;x()&lt;/script&gt;" in text for text in pages)
    assert not any("<script>x()" in text for text in pages)


@pytest.mark.parametrize("method", ["dbscan", "gaussian-mixture", "ward"])
def test_report__of_every_kind_of_clustering(site: Site, method: str) -> None:
    asked = {"dbscan": {"min_samples": 5}, "ward": {"n_clusters": 4}}.get(method, {"n_clusters": 4})
    studies = {
        "one": {
            "descriptors": ["a"],
            "reduce": 3,
            "cluster": {"it": {"method": method, **asked}},
        }
    }
    folder = site.finished(site.job(studies=studies, memory={"per_task": "128MiB"}))
    assert check_links(folder / "report") > 10
