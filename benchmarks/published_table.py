"""Scores that people published for the case, beside ours on the demo.

    python -m benchmarks.published_table --rows 416314 --workdir work/published
    python -m benchmarks.published_table --rows 5000 --only 'vdc_type-.*-none'

Makes the demo without photos, runs jobs/published_table.yaml on it by the command line and sets
published.csv beside the scores. The job goes in parts of at most `--room` of reduced rows, which are
removed when a part is done: all at once would take 80 GB. A part that is done is not done again.
Studies of more components than there are rows are left out.

What compares: Davies-Bouldin as it is. Calinski-Harabasz grows in proportion to the rows, so ours is
shown as of the rows published: times (theirs - k) / (ours - k). On few rows k-means fits chance as
well, and wide sets come out too high: compare at all rows. The demo is synthetic and calibrated to
some of these very figures (docs/calibration.md). Nothing is published of DBSCAN but shares of noise
without settings; ours are the best settings of their `min_samples`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import full_case, pairs, printing
from benchmarks.files import Files, make_once
from vehclust_dask.budget import parse_bytes
from vehclust_dask.job.reading import read_yaml
from vehclust_dask.job.spec import job_digest, load_job

JOB = pairs.ROOT / "jobs" / "published_table.yaml"
PUBLISHED = Path(__file__).with_name("published.csv")
#: What the clusterings of the job are called, and what they are beside others.
NAMES = {
    "kmeans": "km",
    "minibatch-kmeans": "mbk",
    "gaussian-mixture": "gm",
    "ward": "ward",
}
#: Methods that find their number of clusters themselves.
FINDS_K = ("dbscan", "hdbscan")
SCORES = {"calinski_harabasz": "CH", "davies_bouldin": "DB"}
#: A score this factor away from the published one still counts as near.
FACTOR = 1.3


def read_published() -> pd.DataFrame:
    """Return what is published, a row per clustering, with the names it has in the job."""
    table = pd.read_csv(PUBLISHED, comment="#", dtype={"k": "Int64", "rows": "Int64"})
    sets = table["sets"].str.replace("+", "-", regex=False)
    table["study"] = sets + "-" + table["components"].astype(str) + "-" + table["scale"]
    table["clustering"] = table["method"].map(NAMES)
    return table


@dataclass(frozen=True)
class Part:
    """Some studies of the job, run together.

    Attributes
    ----------
    name : str
        Of its job.
    studies : dict
        As the job file has them.
    """

    name: str
    studies: dict[str, Any]


def columns_of(study: dict[str, Any]) -> int:
    """Return the number of components of a study of the job file."""
    reduce = study["reduce"]
    return int(reduce if isinstance(reduce, int) else reduce["n_components"])


def cut(studies: dict[str, Any], rows: int, room: int) -> Iterator[Part]:
    """Cut studies, in their order, into parts whose reduced rows take at most ``room`` bytes."""
    mine: dict[str, Any] = {}
    taken, number = 0, 1
    for name, study in studies.items():
        size = 4 * rows * columns_of(study)
        if mine and taken + size > room:
            yield Part(f"published-{number:02}", mine)
            mine, taken, number = {}, 0, number + 1
        mine[name] = study
        taken += size
    if mine:
        yield Part(f"published-{number:02}", mine)


def write_job(part: Part, demo: Path, file: Path) -> None:
    """Write the job of a part on the demo; JSON is YAML, and numbers stay numbers."""
    job = read_yaml(JOB).value
    job["name"] = part.name
    job["data"] = {
        "dataset": demo.name,
        "folder": str(demo),
        "descriptors": {name: made for name, (made, _) in full_case.SETS.items()},
        "paths": "images_paths.csv",
        "group": job["data"]["group"],
        "synthetic": True,
    }
    job["studies"] = part.studies
    file.write_text(json.dumps(job, indent=1))


def run_part(part: Part, demo: Path, workdir: Path, place: Path) -> pd.DataFrame:
    """Run a part, or find it done; return its scores."""
    job = workdir / f"{part.name}.yaml"
    write_job(part, demo, job)
    digest = job_digest(load_job(job, workdir=str(workdir)))[:12]
    done = workdir / "scores" / f"{part.name}-{digest}.parquet"

    def compute(out: Path) -> None:
        command = full_case.call("run", job, place, workdir)
        print(f"- {part.name}: {len(part.studies)} studies, {command.seconds:.0f} s", flush=True)
        runs = (workdir / "runs").glob(f"{part.name}-*/tables/scores.parquet")
        newest = max(runs, key=lambda file: file.stat().st_mtime)
        shutil.copyfile(newest, out)
        for step in (workdir / "steps").glob("reduced-*"):
            shutil.rmtree(step)

    make_once(done, compute)
    return pd.read_parquet(done)


def beside(published: pd.DataFrame, ours: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return the published rows that ours has, with our scores as of the published rows."""
    keys = ["study", "clustering", "k"]
    mine = ours[[*keys, *SCORES]].rename(columns={score: f"our_{score}" for score in SCORES})
    table = published[~published["method"].isin(FINDS_K)].merge(mine, on=keys, how="inner")
    k = table["k"].astype(float)
    table["our_calinski_harabasz"] *= (table["rows"].astype(float) - k) / (rows - k)
    for score in SCORES:
        table[f"{score}_ratio"] = table[f"our_{score}"] / table[score]
    return table


