"""Writes the golden values of the residual stream's measures: numpy in float64, from the definitions.

Regenerate (from the repository's root; seconds, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_stream_golden.py
    /tmp/golden/bin/python Tests/Golden/make_stream_golden.py --check    # compare with the committed files

Models and prompts are those of make_geometry_golden.py.  For every NAME it writes stream-NAME.h5 under
Tests/Fixtures/golden/; groups and variables are those of NormLens' results:

    /prompts/P                     int64 token ids; the first prompt is a single token
    /stream/V                      [prompt, stream, pos], NaN past a prompt's end
    /stream/summary/V              [position_class, stream, quantile]; count [position_class]
    /stream/growth/V               [position_class, stream], final_share [position_class, component],
                                   block_influence [layer]
    /stream/linearity/V            [layer]; count []
    /stream/distance/V             [layer, layer_to]; count []
    /stream/massive/V              [stream, rank], [stream]
    /stream/spectra/V              [prompt, stream]; those that end in _reference follow the repositories
    /stream/spectra/summary/V      [stream]: means over the prompts that have a value
    /few/linearity/V               [layer]: of the first prompts only, whose tokens are fewer than
                                   dimensions; how many is in /few_prompts [1]

(mini has no values of single tokens.)  The rest is float32, gzipped: computed in float64 and rounded once.
"""

import math
from pathlib import Path

import h5py
import numpy as np
from golden_files import parser, write_or_check
from make_geometry_golden import NAMES, angle, array, open_model, random_prompts
from make_golden import attributes

FEW = 3


def rest(values):
    """The rows of all prompts at positions from 1 on."""
    return np.concatenate([v[1:] for v in values])


def centred(x, axis=-1):
    return x - x.mean(axis, keepdims=True)


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


# -------------------------------------------------------------------- every token


def token_measures(x, before):
    found = {"norm": np.linalg.norm(x, axis=-1), "variance": x.var(-1)}
    missing = np.full(len(x), np.nan)
    if before is None:
        return found | {"turn_angle": missing, "relative_write": missing, "write_cosine": missing}
    write = x - before
    return found | {
        "turn_angle": angle(before, x),
        "relative_write": np.linalg.norm(write, axis=-1) / np.linalg.norm(before, axis=-1),
        "write_cosine": cosine(write, before),
    }


def growth(streams, layers):
    """streams[s][p] is [pos, d]."""
    found = {}
    for rows in [slice(0, 1), slice(1, None)]:
        tokens = [np.concatenate([x[rows] for x in of]) for of in streams]
        variance = [x.var(-1) for x in tokens]
        means = np.array([v.mean() for v in variance])
        last = centred(tokens[-1])
        writes = [tokens[0]] + [b - a for a, b in zip(tokens, tokens[1:])]
        for name, values in {
            "variance_mean": means,
            "variance_median": [np.median(v) for v in variance],
            "mean_square": [(x**2).mean() for x in tokens],
            "growth": np.concatenate([[np.nan], means[1:] / means[:-1]]),
            "final_share": [(centred(w) * last).sum() / (last**2).sum() for w in writes],
        }.items():
            found.setdefault(name, []).append(values)
    whole = [np.concatenate(of) for of in streams[::2]]
    found["block_influence"] = [1 - cosine(a, b).mean() for a, b in zip(whole, whole[1:])]
    assert len(found["block_influence"]) == layers
    return found


# -------------------------------------------------------------------- linearity


