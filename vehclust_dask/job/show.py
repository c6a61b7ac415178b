"""What commands print: plans, runs, where to look, what to do next."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import RunMissing, UsageError, nearest
from vehclust_dask.job.clustering import recorded_column
from vehclust_dask.job.plan import Plan
from vehclust_dask.job.run import MANIFEST, read_run
from vehclust_dask.job.similar import Similar
from vehclust_dask.labels.export import METHOD_NAMES, export_csv
from vehclust_dask.store.folders import read_json, read_table
from vehclust_dask.store.storage import is_url

#: Columns of the printed scores, with their heads.
SCORE_HEADS = {
    "study": "study",
    "clustering": "clustering",
    "engine": "engine",
    "k": "k",
    "inertia": "inertia",
    "calinski_harabasz": "CH",
    "davies_bouldin": "DB",
    "silhouette": "silhouette",
    "noise": "noise",
    "group_agreement": "same-vehicle",
    "seconds": "seconds",
    "peak_mb": "peak MB",
}


def plan_lines(plan: Plan) -> list[str]:
    """Return a plan as text."""
    lines = [f"job {plan.job}: {show_bytes(plan.per_task_bytes)} granted per task"]
    rows = [("step", "rows", "columns", "blocks", "tasks", "per task", "disk", "")]
    for step in plan.steps:
        rows.append(
            (
                step.name,
                f"{step.grid.n_rows:,}",
                f"{step.columns}",
                f"{step.grid.n_blocks} x {step.grid.block_rows}",
                f"{step.tasks}",
                show_bytes(step.task_bytes),
                show_bytes(step.disk_bytes),
                "done" if step.done else "",
            )
        )
    lines += _table(rows)
    lines.append(f"still to write: at most {show_bytes(plan.disk_bytes)}")
    return lines


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values."""
    return {
        "job": plan.job,
        "per_task_bytes": plan.per_task_bytes,
        "disk_bytes": plan.disk_bytes,
        "steps": [
            {
                "name": s.name,
                "rows": s.grid.n_rows,
                "columns": s.columns,
                "block_rows": s.grid.block_rows,
                "blocks": s.grid.n_blocks,
                "tasks": s.tasks,
                "task_bytes": s.task_bytes,
                "disk_bytes": s.disk_bytes,
                "done": s.done,
            }
            for s in plan.steps
        ],
    }


