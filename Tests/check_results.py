#!/usr/bin/env python3
"""Checks that result files open cleanly in the readers that researchers use.

    check_results.py FILE...
    check_results.py --same OLD NEW

Each file is opened with h5py and with xarray through h5netcdf and netcdf4, and every group is walked:
axes named and in their own group, units, long_name and sign_convention on findings, no object, half,
boolean or compound types, checksums on chunked arrays, creation order tracked, and the same values
from every reader. Prints a line for each file; the first fault ends with status 1 and its reason.
With --same, NEW holds the arrays of OLD with the same values up to rounding.
Needs h5py, numpy, xarray, h5netcdf and netCDF4.
"""

import sys

import h5py
import numpy as np
import xarray as xr

ORDER = h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED
ENGINES = ("h5netcdf", "netcdf4")
# The first attributes of a file, in this order; "groups" is last where groups came while it was written.
GLOBAL = ("Conventions", "title", "format", "format_version")


class Fault(Exception):
    pass


def demand(condition, where, reason):
    if not condition:
        raise Fault(f"{where}: {reason}")


def check_type(dtype, where):
    if h5py.check_string_dtype(dtype) is not None:
        info = h5py.check_string_dtype(dtype)
        demand(info.encoding == "utf-8", where, f"text is {info.encoding}, not UTF-8")
        demand(info.length is None, where, "text is of fixed length")
        return
    demand(dtype.kind in "fiu", where, f"type {dtype} is neither number nor text")
    demand(not (dtype.kind == "f" and dtype.itemsize not in (4, 8)), where, f"type {dtype}")


def check_attributes(item, where):
    order = item.id.get_create_plist().get_attr_creation_order()
    demand(order == ORDER, where, "attribute order is not tracked and indexed")
    for name in item.attrs:
        if name in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
            continue
        check_type(item.attrs.get_id(name).dtype, f"{where} attribute {name}")


def check_dataset(dataset, group):
    where = dataset.name
    check_type(dataset.dtype, where)
    check_attributes(dataset, where)
    if dataset.chunks is not None:
        demand(dataset.fletcher32, where, "chunked without fletcher32")
    else:
        text = h5py.check_string_dtype(dataset.dtype) is not None
        demand(text or dataset.size <= 1, where, "numbers without chunks")
    if dataset.is_scale:
        demand(dataset.ndim == 1, where, "an axis with more than one dimension")
        demand("long_name" in dataset.attrs, where, "no long_name")
        return
    for axis, dim in enumerate(dataset.dims):
        demand(len(dim) == 1, where, f"axis {axis} has {len(dim)} scales")
        scale = dim[0]
        demand(scale.parent == group, where, f"axis {axis} has its scale in {scale.parent.name}")
        demand(scale.shape[0] == dataset.shape[axis], where, f"axis {axis} has another extent")
    demand(len({d[0].name for d in dataset.dims}) == dataset.ndim, where, "an axis occurs twice")
    names = ["long_name", "units"]
    if dataset.attrs.get("normlens_role") != "coordinate":
        names.append("sign_convention")
    for name in names:
        value = dataset.attrs.get(name)
        demand(isinstance(value, str) and value, where, f"no {name}")
    if dataset.dtype.kind == "f":
        fill = dataset.attrs.get("_FillValue")
        demand(fill is not None and np.isnan(fill).all(), where, "no _FillValue of NaN")
        demand(fill.dtype == dataset.dtype, where, "_FillValue of another type")
        demand(np.isnan(dataset.fillvalue), where, "HDF5's fill value is not NaN")
    for name in dataset.attrs.get("coordinates", "").split():
        demand(name in group, where, f"coordinate {name} is missing")


def check_group(group):
    where = group.name
    check_attributes(group, where)
    order = group.id.get_create_plist().get_link_creation_order()
    demand(order == ORDER, where, "link order is not tracked and indexed")
    variables = {}
    for name, item in group.items():
        demand(group.get(name, getlink=True).__class__ is h5py.HardLink, where, f"{name} is a link")
        if isinstance(item, h5py.Dataset):
            check_dataset(item, group)
            variables[name] = item
    return variables


