"""``vehclust init DIR``: write a job for what lies in a folder, one a person wants to edit."""

from __future__ import annotations

import os
from pathlib import Path

from vehclust_dask.errors import Conflict, UsageError
from vehclust_dask.job.found import Found, FoundSet, clean_name, recognise
from vehclust_dask.job.reading import NAME

__all__ = ["Found", "FoundSet", "recognise", "write_job"]

#: Components that people settled on for the case's sets, each column standardised first.
USUAL_COMPONENTS = {"efficientnet": 250, "osnet": 150, "vdc_color": 70, "vdc_type": 20}

_JOB = """\
# What to compute. Where to compute it stands in a file of its own (--cluster FILE).
# Look at the plan first, with its memory and disk, then run it:
#   vehclust plan THIS_FILE --cluster FILE --workdir URL
#   vehclust run  THIS_FILE --cluster FILE --workdir URL

name: {name}
seed: 0                              # the same seed gives the same labels

data:
  folder: {folder}
  # name: file. A file with several arrays: {{file: all.npz, key: osnet}}.
  # A list of files is one set in several parts, one after the other.
  descriptors:
{descriptors}
{paths}
{photos}
{group}
{truth}
  on_nan: refuse                     # or drop: a row with a NaN is left out of every set
{synthetic}{others}
memory:
  per_task: 1GiB                     # how much one task may hold; changes the speed, never a result

# A study: descriptors -> scale -> reduce -> cluster. Several may use the same set, and
# `descriptors: [one, another]` joins sets side by side.
#   scale     none | standard | minmax | l2
#   reduce    none | {{method: pca, n_components: 150}}
#             | {{method: pca, variance: 0.9, max_components: 200}}
#   cluster   any name: kmeans, quick-kmeans, minibatch-kmeans, gaussian-mixture or ward;
#             n_clusters 30, [10, 30], "2..50" or "2..50 step 4"
#   featured  clustering/k that gets a page per cluster
studies:
{studies}
report:
  photos_per_sheet: 50
  sheets: featured                   # featured | all | none: which clusterings get contact sheets
"""

_STUDY = """\
  {name}:
    descriptors: [{descriptor}]
    scale: {scale}
    reduce: {reduce}
    cluster:
      km: {{method: kmeans, n_clusters: "{counts}"}}
      # quick: {{method: quick-kmeans, n_clusters: "{counts}"}}     # a sample, then two passes
      # mbk: {{method: minibatch-kmeans, n_clusters: [10, 30]}}   # faster, a little worse
    featured: km/{featured}
"""


def write_job(found: Found, out: Path, *, name: str | None = None, force: bool = False) -> Path:
    """Write a commented job for what was found; return its path.

    Parameters
    ----------
    found : Found
    out : Path
        The job file; its folder is made.
    name : str, optional
        The job's name; the folder's by default.
    force : bool
        Replace a file that is there.

    Raises
    ------
    Conflict
        If the file is there and `force` is false.
    UsageError
        If `name` cannot be a folder's.
    """
    out = Path(out)
    if out.exists() and not force:
        raise Conflict(f"{out} is there already; use --force to replace it, or another name")
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot name a job; use letters, digits, '.', '_' and '-'")
    text = job_text(found, name=name or clean_name(found.folder.name))
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a person may have a long evening's edits in the old one.
    partial = out.with_name(f"{out.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, out)
    return out


def job_text(found: Found, *, name: str) -> str:
    """Return the YAML of a job for what was found."""
    made_up = _line("synthetic: true", "made-up data: every page says so")
    return _JOB.format(
        name=_plain(name),
        folder=quoted(str(found.folder)),
        descriptors="\n".join(_set(known) for known in found.sets),
        paths=_paths(found),
        photos=_photos(found),
        group=_group(found),
        truth=_truth(found),
        synthetic=f"{made_up}\n" if found.synthetic else "",
        others=_left_out(found),
        studies="\n".join(_study(known) for known in found.sets),
    )


def quoted(text: str) -> str:
    """Return text as a YAML scalar in double quotes on one line, whatever it holds."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    # Line breaks of any alphabet, controls, and the stand-ins for bytes that are no UTF-8.
    return sign if sign.isprintable() else f"\\U{ord(sign):08X}"


def _plain(name: str) -> str:
    """Return a name without quotes unless YAML would read a number or a constant."""
    is_word = name[0].isalpha() and name.lower() not in ("true", "false", "null")
    return name if is_word else quoted(name)


def _line(entry: str, comment: str, indent: int = 2) -> str:
    return f"{' ' * indent + entry:<36} # {comment}"


def _paths(found: Found) -> str:
    if found.paths is None:
        return _line("# paths: images_paths.csv", "a csv with the path of every row, in order")
    return _line(f"paths: {quoted(found.paths)}", "row i belongs to row i of every set")


def _photos(found: Found) -> str:
    comment = "a folder or a zip, read in place; without it there are no pictures"
    if found.photos is None:
        return _line("# photos: photos.zip", comment)
    # Photos are found by their path, so without paths they are only offered.
    mark = "" if found.paths else "# "
    return _line(f"{mark}photos: {quoted(found.photos)}", comment)


def _group(found: Found) -> str:
    comment = "in parentheses: the vehicle's identity in a path"
    if found.group is None:
        return _line(r"# group: 'veriwild/\d+/(\d+)/'", comment)
    # Single quotes spare the backslashes, but cannot hold a line break.
    single = "'" + found.group.replace("'", "''") + "'"
    pattern = single if found.group.isprintable() else quoted(found.group)
    return _line(f"group: {pattern}", comment)


def _truth(found: Found) -> str:
    comment = "what is known of the photos; it judges clusters and never makes them"
    if found.truth is None:
        return _line("# truth: truth.csv", comment)
    columns = ", ".join(map(quoted, found.truth_columns))
    mark = "" if found.paths else "# "
    entry = _line(f"{mark}truth: {quoted(found.truth)}", comment)
    return f"{entry}\n  # truth: {{file: ..., columns: [...]}} takes some of {columns}"


def _study(known: FoundSet) -> str:
    """Return the study of one set, within its width and its rows."""
    usual = USUAL_COMPONENTS.get(known.name)
    if usual is None:
        word, scale, reduce = "90", "none", "{method: pca, variance: 0.9, max_components: 200}"
    else:
        n_components = min(usual, known.n_features, known.n_rows)
        word, scale = str(n_components), "standard"
        reduce = f"{{method: pca, n_components: {n_components}}}"
    most = min(50, known.n_rows)
    return _STUDY.format(
        name=f"{known.name}-{word}",
        descriptor=_plain(known.name),
        scale=scale,
        reduce=reduce,
        counts=f"{min(2, most)}..{most}",
        featured=min(30, most),
    )


def _set(known: FoundSet) -> str:
    entry = f"{_plain(known.name)}: {quoted(known.file)}"
    return _line(entry, f"{known.n_rows:,} rows, {known.n_features:,} columns", indent=4)


def _left_out(found: Found) -> str:
    lines = [f"  # also there, not used: {quoted(file)}\n" for file in found.others]
    # Quoted, so that a name with a line break stays inside its comment.
    lines += [f"  # left out: {quoted(reason)}\n" for reason in found.unreadable]
    return "".join(lines)
