#!/usr/bin/env python3
"""Compares the ids of `normlens tokenize` with those of the `tokenizers` library on generated texts.

    python3 Tests/compare_tokenizer.py .build/release/normlens FOLDER... [--count 20000] [--seed 3]

Each FOLDER holds a vocab.json and a merges.txt. Of each vocabulary four tokenizers are made: the two files;
the two files with an added_tokens.json; a tokenizer.json with merges as pairs and further added tokens, special
ones and others; one with merges as lines. The texts, ill-formed UTF-8 among them, go through one run of the
command each; it fails where the tokens of a text are not that text. Prints the number of mismatches, 0 expected.

With --bench FILE it compares the speed on that text instead (on one core, median of five, in turn).
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

import make_tokenizer_golden as golden

ADDED = ["<pad>", "<|user|>", "<|user|>x", "the", " \n", "[é]", "👍🏽", "'s", "don't"]


def cases(text: str, r: random.Random) -> str:
    return "".join(r.choice([c, c.upper(), c.lower(), c.title(), c.swapcase(), c.casefold()]) for c in text)


SPACE = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and chr(c).isspace()] + ["\u180e", "\u200b", "\ufeff"]
FURTHER = [
    # Contractions in every case of letters that have several, among them ſ (long s) and the Kelvin sign.
    lambda r: "".join(r.choice(["I", "it", "ß", "é", " you", "1", "", "'"]) + r.choice(["'", "'", "’", "ʼ"])
                      + cases(r.choice(["s", "t", "re", "ve", "m", "ll", "d", "ſ", "ŀ", "K", "ß", "ﬆ"]), r)
                      for _ in range(r.randrange(1, 8))),
    # Runs of white space of every kind between words.
    lambda r: "".join(r.choice(["", "a", "the", "7", "!"]) + r.choice(SPACE) * r.choice([1, 1, 2, 3, 17]) + r.choice(SPACE)
                      for _ in range(r.randrange(1, 7))),
    # Every plane in turn, code points in neighbourhoods.
    lambda r: "".join(chr(c) for _ in range(r.randrange(1, 6)) for base in [r.randrange(17) * 0x10000 + r.randrange(0x10000)]
                      for c in range(base, min(base + r.randrange(1, 5), 0x110000)) if not 0xD800 <= c < 0xE000),
    # Added tokens inside text, cut and doubled.
    lambda r: "".join(r.choice(ADDED + [golden.END, golden.END[:-1], "<|", "o", "r ", "don'", " ", "x"]) for _ in range(r.randrange(1, 9))),
    lambda r: "".join(r.choice("0123456789٣५𝟗Ⅷ½²") for _ in range(r.randrange(1, 20))),
]


def texts(seed: int, count: int):
    r = random.Random(seed + 17)
    base = golden.texts(seed, count)
    for index, text in enumerate(base):
        yield r.choice(FURTHER)(r).encode() if index >= 14 and index % 3 == 0 else text


def variants(folder: Path, scratch: Path):
    """Directories with a tokenizer each, and what the library makes of it."""
    files = [folder / "vocab.json", folder / "merges.txt"]
    plain = golden.load(folder)
    size = plain.get_vocab_size()
    for name in ("files", "added_tokens.json", "tokenizer.json", "lines"):
        out = scratch / name
        out.mkdir()
        reference = golden.load(folder)
        if name in ("files", "added_tokens.json"):
            for file in files:
                shutil.copy(file, out)
        if name == "added_tokens.json":
            new = [text for text in ADDED if plain.token_to_id(text) is None]
            (out / name).write_text(json.dumps({text: size + index for index, text in enumerate(new)}))
            reference.add_tokens([AddedToken(text, normalized=False) for text in new])
        if name in ("tokenizer.json", "lines"):
            reference.add_special_tokens([AddedToken(text, normalized=False) for text in ADDED[:3]])
            reference.add_tokens([AddedToken(text, normalized=False) for text in ADDED[3:]])
            data = json.loads(reference.to_str())
            if name == "lines":
                data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
                data["model"]["continuing_subword_prefix"] = data["model"]["end_of_word_suffix"] = ""
            (out / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=name == "lines"))
            reference = Tokenizer.from_file(str(out / "tokenizer.json"))
        yield name, out, reference


def compare(normlens: str, folder: Path, seed: int, count: int) -> int:
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for variant, directory, reference in variants(folder, scratch):
            model = scratch / "model.h5"
            rows = reference.get_vocab_size() + 7  # padded, as many embeddings are
            subprocess.run([normlens, "init", "--config", "1x1x8", "--positions", "8", "--vocabulary", str(rows),
                            "--tokenizer", directory, "-o", model, "--quiet"], check=True)
            all_texts = list(texts(seed, count))
            mismatches = 0
            for end, flags in ((b"\0", ["--null"]), (b"\n", [])):
                # A text with the byte that ends texts goes into the other file.
                mine = [text for text in all_texts if end not in text and (end == b"\0" or b"\0" in text)]
                file = scratch / "texts"
                file.write_bytes(b"".join(text + end for text in mine))
                run = subprocess.run([normlens, "tokenize", model, "--lines", file, "--errors", "replace", "--no-bos", "--json"]
                                     + flags, check=True, stdout=subprocess.PIPE)
                found = [json.loads(line)["ids"] for line in run.stdout.splitlines()]
                assert len(found) == len(mine), (len(found), len(mine))
                for text, ids in zip(mine, found):
                    decoded = text.decode("utf-8", "replace")
                    expected = reference.encode(decoded, add_special_tokens=False).ids
                    if ids != expected:
                        mismatches += 1
                        if mismatches <= 5:
                            print(f"  {decoded!r}: expected {expected}, found {ids}", file=sys.stderr)
            print(f"{folder.name} ({variant}): {len(all_texts)} texts, {mismatches} mismatches")
            wrong += mismatches
    return wrong


def bench(normlens: str, folder: Path, file: Path) -> None:
    os.environ["RAYON_NUM_THREADS"] = "1"  # one core
    text = file.read_text()
    size = len(text.encode())
    lines = text.splitlines(keepends=True)
    reference = golden.load(folder)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.h5"
        subprocess.run([normlens, "init", "--config", "1x1x8", "--positions", "8", "--vocabulary",
                        str(reference.get_vocab_size()), "--tokenizer", folder, "-o", model, "--quiet"], check=True)
        ours, theirs = [], []
        for _ in range(5):
            run = subprocess.run([normlens, "bench", "--only", "tokenize", "--repetitions", "1",
                                  "--tokenizer", model, "--text", file, "--json"], check=True, stdout=subprocess.PIPE)
            ours.append(json.loads(run.stdout)["tokenize_mbs"])
            # The library in whichever form is faster: the whole text, or its lines as a batch.
            start = time.perf_counter()
            reference.encode(text)
            middle = time.perf_counter()
            reference.encode_batch_fast(lines)
            end = time.perf_counter()
            theirs.append(size / min(middle - start, end - middle) / 1e6)
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(f"{folder.name}, {size / 1e6:.1f} MB: normlens {mine:.1f} MB/s, tokenizers {other:.1f} MB/s, ratio {mine / other:.1f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("normlens")
    arguments.add_argument("folders", type=Path, nargs="+")
    arguments.add_argument("--count", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=3)
    arguments.add_argument("--bench", type=Path, metavar="FILE")
    given = arguments.parse_args()
    if given.bench:
        for folder in given.folders:
            bench(given.normlens, folder, given.bench)
        return
    if sum(compare(given.normlens, folder, given.seed, given.count) for folder in given.folders):
        sys.exit(1)


if __name__ == "__main__":
    main()
