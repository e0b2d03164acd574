"""Writes the golden values of LayerNorm geometry: numpy in float64, from the definitions.

Regenerate (from the repository's root; seconds, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_geometry_golden.py
    /tmp/golden/bin/python Tests/Golden/make_geometry_golden.py --check    # compare with the committed files

The checkpoints are those that make_golden.py has written; "-rmsnorm" is one of them with RMSNorm in
LayerNorm's place; "mini" is the bundled model.  For every NAME it writes, under Tests/Fixtures/golden/,
geometry-NAME.h5.  The groups and the variables are those of NormLens' results:

    /prompts/P                     int64 token ids; the first prompt is a single token, and two prompts
                                   begin with the same tokens
    /ln_geometry/V                 [prompt, ln, pos], NaN past a prompt's end; the weights' own [ln, rank], [ln]
    /ln_geometry/summary/V         [position_class, ln, quantile]: first and rest; 5, 50, 95 percent;
                                   count [position_class]
    /ln_geometry/corpus/V          [ln, cloud]: input, normalized, output, positions from 1 on; count []
    /ln_geometry/writes/V          head_… [layer, head, reader], mlp_… [layer, reader]: next, final
    /ln_geometry/shape/V           [ln]: parameters and R² of three fits
    /ln_steps/V                    [prompt, ln, step, pos, d_model] of the positions in /steps_positions
    /renormalisation/V             component_gap [prompt, component], head_gap [prompt, layer, head] …; the
                                   answers are in /answers and /wrongs [prompt]

(mini has summaries only.)  Tokens and positions are int64, the rest float32, gzipped: computed in float64
and rounded once.

Conventions: x is the stream, z = (x - mean x)/scale, y = z * gain + bias.  RMSNorm has no mean to take
away.  In an LN-free model z = x - mean x with scale 1, gain 1 and bias 0: its gain and its constant
divisor are folded into the weights.
"""

import math
from pathlib import Path

import h5py
import numpy as np
import torch
from golden_files import FIXTURES, parser, write_or_check
from make_golden import attributes, direct_logit_attribution
from make_processing_golden import RMS_CHECKPOINT, rmsnorm
from reference_gpt2 import Config, ReferenceGPT2

NAMES = ["tiny-ln", "tiny-lnfree", f"{RMS_CHECKPOINT}-rmsnorm", "mini"]
BUNDLED = FIXTURES.parent.parent.parent / "notebooks-data" / "models"
# Of each prompt: its tokens (None: all that the model takes), and how many it shares with the second.
LENGTHS = [(1, 0), (None, 0), (5, 0), (7, 0), (None, 4), (3, 0), (2, 0), (None, 0)]
STEP_POSITIONS = [0, 3]
ANSWER, WRONG = 7, 3
CLOUDS = ["input", "normalized", "output"]


# -------------------------------------------------------------------- models and prompts


def bundled(name):
    """A model file of NormLens'; its LayerNorms, if it had any to fold, are folded."""
    with h5py.File(BUNDLED / f"{name}.h5") as file:
        a = file.attrs
        weights = {}

        def visit(path, item):
            if isinstance(item, h5py.Dataset):
                weights[path.replace("/", ".")] = torch.from_numpy(item[()])

        file["weights"].visititems(visit)
        config = Config(
            **{key: int(a[key]) for key in ["n_layers", "d_model", "n_heads", "d_mlp", "n_ctx", "d_vocab"]},
            activation=a["activation"].decode(),
            epsilon=float(a["layer_norm_epsilon"]),
            normalization=a["normalization"].decode(),
            scale_attn_weights=bool(a["scale_attn_weights"]),
            scale_attn_by_inverse_layer_idx=bool(a["scale_attn_by_inverse_layer_idx"]),
        )
    weights.setdefault("unembed.weight", weights["wte.weight"])
    return ReferenceGPT2.from_tensors(config, weights, fold=False)


def open_model(name):
    if name.startswith("mini"):
        return bundled(name)
    model = ReferenceGPT2.from_huggingface(FIXTURES / name.removesuffix("-rmsnorm"))
    if name.endswith("-rmsnorm"):
        rmsnorm(model)
    return model


def random_prompts(model, seed):
    rng = np.random.default_rng(seed)
    prompts = []
    longest = min(model.config.n_ctx, 60)
    for length, shared in LENGTHS:
        tokens = rng.integers(model.config.d_vocab, size=length or longest)
        if shared:
            tokens[:shared] = prompts[1][:shared]
        prompts.append(tokens)
    return prompts


