"""Photos of a folder and of a zip, against what the standard library reads."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vehclust_dask.errors import BadInput
from vehclust_dask.store.photos import Photos, PrefixRule, open_photos

NAMES = [
    f"veriwild/{folder}/{vehicle:05d}/{photo:06d}.jpg"
    for folder, vehicle, photo in ((1, 1, 1), (1, 1, 2), (2, 7, 3), (2, 8, 4), (10, 9, 5))
]


def colour_of(i: int) -> tuple[int, int, int]:
    return (40 + 37 * i % 200, 30 + 91 * i % 200, 20 + 53 * i % 200)


def drawn(i: int, size: tuple[int, int] = (96, 64), kind: str = "JPEG", **options: object) -> bytes:
    """Draw a photo in the colour of its number, with the number on it."""
    picture = Image.new("RGB", size, colour_of(i))
    ImageDraw.Draw(picture).text((2, 2), str(i), fill="white")
    kept = io.BytesIO()
    picture.save(kept, kind, **options)
    return kept.getvalue()


def packed(where: Path, names: Sequence[str], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(where, "w", method) as archive:
        for i, name in enumerate(names):
            archive.writestr(name, drawn(i))
    return where


def laid_out(root: Path, names: Sequence[str]) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(drawn(i))
    return root


def opened(tmp_path: Path, names: Sequence[str]) -> Photos:
    return open_photos(packed(tmp_path / "photos.zip", names), tmp_path / "index.parquet")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_read__gives_what_zipfile_gives(tmp_path: Path, method: int) -> None:
    where = packed(tmp_path / "photos.zip", NAMES[::-1], method)
    photos = open_photos(where, tmp_path / "index.parquet")
    assert photos.n_photos == len(NAMES)
    with zipfile.ZipFile(where) as archive:
        for name, entry in zip(NAMES, photos.find(NAMES), strict=True):
            assert photos.name(int(entry)) == name
            assert photos.read(int(entry)) == archive.read(name)


def test_read__zip64_members_with_long_extra_fields(tmp_path: Path) -> None:
    where = tmp_path / "photos.zip"
    with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, name in enumerate(NAMES):
            member = zipfile.ZipInfo(name)
            # An unknown field of 300 bytes: longer than one guessed read takes in.
            member.extra = b"\xfe\xca" + (300).to_bytes(2, "little") + bytes(300)
            member.compress_type = zipfile.ZIP_STORED if i % 2 else zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                file.write(drawn(i))
    photos = open_photos(where, tmp_path / "index.parquet")
    assert [photos.read(int(e)) for e in photos.find(NAMES)] == [drawn(i) for i in range(5)]


def test_read__a_zip_behind_other_bytes(tmp_path: Path) -> None:
    where = packed(tmp_path / "plain.zip", NAMES)
    shifted = tmp_path / "shifted.zip"
    shifted.write_bytes(b"#!/bin/sh\n" + where.read_bytes())
    photos = open_photos(shifted, tmp_path / "index.parquet")
    assert photos.read(int(photos.find(NAMES[:1])[0])) == drawn(0)


def test_open__again_reads_the_index_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path, NAMES)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the central directory was read again")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    photos = open_photos(tmp_path / "photos.zip", tmp_path / "index.parquet")
    assert photos.read(int(photos.find(NAMES[3:4])[0])) == drawn(3)


def test_open__a_changed_zip_is_indexed_again(tmp_path: Path) -> None:
    old = opened(tmp_path, NAMES[:2])
    assert old.n_photos == 2
    new = opened(tmp_path, NAMES)
    assert new.n_photos == len(NAMES)
    assert new.missing(NAMES) == (0, None)


def test_open__a_zip_of_the_same_size_but_another_time_is_indexed_again(tmp_path: Path) -> None:
    where = packed(tmp_path / "photos.zip", ["a/1.jpg"])
    open_photos(where, tmp_path / "index.parquet")
    about = where.stat()
    packed(where, ["b/1.jpg"])
    assert where.stat().st_size == about.st_size
    os.utime(where, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert open_photos(where, tmp_path / "index.parquet").name(0) == "b/1.jpg"


def test_open__a_damaged_index_is_made_again(tmp_path: Path) -> None:
    opened(tmp_path, NAMES)
    (tmp_path / "index.parquet").write_bytes(b"PAR1 and then nothing")
    photos = open_photos(tmp_path / "photos.zip", tmp_path / "index.parquet")
    assert photos.n_photos == len(NAMES)


def test_index__is_sorted_small_and_alone_in_its_folder(tmp_path: Path) -> None:
    names = [f"veriwild/{i % 10}/{i // 4:05d}/{i:06d}.jpg" for i in range(400)][::-1]
    where = packed(tmp_path / "photos.zip", names)
    open_photos(where, tmp_path / "deep" / "index.parquet")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["index.parquet"]
    table = pq.read_table(tmp_path / "deep" / "index.parquet")
    assert table["name"].to_pylist() == sorted(names)
    assert table.column_names == ["name", "header_offset", "size", "file_size", "method"]
    assert (tmp_path / "deep" / "index.parquet").stat().st_size < 20 * len(names)


def test_photos__pickle_small_and_reopen(tmp_path: Path) -> None:
    photos = opened(tmp_path, NAMES)
    sent = pickle.dumps(photos)
    assert len(sent) < 2000
    back = pickle.loads(sent)
    assert back.read(int(back.find(NAMES[2:3])[0])) == drawn(2)


def test_photos__a_copy_refuses_a_zip_that_changed_meanwhile(tmp_path: Path) -> None:
    sent = pickle.dumps(opened(tmp_path, NAMES))
    packed(tmp_path / "photos.zip", NAMES[:1])
    with pytest.raises(BadInput, match="changed after it was indexed"):
        pickle.loads(sent).read(0)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("", ""),
        ("", "veriwild/"),
        ("images/", ""),
        ("images/", "veriwild/"),
        ("a/b/", "/mnt/photos/"),
        ("", "./"),
        ("", "C:/photos/"),
    ],
)
def test_find__exchanges_the_common_prefix(tmp_path: Path, stored: str, asked: str) -> None:
    tails = [f"{i % 3}/{i:05d}/{i % 2:06d}.jpg" for i in range(30)]
    photos = opened(tmp_path, [stored + tail for tail in tails])
    paths = [(asked + tail).replace("/", "\\") for tail in tails]
    found = photos.find(paths)
    assert found.dtype == np.int64
    assert [photos.name(int(e)) for e in found] == [stored + tail for tail in tails]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), unique=True, min_size=1))
def test_find__never_gives_one_photo_to_two_paths(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    kept = [f"{a}/{b}.jpg" for a in range(2) for b in range(4)]
    photos = opened(tmp_path_factory.mktemp("zip"), [f"x/{name}" for name in kept])
    paths = [f"y/{a}/{b}.jpg" for a, b in pairs]
    found = photos.find(paths, PrefixRule("y/", "x/"))
    assert [e >= 0 for e in found] == [path[2:] in kept for path in paths]
    assert len({int(e) for e in found if e >= 0}) == int((found >= 0).sum())


def test_find__does_not_take_a_photo_of_the_same_name_in_another_folder(tmp_path: Path) -> None:
    photos = opened(tmp_path, ["other/9/000001.jpg", "other/9/000002.jpg"])
    paths = ["veriwild/1/000001.jpg", "veriwild/2/000002.jpg", "veriwild/3/000001.jpg"]
    assert photos.find(paths).tolist() == [-1, -1, -1]


def test_find__two_folders_that_fit_alike_are_refused(tmp_path: Path) -> None:
    photos = opened(tmp_path, ["large/1/1.jpg", "large/1/2.jpg", "small/1/1.jpg", "small/1/2.jpg"])
    with pytest.raises(BadInput, match=r"'large/' and under 'small/'"):
        photos.find(["1/1.jpg", "1/2.jpg"])


def test_find__the_rule_of_all_paths_holds_for_a_few(tmp_path: Path) -> None:
    photos = opened(tmp_path, ["images/1/a.jpg", "images/2/b.jpg", "rest/3/c.jpg"])
    paths = ["v/1/a.jpg", "v/2/b.jpg", "v/3/c.jpg"]
    rule = photos.prefix_rule(paths)
    assert rule == PrefixRule("v/", "images/")
    assert photos.find(paths[2:], rule).tolist() == [-1]


def test_missing__counts_and_names_the_first(tmp_path: Path) -> None:
    photos = opened(tmp_path, NAMES)
    paths = [NAMES[0], "veriwild\\1\\00001\\999999.jpg", "veriwild/no.jpg", NAMES[1]]
    assert photos.missing(paths) == (2, "veriwild\\1\\00001\\999999.jpg")
    assert photos.missing([]) == (0, None)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_thumbnail__belongs_to_its_row(tmp_path: Path, kind: str) -> None:
    names = [f"{i * 7919 % 100:03d}/{i}.jpg" for i in range(25)]
    where = (
        packed(tmp_path / "photos.zip", names)
        if kind == "zip"
        else laid_out(tmp_path / "photos", names)
    )
    photos = open_photos(where, tmp_path / "index.parquet")
    for i, entry in enumerate(photos.find(names)):
        thumb = photos.thumbnail(int(entry), 48)
        assert thumb.size == (48, 32)
        seen = np.array(thumb.getpixel((40, 24)), dtype=float)
        nearest = min(range(25), key=lambda j: float(np.abs(seen - colour_of(j)).sum()))
        assert nearest == i


def test_thumbnail__stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(drawn(1, (400, 200), exif=exif))
    photos = open_photos(tmp_path / "photos", tmp_path / "index.parquet")
    assert photos.thumbnail(0, 50).size == (25, 50)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_thumbnail__other_formats_come_in_rgb(tmp_path: Path, kind: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / f"a.{kind.lower()}").write_bytes(drawn(1, kind=kind))
    thumb = open_photos(tmp_path / "photos", tmp_path / "index.parquet").thumbnail(0, 32)
    assert thumb.mode == "RGB"
    assert np.abs(np.array(thumb.getpixel((28, 12))) - colour_of(1)).max() < 12


@pytest.mark.parametrize("damage", [b"", b"no picture", drawn(1)[:-400], drawn(1, kind="PNG")[:60]])
def test_thumbnail__broken_pictures_are_told(tmp_path: Path, damage: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", damage)
    photos = open_photos(tmp_path / "photos.zip", tmp_path / "index.parquet")
    with pytest.raises(BadInput, match=r"photo 'a\.jpg'.*broken"):
        photos.thumbnail(0, 32)


def test_folder__links_and_dots_do_not_lead_out(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "photos", ["a/1.jpg"])
    laid_out(tmp_path / "outside", ["secret.jpg", "deep/secret.jpg"])
    (root / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (root / "folder").symlink_to(tmp_path / "outside" / "deep")
    (root / "own.jpg").symlink_to(root / "a" / "1.jpg")
    photos = open_photos(root, tmp_path / "index.parquet")
    assert [photos.name(i) for i in range(photos.n_photos)] == ["a/1.jpg", "own.jpg"]
    asked = [
        "a/1.jpg",
        "link.jpg",
        "folder/secret.jpg",
        "../outside/secret.jpg",
        str(tmp_path / "outside" / "secret.jpg"),
    ]
    assert photos.find(asked, PrefixRule()).tolist() == [0, -1, -1, -1, -1]


def test_folder__a_photo_exchanged_for_a_link_is_not_followed(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "photos", ["1.jpg"])
    outside = laid_out(tmp_path / "outside", ["secret.jpg"])
    photos = open_photos(root, tmp_path / "index.parquet")
    (root / "1.jpg").unlink()
    (root / "1.jpg").symlink_to(outside / "secret.jpg")
    with pytest.raises(BadInput, match="leads out of"):
        photos.read(0)


def test_folder__new_photos_are_seen_when_opened_again(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "photos", NAMES[:2])
    assert open_photos(root, tmp_path / "index.parquet").n_photos == 2
    laid_out(root, NAMES)
    assert open_photos(root, tmp_path / "index.parquet").n_photos == len(NAMES)


def test_zip__shadow_files_and_other_files_are_no_photos(tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/readme.txt", "__MACOSX/a/._1.jpg", "a/._1.jpg", "b\\2.JPG"]
    photos = opened(tmp_path, names)
    assert [photos.name(i) for i in range(photos.n_photos)] == ["a/1.jpg", "b/2.JPG"]
    assert photos.read(1) == drawn(4)


def test_open__refuses_what_is_no_zip(tmp_path: Path) -> None:
    index = tmp_path / "index.parquet"
    (tmp_path / "text").write_text("hello")
    whole = packed(tmp_path / "photos.zip", NAMES).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    packed(tmp_path / "other.zip", ["a.jpg"], zipfile.ZIP_BZIP2)
    packed(tmp_path / "none.zip", ["a.txt"])
    cases = {
        "nowhere.zip": "No such file",
        "text": "neither a folder nor a zip",
        "cut.zip": "not whole; copy it again",
        "other.zip": "method 12; allowed: stored and deflate",
        "none.zip": "holds no photos",
    }
    for name, words in cases.items():
        with pytest.raises(BadInput, match=words):
            open_photos(tmp_path / name, index)


def test_open__refuses_encrypted_members(tmp_path: Path) -> None:
    where = packed(tmp_path / "photos.zip", ["a.jpg"])
    content = bytearray(where.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    where.write_bytes(content)
    with pytest.raises(BadInput, match="encrypted"):
        open_photos(where, tmp_path / "index.parquet")


def test_read__damage_inside_a_member_is_told(tmp_path: Path) -> None:
    where = packed(tmp_path / "photos.zip", ["a.jpg"], zipfile.ZIP_DEFLATED)
    content = bytearray(where.read_bytes())
    content[40:60] = b"\xff" * 20
    where.write_bytes(content)
    photos = open_photos(where, tmp_path / "index.parquet")
    with pytest.raises(BadInput, match=r"photo 'a\.jpg'"):
        photos.read(0)


def test_read__a_member_that_unpacks_to_more_than_it_says_is_told(tmp_path: Path) -> None:
    where = tmp_path / "photos.zip"
    with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(10**6))
    content = bytearray(where.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (1000).to_bytes(4, "little")
    where.write_bytes(content)
    with pytest.raises(BadInput, match="1001 of 1000 bytes"):
        open_photos(where, tmp_path / "index.parquet").read(0)


def test_read__an_entry_out_of_range_is_an_index_error(tmp_path: Path) -> None:
    photos = opened(tmp_path, NAMES)
    for entry in (-1, len(NAMES)):
        with pytest.raises(IndexError):
            photos.read(entry)


def test_pixels__are_those_of_the_thumbnail_with_the_size_on_storage(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "photos" / "a.jpg").write_bytes(drawn(1, (600, 400)))
    (tmp_path / "photos" / "b.jpg").write_bytes(drawn(2, (600, 400), exif=turned))
    photos = open_photos(tmp_path / "photos", tmp_path / "index.parquet")
    for entry, full in enumerate([(600, 400), (400, 600)]):
        found = photos.pixels(entry, 60)
        np.testing.assert_array_equal(found.rgb, np.asarray(photos.thumbnail(entry, 60)))
        assert (found.full_width, found.full_height) == full


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_fingerprint__changes_with_any_photo(tmp_path: Path, kind: str) -> None:
    def named() -> str:
        return open_photos(where, tmp_path / "index.parquet").fingerprint()

    where = (
        packed(tmp_path / "photos.zip", NAMES)
        if kind == "zip"
        else laid_out(tmp_path / "photos", NAMES)
    )
    before = named()
    assert named() == before
    if kind == "zip":
        packed(where, NAMES[:-1])
    else:
        (where / NAMES[2]).write_bytes(drawn(77))
    assert named() != before


def test_fingerprint__of_a_photo_that_is_gone_is_told(tmp_path: Path) -> None:
    photos = open_photos(laid_out(tmp_path / "photos", NAMES), tmp_path / "index.parquet")
    (tmp_path / "photos" / NAMES[3]).unlink()
    with pytest.raises(BadInput, match=NAMES[3]):
        photos.fingerprint()