def linear_score(x, y):
    """1 - min_A |XA - Y|^2 of centred matrices of Frobenius norm 1, and the rank of X."""
    x, y = centred(x, 0), centred(y, 0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    u = u[:, s > 1e-7 * s[0]]
    return (np.square(u.T @ y)).sum(), u.shape[1]


def linearity(blocks):
    """Of the streams before each block and behind the last, each [tokens, d]."""
    found = {}
    for x, y in zip(blocks, blocks[1:]):
        for name, target in [("linearity", y), ("linearity_without_residual", y - x)]:
            score, rank = linear_score(x, target)
            chance = rank / (len(x) - 1)
            found.setdefault(name, []).append(score)
            found.setdefault(f"{name}_adjusted", []).append(
                (score - chance) / (1 - chance) if len(x) > rank + 1 else np.nan
            )
        found.setdefault("rank", []).append(rank)
    return found | {"count": len(blocks[0])}


def check_linearity():
    """The baselines: unrelated data, too few rows, and a residual with noise."""
    rng = np.random.default_rng(0)
    for n, d in [(1000, 10), (11, 10), (6, 10)]:
        scores = [linear_score(rng.standard_normal((n, d)), rng.standard_normal((n, d))) for _ in range(50)]
        assert abs(np.mean([s for s, _ in scores]) - scores[0][1] / (n - 1)) < 1e-3, (n, d)
    x = rng.standard_normal((20000, 10))
    for e in [0.5, 1, 2]:
        score, _ = linear_score(x, x + e * rng.standard_normal(x.shape))
        assert abs(score - 1 / (1 + e**2)) < 1e-2, (e, score)


# -------------------------------------------------------------------- distances, largest activations


def distances(blocks):
    """blocks[l][p] is [pos, d]; the last token of prompts of two tokens or more."""
    last = np.array([[x[-1] for x in of if len(x) > 1] for of in blocks])
    found = {"count": last.shape[1]}
    for name, states in [("angular_distance", last), ("angular_distance_centred", centred(last))]:
        values = np.full((len(blocks), len(blocks)), np.nan)
        for i in range(len(blocks)):
            for j in range(i, len(blocks)):
                values[i, j] = (np.degrees(np.arccos(np.clip(cosine(states[i], states[j]), -1, 1))) / 180).mean()
        np.fill_diagonal(values, 0)
        found[name] = values
    return found


def massive(streams):
    found = {}
    for of in streams:
        best = {}
        for p, x in enumerate(of):
            for (t, i), value in np.ndenumerate(np.abs(x)):
                if value > best.get((t, i), (0,))[0]:
                    best[t, i] = (value, p, t, i)
        top = sorted(best.values(), key=lambda a: -a[0])[:3]
        for name, column in zip(["", "_prompt", "_pos", "_dim"], zip(*top)):
            found.setdefault(f"top_activation{name}", []).append(column)
        every = np.abs(np.concatenate([x.ravel() for x in of]))
        median = np.median(every)
        found.setdefault("median_activation", []).append(median)
        found.setdefault("ratio", []).append(every.max() / median)
        found.setdefault("massive", []).append(((every > 100) & (every >= 1000 * median)).sum())
    return found


# -------------------------------------------------------------------- spectra


def entropy(eigenvalues):
    p = eigenvalues[eigenvalues > 1e-12 * max(eigenvalues.max(), 0)]
    if len(p) == 0:
        return np.nan
    p = p / p.sum()
    return abs(-(p * np.log(p)).sum())


def mean_angle(a, b):
    if len(a) == 0:
        return np.nan
    return np.arccos(np.clip(cosine(a, b), -1, 1)).mean()


def spectra(x):
    """Of the tokens [T, d] of a prompt."""
    T, d = x.shape
    if T == 1:
        names = ["prompt_entropy", "prompt_entropy_normalized", "effective_rank", "curvature"]
        return {name + ending: np.nan for name in names for ending in ["", "_reference"]}
    z = centred(x, 0)
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    gram = z @ z.T if T <= d else z.T @ z
    steps = np.diff(x, axis=0)
    found = {}
    for ending, matrix, curvature in [
        ("", gram, mean_angle(steps[:-1], steps[1:])),
        ("_reference", gram.clip(min=0), mean_angle(z[:-1], z[1:])),
    ]:
        s = entropy(np.linalg.eigvalsh(matrix))
        found |= {
            f"prompt_entropy{ending}": s,
            f"prompt_entropy_normalized{ending}": s / math.log(min(T, d)),
            f"effective_rank{ending}": math.exp(s),
            f"curvature{ending}": curvature,
        }
    return found


def check_spectra():
    found = spectra(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]))
    assert abs(found["prompt_entropy"] - 0.887784) < 1e-6, found
    assert abs(found["prompt_entropy_reference"] - 1.065039) < 1e-6, found
    found = spectra(np.array([[0.0, 0], [1, 0], [2, 0], [2, 1]]))
    assert abs(found["curvature"] - math.pi / 4) < 1e-12, found
    assert abs(found["curvature_reference"] - 1.2432) < 1e-4, found
    rng = np.random.default_rng(0)
    found = spectra(rng.standard_normal((128, 768)))
    assert abs(found["prompt_entropy"] - 4.762) < 2e-3, found
    assert abs(found["prompt_entropy_reference"] - 4.825) < 2e-3, found


