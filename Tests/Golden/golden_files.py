"""What the scripts that write golden values share: their command line and the comparison behind --check."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

FIXTURES = Path(__file__).resolve().parent.parent / "Fixtures" / "golden"


def differences(made, committed, tolerance, attributes=None):
    """How two files differ, in words.

    Weights byte by byte, JSON by content, HDF5 by its names and numbers: within `tolerance` of the
    array's largest. Attributes of HDF5 objects count below `attributes`.
    """
    if made.suffix == ".json":
        return [] if json.loads(made.read_text()) == json.loads(committed.read_text()) else ["differs"]
    if made.suffix != ".h5":
        return [] if made.read_bytes() == committed.read_bytes() else ["differs"]
    found = []
    with h5py.File(made) as new, h5py.File(committed) as old:
        names = [set(), set()]
        new.visit(names[0].add)
        old.visit(names[1].add)
        found += [f"{name} is only in one" for name in sorted(names[0] ^ names[1])]
        for name in sorted(names[0] & names[1]):
            if isinstance(new[name], h5py.Dataset):
                x, y = new[name][()], old[name][()]
                if np.asarray(y).dtype.kind != "f":
                    same = np.array_equal(x, y)
                else:
                    largest = np.abs(y[np.isfinite(y)]).max(initial=0) if np.ndim(y) else abs(y)
                    atol = tolerance * largest + 1e-12
                    same = np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=0, atol=atol, equal_nan=True)
                if not same:
                    found.append(f"{name} differs")
            if attributes is not None and name.startswith(attributes):
                if dict(new[name].attrs) != dict(old[name].attrs):
                    found.append(f"{name} has other attributes")
    return found


def parser(description):
    """The options of every script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=FIXTURES, help="folder (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the folder")
    return parser


def write_or_check(arguments, make, files, tolerance, attributes=None):
    """Calls make(folder) for --out; with --check for a temporary folder, whose files are then compared."""
    torch.set_num_threads(1)  # one order of summation
    if not arguments.check:
        make(arguments.out)
        return
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        make(made)
        problems = [
            f"{file}: {problem}"
            for file in files
            for problem in differences(made / file, arguments.out / file, tolerance, attributes)
        ]
    if problems:
        sys.exit("\n".join(problems))
    print("the committed files hold the same numbers")
