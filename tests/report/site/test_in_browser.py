"""The report in a real browser, opened from a disk with no network: what a person meets there."""

from __future__ import annotations

import dataclasses
import io
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.browser import complaints
from tests.report.site.conftest import Report
from tests.report.site.drawn import HOSTILE, HOSTILE_ROW, make_book, photo_bits
from vehclust_dask.report.site import map as map_page
from vehclust_dask.report.site.build import write_site

LINE = "#map-legend .line"


class Addresses(HTMLParser):
    """What a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.found.append(value)
            if name == "style" and value:
                self.found += re.findall(r"url\(([^)]*)\)", value)


def wait(until: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = until()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come")


def open_map(browser: Any, report: Report, how: str = "") -> None:
    browser.get("about:blank")
    browser.get((report.study / "map.html").as_uri() + how)
    wait(lambda: browser.execute_script("return window.MAP_TEST && MAP_TEST.ready"), "the map")
    frames(browser)


def frames(browser: Any) -> None:
    """Wait until what was asked for is drawn."""
    browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
    )


def pointer(browser: Any, *places: tuple[float, float], press: bool = False) -> None:
    """Move the pointer along places; with ``press`` the button is down in between."""
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(browser, duration=10)
    mouse = chain.w3c_actions.pointer_action
    mouse.move_to_location(*map(round, places[0]))
    if press:
        mouse.pointer_down()
    for place in places[1:]:
        mouse.move_to_location(*map(round, place))
    if press:
        mouse.pointer_up()
    chain.perform()
    frames(browser)


def stage(browser: Any) -> dict[str, float]:
    found: dict[str, float] = browser.execute_script(
        "return document.getElementById('map-stage').getBoundingClientRect().toJSON()"
    )
    return found


def pixels(browser: Any) -> np.ndarray[Any, Any]:
    """Return what stands on the stage, shape (height, width, 3)."""
    shot = browser.find_element("id", "map-stage").screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def colored(browser: Any) -> int:
    """Return how many pixels of the stage have a colour."""
    seen = pixels(browser)
    return int((seen.max(axis=2) - seen.min(axis=2) > 60).sum())


def test_pages__refer_to_files_that_are_there(report: Report, bare: Report) -> None:
    for one in (report, bare):
        pages = sorted(one.folder.rglob("*.html"))
        assert len(pages) > 8
        for page in pages:
            read = Addresses()
            text = page.read_text(encoding="utf-8")
            read.feed(text)
            styles = re.findall(
                r"url\(([^)]*)\)", " ".join(re.findall(r"<style>.*?</style>", text))
            )
            for address in read.found + styles:
                plain = unquote(address.partition("#")[0])
                assert "://" not in plain, f"{page.name} asks elsewhere: {plain}"
                assert not plain or (page.parent / plain).is_file(), f"{page}: {plain}"


def test_pages__ask_for_nothing_beyond_the_folder_and_complain_of_nothing(
    report: Report, bare: Report, browser: Any
) -> None:
    complaints(browser)
    for one in (report, bare):
        root = one.folder.as_uri() + "/"
        for page in sorted(one.folder.rglob("*.html")):
            browser.get(page.as_uri())
            asked = browser.execute_script(
                "return performance.getEntries().filter(e => e.name.includes(':')).map(e => e.name)"
            )
            assert [a for a in asked if not a.startswith(root)] == [], page
            lost = browser.execute_script(
                "return [...document.images].filter(i => !(i.complete && i.naturalWidth))"
                ".map(i => i.src)"
            )
            assert lost == [], page
            assert browser.execute_script("return typeof window.x") == "undefined"
    assert complaints(browser) == []


def test_sprites__all_load(report: Report, browser: Any) -> None:
    sprites = sorted((report.study / "sprites").iterdir())
    assert len(sprites) >= 6
    browser.get((report.study / "map.html").as_uri())
    wide = browser.execute_async_script(
        """const done = arguments[1];
        Promise.all(arguments[0].map(url => new Promise(told => {
          const image = new Image(); image.src = url;
          image.onload = () => told(image.naturalWidth); image.onerror = () => told(0);
        }))).then(done);""",
        [file.as_uri() for file in sprites],
    )
    assert all(wide)


@pytest.mark.parametrize(("how", "engine"), [("", "webgl"), ("#2d", "2d")])
def test_map__is_drawn(report: Report, browser: Any, how: str, engine: str) -> None:
    open_map(browser, report, how)
    assert browser.execute_script("return MAP_TEST.engine") == engine
    all_colors = colored(browser)
    assert all_colors > 3000
    # A chosen cluster keeps its colour, the others are grey and still there.
    browser.find_elements("css selector", LINE)[1].click()
    frames(browser)
    one_color = colored(browser)
    assert 100 < one_color < all_colors / 2
    seen = pixels(browser)
    assert (seen.min(axis=2) < 245).sum() > one_color + 2000
    browser.find_elements("css selector", LINE)[1].click()
    frames(browser)
    assert colored(browser) == pytest.approx(all_colors, rel=0.02)
    assert complaints(browser) == []


def test_map__moves_and_comes_back(report: Report, browser: Any) -> None:
    open_map(browser, report)
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def view() -> list[float]:
        found: list[float] = browser.execute_script(
            "return [MAP_TEST.view.x, MAP_TEST.view.y, MAP_TEST.view.scale]"
        )
        return found

    first, box = view(), stage(browser)
    middle = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2
    pointer(browser, middle, (middle[0] + 60, middle[1] + 20), press=True)
    x, y, scale = view()
    assert scale == first[2]
    assert (first[0] - x) * scale == pytest.approx(60, abs=1)
    assert (y - first[1]) * scale == pytest.approx(20, abs=1)
    # The wheel keeps what is under the pointer where it is.
    spot = browser.execute_script("return MAP_TEST.place(5)")
    chain = ActionChains(browser)
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    chain.scroll_from_origin(ScrollOrigin.from_viewport(*map(round, spot)), 0, -200).perform()
    frames(browser)
    assert view()[2] > scale
    assert browser.execute_script("return MAP_TEST.place(5)") == pytest.approx(spot, abs=1)
    body = browser.find_element("tag name", "body")
    body.send_keys("0")
    assert view() == pytest.approx(first)
    body.send_keys(Keys.ARROW_RIGHT)
    assert view()[0] > first[0]
    body.send_keys("+")
    assert view()[2] > first[2]
    body.send_keys("-")
    ActionChains(browser).double_click(browser.find_element("id", "map-stage")).perform()
    assert view() == pytest.approx(first)


def test_lasso__counts_as_numpy_does(report: Report, browser: Any) -> None:
    open_map(browser, report)
    box = stage(browser)
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 14))
    reach = rng.uniform(0.2, 0.48, 14) * box["height"]
    xs = box["left"] + box["width"] / 2 + reach * np.cos(angles)
    ys = box["top"] + box["height"] / 2 + reach * np.sin(angles)
    browser.find_element("id", "map-lasso").click()
    pointer(browser, *zip(xs.tolist(), ys.tolist(), strict=True), press=True)
    polygon, count = browser.execute_script("return [MAP_TEST.polygon, MAP_TEST.count]")
    x, y = map(np.array, browser.execute_script("return MAP_TEST.positions()"))
    inside = even_odd(np.array(polygon), x, y)
    assert 20 < inside.sum() < len(x) - 20
    assert count == inside.sum()
    assert f"{count} rows" in browser.find_element("id", "map-inside").text
    study = report.book.studies[0]
    assert study.featured is not None
    rows, paths = study.rows[inside], report.book.paths
    assert paths is not None
    lines = browser.execute_script("return MAP_TEST.csv()").splitlines()
    assert lines[0] == "row,path,cluster"
    want = [
        f"{row},{quoted(paths[row])},{label}"
        for row, label in zip(rows.tolist(), study.featured.labels[inside].tolist(), strict=True)
    ]
    assert lines[1:] == want


def test_lasso__gives_its_rows_as_a_file_and_as_a_list(
    report: Report, browser: Any, tmp_path: Path
) -> None:
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    open_map(browser, report)
    # A copied text goes here instead of to the clipboard of this machine.
    browser.execute_script(
        "Object.defineProperty(navigator, 'clipboard',"
        "{ value: { writeText: text => { window.copied = text; } } })"
    )
    browser.execute_script("MAP_TEST.select([[0, 0], [4096, 0], [4096, 2000], [0, 2000]])")
    copy, csv = browser.find_elements("css selector", "#map-inside .acts button")
    copy.click()
    csv.click()
    file = tmp_path / "map-selection.csv"
    wait(file.exists, "the file")
    table = pd.read_csv(file, keep_default_na=False)
    y = np.array(browser.execute_script("return MAP_TEST.positions()[1]"))
    rows = report.book.studies[0].rows[y < 2000]
    paths = report.book.paths
    assert paths is not None
    assert len(rows) > 10
    assert table["row"].tolist() == rows.tolist()
    assert table["path"].tolist() == [paths[row] for row in rows]
    copied = wait(lambda: browser.execute_script("return window.copied"), "the list")
    assert copied == "".join(f"{path}\n" for path in table["path"])


def even_odd(
    polygon: np.ndarray[Any, Any], x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return which points a ray to the right leads out of through an odd number of edges."""
    odd = np.zeros(len(x), bool)
    for (xa, ya), (xb, yb) in zip(polygon, np.roll(polygon, 1, axis=0), strict=True):
        if ya == yb:
            continue
        crossed = ((ya > y) != (yb > y)) & (x < (xb - xa) * (y - ya) / (yb - ya) + xa)
        odd ^= crossed
    return odd