class Site:
    """One place where the stream is normalised."""

    def __init__(self, model, label, hook, norm):
        self.label, self.hook, self.model = label, hook, model
        d = model.config.d_model
        self.kind, self.epsilon = model.config.normalization, model.config.epsilon
        self.gain = np.ones(d) if norm.gain is None else norm.gain.numpy()
        self.bias = np.zeros(d) if norm.bias is None else norm.bias.numpy()

    def z(self, x):
        if self.kind == "rmsnorm":
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon)
        centered = x - x.mean(-1, keepdims=True)
        if self.kind == "none":
            return centered
        return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + self.epsilon)

    def projected(self, x):
        return x if self.kind == "rmsnorm" else x - x.mean(-1, keepdims=True)

    def y(self, x):
        return self.z(x) * self.gain + self.bias

    def clouds(self, x):
        return [x, self.z(x), self.y(x)]


def sites(model):
    found = []
    for layer, block in enumerate(model.blocks):
        found.append(Site(model, f"L{layer}.ln1", f"blocks.{layer}.hook_resid_pre", block.ln1))
        found.append(Site(model, f"L{layer}.ln2", f"blocks.{layer}.hook_resid_mid", block.ln2))
    last = f"blocks.{model.config.n_layers - 1}.hook_resid_post"
    return found + [Site(model, "ln_final", last, model.ln_final)]


# -------------------------------------------------------------------- every token


def angle(a, b):
    """Degrees between the rows; of unit vectors twice the arctangent of difference over sum, which is
    exact for small angles too."""
    a = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)))


def token_geometry(site, x):
    """Every measure of the rows of x."""
    d = x.shape[-1]
    mean = x.mean(-1)
    centered = x - mean[..., None]
    variance = (centered**2).mean(-1)
    z = site.z(x)
    gained = z * site.gain
    ones = np.ones_like(x)
    squares = np.sort(x**2, axis=-1)[..., ::-1]
    cap = math.sqrt(d if site.kind == "rmsnorm" else d - 1)
    return {
        "mean": mean,
        "std": np.sqrt(variance),
        "norm": np.linalg.norm(x, axis=-1),
        "mean_share": mean**2 / (mean**2 + variance),
        "angle_to_ones": angle(x, ones),
        "angle_projection": np.zeros_like(mean) if site.kind == "rmsnorm" else angle(x, centered),
        "angle_gain": angle(z, gained),
        "angle_bias": angle(gained, gained + site.bias),
        "angle_total": angle(x, gained + site.bias),
        "radius_ratio": np.linalg.norm(z, axis=-1) / math.sqrt(d),
        "saturation": np.abs(z).max(-1) / cap / (np.sqrt(variance) if site.kind == "none" else 1),
        "kurtosis": (centered**4).mean(-1) / variance**2 - 3,
        "participation": (x**2).sum(-1) ** 2 / (x**4).sum(-1),
        "top_third_share": squares[..., : d // 3].sum(-1) / squares.sum(-1),
    }


def check_sheet():
    """The worked example of one token, and the Jacobian's kernel by finite differences."""

    class Example(Site):
        def __init__(self, gain, bias, epsilon):
            self.kind, self.epsilon, self.gain, self.bias = "layernorm", epsilon, gain, bias

    x = np.array([[1.0, 2, 3, 6]])
    site = Example(np.array([1, 2, 0.5, 1]), np.array([0.1, 0, 0, -0.1]), 0)
    assert np.allclose(site.z(x), [[-1.069045, -0.534522, 0, 1.603567]], atol=1e-6)
    found = token_geometry(site, x)
    for name, degrees in [("angle_to_ones", 31.9481), ("angle_projection", 58.0519),
                          ("angle_gain", 13.5158), ("angle_bias", 2.0009),
                          ("angle_total", 66.3364)]:  # fmt: skip
        assert abs(found[name][0] - degrees) < 1e-4, (name, found[name])
    # A write along 1 or (as epsilon goes to 0) z changes nothing to first order.
    rng = np.random.default_rng(0)
    x, site = rng.standard_normal((1, 9)) + 0.4, Example(rng.standard_normal(9), rng.standard_normal(9), 0)
    for direction in [np.ones((1, 9)), site.z(x)]:
        slope = (site.y(x + 1e-5 * direction) - site.y(x - 1e-5 * direction)) / 2e-5
        assert np.abs(slope).max() < 1e-9, slope


# -------------------------------------------------------------------- all tokens together


def spectrum_measures(x):
    """Of the rows of x: shares, anisotropy and the ranks of the covariance's eigenvalues."""
    n, d = x.shape
    u = np.ones(d) / math.sqrt(d)
    mean, energy = x.mean(0), (x**2).sum(-1).mean()
    covariance = np.cov(x, rowvar=False, bias=True)
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1].clip(min=0)
    p = eigenvalues / eigenvalues.sum()
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosines = unit @ unit.T
    return {
        "ones_share": ((x @ u) ** 2).mean() / energy,
        "ones_variance_share": (x @ u).var() / np.trace(covariance),
        "mean_vector_share": mean @ mean / energy,
        "mean_cosine": cosines[~np.eye(n, dtype=bool)].mean(),
        "top_component_share": p[0],
        "effective_rank": math.exp(-(p[p > 1e-300] * np.log(p[p > 1e-300])).sum()),
        "stable_rank": 1 / p[0],
        "participation_ratio": 1 / (p**2).sum(),
    }


