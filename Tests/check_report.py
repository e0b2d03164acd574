"""Opens a page that `normlens report` wrote in a real browser and uses it as a reader would.

    check_report.py REPORT.html [--results FILE.h5 ...] [--drawn FILE.html] [--screenshots DIR]

Needs Debian's chromium and chromium-driver, and selenium; h5py for --results. Every number that the
page says is compared with those in the page's own data, and downloaded ones with the result files. --drawn saves the page as its script has
made it, for a validator.
Prints one line for each thing checked and ends with how many there were; leaves with 1 at the first
that does not hold.
"""

import argparse
import base64
import csv
import json
import math
import pathlib
import re
import shutil
import struct
import tempfile
import time
import xml.etree.ElementTree as ElementTree

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

passed = 0


def check(holds, what):
    """Counts what holds; ends with what does not."""
    global passed
    if not holds:
        raise SystemExit(f"FAILED: {what}")
    passed += 1
    print(f"ok  {what}")


def numbers(stored):
    kind, code = ("f4", "f") if "f4" in stored else ("f8", "d")
    data = base64.b64decode(stored[kind])
    return list(struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data))


def said(text):
    """The number that a tip or a live region ends with."""
    if text.endswith("no value"):
        return math.nan
    found = re.findall(r"[+−-]?\d+(?:\.\d+)?(?:e[+−-]?\d+)?", re.split("[:;] ", text)[-1])
    return float(found[0].replace("−", "-"))


def same(shown, value, digits=4):
    if math.isnan(value):
        return math.isnan(shown)
    return abs(shown - value) <= 0.51 * 10 ** (1 - digits) * max(abs(value), 1e-300)


class Page:
    def __init__(self, path, downloads):
        self.path = path
        html = path.read_text(encoding="utf-8")
        stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
        self.data = json.loads(stored.group(1))
        self.pictures = {
            (source["name"], picture["name"]): picture
            for source in self.data["sources"]
            for group in source["groups"]
            for picture in group["pictures"]
        }
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu",
                         "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,900"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.browser = webdriver.Chrome(
            options=options, service=Service(shutil.which("chromedriver")))
        self.browser.execute_cdp_cmd("Network.enable", {})
        self.browser.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        self.downloads = downloads
        self.requests = []
        self.messages = []
        self.width(1280)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def width(self, width, height=900):
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})

    def open(self):
        self.browser.get(self.path.as_uri())
        end = time.time() + 10
        while time.time() < end:
            first = self.run("return document.documentElement.dataset.firstPicture")
            if first:
                return float(first)
            time.sleep(0.02)
        return math.inf

    def collect(self):
        """Takes what the browser has logged so far."""
        for entry in self.browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.messages += [entry["message"] for entry in self.browser.get_log("browser")]

    def figures(self):
        """The figures that can be seen, drawn."""
        self.run("for (const f of figures) if (!f.isDrawn && f.element.checkVisibility()) f.draw();")
        return [f for f in self.browser.find_elements(By.CSS_SELECTOR, "article.figure")
                if f.is_displayed()]

    def picture(self, figure):
        data = self.run("return {...arguments[0].dataset}", figure)
        return self.pictures[(data["source"], data["name"])]

    def view(self, figure):
        choice = self.run("return arguments[0].dataset.view", figure)
        views = self.picture(figure)["views"]
        return next(view for view in views if view["choice"] == choice)

    def panels(self, figure):
        """What the page's data say the figure shows now."""
        model = self.run("return arguments[0].dataset.model", figure)
        panels = self.view(figure)["panels"]
        if not model.startswith("model:"):
            return panels
        return [p for p in panels if p.get("model") in (None, model[6:])]

    def axis(self, number):
        return self.data["axes"][number]

    def read(self, element, *keys):
        """What the page says aloud after keys on an element."""
        self.run("arguments[0].focus({preventScroll: true});"
                 "document.getElementById('live').textContent = ''", element)
        ActionChains(self.browser).send_keys(*keys).perform()
        return self.run("return document.getElementById('live').textContent")

    def download(self, figure, name):
        for old in self.downloads.iterdir():
            old.unlink()
        button = next(b for b in figure.find_elements(By.CSS_SELECTOR, ".foot button")
                      if b.text == name)
        # A real click: a browser lets a script start only some ten downloads without one.
        self.run("arguments[0].scrollIntoView({block: 'center'})", button)
        ActionChains(self.browser).click(button).perform()
        end = time.time() + 10
        while time.time() < end:
            found = [f for f in self.downloads.iterdir() if f.suffix == "." + name.lower()]
            if found and found[0].stat().st_size > 0:
                time.sleep(0.05)
                return found[0]
            time.sleep(0.02)
        check(False, f"{self.picture(figure)['name']}: no download of {name}")

    def screenshot(self, path, width, theme, height, figure=None):
        """The page's top, or a figure's."""
        self.width(width, height)
        self.run("document.documentElement.style.colorScheme = arguments[0]; scrollTo(0, 0)", theme)
        time.sleep(0.4)
        if figure:
            self.run("arguments[0].scrollIntoView({behavior: 'instant'})", figure)
            time.sleep(0.2)
        shot = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(shot["data"]))


