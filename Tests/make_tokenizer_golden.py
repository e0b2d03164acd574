#!/usr/bin/env python3
"""Writes Tests/Fixtures/tokenizer/: token ids that the `tokenizers` library (0.23.3) gives to generated texts.

    python3 Tests/make_tokenizer_golden.py MINI GPT2      # the folders of the two tokenizers
    python3 Tests/make_tokenizer_golden.py MINI GPT2 --count 25000 --seed 2 --out DIR   # a larger comparison

For each tokenizer NAME (`mini`, `gpt2`):
  NAME-encode.tsv  the bytes of a text in hexadecimal, TAB, its ids; ill-formed UTF-8 is decoded by Python
                   with errors="replace" first
  NAME-decode.tsv  ids, TAB, the UTF-8 of their text in hexadecimal (decode without clean-up)
`mini/` is a copy of MINI's vocab.json and merges.txt. GPT-2's own files are too large to be committed.
"""
import argparse
import random
import shutil
import sys
import unicodedata
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END = "<|endoftext|>"
HERE = Path(__file__).resolve().parent

WORDS = """the and of to a in that it is was he for on with as his they at be this from I have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made
over did down only way find use may water long little very after words called just where most know get through back
Mary John Alice Paris Tokyo store drink gave keys cabinet GPT-2 LayerNorm transformer HTTP URLError ioi_dataset
naïve café Übergröße façade señor""".split()
SCRIPTS = ["Привет мир", "你好，世界", "こんにちは世界", "안녕하세요", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก",
           "Γειά σου Κόσμε", "Բարեւ աշխարհ", "გამარჯობა", "ሰላም ዓለም", "வணக்கம்", "𝔊𝔬𝔱𝔥𝔦𝔠", "𐍈𐌰𐌹𐍂", "𒀀𒁀", "ⅣⅨ ½ ³ ①⑳ ٣٤ ४५ 五 𝟘𝟙", "ﬁ ﬂ Ǆ ǅ",
           "ꙮ ꧁꧂", "Ṱ̺̺̕o͞ ̷i̲̬͇̪͙n̝̗͕v̟̜̘̦͟o̶̙̰̠kè͚̮̺̪̹̱̤"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪🇯🇵", "1️⃣", "❤️", "🧑🏿‍🚀", "☃", "⚡️", "🫠", "\u200d", "\ufe0f", "🏴\U000e0067\U000e0062\U000e007f"]
SPACES = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\r", "\v", "\f", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u180e",
          "\u2000", "\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "    "]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ll", "'r", "'v", "'l", "'", "''", "’s", "'se",
                "'ree", "'lll", "'dd", "' s", "'n", "'\u0301", "'é"]
ILL = [b"\x80", b"\xbf\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x28\xa1", b"\xe0\x9f\xbf", b"\xed\xa0\x80",
       b"\xed\xbf\xbf", b"\xed\x9f", b"\xf0\x9f\x98", b"\xf0\x9f", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf4\x8f\xbf", b"\xf5\x80\x80\x80",
       b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"\xf1\x80\x80\xe1\x80\xc2b\x80c\x80\xbfd"]


def scalar(r: random.Random) -> str:
    while True:
        top = r.choice([0x80, 0x250, 0x3000, 0xFFFF, 0x1FFFF, 0x3FFFF, 0x10FFFF])
        code = r.randrange(top + 1)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def letter(r: random.Random) -> str:
    while True:
        c = scalar(r)
        if unicodedata.category(c)[0] == "L":
            return c


def sentence(r: random.Random) -> str:
    text = ""
    for _ in range(r.randrange(1, 9)):
        text += r.choice(["", " ", " ", " ", ", ", ". ", "-", " \"", "(", "_", "\n"])
        word = r.choice(WORDS)
        text += r.choice([word, word, word.capitalize(), word.upper()]) + r.choice([""] * 6 + CONTRACTIONS)
    return text + r.choice(["", ".", "?", "!", "...", " ", "\n", "?!\"\n\n"])


def digits(r: random.Random) -> str:
    pick = lambda: r.choice(["0123456789", "٠١٢٣٤", "½⅓²³", "ⅠⅡⅢ", "𝟎𝟏𝟐", "零一二"])
    return r.choice([" ", ",", ".", "", "a"]).join(
        "".join(r.choice(pick()) for _ in range(r.randrange(1, 8))) for _ in range(r.randrange(1, 5)))


def long_word(r: random.Random) -> str:
    alphabet = r.choice(["a", "ab", "etaoinshrdlu", "ACGT", "-", "=-", " ", " \n", "0", "0123456789", "é", "漢字", "!?.", "😀"])
    return "".join(r.choice(alphabet) for _ in range(r.choice([14, 15, 16, 17, 46, 47, 48, 49, 50, 63, 64, 65, 130])))