def quoted(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if '"' in path else path


def test_lasso__on_the_grid_holds_low_and_left_edges(report: Report, browser: Any) -> None:
    """A square whose corners are points of the grid: one side belongs to it, the other not."""
    open_map(browser, report)
    x, y = map(np.array, browser.execute_script("return MAP_TEST.positions()"))
    i, j = int(np.argsort(x)[100]), int(np.argsort(x)[400])
    low, high = sorted((int(y[i]), int(y[j])))
    square = [[int(x[i]), low], [int(x[j]), low], [int(x[j]), high], [int(x[i]), high]]
    count = browser.execute_script("return MAP_TEST.select(arguments[0])", square)
    within = (x >= x[i]) & (x < x[j]) & (y >= low) & (y < high)
    assert count == within.sum() > 0
    assert count == even_odd(np.array(square), x, y).sum()


def test_hover__shows_the_row_under_the_pointer(report: Report, browser: Any) -> None:
    open_map(browser, report)
    study, paths = report.book.studies[0], report.book.paths
    assert paths is not None
    x, y = map(np.array, browser.execute_script("return MAP_TEST.positions()"))
    shown = set(browser.execute_script("return MAP_TEST.tiles()"))
    alone = np.array(
        [((x - x[i]) ** 2 + (y - y[i]) ** 2 < 40**2).sum() == 1 for i in range(len(x))]
    )
    tried = [i for i in np.flatnonzero(alone).tolist() if i in shown][::17][:8]
    assert len(tried) >= 4
    for i in tried:
        pointer(browser, browser.execute_script("return MAP_TEST.place(arguments[0])", i))
        row = int(study.rows[i])
        card = wait(lambda row=row: card_of(browser, row), f"the card of row {row}")
        assert card["path"] == paths[row]
        sprite = report.study / unquote(card["sprite"])
        left, top = card["left"], card["top"]
        tile = Image.open(sprite).crop((left, top, left + 96, top + 96)).convert("L")
        want = photo_bits(row).convert("L")
        assert np.abs(np.asarray(tile, float) - np.asarray(want, float)).mean() < 12, f"row {row}"


def card_of(browser: Any, row: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = browser.execute_script(
        """const card = document.getElementById("map-card"), thumb = card.querySelector(".thumb");
        const here = card.dataset.row === String(arguments[0]) && card.querySelector(".path");
        if (card.hidden || !here) return null;
        const place = thumb ? thumb.style.backgroundPosition.split(" ").map(p => -parseInt(p)) : [0, 0];
        return { path: card.querySelector(".path").textContent, left: place[0], top: place[1],
                 sprite: thumb && thumb.style.backgroundImage.slice(5, -2) };""",
        row,
    )
    return found


def test_hostile_name__is_text(report: Report, browser: Any) -> None:
    """Its row is pinned on the map, and stands in lists and in attributes of other pages."""
    open_map(browser, report)
    at = int(np.flatnonzero(report.book.studies[0].rows == HOSTILE_ROW)[0])
    for _ in range(12):
        browser.execute_script("MAP_TEST.zoom(1.4, MAP_TEST.place(arguments[0]))", at)
    frames(browser)
    spot = browser.execute_script("return MAP_TEST.place(arguments[0])", at)
    pointer(browser, spot, spot, press=True)
    card = wait(lambda: card_of(browser, HOSTILE_ROW), "the card of the hostile name")
    assert card["path"] == HOSTILE
    assert browser.find_element("css selector", "#map-card a").get_attribute("href")
    select(browser, "type")
    names = [line.text for line in browser.find_elements("css selector", LINE)]
    assert any("</script><b>van" in name for name in names)
    assert browser.execute_script("return typeof window.x") == "undefined"
    assert browser.find_elements("css selector", "main script, aside b") == []
    assert complaints(browser) == []


def select(browser: Any, title: str) -> None:
    from selenium.webdriver.support.ui import Select

    choice = Select(browser.find_element("id", "map-color"))
    choice.select_by_visible_text(title)
    value = int(choice.first_selected_option.get_attribute("value"))
    wait(lambda: browser.execute_script("return MAP_TEST.color") == value, title)
    frames(browser)


def test_colourings__all_load(report: Report, bare: Report, browser: Any) -> None:
    for one in (report, bare):
        open_map(browser, one)
        options = browser.find_elements("css selector", "#map-color option")
        titles = [option.text for option in options]
        assert len(titles) > 5
        for title in titles[1:]:
            select(browser, title)
            assert colored(browser) > 500, title
        assert complaints(browser) == []


def test_map__of_too_many_rows_lies_on_their_density(
    report: Report, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_page, "MOST_POINTS", 500)
    monkeypatch.setattr(map_page, "SAMPLE", 100)
    write_site(report.book, tmp_path / "site")
    complaints(browser)
    open_map(browser, Report(report.book, tmp_path / "site"))
    seen = wait(lambda: colored(browser), "the points")
    assert len(browser.execute_script("return MAP_TEST.positions()[0]")) == 100
    browser.find_element("css selector", LINE).click()
    frames(browser)
    assert 0 < colored(browser) < seen
    assert complaints(browser) == []


@pytest.mark.parametrize("flat", [1, 2])
def test_map__of_rows_on_a_line_or_on_a_spot_is_drawn(
    browser: Any, tmp_path: Path, flat: int
) -> None:
    book = make_book(tmp_path, 40, 2, photos=False)
    xy = book.studies[0].xy.copy()
    xy[:, 2 - flat :] = 3
    study = dataclasses.replace(book.studies[0], xy=xy)
    write_site(dataclasses.replace(book, studies=(study,)), tmp_path / "site")
    complaints(browser)
    open_map(browser, Report(book, tmp_path / "site"))
    browser.find_element("id", "map-names").click()
    frames(browser)
    assert colored(browser) > 10
    assert complaints(browser) == []


def test_keyboard__walks_clusters_reaches_tiles_and_sorts(report: Report, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def body() -> Any:
        return browser.find_element("tag name", "body")

    browser.get((report.study / "c" / "001.html").as_uri())
    body().send_keys(Keys.ARROW_RIGHT)
    wait(lambda: browser.current_url.endswith("/002.html"), "the next cluster")
    body().send_keys(Keys.ARROW_LEFT)
    wait(lambda: browser.current_url.endswith("/001.html"), "the cluster before")
    reached = set()
    for _ in range(40):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(browser.switch_to.active_element.get_attribute("class"))
    assert "tile" in reached

    browser.get((report.folder / "index.html").as_uri())
    head = browser.find_elements("css selector", "table.sortable th.n")[1]
    head.send_keys(Keys.ENTER)
    at = browser.execute_script("return arguments[0].cellIndex", head)
    cells = "return [...document.querySelectorAll('.sortable tbody tr')].map(r => +r.cells[%d].dataset.value)"
    assert browser.execute_script(cells % at) == [10, 11, 20]
    assert head.get_attribute("aria-sort") == "ascending"
    head.send_keys(Keys.ENTER)
    assert browser.execute_script(cells % at) == [20, 11, 10]