def maps(page, figures):
    """Figures that show plain heat maps."""
    return [f for f in figures if not page.picture(f).get("columns")
            and any(p["kind"] == "cells" for p in page.panels(f))]


def drawing(figure):
    return figure.find_element(By.CSS_SELECTOR, ".panel.cells svg.drawing")


def first_cells(page, figure):
    return next(p for p in page.panels(figure) if p["kind"] == "cells")


def check_opening(page):
    # The best of three: the machine may be at work on something else.
    first = min(page.open() for _ in range(3))
    size = page.path.stat().st_size
    check(first < 1000, f"first picture after {first:.0f} ms (limit 1000 ms)")
    check(size < 24_500_000, f"one file of {size:,} bytes")
    count = sum(len(g["pictures"]) for s in page.data["sources"] for g in s["groups"])
    check(count > 0, f"{len(page.data['sources'])} results with {count} pictures")


def check_everything_draws(page):
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    time.sleep(0.2)
    figures = page.figures()
    for figure in figures:
        text = page.run("const d = arguments[0].querySelector('.drawings');"
                        "return d.querySelectorAll('svg, table, p.note').length", figure)
        if not text:
            check(False, f"{page.picture(figure)['name']}: nothing drawn")
    check(True, f"all {len(figures)} figures drawn, each with a drawing, a table or a note")
    shown = {(page.run("return arguments[0].dataset.source", f), page.picture(f)["name"])
             for f in figures}
    hidden = {key for key, picture in page.pictures.items()
              if key not in shown and (key[0], picture.get("differenceOf")) not in shown}
    check(not hidden, f"no picture of the data is without a figure {sorted(hidden) or ''}")
    page.run("document.querySelectorAll('main details').forEach((d) => { d.open = false; })")