def special(r: random.Random) -> str:
    near = [END, END, END + END, "<|endoftext|", "|endoftext|>", "<", "<|", "<<|endoftext|>>", "<|ENDOFTEXT|>", "<|endof" + END, "Ġ", "Ċ"]
    return "".join(r.choice(near + SPACES[:4] + WORDS[:20] + [" "]) for _ in range(r.randrange(1, 6)))


def mixture(r: random.Random) -> str:
    text = ""
    for _ in range(r.randrange(1, 12)):
        text += r.choice([
            lambda: scalar(r), lambda: letter(r), lambda: r.choice(SPACES), lambda: r.choice(CONTRACTIONS),
            lambda: r.choice(WORDS), lambda: r.choice(EMOJI), lambda: chr(r.randrange(0x20, 0x7F)),
            lambda: " ", lambda: str(r.randrange(1000))])()
    return text


KINDS = [
    sentence, digits, long_word, special, mixture, mixture,
    lambda r: "".join(scalar(r) for _ in range(r.randrange(1, 16))),
    lambda r: "".join(letter(r) + r.choice(["", "", " "]) for _ in range(r.randrange(1, 16))),
    lambda r: "".join(r.choice(SPACES + ["a", "1", "!"]) for _ in range(r.randrange(1, 14))),
    lambda r: r.choice(["", " "]).join(r.choice(WORDS + ["", " "]) + r.choice(CONTRACTIONS) for _ in range(r.randrange(1, 6))),
    lambda r: "".join(r.choice(EMOJI + ["", " ", "a"]) for _ in range(r.randrange(1, 8))),
    lambda r: r.choice([" ", "", "  "]).join(r.choice(SCRIPTS) for _ in range(r.randrange(1, 3))),
    lambda r: unicodedata.normalize(r.choice(["NFC", "NFD", "NFKD"]), r.choice(SCRIPTS) + sentence(r)),
]


def ill_formed(r: random.Random) -> bytes:
    parts = []
    for _ in range(r.randrange(1, 6)):
        parts.append(r.choice([
            lambda: r.choice(ILL), lambda: r.choice(ILL), lambda: bytes(r.randrange(256) for _ in range(r.randrange(1, 5))),
            lambda: r.choice(WORDS).encode(), lambda: scalar(r).encode()[:-1], lambda: mixture(r).encode()])())
    return b"".join(parts)


def texts(seed: int, count: int):
    """`count` texts as bytes: a few fixed ones, then generated ones of every kind in turn."""
    r = random.Random(seed)
    fixed = ["", " ", "  ", "\n", "a", "'", "Hello world", " Mary", "Mary", END, "".join(map(chr, range(256))), "\0", "\ufeffx", "\U0010ffff"]
    for index in range(count):
        if index < len(fixed):
            yield fixed[index].encode()
        elif index % (len(KINDS) + 1) == len(KINDS):
            yield ill_formed(r)
        else:
            yield KINDS[index % (len(KINDS) + 1)](r).encode()


def load(folder: Path) -> Tokenizer:
    """The tokenizer that transformers' GPT2TokenizerFast makes of these files."""
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, normalized=False, special=True)])
    return tokenizer


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mini", type=Path)
    arguments.add_argument("gpt2", type=Path)
    arguments.add_argument("--count", type=int, default=420)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=Path, default=HERE / "Fixtures/tokenizer")
    given = arguments.parse_args()
    if tokenizers.__version__ != "0.23.3":
        print(f"note: written with tokenizers {tokenizers.__version__}", file=sys.stderr)
    (given.out / "mini").mkdir(parents=True, exist_ok=True)
    for file in ("vocab.json", "merges.txt"):
        shutil.copyfile(given.mini / file, given.out / "mini" / file)
    for name, folder in (("mini", given.mini), ("gpt2", given.gpt2)):
        tokenizer = load(folder)
        with open(given.out / f"{name}-encode.tsv", "w") as out:
            for text in texts(given.seed, given.count):
                ids = tokenizer.encode(text.decode("utf-8", "replace")).ids
                out.write(text.hex() + "\t" + " ".join(map(str, ids)) + "\n")
        r = random.Random(given.seed + 1)
        with open(given.out / f"{name}-decode.tsv", "w") as out:
            for _ in range(given.count // 4):
                ids = [r.randrange(tokenizer.get_vocab_size()) for _ in range(r.choice([1, 1, 2, 3, 8]))]
                text = tokenizer.decode(ids, skip_special_tokens=False)
                out.write(" ".join(map(str, ids)) + "\t" + text.encode().hex() + "\n")


if __name__ == "__main__":
    main()
