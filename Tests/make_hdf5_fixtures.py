"""Writes the small HDF5 files in Tests/Fixtures/hdf5 that other programs' files are stood in for by.

    pip install h5py numpy && python Tests/make_hdf5_fixtures.py

keras.h5    the layout of a Hugging Face tf_model.h5: a GPT-2 of one layer, 8 wide, 32 tokens
legacy.h5   HDF5's oldest format with one of everything that NormLens reads: chunks with filters,
            half precision, whole numbers, texts of both kinds, dimension scales
links.h5    a soft link and one to another file, which are not followed
cycle.h5    a group that contains itself twice: a walk along its links has no end
"""

from pathlib import Path

import h5py
import numpy as np

FOLDER = Path(__file__).resolve().parent / "Fixtures" / "hdf5"


def keras(path):
    random = np.random.default_rng(7)
    layers, width, vocabulary, positions = 1, 8, 32, 16
    with h5py.File(path, "w", libver="earliest") as file:
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.9.0"
        file.attrs["layer_names"] = np.array([b"transformer"])
        group = file.create_group("transformer")
        names = []

        def put(name, *shape):
            name = f"tfgpt2lm_head_model/transformer/{name}:0"
            group[name] = random.standard_normal(shape, dtype=np.float32) * 0.02
            names.append(name.encode())

        put("wte/weight", vocabulary, width)
        put("wpe/embeddings", positions, width)
        for layer in range(layers):
            block = f"h_._{layer}"
            for norm in ("ln_1", "ln_2"):
                put(f"{block}/{norm}/gamma", width)
                put(f"{block}/{norm}/beta", width)
            for part, rows, columns in (
                ("attn/c_attn", width, 3 * width), ("attn/c_proj", width, width),
                ("mlp/c_fc", width, 4 * width), ("mlp/c_proj", 4 * width, width),
            ):
                put(f"{block}/{part}/weight", rows, columns)
                put(f"{block}/{part}/bias", 1, columns)
        put("ln_f/gamma", width)
        put("ln_f/beta", width)
        group.attrs["weight_names"] = np.array(names)


def legacy(path):
    random = np.random.default_rng(8)
    with h5py.File(path, "w", libver="earliest") as file:
        file.attrs["text"] = "of variable length: ü"
        file.attrs["texts"] = ["a", "", "third"]
        file.attrs["fixed"] = np.bytes_("of fixed length")
        file.attrs["numbers"] = np.arange(5) / 4
        file.attrs["counts"] = np.arange(4, dtype=np.int8)
        group = file.create_group("values")
        group.create_dataset(
            "packed", data=random.standard_normal((9, 11), dtype=np.float32), chunks=(4, 4),
            compression="gzip", shuffle=True, fletcher32=True)
        group.create_dataset("half", data=np.arange(12, dtype=np.float16), chunks=(5,))
        group.create_dataset("double", data=random.standard_normal((3, 4)))
        group.create_dataset("big_endian", data=np.arange(6, dtype=">f4"))
        group.create_dataset("bytes", data=np.arange(20, dtype=np.uint8))
        group.create_dataset("unset", shape=(10,), dtype=np.float64)
        group.create_dataset(
            "words", data=["one", "zwei", "", "四"], dtype=h5py.string_dtype())
        group.create_dataset("labels", data=np.array([b"x", b"yy", b"zzz"]))
        group["words"].make_scale("words")
        group.create_dataset("by_word", data=np.arange(4, dtype=np.int32))
        group["by_word"].dims[0].attach_scale(group["words"])


def links(path):
    with h5py.File(path, "w", libver="earliest") as file:
        file["here"] = np.arange(3.0)
        file["soft"] = h5py.SoftLink("/here")
        file["elsewhere"] = h5py.ExternalLink("another.h5", "/x")


def cycle(path):
    with h5py.File(path, "w", libver="earliest") as file:
        group = file.create_group("a")
        group["b"] = group
        group["c"] = group


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    keras(FOLDER / "keras.h5")
    legacy(FOLDER / "legacy.h5")
    links(FOLDER / "links.h5")
    cycle(FOLDER / "cycle.h5")