def check_heat_map(page, figure):
    panel = first_cells(page, figure)
    values = numbers(panel["values"])
    columns = len(page.axis(panel["x"])["labels"])
    name = page.picture(figure)["name"]
    svg = drawing(figure)
    page.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", svg)
    time.sleep(0.1)
    frame = page.run(
        "const b = arguments[0].querySelector('.frame').getBoundingClientRect();"
        "return [b.x, b.y, b.width, b.height]", svg)
    rows = len(values) // columns
    cell = min(len(values) - 1, columns + 1) if rows > 1 else 0
    x = frame[0] + (cell % columns + 0.5) * frame[2] / columns
    y = frame[1] + (cell // columns + 0.5) * frame[3] / rows
    # From a neighbouring point, so that the pointer is seen to move.
    mouse = {"type": "mouseMoved", "button": "none"}
    page.browser.execute_cdp_cmd("Input.dispatchMouseEvent", {**mouse, "x": x - 1, "y": y})
    page.browser.execute_cdp_cmd("Input.dispatchMouseEvent", {**mouse, "x": x, "y": y})
    lines = page.run("const t = document.getElementById('tip');"
                     "return t.hidden ? [] : [...t.children].map((c) => c.textContent)")
    check(lines and same(said(lines[-1]), values[cell]),
          f"{name}: hover says '{' / '.join(lines)}', the data {values[cell]:.7g}")
    page.browser.execute_cdp_cmd("Input.dispatchMouseEvent", {**mouse, "x": 1, "y": 1})
    for keys, at in (([Keys.ARROW_RIGHT], 0), ([Keys.ARROW_RIGHT], min(1, columns - 1)),
                     ([Keys.END], columns - 1),
                     ([Keys.ARROW_DOWN], (columns if rows > 1 else 0) + columns - 1)):
        text = page.read(svg, *keys)
        if not same(said(text), values[at]):
            check(False, f"{name}: after {keys} the page says '{text}', the data {values[at]}")
    check(True, f"{name}: arrow keys read 4 cells, the last as '{text}'")
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    check(page.run("return document.getElementById('tip').hidden"), "Escape hides the tip")


def read_first(page, figure):
    """The first cell that the figure shows, said and stored."""
    svg = drawing(figure)
    page.run("arguments[0].blur()", svg)
    return (said(page.read(svg, Keys.ARROW_RIGHT)),
            numbers(first_cells(page, figure)["values"])[0])


def choose(page, container, text):
    for label in container.find_elements(By.CSS_SELECTOR, "label"):
        if label.text == text:
            page.run("arguments[0].click()", label.find_element(By.TAG_NAME, "input"))
            return
    raise SystemExit(f"FAILED: no choice '{text}'")


def check_models(page, figures):
    switches = page.browser.find_element(By.ID, "switches")
    names = [l.text for l in switches.find_elements(By.CSS_SELECTOR, "fieldset label")]
    if not names:
        print("--  no model switch: every result is of one model")
        return
    figure = next((f for f in maps(page, figures) if f.find_elements(
        By.CSS_SELECTOR, ".bar fieldset")), None)
    if figure is None:
        print("--  no heat map of several models")
        return
    base = page.picture(figure)["name"]
    seen = {}
    for name in names:
        choose(page, switches, name)
        shown, stored = read_first(page, figure)
        if not same(shown, stored):
            check(False, f"{base}, {name}: the page says {shown}, the data {stored}")
        seen[name] = shown
    check(len(set(seen.values())) >= min(2, len(names)),
          f"{base}: the switch shows "
          + ", ".join(f"{name} {value:g}" for name, value in seen.items()))
    if "difference" in names:
        of = page.picture(figure).get("differenceOf")
        facts = [item.text for item in figure.find_elements(By.CSS_SELECTOR, ".facts li")]
        check(of == base and "scale of their own" in facts[0],
              f"{page.picture(figure)['name']}: '{facts[0]}'")
    own = figure.find_element(By.CSS_SELECTOR, ".bar fieldset")
    choose(page, own, names[1])
    shown, stored = read_first(page, figure)
    check(same(shown, stored), f"{base}: its own switch to {names[1]} shows {shown:g}")
    choose(page, switches, names[0])


def check_views(page, figures):
    figure = next((f for f in maps(page, figures)
                   if f.find_elements(By.CSS_SELECTOR, ".bar select")), None)
    if figure is None:
        print("--  no heat map with several views")
        return
    before, _ = read_first(page, figure)
    options = figure.find_elements(By.CSS_SELECTOR, ".bar option")
    select = figure.find_element(By.CSS_SELECTOR, ".bar select")
    value = options[-1].get_attribute("value")
    page.run("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))",
             select, value)
    shown, stored = read_first(page, figure)
    check(same(shown, stored) and page.view(figure)["choice"] == value,
          f"{page.picture(figure)['name']}: view '{value}' shows {shown:g}, the first {before:g}")
    page.run("arguments[0].selectedIndex = 0; arguments[0].dispatchEvent(new Event('change'))",
             select)


def check_attention(page, figures):
    figure = next((f for f in figures if page.picture(f).get("columns")
                   and f.find_elements(By.CSS_SELECTOR, ".tokens")), None)
    if figure is None:
        print("--  no attention patterns")
        return
    panels = page.panels(figure)
    thumbs = figure.find_elements(By.CSS_SELECTOR, ".thumb")
    check(len(thumbs) == len(panels), f"{len(thumbs)} thumbnails of attention patterns")
    place = min(7, len(thumbs) - 1)
    page.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});"
             "arguments[0].focus()", thumbs[place])
    ActionChains(page.browser).send_keys(Keys.ENTER).perform()
    title = figure.find_element(By.CSS_SELECTOR, ".large .of").text
    check(thumbs[place].get_attribute("aria-pressed") == "true"
          and title.startswith(panels[place]["title"]), f"Enter makes '{title}' large")
    panel = panels[place]
    tokens = page.axis(panel["x"])["labels"]
    values = numbers(panel["values"])
    buttons = figure.find_elements(By.CSS_SELECTOR, ".tokens button")
    token = min(4, len(tokens) - 1)
    page.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", buttons[token])
    time.sleep(0.1)
    ActionChains(page.browser).move_to_element(buttons[token]).perform()
    text = figure.find_element(By.CSS_SELECTOR, ".attended .note").text
    row = values[token * len(tokens):][:token + 1]
    best = max(range(len(row)), key=lambda i: row[i])
    check(f"attends most to {tokens[best]} " in text
          and same(float(text.split("most to ")[1][len(tokens[best]):].split(",")[0]), row[best]),
          f"hovering {tokens[token]}: '{text}'")
    choose(page, figure.find_element(By.CSS_SELECTOR, ".attended fieldset"), "attended to by")
    column = {i: values[i * len(tokens) + token] for i in range(token, len(tokens))}
    best = max(column, key=lambda i: column[i])
    text = figure.find_element(By.CSS_SELECTOR, ".attended .note").text
    check(f"most by {tokens[best]} " in text, f"the other direction: '{text}'")