def two_nn(x):
    """Facco et al. 2017: mu = r2/r1 is Pareto with the dimension as its exponent, so -ln(1 - F(mu)) is
    the dimension times ln mu; the line through the origin is fitted to the lowest nine tenths.

    Points within 1e-5 of the cloud's radius of an earlier one are the same point.  Returns the dimension, the
    points, and those left out.
    """
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    radius = math.sqrt(((x - x.mean(0)) ** 2).sum(-1).mean())
    kept = []
    for i in range(len(x)):
        if all(distances[i, j] > 1e-5 * radius for j in kept):
            kept.append(i)
    distances = distances[np.ix_(kept, kept)] + np.diag(np.full(len(kept), np.inf))
    nearest = np.sort(distances, axis=-1)
    mu = np.sort(nearest[:, 1] / nearest[:, 0])
    n = len(mu)
    used = 9 * n // 10
    log_mu, survival = np.log(mu[:used]), -np.log(1 - np.arange(1, used + 1) / n)
    return (log_mu @ survival) / (log_mu @ log_mu), n, len(x) - n


def check_two_nn():
    """Uniform cubes of known dimension in 20 dimensions; in ten of them most points are near the edge."""
    rng = np.random.default_rng(5)
    for dimension, low, high in [(2, 1.85, 2.15), (5, 4.5, 5.3), (10, 7.5, 10)]:
        basis = np.linalg.qr(rng.standard_normal((20, dimension)))[0]
        found = two_nn(rng.random((1000, dimension)) @ basis.T)[0]
        assert low < found < high, (dimension, found)


# -------------------------------------------------------------------- weights alone


def ellipsoid(site):
    """What the norm's output set looks like: {gain * z + bias} is an ellipsoid around the bias."""
    gain, bias, d = site.gain, site.bias, len(site.gain)
    P = np.eye(d) - (0 if site.kind == "rmsnorm" else np.ones((d, d)) / d)
    s = np.linalg.svd(np.diag(gain) @ P, compute_uv=False)
    flat = d - np.linalg.matrix_rank(np.diag(gain) @ P)
    s[d - flat :] = 0
    p = s[: d - flat] ** 2 / (s**2).sum()
    size = np.abs(gain)
    deviation = np.abs(size - np.median(size))

    def cosine(v):
        return v.sum() / (math.sqrt(d) * np.linalg.norm(v))

    return {
        "semi_axis": math.sqrt(d) * s,
        "condition": s[0] / s[d - flat - 1],
        "gain_effective_rank": math.exp(-(p * np.log(p)).sum()),
        "bias_ratio": np.linalg.norm(bias) / (math.sqrt(d) * math.sqrt((gain**2).mean())),
        "gain_ones_cosine": cosine(gain),
        "bias_ones_cosine": cosine(bias),
        "gain_outliers": (deviation > 3 * np.median(deviation)).sum(),
        "gain_sign_flips": (gain < 0).sum(),
        "sorted_gain": np.sort(size)[::-1],
    }


# -------------------------------------------------------------------- what norms discard of writes


def discarded(site, write, x):
    """[…, (ones, radial)] of the writes [pos, …, d_model] into the rows x [pos, d_model]: the share of their
    squared norm that lies along the directions which the norm does not see to first order."""
    d = x.shape[-1]
    z = site.z(x).reshape(len(x), *[1] * (write.ndim - 2), d)
    norm = (write**2).sum(-1)
    ones = write.sum(-1) ** 2 / d / norm
    radial = (write * z).sum(-1) ** 2 / (z**2).sum(-1) / norm
    if site.kind == "rmsnorm":
        ones = 0 * ones
    if site.kind == "none":
        radial = 0 * radial
    return np.stack([ones, radial], -1)


