#!/usr/bin/env python3
"""Checks what `normlens show` exports and what examples/python reads, against h5py.

    check_exports.py NORMLENS FILE...

Each activations file is read by ActivationCache, every hook against the array itself, bit for bit.
Its patterns go to CircuitsVis through `show --circuitsvis`, its numbers through `show --csv` and
Python's csv module back. Needs h5py, numpy and circuitsvis with importlib_metadata; torch, which
CircuitsVis imports for its tensors only, is replaced by an empty module where it is missing.
"""

import csv
import importlib.util
import io
import json
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "examples/python"))
from activation_cache import ActivationCache

if importlib.util.find_spec("torch") is None:
    sys.modules["torch"] = types.SimpleNamespace(Tensor=type("Tensor", (), {}))
from circuitsvis.attention import attention_heads


def show(normlens, *arguments):
    return subprocess.run(
        [normlens, "show", *map(str, arguments)], check=True, capture_output=True
    ).stdout.decode()


def check_cache(path):
    cache = ActivationCache(path)
    names = list(cache)
    with h5py.File(path) as file:
        group = file["activations"]
        seen = []
        for site in group:
            hook = group[site].attrs.get("tl_hook")
            if hook is None:
                continue
            values = group[site][:]
            if "{layer}" not in hook:
                slabs = [(hook, site, values)]
            else:
                slabs = [
                    (hook.replace("{layer}", str(layer)), (site, int(layer)), values[:, row])
                    for row, layer in enumerate(group["layer"])
                ]
            for name, short, expected in slabs:
                if np.isnan(expected).all():
                    assert name not in cache, f"{name} is all NaN and has a name"
                    continue
                seen.append(name)
                if name.endswith("hook_scale"):
                    expected = expected[..., None]
                for key in (name, short):
                    found = cache[key]
                    assert found.dtype == np.float32 and found.shape == expected.shape, name
                    assert found.tobytes() == expected.tobytes(), f"{name} differs"
    assert sorted(seen) == sorted(names), "other names than the file's"
    layers = [int(name.split(".")[1]) for name in names if name.startswith("blocks.")]
    assert layers == sorted(layers), "not in the order of the forward pass"
    for unknown in (names[0] + "x", ("patern", 0), ("pattern", 99)):
        try:
            cache[unknown]
        except KeyError as error:
            assert "did you mean" in str(error)
        else:
            raise AssertionError(f"{unknown} was found")
    return len(names)


def check_patterns(normlens, path):
    checked = 0
    with h5py.File(path) as file:
        group = file["activations"]
        if "pattern" not in group or group["query_pos"].shape != group["key_pos"].shape:
            return 0
        for prompt in range(len(group["prompt"])):
            text = show(normlens, path, "activations/pattern", "--circuitsvis", "--prompt", prompt)
            props = json.loads(text)
            length = int((group["token_id"][prompt] >= 0).sum())
            assert props["tokens"] == list(group["token"].asstr()[prompt][:length])
            expected = group["pattern"][prompt, :, :, :length, :length]
            recorded = ~np.isnan(expected).all(axis=(2, 3))
            names = [
                f"L{group['layer'][layer]}H{head}" for layer, head in np.argwhere(recorded)
            ]
            assert props["attentionHeadNames"] == names
            assert (np.float32(props["attention"]) == expected[recorded]).all()
            assert (props["minValue"], props["maxValue"]) == (-1, 1)
            page = attention_heads(
                attention=props["attention"],
                tokens=props["tokens"],
                attention_head_names=props["attentionHeadNames"],
                min_value=props["minValue"],
                max_value=props["maxValue"],
            ).local_src
            assert "CircuitsVis.AttentionHeads" in page and names[-1] in page
            checked += len(names)
    return checked


def check_csv(normlens, path):
    count = 0
    with h5py.File(path) as file:
        groups = []
        file.visititems(lambda name, item: groups.append(name) if isinstance(item, h5py.Group) else 0)
        for group in groups:
            for name, data in file[group].items():
                if not isinstance(data, h5py.Dataset) or data.is_scale or data.size > 1 << 20:
                    continue
                axes = [data.dims[axis][0].name.split("/")[-1] for axis in range(data.ndim)]
                text = show(normlens, path, f"{group}/{name}", "--csv")
                rows = list(csv.reader(io.StringIO(text, newline="")))
                assert rows[0][: len(axes)] == axes and rows[0][-1] == name, f"{group}/{name}"
                found = [row[-1] for row in rows[1:]]
                if h5py.check_string_dtype(data.dtype):
                    # An index, so that a scalar is an array, too.
                    expected = list(np.atleast_1d(data.asstr()[()]).ravel())
                    assert found == expected, f"{group}/{name}"
                elif data.dtype.kind == "i":
                    assert [int(x) for x in found] == list(np.atleast_1d(data[()]).ravel())
                else:
                    numbers = np.array([float(x or "nan") for x in found], data.dtype)
                    expected = np.atleast_1d(data[()]).ravel()
                    assert np.array_equal(numbers, expected, equal_nan=True), f"{group}/{name}"
                for axis, scale in enumerate(axes):
                    labels = file[group][scale]
                    text = h5py.check_string_dtype(labels.dtype)
                    labels = list(labels.asstr()) if text else [str(x) for x in labels[:]]
                    steps = np.indices(data.shape)[axis].ravel()
                    assert [row[axis] for row in rows[1:]] == [labels[x] for x in steps]
                count += len(found)
    return count


for argument in sys.argv[2:]:
    hooks = heads = 0
    with h5py.File(argument) as opened:
        is_cache = "activations" in opened
    if is_cache:
        hooks = check_cache(argument)
        heads = check_patterns(sys.argv[1], argument)
    cells = check_csv(sys.argv[1], argument)
    print(f"{argument}: {hooks} hooks, {heads} attention patterns, {cells} cells of CSV")