def summary(table: pd.DataFrame) -> list[str]:
    """Return how near ours come, by source and method."""
    head = ["source", "method", "figures"]
    for name in SCORES.values():
        head += [f"{name}, ours / published: median", "least", "most", f"within {FACTOR:g} times"]
    body = []
    for (source, method), part in table.groupby(["source", "method"], sort=False):
        line = [str(source), str(method), str(len(part))]
        for score in SCORES:
            ratio = part[f"{score}_ratio"].dropna().to_numpy()
            line += ratio_words(ratio) if len(ratio) else [""] * 4
        body.append(line)
    return printing.grid(head, body)


def ratio_words(ratio: np.ndarray) -> list[str]:
    """Write median, extremes and how many are near."""
    near = int((np.maximum(ratio, 1 / ratio) <= FACTOR).sum())
    values = (np.median(ratio), ratio.min(), ratio.max())
    return [*(f"{value:.2f}" for value in values), f"{near} of {len(ratio)}"]


def each(table: pd.DataFrame) -> list[str]:
    """Return every published row beside ours."""
    head = ["source", "rows", "study", "method", "k"]
    for name in SCORES.values():
        head += [f"{name} published", f"{name} ours", "ratio"]
    body = []
    for row in table.to_dict("records"):
        line = [row["source"], f"{row['rows']:,}", row["study"], row["method"], str(row["k"])]
        for score, digits in zip(SCORES, (1, 3), strict=True):
            values = (row[score], row[f"our_{score}"])
            line += ["" if np.isnan(v) else f"{v:,.{digits}f}" for v in values]
            ratio = row[f"{score}_ratio"]
            line.append("" if np.isnan(ratio) else f"{ratio:.2f}")
        body.append(line)
    return printing.grid(head, body)


def densities(published: pd.DataFrame, ours: pd.DataFrame, rows: int) -> list[str]:
    """Return what density methods found, beside the little that is published of them."""
    said = published[published["method"].isin(FINDS_K)].set_index(["study", "method"])
    mine = ours[ours["method"].isin(FINDS_K)]
    head = ["study", "clustering", "published", "clusters", "noise", "largest cluster"]
    body = []
    for row in mine.to_dict("records"):
        known = said.loc[(row["study"], row["method"])]
        words = f"{known['noise']:.2%} noise" if known["noise"] == known["noise"] else "one cluster"
        found = [str(row["k"]), f"{row['noise']:.1%}", f"{row['largest'] / rows:.1%}"]
        body.append([row["study"], row["clustering"], words, *found])
    return printing.grid(head, body) if body else []


def page(published: pd.DataFrame, ours: pd.DataFrame, table: pd.DataFrame, rows: int) -> str:
    """Return title, what compares, summary and every row."""
    explained = (__doc__ or "").split("What compares: ")[1].strip().replace("\n", " ")
    lines = [
        f"### published scores beside ours, {rows:,} rows (the demo, synthetic)",
        "",
        explained,
    ]
    lines += ["", *summary(table), ""]
    lines += [*densities(published, ours, rows), ""]
    return "\n".join([*lines, *each(table), ""])


def chosen(rows: int, only: str) -> dict[str, Any]:
    """Return the studies whose name matches and whose components there are rows for."""
    studies = read_yaml(JOB).value["studies"]
    return {
        name: study
        for name, study in studies.items()
        if re.fullmatch(only, name) and columns_of(study) <= rows
    }


def run(argv: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=416_314, help="default: %(default)s")
    parser.add_argument("--workdir", type=Path, default=Path("work/published"))
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--only", default=".*", help="studies whose names match")
    parser.add_argument("--room", default="10GB", help="of reduced rows; default: %(default)s")
    asked = parser.parse_args(argv)
    workdir = asked.workdir.absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    studies = chosen(asked.rows, asked.only)
    if not studies:
        raise SystemExit(f"benchmarks.published_table: no study matches --only '{asked.only}'")
    print(f"{printing.machine()}\n", flush=True)
    demo = full_case.make_demo(Files(workdir, None), asked.rows)
    place = workdir / "place.yaml"
    place.write_text(full_case.PLACE.format(workers=asked.workers))
    parts = cut(studies, asked.rows, parse_bytes(asked.room))
    ours = pd.concat([run_part(part, demo, workdir, place) for part in parts], ignore_index=True)
    published = read_published()
    table = beside(published, ours, asked.rows)
    table.to_csv(workdir / "published.csv", index=False)
    text = page(published, ours, table, asked.rows)
    (workdir / "published.md").write_text(text)
    print(f"\n{text}")
    return table


if __name__ == "__main__":
    run()