def writes(model, places, runs):
    """What of each write the next and the final norm discard, means over positions, by class."""
    found = {}
    for layer in range(model.config.n_layers):
        for kind, hook, following in [("head", "attn.hook_result", 2 * layer + 1),
                                      ("mlp", "hook_mlp_out", 2 * layer + 2)]:  # fmt: skip
            for reader, site in [("next", places[following]), ("final", places[-1])]:
                shares = [
                    discarded(site, run[f"blocks.{layer}.{hook}"], run[site.hook]) for run in runs
                ]
                for ending, part in [("_first", [s[:1] for s in shares]), ("", [s[1:] for s in shares])]:
                    mean = np.concatenate(part).mean(0)
                    for name, value in [("", mean.sum(-1)), ("_ones", mean[..., 0]),
                                        ("_radial", mean[..., 1])]:  # fmt: skip
                        key = f"{kind}_discarded{name}{ending}"
                        found.setdefault(key, {}).setdefault(layer, {})[reader] = value
    return {
        key: np.stack([np.stack([by["next"], by["final"]], -1) for by in layers.values()])
        for key, layers in found.items()
    }


# -------------------------------------------------------------------- the shape of the clouds (x_i, z_i)


def best_factor(f, z):
    """c of the best c * f, and its loss."""
    c = (f @ z) / (f @ f)
    return c, ((z - c * f) ** 2).sum()


def descend(loss, start, floor, width):
    """Minimises a function of (log alpha, s), log alpha at least `floor`: coordinate and diagonal steps that
    are halved when none of them helps."""
    place, least = np.array(start), loss(*start)
    moves = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    while width > 1e-9:
        for move in moves:
            there = place + width * np.array(move)
            if there[0] >= floor and (found := loss(*there)) < least:
                place, least = there, found
                break
        else:
            width /= 2
    return place, least


def shape_fits(site, x):
    """Least squares over all coordinates of all rows.  alpha is at least 1e-3 over the root mean square of x:
    there tanh is a straight line.  An LN-free norm's cloud is that of the stream with itself."""
    z = (x if site.kind == "none" else site.z(x)).ravel()
    x = x.ravel()
    total = ((z - z.mean()) ** 2).sum()
    slope, rest = best_factor(x, z)
    found = {"linear_slope": slope, "linear_r2": 1 - rest / total}
    floor = math.log(1e-3 / math.sqrt((x**2).mean()))
    tanh, erf = np.tanh, lambda t: torch.erf(torch.from_numpy(t)).numpy()

    def curve(f, shifts):
        def loss(log_alpha, s):
            return best_factor(f(math.exp(log_alpha) * x + s), z)[1]

        starts = [(floor + i / 2, s) for i in range(28) for s in shifts]
        start = min(starts, key=lambda at: loss(*at))
        fixed = len(shifts) == 1
        (log_alpha, s), least = descend(lambda a, s: loss(a, 0 if fixed else s), start, floor, 0.1)
        s = 0 if fixed else s
        return best_factor(f(math.exp(log_alpha) * x + s), z)[0], math.exp(log_alpha), s, 1 - least / total

    c, alpha, _, r2 = curve(tanh, [0])
    found |= {"tanh_c": c, "tanh_alpha": alpha, "tanh_r2": r2}
    c, alpha, s, r2 = curve(erf, [-0.3, 0, 0.3])
    return found | {"erf_c": c, "erf_alpha": alpha, "erf_s": s, "erf_r2": r2}


# -------------------------------------------------------------------- files


def renormalisation(model, prompts):
    """What the recomputed final scale adds to each part's frozen attribution; exactly 0 without norms."""
    found = {}
    for tokens in prompts:
        run = model.run(tokens)
        values = direct_logit_attribution(model, run, ANSWER, WRONG).values
        bias = values["components"][-1:]
        effect = torch.cat([values["components_direct_effect"], bias])
        whole = effect.abs().sum()
        gaps = {
            "component_gap": effect - values["components"],
            "head_gap": values["heads_direct_effect"] - values["heads"],
        }
        for name, gap in gaps.items():
            gap = 0 * gap if model.is_ln_free else gap
            found.setdefault(name, []).append(gap.numpy())
            found.setdefault(f"{name}_relative", []).append((gap / whole).numpy())
    return {name: np.stack(values) for name, values in found.items()}