def check_table(page, figures):
    figure = next(f for f in figures if f.find_elements(By.CSS_SELECTOR, "[aria-controls]"))
    toggle = figure.find_element(By.CSS_SELECTOR, "[aria-controls]")
    page.run("arguments[0].click()", toggle)
    check(toggle.get_attribute("aria-expanded") == "true", "Numbers opens a table")
    table = figure.find_element(By.CSS_SELECTOR, ".numbers table")
    heads = table.find_elements(By.CSS_SELECTOR, "th")
    column = next(i for i, h in enumerate(heads) if h.text.strip() == "value")

    def read():
        return page.run(
            "return [...arguments[0].querySelectorAll('tbody tr')]"
            ".map((r) => r.children[arguments[1]].textContent)", table, column)

    button = heads[column].find_element(By.TAG_NAME, "button")
    page.run("arguments[0].focus({preventScroll: true})", button)
    for order, sign in (("descending", -1), ("ascending", 1)):
        ActionChains(page.browser).send_keys(Keys.ENTER).perform()
        values = [float(t) for t in read() if t != "NaN"]
        check(heads[column].get_attribute("aria-sort") == order
              and values == sorted(values, key=lambda v: sign * v),
              f"{len(values)} numbers sorted {order}: {values[0]:g} … {values[-1]:g}")
    page.run("arguments[0].click()", toggle)