def same(left, right):
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape:
        return False
    if left.dtype.kind == "f":
        return np.array_equal(left, right, equal_nan=True)
    return left.astype(str).tolist() == right.astype(str).tolist()


def check_file(path):
    read = {}
    count = 0
    with h5py.File(path, "r") as file:
        for position, name in enumerate(GLOBAL):
            found = list(file.attrs)[position] if position < len(file.attrs) else "nothing"
            demand(found == name, "/", f"attribute {position} is {found}, not {name}")
        demand("groups" in file.attrs, "/", "no attribute groups")
        for group in file.attrs["groups"]:
            demand(group in file, "/", f"groups names {group}, which is missing")
        groups = [file["/"]]
        file.visititems(
            lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)
        for group in groups:
            for name, dataset in check_group(group).items():
                text = h5py.check_string_dtype(dataset.dtype) is not None
                read[dataset.name] = dataset.asstr()[()] if text else dataset[()]
                count += 1
    for engine in ENGINES:
        with xr.open_datatree(path, engine=engine) as tree:
            tree.load()
            for node in tree.subtree:
                for name, variable in node.to_dataset(inherit=False).variables.items():
                    where = f"{engine} {node.path.rstrip('/')}/{name}"
                    demand(same(variable.values, read[where.split(" ")[1]]), where, "other values")
        for group in sorted({name.rsplit("/", 1)[0] for name in read}):
            # A group opened alone must have its axes and its secondary coordinates.
            with xr.open_dataset(path, engine=engine, group=group) as dataset:
                dataset.load()
                for name, variable in dataset.data_vars.items():
                    where = f"{engine} {group}/{name}"
                    for dimension in variable.dims:
                        demand(dimension in dataset.coords, where, f"no axis {dimension}")
                        demand(not dimension.startswith("phony"), where, "an axis has no name")
                    demand(variable.attrs.get("units"), where, "no units")
                    demand(variable.attrs.get("long_name"), where, "no long_name")
                    kind = variable.dtype.kind
                    demand(kind in "fiuUT" or all(
                        isinstance(text, str) for text in variable.values.flat), where, "objects")
                    demand(variable.dtype != np.float16, where, "half precision")
    return count


# Rounding decides the rank of cells that are nearly zero.
RANKED = ("spearman", "top10_overlap", "sign_flips")


def tolerance(name, old):
    """How far another machine's sums may be from ours."""
    if name.startswith(RANKED):
        return 0.25
    scale = np.nanmax(np.abs(old), initial=0)
    return (1e-3 if name.startswith(("pearson", "abs_error")) else 3e-4) * scale + 1e-6


def compare(old_path, new_path):
    with h5py.File(old_path) as old_file, h5py.File(new_path) as new_file:
        def names(file):
            found = []
            file.visititems(
                lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
            return found

        demand(names(old_file) == names(new_file), new_path, f"not the arrays of {old_path}")
        worst = ("", 0.0)
        for name in names(old_file):
            old, new = old_file[name][()], new_file[name][()]
            last = name.rsplit("/", 1)[-1]
            if last == "conservation_error":  # rounding itself
                continue
            if old.dtype.kind != "f":
                demand(np.array_equal(old, new), name, "other values")
                continue
            demand(old.shape == new.shape and np.array_equal(np.isnan(old), np.isnan(new)), name,
                   "another shape, or NaN elsewhere")
            error = np.nanmax(np.abs(new - old), initial=0) / tolerance(last, old)
            demand(error <= 1, name, f"{error:.3g} times the tolerance away")
            worst = max(worst, (name, error), key=lambda item: item[1])
        return f"as {old_path}; largest difference {worst[1]:.2g} of the tolerance, at {worst[0]}"


def main(paths):
    if paths[:1] == ["--same"] and len(paths) == 3:
        try:
            print(f"{paths[2]}: {compare(*paths[1:])}")
            return 0
        except Fault as fault:
            print(f"{paths[2]}: {fault}", file=sys.stderr)
            return 1
    if not paths or paths[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 64
    for path in paths:
        try:
            print(f"{path}: {check_file(path)} arrays, as they should be")
        except Fault as fault:
            print(f"{path}: {fault}", file=sys.stderr)
            return 1
        except Exception as error:  # Whatever a reader throws is a fault of the file.
            print(f"{path}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