def array(file, path, values, dtype=np.float32):
    values = np.asarray(values, dtype)
    if values.ndim == 0:
        file.create_dataset(path, data=values)
    else:
        file.create_dataset(
            path, data=values, chunks=values.shape, compression="gzip", compression_opts=9, shuffle=True
        )


def geometry_file(root, name):
    return root / f"geometry-{name}.h5"


def write_golden(name, path):
    model = open_model(name)
    seed = 600 + NAMES.index(name)
    prompts = random_prompts(model, seed)
    places = sites(model)
    runs = [{hook: value.numpy() for hook, value in model.run(tokens).items()} for tokens in prompts]
    longest = max(map(len, prompts))

    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        attributes(
            file,
            model=name,
            normalization=model.config.normalization,
            norms=",".join(site.label for site in places),
            generator="Tests/Golden/make_geometry_golden.py",
            numpy=np.__version__,
            seed=seed,
        )
        for p, tokens in enumerate(prompts):
            array(file, f"prompts/{p}", tokens, np.int64)

        by_site = [[token_geometry(site, run[site.hook]) for run in runs] for site in places]
        for variable in by_site[0][0]:
            if name != "mini":
                padded = np.full((len(prompts), len(places), longest), np.nan)
                for i, of_prompts in enumerate(by_site):
                    for p, measures in enumerate(of_prompts):
                        padded[p, i, : len(prompts[p])] = measures[variable]
                array(file, f"ln_geometry/{variable}", padded)
            quantiles = np.stack(
                [
                    [
                        np.percentile(np.concatenate([m[variable][rows] for m in of_prompts]), [5, 50, 95])
                        for of_prompts in by_site
                    ]
                    for rows in [slice(0, 1), slice(1, None)]
                ]
            )
            array(file, f"ln_geometry/summary/{variable}", quantiles)
        rest = sum(len(tokens) - 1 for tokens in prompts)
        array(file, "ln_geometry/summary/count", [len(prompts), rest])

        if model.config.normalization != "none":
            of_weights = [ellipsoid(site) for site in places]
            for variable in of_weights[0]:
                array(file, f"ln_geometry/{variable}", np.stack([m[variable] for m in of_weights]))

        measures, fits = {}, {}
        for site in places:
            x = np.concatenate([run[site.hook][1:] for run in runs])
            for variable, value in shape_fits(site, x).items():
                fits.setdefault(variable, []).append(value)
            for cloud in site.clouds(x):
                found = spectrum_measures(cloud)
                dimension, points, same = two_nn(cloud)
                found |= {
                    "intrinsic_dimension": dimension,
                    "intrinsic_dimension_points": points,
                    "intrinsic_dimension_duplicates": same,
                }
                for variable, value in found.items():
                    measures.setdefault(variable, []).append(value)
        for variable, values in measures.items():
            array(file, f"ln_geometry/corpus/{variable}", np.reshape(values, (len(places), len(CLOUDS))))
        array(file, "ln_geometry/corpus/count", rest)
        for variable, values in fits.items():
            array(file, f"ln_geometry/shape/{variable}", values)

        for variable, values in writes(model, places, runs).items():
            array(file, f"ln_geometry/writes/{variable}", values)

        if name != "mini":
            steps = np.full((len(prompts), len(places), 5, longest, model.config.d_model), np.nan)
            for p, run in enumerate(runs):
                for i, site in enumerate(places):
                    for position in STEP_POSITIONS:
                        if position < len(prompts[p]):
                            x = run[site.hook][position]
                            z = site.z(x)
                            values = [x, site.projected(x), z, z * site.gain, site.y(x)]
                            steps[p, i, :, position] = values
            array(file, "steps_positions", STEP_POSITIONS, np.int64)
            array(file, "ln_steps/vector", steps[:, :, :, STEP_POSITIONS])
        for variable, values in renormalisation(model, prompts).items():
            array(file, f"renormalisation/{variable}", values)
        array(file, "answers", [ANSWER] * len(prompts), np.int64)
        array(file, "wrongs", [WRONG] * len(prompts), np.int64)
    print(f"{name}: {rest} tokens, {path.stat().st_size / 1000:.0f} kB")


def make(root):
    for name in NAMES:
        write_golden(name, geometry_file(root, name))


def main():
    arguments = parser("Write the golden values of LayerNorm geometry.").parse_args()
    check_sheet()
    check_two_nn()
    # kept as float32; fits end a few roundings apart
    write_or_check(arguments, make, [geometry_file(Path(), name) for name in NAMES], 1e-6)

if __name__ == "__main__":
    main()
