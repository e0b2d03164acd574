"""Draws result files and reads the pictures as XML.

    check_pictures.py NORMLENS FILE.h5 ...

Every file must give pictures; each must parse, have a title, a description and text, stay inside its
width, and hold no number that is none. Prints a line a file.
"""

import argparse
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"
NO_NUMBER = re.compile(r"(?<![a-z])[-+]?(nan|inf|infinity)(?![a-z])", re.I)


def problems(path):
    root = ElementTree.parse(path).getroot()
    if root.find(SVG + "title") is None or root.find(SVG + "desc") is None:
        yield "no title or description"
    if not any(text.text for text in root.iter(SVG + "text")):
        yield "no text"
    width = float(root.get("width").removesuffix("px"))
    for element in root.iter():
        for name, value in element.attrib.items():
            if name not in ("class", "id", "href") and NO_NUMBER.search(value):
                yield f"{element.tag} {name}={value[:60]}"
        x = element.get("x")
        if x is not None and not -1 <= float(x) <= width + 1 and not element.get("transform"):
            yield f"{element.tag} at x {x} of {width}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("normlens")
    parser.add_argument("files", nargs="+")
    given = parser.parse_args()
    failures = []
    for file in given.files:
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(
                [given.normlens, "plot", file, "-o", directory, "--quiet"], check=True)
            pictures = sorted(Path(directory).glob("*.svg"))
            found = [f"{file}: {path.name}: {problem}" for path in pictures
                     for problem in problems(path)]
            if not pictures:
                found = [f"{file}: no picture"]
            failures += found
            size = sum(path.stat().st_size for path in pictures)
            print(f"{file}: {len(pictures)} pictures, {size / 1e6:.2f} MB, {len(found)} problems")
    if failures:
        raise SystemExit("\n".join(failures[:20]))


main()
