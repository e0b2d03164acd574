#!/usr/bin/env python3
"""Writes Sources/HookedGPT2/Tokenizer/UnicodeClasses.swift: the letters, numbers and white space of GPT-2's
pre-tokenisation pattern, probed scalar by scalar from the `tokenizers` library (0.23.3 when last run).

    python3 Tests/make_unicode_classes.py        # pip install tokenizers; about 10 seconds

The pattern is  's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+  and nothing but its
behaviour is asked: a scalar is a letter if it stays in one piece behind an "a", a number behind a "1", and anything
else that is not white space behind a "!".
"""
from pathlib import Path

import tokenizers
from tokenizers.pre_tokenizers import ByteLevel

OTHER, LETTER, NUMBER, SPACE = range(4)
pieces = ByteLevel(add_prefix_space=False).pre_tokenize_str


def class_of(scalar: int) -> int:
    if 0xD800 <= scalar <= 0xDFFF:
        return OTHER  # surrogates: no text holds them
    found = [
        kind for kind, before in ((LETTER, "a"), (NUMBER, "1"), (OTHER, "!"))
        if len(pieces(before + chr(scalar))) == 1
    ]
    assert len(found) <= 1, f"U+{scalar:04X} is in classes {found}"
    return found[0] if found else SPACE


boundaries = []  # first scalar of each run of one class, and that class
for scalar in range(0x110000):
    kind = class_of(scalar)
    if not boundaries or boundaries[-1][1] != kind:
        boundaries.append((scalar, kind))

lines, line = [], "   "
for scalar, kind in boundaries:
    item = f" 0x{scalar << 2 | kind:X},"
    if len(line) + len(item) > 100:
        lines.append(line)
        line = "   "
    line += item
lines.append(line)

out = Path(__file__).resolve().parent.parent / "Sources/HookedGPT2/Tokenizer/UnicodeClasses.swift"
out.write_text(f"""\
// Written by Tests/make_unicode_classes.py from the behaviour of tokenizers {tokenizers.__version__}; do not edit.

/// The classes of Unicode scalars that GPT-2's pre-tokenisation pattern tells apart.
enum UnicodeClass: UInt8 {{
  case other = {OTHER}
  case letter = {LETTER}
  case number = {NUMBER}
  case space = {SPACE}
}}

/// The class of every Unicode scalar, as the reference tokenizer has it.
enum UnicodeClasses {{
  /// The runs of scalars of one class in ascending order: the first scalar of a run shifted left by
  /// two bits, plus the raw value of its class.
  // swift-format-ignore
  static let runs: [UInt32] = [
{chr(10).join(lines)}
  ]
}}
""")
print(f"{out.name}: {len(boundaries)} runs")