def run_record(folder: Path) -> dict[str, Any]:
    """Return a run as plain values: its manifest, its folder, its scores."""
    scores = folder / "tables" / "scores.parquet"
    table = read_table(scores) if scores.exists() else pd.DataFrame()
    rows = [{key: _plain(value) for key, value in row.items()} for row in table.to_dict("records")]
    return {
        "run": folder.name,
        "folder": str(folder),
        **read_json(folder / MANIFEST),
        "scores": rows,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def run_lines(folder: Path, workdir: Path) -> list[str]:
    """Return what a person wants to know of a run: scores, where to look, what to do next."""
    manifest = read_json(folder / MANIFEST)
    lines = [f"run {folder.name} ({manifest['dataset']['rows']:,} rows)", ""]
    scores = folder / "tables" / "scores.parquet"
    if scores.exists():
        table = read_table(scores)
        lines += _table(_score_rows(table, manifest["studies"]))
        shown = len(_chosen(table, manifest["studies"]))
        if len(table) > shown:
            lines.append(f"({len(table) - shown} more in scores.csv)")
        lines.append("")
    lines += _where(folder, workdir, manifest)
    return lines


def _chosen(table: pd.DataFrame, studies: dict[str, Any]) -> pd.DataFrame:
    """Pick the rows worth printing: the featured k of each study, by every method and engine."""
    parts = []
    for study, part in table.groupby("study", sort=False):
        featured = studies[str(study)].get("featured")
        k = featured[1] if featured else part["k"].iloc[0]
        alone = part.groupby("clustering")["k"].transform("size") == 1
        near = part["k"].eq(k) | alone
        # A clustering by another engine is there to be compared: show ours at its k as well. A number
        # of clusters that was found says nothing of the others.
        found = part["noise"].notna() if "noise" in part else ~alone & alone
        others = part.loc[alone & ~found, "k"]
        parts.append(part[near | part["k"].isin(others)])
    return pd.concat(parts)


def _score_rows(table: pd.DataFrame, studies: dict[str, Any]) -> list[tuple[str, ...]]:
    chosen = _chosen(table, studies)
    truth = [c for c in table.columns if c.startswith("accuracy_")]
    heads = {c: h for c, h in SCORE_HEADS.items() if c in table}
    heads |= {c: c.removeprefix("accuracy_") for c in truth}
    rows = [tuple(heads.values())]
    for record in chosen.to_dict("records"):
        rows.append(tuple(_cell(record[c]) for c in heads))
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Set rows in columns: text to the left, numbers to the right."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    numeric = [all(_is_number(row[c]) for row in rows[1:]) for c in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] == "-"


def _where(folder: Path, workdir: Path, manifest: dict[str, Any]) -> list[str]:
    """Say where the results are, what to look at, what to do next."""
    shown = _near(folder)
    lines = [f"results    {shown}"]
    page = folder / "report" / "index.html"
    if page.exists():
        lines.append(f"report     {_near(page)}: open it by a double click")
    figures = folder / "figures"
    if figures.exists():
        lines.append("look at")
        for pattern, what in (
            ("explained-variance.png", "how many components explain how much"),
            ("scores-*.png", "scores against k"),
            ("over-k-*.gif", "the first two components, k growing"),
            ("dendrogram-*.png", "the top of the tree, with sizes"),
            ("dbscan-map-*.png", "what every eps and min_samples gives"),
            ("core-distances-*.png", "how far the min_samples-th row is"),
            ("reachability-*.png", "valleys are clusters"),
            ("outlier-precision-*.png", "what each outlier score finds"),
            ("outliers-*.png", "outlier scores and rules"),
            ("sheets/*/*/overview*.png", "every cluster of the featured clustering on one wall"),
            ("sheets/*/*/cluster-000.png", "a sheet per cluster"),
        ):
            found = sorted(figures.glob(pattern))
            if found:
                more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
                lines.append(f"  {_near(found[0])}{more}: {what}")
    if (folder / "performance.html").exists():
        lines.append(f"  {shown}/performance.html: where the time went")
    if manifest["dataset"]["synthetic"]:
        lines.append("these data are synthetic: for trying out, not for findings")
    lines.append("next")
    lines.append(
        f"  {_command()} export csv {folder.name} --workdir {_near(workdir)}: path,cluster files"
    )
    notes = workdir / "notes" / f"{manifest['job']}.csv"
    if notes.exists():
        lines.append(f"  {_near(notes)}: write what you see; it stays with later runs")
    return lines


def _command() -> str:
    """Return how this command is called here: by its name, or by its path where it is not on PATH."""
    if shutil.which("vehclust"):
        return "vehclust"
    script = Path(sys.executable).parent / "vehclust"
    try:
        return str(script.relative_to(Path.cwd()))
    except ValueError:
        return str(script)


def _near(path: Path) -> str:
    """Return a path as seen from here, where that is shorter."""
    if is_url(path):
        return str(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def similar_lines(found: Similar) -> list[str]:
    """Return the nearest photos as text."""
    table = found.table
    heads = {"rank": "rank", "distance": found.metric, "row": "row", "path": "path"}
    heads |= {"same_vehicle": "same vehicle"}
    columns = [c for c in heads if c in table]
    rows = [tuple(heads[c] for c in columns)]
    for record in table[columns].to_dict("records"):
        record["distance"] = f"{record['distance']:.6g}"
        if "same_vehicle" in record:
            record["same_vehicle"] = {True: "yes", False: "no"}.get(record["same_vehicle"], "-")
        rows.append(tuple(str(record[c]) for c in columns))
    named = f"row {found.row}" + (f", {found.path}" if found.path else "")
    by_cells = f", by cells (recall {found.recall:.3f})" if found.recall < 1 else ""
    return [f"nearest to {named} in study {found.study}{by_cells}", *_table(rows)]


def similar_record(found: Similar) -> dict[str, Any]:
    """Return the nearest photos as plain values."""
    return {
        "run": found.run,
        "study": found.study,
        "metric": found.metric,
        "row": found.row,
        "path": found.path,
        "recall": found.recall,
        "neighbours": found.table.to_dict("records"),
    }


def list_lines(folders: list[Path]) -> list[str]:
    """Return a line per run."""
    rows = [("run", "ended", "rows", "studies", "peak")]
    for folder in folders:
        m = read_json(folder / MANIFEST)
        rows.append(
            (
                folder.name,
                m["ended"],
                f"{m['dataset']['rows']:,}",
                ", ".join(m["studies"]) or "-",
                show_bytes(m["peak_bytes"]),
            )
        )
    return _table(rows) if folders else ["no finished runs"]


def export_clusterings(
    workdir: Path,
    name: str,
    study: str | None,
    clustering: str | None,
    k: int | None,
    out: Path,
) -> list[Path]:
    """Write the asked clusterings of a run as CSV; return the files.

    Raises
    ------
    RunMissing
        If the run does not hold them.
    """
    folder, manifest = read_run(workdir, name)
    studies = manifest["studies"]
    if study is not None and study not in studies:
        raise RunMissing(f"run {folder.name} has no study '{study}'; {nearest(study, studies)}")
    chosen_studies = {
        one: record
        for one, record in studies.items()
        if study in (None, one) and "featured" in record
    }
    if len(chosen_studies) > 1 and out.suffix.lower() == ".csv":
        raise UsageError(
            f"{out} is one file, but run {folder.name} has {len(chosen_studies)} studies "
            f"({', '.join(chosen_studies)}); choose one by --study, or give a folder"
        )
    files = []
    for one, record in chosen_studies.items():
        chosen = clustering or record["featured"][0]
        if chosen not in record["clusterings"]:
            raise RunMissing(
                f"study '{one}' has no clustering '{chosen}'; {nearest(chosen, record['clusterings'])}"
            )
        number = k or _only_k(record, chosen)
        labels = folder / "tables" / f"labels-{one}.parquet"
        method = _file_method(record, chosen)
        column = recorded_column(record["clusterings"][chosen], chosen, number)
        files.append(export_csv(labels, one, method, column, number, out))
    if not files:
        raise RunMissing(f"run {folder.name} has no clusterings: its job only converts")
    return files


def _file_method(record: dict[str, Any], clustering: str) -> str:
    """Return a method's name in a file name; one that is not featured adds its own where two share it."""
    method = record["clusterings"][clustering]["method"]
    same = [c for c in record["clusterings"].values() if c["method"] == method]
    name = METHOD_NAMES.get(method, method)
    if len(same) > 1 and clustering != record["featured"][0]:
        return f"{name}-{clustering}"
    return name


def _only_k(record: dict[str, Any], clustering: str) -> int:
    ks = record["clusterings"][clustering]["k"]
    featured: tuple[str, int] = tuple(record["featured"])
    if clustering == featured[0]:
        return featured[1]
    if len(ks) == 1:
        return int(ks[0])
    raise RunMissing(f"'{clustering}' holds k = {ks[0]} to {ks[-1]}: say which by -k")
