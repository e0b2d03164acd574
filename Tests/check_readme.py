"""Runs every command shown in README.md and holds its output against what the README says.

    python Tests/check_readme.py            # compare; exit status 1 where they differ
    python Tests/check_readme.py --write    # put today's output into the README

A block fenced with ```console is a command after "$ " and its output; `normlens` is the built binary.
Numbers may differ a little from machine to machine: they are compared to 1 % or half a unit of the last
digit shown, everything else exactly.  Lines that name a time, a version or a speed are left out.
A ```python block is run after the commands before it, in their directory, and must not fail.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
VARYING = re.compile(r"done in|GB/s|created|tool_version|threads|blas")


def run(command, directory):
    path = f"{ROOT}/.build/release{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "NORMLENS_DATA": str(ROOT / "notebooks-data")}
    done = subprocess.run(
        command, shell=True, cwd=directory, env=env, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


def close(expected, found):
    if expected == found:
        return True
    decimals = len(expected.split(".")[1]) if "." in expected and "e" not in expected else 0
    a, b = float(expected), float(found)
    # Rounding errors themselves are shown, too: what is below 1e-4 is only compared in size.
    if abs(a) < 1e-4 and abs(b) < 1e-4:
        return True
    return abs(a - b) <= max(0.51 * 10.0**-decimals if decimals else 0, 0.01 * abs(a))


def same_line(expected, found):
    if VARYING.search(expected):
        return True
    squeeze = lambda line: re.sub(r"\s+|-{3,}", " ", line).strip()
    a, b = squeeze(expected), squeeze(found)
    if NUMBER.sub("#", a) != NUMBER.sub("#", b):
        return False
    return all(map(close, NUMBER.findall(a), NUMBER.findall(b)))


def difference(expected, found):
    a, b = expected.splitlines(), found.splitlines()
    for number, (x, y) in enumerate(zip(a, b)):
        if not same_line(x, y):
            return f"line {number + 1}:\n  README: {x}\n  now:    {y}"
    return None if len(a) == len(b) else f"{len(a)} lines in the README, {len(b)} now"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    readme = ROOT / "README.md"
    text = readme.read_text()
    failures, count = [], 0
    with tempfile.TemporaryDirectory() as directory:

        def check(match):
            nonlocal count
            count += 1
            kind, body = match.groups()
            if kind == "python":
                script = Path(directory) / "block.py"
                script.write_text(body)
                done = subprocess.run(
                    [sys.executable, script], cwd=directory, text=True, capture_output=True,
                    env=os.environ | {"PYTHONPATH": str(ROOT / "examples/python")})
                if done.returncode:
                    failures.append(f"python block:\n{done.stderr}")
                return match.group(0)
            # Several commands may share a block; each begins with "$ ".
            parts = re.split(r"^\$ ", body, flags=re.M)[1:]
            shown = []
            for part in parts:
                command, _, expected = part.partition("\n")
                while command.endswith("\\"):
                    more, _, expected = expected.partition("\n")
                    command += "\n" + more
                found = run(command, directory)
                problem = difference(expected.rstrip(), found)
                if problem and not write:
                    failures.append(f"$ {command}\n{problem}")
                shown.append(f"$ {command}\n{found}".rstrip())
            return "```console\n" + "\n".join(shown) + "\n```"

        new = BLOCK.sub(check, text)
    if write:
        readme.write_text(new)
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"README: {count} blocks, {len(failures)} differ")
    sys.exit(1 if failures else 0)


main()
