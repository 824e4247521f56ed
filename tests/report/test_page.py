"""Pages in a browser: they render, load nothing, can be used with mouse and keyboard, and axe-core finds no fault.

One browser serves all tests. They are skipped where Selenium, Chromium or axe-core isn't installed.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from tas_tf.report.comparison import Figure, Member, Row
from tas_tf.report.page import render_comparison, render_html
from tas_tf.report.report import build_report
from tests.parts import slow_except
from tests.report.pieces import deployable, layers, make_behaviour
from tests.report.test_report import PIECES, all_formats

#: Rules that are about good practice rather than about the standard are included.
_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ["violations"] }).then((found) => done(found.violations.map((one) =>
  ({ id: one.id, impact: one.impact, where: one.nodes.map((node) => node.target.join(" ")).slice(0, 5) }))));
"""


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    """What starts the browser."""
    pytest.importorskip("selenium", reason="needs Selenium, of the contributors' part of requirements.txt")
    from docs.tools import browser

    if reason := browser.missing():
        pytest.skip(reason)
    return browser


@pytest.fixture(scope="module")
def driver(tools) -> Iterator[Any]:
    with tools.browser() as started:
        yield started


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("needs axe-core, which comes with axe-playwright-python, see requirements.txt")
    return (Path(found.origin).parent / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """URLs of a report with everything in it, and of a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    pieces = all_formats()
    scores = [{"cat": 0.9, "dog": 0.8, "emu": None}, {"cat": 0.95, "dog": 0.7, "emu": 0.5}]
    models = {
        name: {**pieces[name], "by_class": each} for name, each in zip(("teacher", "student"), scores, strict=True)
    }
    own, teacher = pieces["export"], pieces["export"]["teacher"]
    own["fp32"]["layers"], teacher["fp32"]["layers"] = layers(2.0), layers(4.0)
    laps = [
        {"proposal": name, "round": 1, "rate_factor": rate, "steps": steps, "loss": loss, "accuracy": 0.5}
        for name, rate, steps, loss in (
            ("uniform", 5.0, 100, 0.75),
            ("late", 0.5, 20, 0.5),
            ("first", 1.0, None, 0.6),
            ("early", 0.25, 3, None),
        )
    ]
    search = {"budget_kind": "macs", "proposal": "late", "rate_factor": 0.5, "proposals": {"late": {}}, "laps": laps}
    behaviour = make_behaviour()
    report = build_report(
        **{**pieces, **models, "search": search, "rivals": PIECES["rivals"]},
        behaviour=behaviour,
        latency={"format": "fp32", "budget_share": 0.5, "share": 0.49, "kept": True},
        deploy={
            "fp32": deployable("runs/of/a/name/that/is/much/longer/than/a/phone/is/wide/export/fp32.tflite"),
            "int8": deployable("export/int8.tflite", integers=True),
        },
    )
    figures = [
        {"accuracy": 0.9 + seed / 100, "macs": 2e6, "latency_ms": 1.0 + seed / 10, "bytes": 5e5} for seed in (0, 1)
    ]
    mean = {name: Figure.over([one[name] for one in figures]) for name in figures[0]}
    members = tuple(Member(folder / f"{seed}/tas", seed, each) for seed, each in enumerate(figures))
    rows = [Row("tas", (0, 1), True, mean, members=members, teacher={"accuracy": Figure(0.95, None, 1)})]
    rows.append(Row("uniform", (0,), False, {"accuracy": Figure(0.8, None, 1), "macs": Figure(3e6, None, 1)}))
    paths = {
        "report": render_html(report, folder / "report.html", behaviour),
        "comparison": render_comparison(rows, folder / "comparison.html"),
    }
    return {name: path.as_uri() for name, path in paths.items()}


@pytest.fixture
def opened(tools, driver, pages) -> Any:
    """The browser with the report on a desktop."""
    tools.view(driver, tools.DESKTOP)
    driver.get(pages["report"])
    return driver


def texts(driver: Any, selector: str) -> list[str]:
    return [each.text for each in driver.find_elements("css selector", selector)]


@pytest.mark.parametrize(
    ("name", "size", "dark"),
    slow_except(
        [
            (name, *how)
            for name in ("report", "comparison")
            for how in itertools.product(("DESKTOP", "PHONE"), (False, True))
        ],
        [("report", "DESKTOP", False), ("report", "PHONE", True), ("comparison", "PHONE", False)],
    ),
)
def test_it_loads_nothing_fits_the_screen_and_is_accessible(tools, driver, axe, pages, name, size, dark):
    tools.requests(driver)
    driver.get_log("browser")
    tools.view(driver, getattr(tools, size), dark=dark)
    driver.get(pages[name])
    assert tools.requests(driver) == [pages[name]]
    # Not `innerWidth`: phones zoom out to show all that is too wide.
    assert driver.execute_script("return document.documentElement.scrollWidth") <= getattr(tools, size)[0]
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 3 * 128) == dark
    driver.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    driver.execute_script(axe)
    assert driver.execute_async_script(_AXE) == []
    assert driver.get_log("browser") == []


def test_axe_finds_faults(driver, axe):
    driver.get("data:text/html,<html lang=en><title>x</title><main><h1>x</h1><img src='data:,'></main>")
    driver.execute_script(axe)
    assert [one["id"] for one in driver.execute_async_script(_AXE)] == ["image-alt"]


def test_headings_links_and_images_are_there(opened):
    links = opened.find_elements("css selector", "nav a")
    assert len(links) == 10
    for link in links:
        key = link.get_attribute("href").partition("#")[2]
        assert opened.find_element("id", key).tag_name == "h2"
    sizes = opened.execute_script("return [...document.images].map((one) => [one.naturalWidth, one.alt])")
    assert [size for size, _ in sizes] == [64, 64, 64]
    assert all("which the student takes for" in alt for _, alt in sizes)
    assert texts(opened, "#answers ~ .pair .matrix th[scope=row]")[:3] == ["cat", "dog", "<b>bird"]


def test_tables_are_sorted_by_mouse_and_by_keyboard(opened):
    table = "[aria-label='Scores by class'] "
    head = opened.find_element("css selector", f"{table} thead th:nth-child(3)")
    button = head.find_element("tag name", "button")
    assert head.get_attribute("aria-sort") is None
    button.click()
    assert texts(opened, f"{table} tbody th") == ["emu", "dog", "cat"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys("\n")
    assert texts(opened, f"{table} tbody th") == ["cat", "dog", "emu"]
    assert head.get_attribute("aria-sort") == "descending"
    assert opened.find_element("id", "status").get_attribute("textContent") == "Sorted by student, descending"
    # Unknown values stay at the end, whichever the direction.
    other = opened.find_element("css selector", f"{table} thead th:nth-child(2) button")
    for _ in range(2):
        other.click()
        assert texts(opened, f"{table} tbody th")[-1] == "emu"
    assert head.get_attribute("aria-sort") is None


def test_laps_are_sorted_by_value(opened):
    opened.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    table = "[aria-label='Laps of the race'] "
    orders = {3: ["early", "late", "first", "uniform"], 4: ["early", "late", "uniform", "first"]}
    for column, order in orders.items():
        opened.find_element("css selector", f"{table} thead th:nth-child({column}) button").click()
        assert texts(opened, f"{table} tbody th") == order


def test_a_comparison_fits_a_desktop(tools, driver, tmp_path):
    values = {"accuracy": 0.8765, "macs": 40.81e6, "params": 272.5e3, "bytes": 1.09e6}
    values |= {"latency_ms": 0.0936, "speedup": 2.04}
    figures = {name: Figure(value, value / 50, 3) for name, value in values.items()}
    row = Row("uniform-of-a-run", (0, 1, 2), True, figures, "qat_int8")
    tools.view(driver, tools.DESKTOP)
    driver.get(render_comparison([row], tmp_path / "all.html").as_uri())
    scroll = "const one = document.querySelector('.scroll'); return one.scrollWidth - one.clientWidth"
    assert driver.execute_script(scroll) == 0


def test_a_dash_is_unknown(tools, driver, pages):
    tools.view(driver, tools.DESKTOP)
    driver.get(pages["comparison"])
    table = "[aria-label='Comparison table'] "
    button = driver.find_element("css selector", f"{table} thead th:nth-child(4) button")
    for _ in range(2):
        button.click()
        assert texts(driver, f"{table} tbody td:nth-child(4)") == ["fp32", "-"]


def test_long_names_stand_upright_in_all_browsers(opened):
    """Browsers without `sideways-lr` turn the names in another way; all others must not turn them twice."""
    rules = """
    const found = [];
    const walk = (rules, inside) => [...rules].forEach((rule) => {
      if (rule.selectorText === ".matrix.long thead th")
        found.push([inside, rule.style.writingMode, rule.style.transform]);
      if (rule.cssRules) walk(rule.cssRules, rule.conditionText || inside);
    });
    walk(document.styleSheets[0].cssRules, "");
    return found;
    """
    assert opened.execute_script(rules) == [
        ["", "vertical-rl", "rotate(180deg)"],
        ["(writing-mode: sideways-lr)", "sideways-lr", "none"],
    ]


def test_points_tell_what_they_are(opened):
    from selenium.webdriver import ActionChains, Keys

    plot = opened.find_element("id", "latency-plot")
    tip = plot.find_element("css selector", ".tip")
    assert not tip.is_displayed()
    shown = [
        point
        for point in plot.find_elements("css selector", ".point")
        if point.get_attribute("data-title") == "student, fp32"
    ]
    ActionChains(opened).scroll_to_element(plot).move_to_element(shown[0]).perform()
    assert tip.text.split("\n") == ["student, fp32", "latency 1 ms", "accuracy 96.00 %", "size 100 kB"]
    ActionChains(opened).move_to_element(opened.find_element("tag name", "h1")).perform()
    assert not tip.is_displayed()
    # A single stop of the tab key; arrows go on from the left to the right.
    stops = plot.find_elements("css selector", ".point[tabindex='0']")
    assert len(stops) == 1
    stops[0].send_keys(Keys.ARROW_RIGHT)
    titles = [tip.text.split("\n")[0]]
    opened.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    titles.append(tip.text.split("\n")[0])
    assert titles[1] == stops[0].get_attribute("data-title") != titles[0]
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_one_format_can_be_shown_alone(opened):
    plot = opened.find_element("id", "latency-plot")
    chip = next(one for one in plot.find_elements("css selector", ".chips button") if one.text == "int8")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    shown = [one for one in plot.find_elements("css selector", ".point") if one.is_displayed()]
    assert {one.get_attribute("data-group") for one in shown} == {"int8"}
    assert len(shown) == 2
    assert [one.get_attribute("tabindex") for one in shown].count("0") == 1


def test_lines_are_copied(opened):
    opened.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    code = opened.find_element("css selector", "#deploy ~ details .code")
    button = code.find_element("tag name", "button")
    button.click()
    wanted = code.find_element("tag name", "code").get_attribute("textContent")
    assert 'wide/export/fp32.tflite"' in wanted
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))"
    assert opened.execute_async_script(read) == wanted
    assert button.text == "Copied"


def test_paper_shows_all_that_is_folded(tools, opened):
    tools.view(opened, tools.DESKTOP, printed=True)
    folded = opened.find_element("css selector", "details:not([open]) th")
    height = "return arguments[0].getBoundingClientRect().height"
    assert opened.execute_script(height, folded) > 0
    assert not opened.find_element("tag name", "nav").is_displayed()
    assert not opened.find_element("css selector", ".copy").is_displayed()


def test_all_can_be_read_without_the_script(tools, driver, pages):
    tools.view(driver, tools.DESKTOP)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(pages["report"])
        assert driver.find_elements("css selector", "th button") == []
        points = driver.find_elements("css selector", ".point")
        assert all(point.get_attribute("title") == point.get_attribute("aria-label") for point in points)
        assert {point.get_attribute("tabindex") for point in points} == {"0"}
        assert not driver.find_element("css selector", ".chips").is_displayed()
        assert not driver.find_element("css selector", ".copy").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_comparison_links_to_pages_that_exist(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/report.html").write_text("")
    figures = {"accuracy": 0.9}
    members = tuple(Member(tmp_path / name, seed, figures) for seed, name in enumerate(("run", "other")))
    row = Row("run", (0, 1), True, {"accuracy": Figure(0.9, None, 2)}, members=members)
    text = render_comparison([row], tmp_path / "pages/all.html").read_text()
    assert '<a href="../run/report.html">' in text
    assert text.count("report.html") == 1


def test_numbers_stay_with_their_units(tmp_path):
    pieces = all_formats()
    pieces["export"]["fp32"] |= {"latency_ms": 0.0936, "latency_spread_ms": 0.00184}
    text = render_html(build_report(**pieces), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<td>0.0936\xa0ms ±\xa00.00092</td>" in text


def test_a_score_that_is_no_number_is_unknown(tmp_path):
    row = Row("run", (0,), True, {"accuracy": Figure(float("nan"), None, 1), "macs": Figure(2e6, None, 1)})
    text = render_comparison([row], tmp_path / "all.html").read_text(encoding="utf-8")
    assert '<td data-v="">nan\xa0%</td>' in text
    assert 'class="plot"' not in text


@pytest.mark.slow
def test_pictures_for_the_documentation_are_taken(tools, pages, tmp_path):
    from docs.tools import screenshots

    page = Path(urllib.parse.unquote(urllib.parse.urlparse(pages["report"]).path))
    sizes = {path.name: Image.open(io.BytesIO(path.read_bytes())).size for path in screenshots.take(page, tmp_path)}
    assert set(sizes) == {path.name for path in (screenshots.ROOT / "docs/images").glob("report*.png")}
    assert sizes["report-phone.png"][0] == tools.PHONE[0]
    assert all(path.stat().st_size < 300_000 for path in tmp_path.iterdir())