# -------------------------------------------------------------------- files


def stream_file(root, name):
    return root / f"stream-{name}.h5"


def write_golden(name, path):
    model = open_model(name)
    layers = model.config.n_layers
    seed = 700 + NAMES.index(name)
    prompts = random_prompts(model, seed)
    runs = [{hook: value.numpy() for hook, value in model.run(tokens).items()} for tokens in prompts]
    hooks = [f"blocks.{l}.hook_resid_{at}" for l in range(layers) for at in ["pre", "mid"]]
    hooks += [f"blocks.{layers - 1}.hook_resid_post"]
    streams = [[run[hook] for run in runs] for hook in hooks]
    longest = max(map(len, prompts))

    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        attributes(
            file, model=name, normalization=model.config.normalization,
            generator="Tests/Golden/make_stream_golden.py", numpy=np.__version__, seed=seed,
        )  # fmt: skip
        for p, tokens in enumerate(prompts):
            array(file, f"prompts/{p}", tokens, np.int64)
        array(file, "few_prompts", [FEW], np.int64)
        tokens = [
            [token_measures(x, streams[s - 1][p] if s else None) for p, x in enumerate(of)]
            for s, of in enumerate(streams)
        ]
        for variable in tokens[0][0]:
            if name != "mini":
                padded = np.full((len(prompts), len(streams), longest), np.nan)
                for s, of in enumerate(tokens):
                    for p, measures in enumerate(of):
                        padded[p, s, : len(prompts[p])] = measures[variable]
                array(file, f"stream/{variable}", padded)
            quantiles = [
                [np.percentile(np.concatenate([m[variable][rows] for m in of]), [5, 50, 95]) for of in tokens]
                for rows in [slice(0, 1), slice(1, None)]
            ]
            array(file, f"stream/summary/{variable}", quantiles)
        count = sum(len(tokens) - 1 for tokens in prompts)
        array(file, "stream/summary/count", [len(prompts), count])
        blocks = streams[::2]
        of_prompts = [[spectra(of[p]) for of in streams] for p in range(len(prompts))]
        groups = {
            "stream/growth": growth(streams, layers),
            "stream/linearity": linearity([rest(of) for of in blocks]),
            "few/linearity": linearity([rest(of[:FEW]) for of in blocks]),
            "stream/distance": distances(blocks),
            "stream/massive": massive(streams),
        }
        for variable in of_prompts[0][0]:
            values = np.array([[m[variable] for m in of] for of in of_prompts])
            if name != "mini":
                array(file, f"stream/spectra/{variable}", values)
            groups.setdefault("stream/spectra/summary", {})[variable] = np.nanmean(values, 0)
        for group, variables in groups.items():
            for variable, values in variables.items():
                array(file, f"{group}/{variable}", values)
    print(f"{name}: {count} tokens, {path.stat().st_size / 1000:.0f} kB")


def make(root):
    for name in NAMES:
        write_golden(name, stream_file(root, name))


def main():
    arguments = parser("Write the golden values of the residual stream's measures.").parse_args()
    check_linearity()
    check_spectra()
    # kept as float32
    write_or_check(arguments, make, [stream_file(Path(), name) for name in NAMES], 1e-6)


if __name__ == "__main__":
    main()