def check_downloads(page, figures, results):
    known = {}
    if results:
        import h5py

        for path in results:
            with h5py.File(path) as file:
                values = set()

                def take(_, item):
                    if isinstance(item, h5py.Dataset) and item.dtype.kind in "fi":
                        values.update(float(v) for v in item[()].ravel())

                file.visititems(take)
                known[path.name] = values
    compared = 0
    for figure in [f for f in figures if any(
            p["kind"] == "cells" for p in page.panels(f))][:16]:
        source = page.run("return arguments[0].dataset.source", figure)
        picture = page.picture(figure)
        with open(page.download(figure, "CSV"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        at = 0
        for view in picture["views"]:
            for panel in view["panels"]:
                if panel["kind"] != "cells":
                    continue
                for value in numbers(panel["values"]):
                    row = rows[at]
                    at += 1
                    stored = float(row["value"])
                    if "f4" in panel["values"] and not math.isnan(stored):
                        stored = struct.unpack("f", struct.pack("f", stored))[0]
                    if not (stored == value or math.isnan(stored) and math.isnan(value)):
                        check(False, f"{picture['name']}: CSV {row}, the data {value}")
                    if view["prompt"] and source in known and not math.isnan(value):
                        compared += 1
                        if value not in known[source] and not picture.get("columns"):
                            check(False, f"{picture['name']}: {row} is not in {source}")
        check(at == len(rows), f"{picture['name']}: {len(rows)} numbers in the CSV, all as in the data")
    if results:
        check(compared > 0, f"{compared} numbers of single prompts are those of the result files")
    space = "{http://www.w3.org/2000/svg}"
    figure = next(f for f in figures if f.find_elements(By.CSS_SELECTOR, "[aria-controls]"))
    tree = ElementTree.parse(page.download(figure, "SVG")).getroot()
    texts = ["".join(t.itertext()) for t in tree.iter(space + "text")]
    check(tree.tag == space + "svg" and page.picture(figure)["title"] in texts
          and "var(" not in ElementTree.tostring(tree, encoding="unicode"),
          f"SVG of {page.picture(figure)['name']}: {len(texts)} texts")


def luminance(colour):
    parts = [int(p) / 255 for p in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def check_themes(page):
    button = page.browser.find_element(By.ID, "theme")
    grounds = []
    for theme in ("light", "dark"):
        page.run("arguments[0].click()", button)
        colours = page.run(
            "const style = (q) => getComputedStyle(document.querySelector(q) ?? document.body);"
            "return [style('body').backgroundColor, style('body').color, style('.facts').color,"
            " style('main a').color]")
        ground = luminance(colours[0])
        grounds.append(ground)
        ratios = [(max(ground, luminance(c)) + 0.05) / (min(ground, luminance(c)) + 0.05)
                  for c in colours[1:]]
        check(theme in button.text and min(ratios) >= 4.5,
              f"theme {theme}: contrast of text, facts and links "
              + ", ".join(f"{r:.1f}" for r in ratios))
    check(grounds[0] > 0.5 > grounds[1], "the themes differ")
    page.run("arguments[0].click()", button)


def check_widths(page):
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for width in (1280, 768, 420, 320):
        page.width(width)
        time.sleep(0.5)
        page.figures()
        inner = page.run("return document.documentElement.scrollWidth")
        check(inner <= width, f"{width} pixels wide: the page is {inner} wide")
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = false; })")
    page.width(1280)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("--results", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--drawn", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as downloads:
        page = Page(arguments.report.resolve(), pathlib.Path(downloads))
        try:
            check_opening(page)
            check_everything_draws(page)
            if arguments.drawn:
                arguments.drawn.write_text("<!doctype html>" + page.run(
                    "const copy = document.documentElement.cloneNode(true);"
                    "copy.querySelectorAll('script').forEach((s) => s.remove());"
                    "return copy.outerHTML"), encoding="utf-8")
            figures = page.figures()
            for figure in maps(page, figures)[:3]:
                check_heat_map(page, figure)
            check_models(page, figures)
            check_views(page, figures)
            check_attention(page, figures)
            check_table(page, figures)
            check_downloads(page, figures, arguments.results)
            check_themes(page)
            check_widths(page)
            page.collect()
            own = page.path.as_uri()
            foreign = [u for u in page.requests if u != own and not u.startswith(("data:", "blob:"))]
            check(own in page.requests and not foreign,
                  f"{len(page.requests)} requests, none but the file itself {foreign or ''}")
            check(not page.messages, f"the console is clean {page.messages or ''}")
            if arguments.screenshots:
                arguments.screenshots.mkdir(parents=True, exist_ok=True)
                places = {"": None, "-maps": next(iter(maps(page, figures)), None)}
                places["-attention"] = next(
                    (f for f in figures if f.find_elements(By.CSS_SELECTOR, ".tokens")), None)
                for width, height in ((1280, 900), (420, 900)):
                    for theme in ("light", "dark"):
                        for place, figure in places.items():
                            if place and figure is None:
                                continue
                            name = f"{arguments.report.stem}-{width}-{theme}{place}.png"
                            page.screenshot(
                                arguments.screenshots / name, width, theme, height, figure)
                            print(f"--  {arguments.screenshots / name}")
        finally:
            page.browser.quit()
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
