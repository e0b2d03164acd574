"""Writes the checkpoints and golden values that the Swift tests are held against.

Regenerate (from the repository's root; a minute, and the numbers come out the same):

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install -r Tests/Golden/requirements.txt
    /tmp/golden/bin/python Tests/Golden/make_golden.py
    /tmp/golden/bin/python Tests/Golden/make_golden.py --check    # compare with the committed files

For every checkpoint NAME it writes, under Tests/Fixtures/golden/:

NAME/config.json, model.safetensors    a random Hugging Face checkpoint in float32
NAME.h5                                float64 values computed from those very weights:

    /prompts/P/tokens                  int64; P = t1 (1 token), full (n_ctx), a (5), b (7), c (3), d (5),
                                       e (2)
    /hooks/P/HOOK                      for P = t1, full, b every hook under its TransformerLens name (no
                                       batch axis; masked scores are -inf); for the others the last
                                       hook_resid_post and unembed.hook_out, the logits
    /frozen/ln_scale/logits            prompt `a`, every LN scale frozen to prompt `d`'s
    /frozen/pattern/logits             prompt `a`, every attention pattern frozen to prompt `d`'s
    /dla/P                             P = a, full, b: logit difference of the tokens `answer` and `wrong` at
                                       the last position.  components [component] (names in the attribute
                                       `labels`, bias last), heads [layer, head], neurons [d_mlp] of the last
                                       layer: attribution through the cached final scale;
                                       components_direct_effect (without bias), heads_direct_effect,
                                       neurons_direct_effect: LN recomputed without the component; target [1]
    /dla_single/P                      the same for the answer's logit alone
                                       /dla and /dla_single carry nmae_pooled, nmae_head_mean (percent)
    /logit_lens/P/recomputed           [stream, pos, vocab], each stream through its own final LN
    /logit_lens/P/frozen               the same with final_post's scale; the attribute `streams` names them
    /interventions/000 …               (tiny-ln, tiny-lnfree; prompt b) attributes site, op, positions
                                       ("" = all, else "2,5"), head ("-1" = all), prompt, finite ("true"
                                       unless some logit is inf or NaN); `value` for replace and add, in the
                                       site's full shape; `logits` [pos, vocab] of the intervened run;
                                       /interventions has their number, `count`

Every attribute is a string; every dataset is float64, gzipped, except tokens.

The model is reference_gpt2.py.  Here it is checked on every checkpoint against transformers'
GPT2LMHeadModel (float64, eager attention; difference below 1e-10): logits, patterns, and every hook and
every intervention for which transformers has a module boundary.  The other interventions are tied to
these by identities (`check_interventions`).
"""

import math
import os
from contextlib import contextmanager
from dataclasses import dataclass, field

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import h5py
import numpy as np
import torch
import transformers
from golden_files import parser, write_or_check
from reference_gpt2 import (
    BLOCK_SITES,
    FIRST_SITES,
    LAST_SITES,
    LN_FREE_EPSILON,
    Intervention,
    ReferenceGPT2,
    axes,
    hook_names,
)

TOLERANCE = 1e-10

PROMPT_LENGTHS = {"t1": 1, "full": None, "a": 5, "b": 7, "c": 3, "d": 5, "e": 2}  # None = n_ctx
ALL_HOOKS_PROMPTS = ["t1", "full", "b"]
ATTRIBUTION_PROMPTS = ["a", "full", "b"]
ANSWER, WRONG = 7, 3
PARTIAL_POSITIONS, PARTIAL_HEAD = (2, 5), 1  # of the interventions on a part of a site


# -------------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """A random GPT-2.  `query_key` is about the standard deviation of the entries of q and k."""

    name: str
    seed: int
    config: dict
    family: str = "layernorm"  # "layernorm", or an LN-free family: "schaeff" or "apollo"
    query_key: float = 1.4
    interventions: bool = False


def shape(n_layer, n_head, n_embd, n_positions, vocab_size, **more):
    return dict(
        n_layer=n_layer, n_head=n_head, n_embd=n_embd, n_positions=n_positions, vocab_size=vocab_size,
        bos_token_id=0, eos_token_id=0, **more,
    )  # fmt: skip


STANDARD = dict(n_layer=2, n_head=3, n_embd=24, n_positions=16, vocab_size=53)
CHECKPOINTS = [
    Checkpoint("tiny-ln", 1, shape(**STANDARD), interventions=True),
    Checkpoint("tiny-lnfree", 2, shape(**STANDARD), family="schaeff", interventions=True),
    Checkpoint("tiny-apollo", 3, shape(**STANDARD), family="apollo"),
    Checkpoint("tiny-1x1", 4, shape(1, 1, 8, 8, 11, n_inner=20)),
    Checkpoint(
        "tiny-relu-untied", 5,
        shape(2, 2, 16, 12, 23, activation_function="relu", tie_word_embeddings=False,
              scale_attn_by_inverse_layer_idx=True),
    ),
    Checkpoint(
        "tiny-gelu-erf", 6,
        shape(1, 2, 16, 12, 23, activation_function="gelu", scale_attn_weights=False),
        query_key=0.9,
    ),
]  # fmt: skip


def random_weights(checkpoint):
    """Seeded float32 weights by Hugging Face name; every bias and every gain does something.

    The embeddings have a mean and rows of unequal length, so that centring and the LN scale matter.
    """
    rng = np.random.default_rng(checkpoint.seed)
    config = transformers.GPT2Config(**checkpoint.config)
    d, d_mlp = config.n_embd, config.n_inner or 4 * config.n_embd

    def normal(*shape, std, mean=0.0):
        return mean + std * rng.standard_normal(shape)

    def norm(sigma):
        """Gain and bias.  `sigma` is the constant standard deviation of an LN-free checkpoint."""
        gain, bias = normal(d, std=0.35, mean=1.0), normal(d, std=0.3)
        if checkpoint.family != "layernorm":
            gain = gain * 1e6 / sigma
        return gain, bias

    weights = {}
    row_length = np.exp(normal(config.vocab_size, 1, std=0.4))
    weights["transformer.wte.weight"] = row_length * normal(config.vocab_size, d, std=1.0) + 0.3
    weights["transformer.wpe.weight"] = normal(config.n_positions, d, std=0.5, mean=-0.1)
    for layer in range(config.n_layer):
        h = f"transformer.h.{layer}"
        ln_1, ln_2 = norm(sigma=1.2 + 0.6 * layer), norm(sigma=1.5 + 0.6 * layer)
        q_k = normal(d, 2 * d, std=checkpoint.query_key / math.sqrt(d))
        v = normal(d, d, std=1.0 / math.sqrt(d))
        W_attn, c_attn = np.concatenate([q_k, v], axis=1), normal(3 * d, std=0.3)
        W_fc, c_fc = normal(d, d_mlp, std=1.0 / math.sqrt(d)), normal(d_mlp, std=0.3)
        if checkpoint.family == "apollo":  # its authors folded gain, sigma and bias, not the centring
            W_attn, c_attn = ln_1[0][:, None] / 1e6 * W_attn, c_attn + ln_1[1] @ W_attn
            W_fc, c_fc = ln_2[0][:, None] / 1e6 * W_fc, c_fc + ln_2[1] @ W_fc
            ln_1 = ln_2 = np.full(d, 1e6), np.zeros(d)
        weights |= {
            f"{h}.ln_1.weight": ln_1[0],
            f"{h}.ln_1.bias": ln_1[1],
            f"{h}.attn.c_attn.weight": W_attn,
            f"{h}.attn.c_attn.bias": c_attn,
            f"{h}.attn.c_proj.weight": normal(d, d, std=1.0 / math.sqrt(d)),
            f"{h}.attn.c_proj.bias": normal(d, std=0.3),
            f"{h}.ln_2.weight": ln_2[0],
            f"{h}.ln_2.bias": ln_2[1],
            f"{h}.mlp.c_fc.weight": W_fc,
            f"{h}.mlp.c_fc.bias": c_fc,
            f"{h}.mlp.c_proj.weight": normal(d_mlp, d, std=1.5 / math.sqrt(d_mlp)),
            f"{h}.mlp.c_proj.bias": normal(d, std=0.3),
        }
    ln_f = norm(sigma=2.4)
    weights |= {"transformer.ln_f.weight": ln_f[0], "transformer.ln_f.bias": ln_f[1]}
    if not config.tie_word_embeddings:
        weights["lm_head.weight"] = normal(config.vocab_size, d, std=1.0)
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights.items()}


def write_checkpoint(checkpoint, directory):
    """A Hugging Face directory, written by save_pretrained."""
    epsilon = 1e-5 if checkpoint.family == "layernorm" else 1e12
    config = transformers.GPT2Config(**checkpoint.config, layer_norm_epsilon=epsilon)
    model = transformers.GPT2LMHeadModel(config)
    weights = random_weights(checkpoint)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= ({"lm_head.weight"} if config.tie_word_embeddings else set()), missing
    model.tie_weights()
    model.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)
    (directory / "generation_config.json").unlink(missing_ok=True)  # says nothing about the model


def random_prompts(checkpoint):
    rng = np.random.default_rng(1000 + checkpoint.seed)
    n_ctx, vocab = checkpoint.config["n_positions"], checkpoint.config["vocab_size"]
    return {p: rng.integers(vocab, size=length or n_ctx) for p, length in PROMPT_LENGTHS.items()}


# -------------------------------------------------------------------- transformers as the judge


class Judge:
    """transformers' model, and where in it each hook's value passes between two modules.

    An LN-free checkpoint with eps = 1e12 is affine only up to var / (2 eps), some 1e-12 of every value,
    which a random model turns into 1e-9 of its logits.  Moving eps to 1e18 and the gains up by 1e3 keeps
    the affine map and takes that error a million times down: this is the model judged to 1e-10.
    `as_published` leaves the checkpoint alone.
    """

    def __init__(self, directory, as_published=False):
        self.model = transformers.GPT2LMHeadModel.from_pretrained(
            directory, dtype=torch.float64, attn_implementation="eager"
        ).eval()
        self.n_heads = self.model.config.n_head
        self.is_ln_free = self.model.config.layer_norm_epsilon >= LN_FREE_EPSILON
        if self.is_ln_free and not as_published:
            for module in self.model.modules():
                if isinstance(module, torch.nn.LayerNorm):
                    module.eps *= 1e6
                    module.weight.data *= 1e3

    def place(self, name):
        """(module, "input" or "output", columns) that carry the hook, or None if nothing does."""
        t = self.model.transformer
        if name == "unembed.hook_in":  # an LN-free checkpoint's ln_f is still a module here
            return None if self.is_ln_free else (self.model.lm_head, "input", None)
        whole_model = {"hook_embed": t.wte, "hook_pos_embed": t.wpe, "unembed.hook_out": self.model.lm_head}
        if name in whole_model:
            return whole_model[name], "output", None
        if not name.startswith("blocks."):
            return None
        _, layer, site = name.split(".", 2)
        block = t.h[int(layer)]
        d = self.model.config.n_embd
        return {
            "hook_resid_pre": (block, "input", None),
            "attn.hook_q": (block.attn.c_attn, "output", slice(0, d)),
            "attn.hook_k": (block.attn.c_attn, "output", slice(d, 2 * d)),
            "attn.hook_v": (block.attn.c_attn, "output", slice(2 * d, 3 * d)),
            "attn.hook_z": (block.attn.c_proj, "input", None),
            "hook_attn_out": (block.attn.c_proj, "output", None),
            "hook_mlp_in": (block.ln_2, "input", None),
            "mlp.hook_pre": (block.mlp.c_fc, "output", None),
            "mlp.hook_post": (block.mlp.c_proj, "input", None),
            "hook_mlp_out": (block.mlp, "output", None),
            "hook_resid_post": (block, "output", None),
        }.get(site)

    @contextmanager
    def _watching(self, name, function):
        """`function(value)` sees the hook's value and returns None or another to put in its place."""
        module, side, columns = self.place(name)
        _, head_axis = axes(name)

        def visit(tensor):
            value = tensor[0] if columns is None else tensor[0][..., columns]
            if head_axis == 1:
                value = value.reshape(len(value), self.n_heads, -1)
            new = function(value)
            if new is None:
                return tensor
            tensor = tensor.clone()
            tensor[0][..., slice(None) if columns is None else columns] = new.flatten(1)
            return tensor

        if side == "input":
            handle = module.register_forward_pre_hook(lambda _, args: (visit(args[0]), *args[1:]))
        else:
            handle = module.register_forward_hook(lambda _, args, output: visit(output))
        try:
            yield
        finally:
            handle.remove()

    def logits(self, tokens, intervention=None):
        with torch.no_grad():
            if intervention is None:
                return self.model(torch.as_tensor(tokens)[None]).logits[0]
            with self._watching(intervention.site, intervention):
                return self.model(torch.as_tensor(tokens)[None]).logits[0]

    def hook(self, tokens, name):
        seen = []
        with torch.no_grad(), self._watching(name, lambda value: seen.append(value.clone())):
            self.model(torch.as_tensor(tokens)[None])
        return seen[0]

    def patterns(self, tokens):
        with torch.no_grad():
            output = self.model(torch.as_tensor(tokens)[None], output_attentions=True)
            return [pattern[0] for pattern in output.attentions]


def difference(x, y):
    """The largest absolute difference of two tensors of one shape (or that broadcast)."""
    return (x - y).abs().max().item()


def agree(x, y):
    """Finite and equal to 1e-10."""
    return difference(x, y) < TOLERANCE


def check_against_judge(model, judge, prompts, runs):
    """The largest difference over logits, patterns and all hooks that have a place in transformers."""
    pairs = []
    for p, tokens in prompts.items():
        pairs.append((runs[p]["unembed.hook_out"], judge.logits(tokens)))
        for layer, pattern in enumerate(judge.patterns(tokens)):
            pairs.append((runs[p][f"blocks.{layer}.attn.hook_pattern"], pattern))
        for name in hook_names(model.config.n_layers):
            if judge.place(name) is not None:
                pairs.append((runs[p][name], judge.hook(tokens, name)))
    worst = np.max([difference(*pair) for pair in pairs])  # np.max, unlike max, does not lose a NaN
    assert worst < TOLERANCE, f"differs from transformers by {worst:.2e}"
    return worst


def check_as_published(directory, prompts, runs):
    """The untouched checkpoint, eps = 1e12 and all, gives our logits as nearly as its eps allows."""
    judge = Judge(directory, as_published=True)
    worst = np.max([difference(runs[p]["unembed.hook_out"], judge.logits(prompts[p])) for p in prompts])
    assert worst < (1e-8 if judge.is_ln_free else TOLERANCE), f"differs from transformers by {worst:.2e}"
    return worst


def check_identities(model, run):
    """What must hold of any run, whatever computed it."""
    config = model.config
    T = len(run["hook_embed"])
    for layer, block in enumerate(model.blocks):
        h = f"blocks.{layer}"
        resid_pre, resid_mid = run[f"{h}.hook_resid_pre"], run[f"{h}.hook_resid_mid"]
        attn_out, mlp_out = run[f"{h}.hook_attn_out"], run[f"{h}.hook_mlp_out"]
        assert agree(run[f"{h}.attn.hook_result"].sum(dim=1) + block.b_O, attn_out)
        assert agree(run[f"{h}.attn.hook_pattern"].sum(dim=-1), torch.ones(1))
        masked = torch.isneginf(run[f"{h}.attn.hook_attn_scores"]).sum()
        assert masked == config.n_heads * math.comb(T, 2)
        assert agree(resid_pre + attn_out, resid_mid)
        assert agree(resid_mid + mlp_out, run[f"{h}.hook_resid_post"])
        for site in ["hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input"]:
            assert difference(run[f"{h}.{site}"], resid_pre[:, None]) == 0
        assert difference(run[f"{h}.hook_mlp_in"], resid_mid) == 0
    if model.is_ln_free:
        assert all((run[name] == 1).all() for name in run if name.endswith("hook_scale"))
        last = run[f"blocks.{config.n_layers - 1}.hook_resid_post"]
        assert difference(run["unembed.hook_in"], last) == 0


def check_not_trivial(model, runs):
    """The checkpoint must be able to tell right from wrong; returns two numbers that say how much."""
    run = runs["full"]
    T = len(run["hook_embed"])
    entropies = []
    for layer in range(model.config.n_layers):
        pattern = run[f"blocks.{layer}.attn.hook_pattern"][:, 1:]
        entropy = -torch.special.xlogy(pattern, pattern).sum(-1)
        entropies.append(entropy / torch.arange(2, T + 1, dtype=torch.float64).log())
    share = torch.stack(entropies).mean().item()  # 1 = uniform attention
    assert 0.2 < share < 0.85, share
    layers = range(model.config.n_layers)
    residuals = torch.cat([run[f"blocks.{layer}.hook_resid_mid"] for layer in layers])
    deviation = residuals.std(dim=-1)
    spread = (deviation.std() / deviation.mean()).item()
    assert spread > 0.08, spread
    assert (residuals.mean(dim=-1).abs() / deviation).mean() > 0.03
    return share, spread


# -------------------------------------------------------------------- interventions


def intervention_cases(model, run, seed):
    """Every site (of layer 1 where it has layers) x operation, on the whole site and on a part."""
    rng = np.random.default_rng(2000 + seed)
    sites = FIRST_SITES + [f"blocks.1.{site}" for site in BLOCK_SITES] + LAST_SITES
    for site in sites:
        _, head_axis = axes(site)
        partial = dict(positions=PARTIAL_POSITIONS, head=-1 if head_axis is None else PARTIAL_HEAD)
        for op in ["replace", "add", "zero", "mean"]:
            for selection in [dict(), partial]:
                value = None
                if op in ("replace", "add"):
                    size = tuple(run[site].shape)
                    if site.endswith("hook_scale"):  # positive, as a scale is
                        value = rng.uniform(0.5, 2.0, size)
                    elif site.endswith("hook_pattern"):
                        value = rng.uniform(0.0, 1.0, size)
                    else:
                        value = rng.standard_normal(size)
                    value = torch.from_numpy(value.astype(np.float32)).double()
                yield Intervention(site, op, value, **selection)


def write_interventions(group, model, judge, tokens, run, seed):
    """Returns how many interventions there are and how many of them transformers could confirm."""
    confirmed = 0
    for index, case in enumerate(intervention_cases(model, run, seed)):
        logits = model.logits(tokens, [case])
        finite = bool(torch.isfinite(logits).all())
        of_scale = case.site.endswith("hook_scale")
        # dividing by a scale of zero is the only way to leave the finite numbers,
        assert finite or (of_scale and case.op == "zero"), case
        # and the mean of LN-free scales, all 1, the only intervention that may change nothing
        if not (model.is_ln_free and of_scale and case.op == "mean"):
            assert not difference(logits, run["unembed.hook_out"]) < 1e-3, case
        if judge.place(case.site) is not None:
            worst = difference(logits, judge.logits(tokens, case))
            assert worst < TOLERANCE, (case, worst)
            confirmed += 1
        entry = group.create_group(f"{index:03d}")
        attributes(
            entry,
            site=case.site,
            op=case.op,
            positions=",".join(map(str, case.positions)),
            head=str(case.head),
            prompt="b",
            finite="true" if finite else "false",
        )
        if case.value is not None:
            dataset(entry, "value", case.value)
        dataset(entry, "logits", logits)
    return index + 1, confirmed


def check_selection():
    """Interventions change what they select and nothing else: written out for one site of each layout."""
    rng = np.random.default_rng(4000)
    x, y = torch.from_numpy(rng.standard_normal((2, 7, 3, 7)))
    for op in ["replace", "add", "zero", "mean"]:

        def new(part, value, position_axis, op=op):
            return {
                "replace": value,
                "add": part + value,
                "zero": 0 * part,
                "mean": part.mean(position_axis, keepdim=True).expand_as(part),
            }[op]

        expected = x.clone()  # [pos, head, d_head]
        for p in PARTIAL_POSITIONS:
            expected[p, 1] = new(x[:, 1], y[:, 1], 0)[p]
        assert agree(Intervention("blocks.0.attn.hook_z", op, y, PARTIAL_POSITIONS, 1)(x), expected)
        assert agree(Intervention("blocks.0.attn.hook_z", op, y)(x), new(x, y, 0))

        pattern, value = x.transpose(0, 1), y.transpose(0, 1)  # [head, query_pos, key_pos]
        expected = pattern.clone()
        for p in PARTIAL_POSITIONS:
            expected[1, p] = new(pattern[1], value[1], 0)[p]
        case = Intervention("blocks.0.attn.hook_pattern", op, value, PARTIAL_POSITIONS, 1)
        assert agree(case(pattern), expected)

        stream, value = x[:, 0], y[:, 0]  # [pos, d_model]
        expected = stream.clone()
        for p in PARTIAL_POSITIONS:
            expected[p] = new(stream, value, 0)[p]
        case = Intervention("blocks.0.hook_resid_mid", op, value, PARTIAL_POSITIONS)
        assert agree(case(stream), expected)


def check_interventions(model, tokens, run):
    """Ties the sites that transformers cannot confirm to those that it can."""
    rng = np.random.default_rng(3000)
    h = "blocks.1"

    def noise(site):
        return torch.from_numpy(rng.standard_normal(run[site].shape))

    def replacing(site, value, **selection):
        return model.logits(tokens, [Intervention(site, "replace", value, **selection)])

    def adding(value, *sites):
        return model.logits(tokens, [Intervention(site, "add", value) for site in sites])

    # writing back what was there changes nothing, at any site
    for site in hook_names(model.config.n_layers):
        assert agree(replacing(site, run[site]), run["unembed.hook_out"]), site

    # attn_in feeds q_input, k_input and v_input
    x = noise(f"{h}.hook_attn_in")
    inputs = [f"{h}.hook_{c}_input" for c in "qkv"]
    assert agree(adding(x, f"{h}.hook_attn_in"), adding(x, *inputs))

    # every head is given the same edited input: that is ln1.hook_normalized of this input
    x = noise(f"{h}.hook_resid_pre")
    normalized = (x - x.mean(-1, keepdim=True)) / model.scale(x)
    per_head = x[:, None].expand_as(run[f"{h}.hook_attn_in"])
    by_normalized = replacing(f"{h}.ln1.hook_normalized", normalized)
    assert agree(replacing(f"{h}.hook_attn_in", per_head), by_normalized)

    # one head's q_input (k_input, v_input) is edited: that is this head's q (k, v) of this input
    y = model.norm(x, model.blocks[1].ln1)
    for c in "qkv":
        W, b = (getattr(model.blocks[1], f"{w}_{c.upper()}") for w in "Wb")
        made = torch.einsum("pd,hdk->phk", y, W) + b
        by_input = replacing(f"{h}.hook_{c}_input", per_head, head=1, positions=PARTIAL_POSITIONS)
        assert agree(by_input, replacing(f"{h}.attn.hook_{c}", made, head=1, positions=PARTIAL_POSITIONS)), c

    # resid_mid is read by the MLP and by the skip
    x = noise(f"{h}.hook_resid_mid")
    assert agree(adding(x, f"{h}.hook_resid_mid"), adding(x, f"{h}.hook_mlp_in", f"{h}.hook_mlp_out"))

    # scores make the pattern, the pattern makes z, z makes the result; all in one head
    scores = noise(f"{h}.attn.hook_attn_scores")
    pattern = torch.softmax(scores, dim=-1)
    z = torch.einsum("hqs,shk->qhk", pattern, run[f"{h}.attn.hook_v"])
    result = torch.einsum("phk,hkd->phd", z, model.blocks[1].W_O)
    by_z = replacing(f"{h}.attn.hook_z", z, head=1)
    for site, value in [("attn_scores", scores), ("pattern", pattern), ("result", result)]:
        assert agree(replacing(f"{h}.attn.hook_{site}", value, head=1), by_z), site

    # a scale makes hook_normalized
    for norm, stream in [
        (f"{h}.ln1", f"{h}.hook_resid_pre"),
        (f"{h}.ln2", f"{h}.hook_resid_mid"),
        ("ln_final", f"{h}.hook_resid_post"),
    ]:
        scale = noise(f"{norm}.hook_scale").abs() + 0.5
        normalized = (run[stream] - run[stream].mean(-1, keepdim=True)) / scale
        by_normalized = replacing(f"{norm}.hook_normalized", normalized)
        assert agree(replacing(f"{norm}.hook_scale", scale), by_normalized), norm


def frozen(model, tokens, donor, hook):
    """Logits of `tokens` with every hook of this kind replaced by its value in the run `donor`."""
    edits = [Intervention(name, "replace", value) for name, value in donor.items() if name.endswith(hook)]
    return model.logits(tokens, edits)


# -------------------------------------------------------------------- attribution and lens


@dataclass
class Attribution:
    labels: list = field(default_factory=list)
    values: dict = field(default_factory=dict)


def direct_logit_attribution(model, run, answer, wrong):
    """Of the logit of `answer` (minus that of `wrong`, unless None) at the last position.

    With r the final stream, w the token direction, s(.) the LN scale, gain . and centring linear:
        attribution(c)    =  (c - mean c) / s(r) * gain @ w            the cached scale
        direct effect(c)  =  LN(r) @ w - LN(r - c) @ w                 the scale of r - c
    """
    config, final = model.config, model.ln_final
    direction, bias = model.W_U[:, answer], model.b_U[answer]
    if wrong is not None:
        direction, bias = direction - model.W_U[:, wrong], bias - model.b_U[wrong]
    if not model.is_ln_free:
        bias = bias + final.bias @ direction
    last = {name: value[-1] for name, value in run.items() if axes(name)[0] == 0}
    stream = last[f"blocks.{config.n_layers - 1}.hook_resid_post"]
    scale = model.scale(stream)

    def read(x, scale):
        """x as the token direction sees it through a final LN of this scale, without LN's bias."""
        if model.is_ln_free:
            return x @ direction
        return (model.centered(x) / scale * final.gain) @ direction

    def attribution(c):
        return read(c, scale)

    def direct_effect(c):
        return read(stream, scale) - read(stream - c, model.scale(stream - c))

    labels, components = ["embed", "pos_embed"], [last["hook_embed"], last["hook_pos_embed"]]
    for layer in range(config.n_layers):
        labels += [f"{layer}_attn_out", f"{layer}_mlp_out"]
        components += [last[f"blocks.{layer}.hook_attn_out"], last[f"blocks.{layer}.hook_mlp_out"]]
    components = torch.stack(components)
    heads = torch.stack([last[f"blocks.{layer}.attn.hook_result"] for layer in range(config.n_layers)])
    neurons = last[f"blocks.{config.n_layers - 1}.mlp.hook_post"][:, None] * model.blocks[-1].W_out

    logits = last["unembed.hook_out"]
    target = logits[answer] - (logits[wrong] if wrong is not None else 0)
    values = {
        "components": torch.cat([attribution(components), bias[None]]),
        "components_direct_effect": direct_effect(components),
        "heads": attribution(heads),
        "heads_direct_effect": direct_effect(heads),
        "neurons": attribution(neurons),
        "neurons_direct_effect": direct_effect(neurons),
        "target": target[None],
    }

    assert agree(values["components"].sum(), target)
    for kind, parts in [("components", components), ("heads", heads), ("neurons", neurons)]:
        dla, effect = values[kind][: len(parts)], values[f"{kind}_direct_effect"]
        if model.is_ln_free:
            assert agree(dla, effect)
        else:  # DE - DLA = ((r~ - c~) @ w) (1/s(r) - 1/s(r - c)), with r~, c~ centred and times gain
            one = torch.ones(1, dtype=stream.dtype)
            scale_without = model.scale(stream - parts)[..., 0]
            gap = read(stream - parts, one) * (1 / scale - 1 / scale_without)
            assert agree(effect - dla, gap)
    return Attribution(labels + ["bias"], values)


def normalized_errors(attributions):
    """How far attribution is from direct effect over heads and prompts, in percent: (pooled, head mean)."""
    dla = torch.stack([a.values["heads"] for a in attributions])  # [prompt, layer, head]
    effect = torch.stack([a.values["heads_direct_effect"] for a in attributions])
    error = (dla - effect).abs()
    pooled = 100 * error.sum() / effect.abs().sum()
    head_mean = (100 * error.sum(0) / effect.abs().sum(0)).mean()
    return pooled.item(), head_mean.item()


def logit_lens(model, run):
    """(stream names, logits with recomputed scale, logits with the final scale): [stream, pos, vocab]."""
    layers = range(model.config.n_layers)
    streams = {}
    for layer in layers:
        streams[f"{layer}_pre"] = run[f"blocks.{layer}.hook_resid_pre"]
        streams[f"{layer}_mid"] = run[f"blocks.{layer}.hook_resid_mid"]
    streams["final_post"] = run[f"blocks.{layers[-1]}.hook_resid_post"]
    x = torch.stack(list(streams.values()))

    def unembed(scale):
        return model.norm(x, model.ln_final, scale) @ model.W_U + model.b_U

    recomputed, frozen = unembed(scale=None), unembed(scale=run["ln_final.hook_scale"])
    assert agree(recomputed[-1], run["unembed.hook_out"])
    assert agree(frozen[-1], run["unembed.hook_out"])
    if model.is_ln_free:
        assert agree(recomputed, x @ model.W_U + model.b_U)
    return list(streams), recomputed, frozen


# -------------------------------------------------------------------- HDF5


def dataset(group, name, values):
    """float64 (tokens: int64), in one compressed chunk."""
    values = values.numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    values = values.astype(np.int64 if values.dtype.kind == "i" else np.float64)
    group.create_dataset(name, data=values, chunks=values.shape, compression="gzip", compression_opts=9)


def attributes(group, **texts):
    for name, text in texts.items():
        group.attrs[name] = str(text)


def write_golden(checkpoint, directory, path):
    model, judge = ReferenceGPT2.from_huggingface(directory), Judge(directory)
    prompts = random_prompts(checkpoint)
    runs = {p: model.run(tokens) for p, tokens in prompts.items()}

    worst = check_against_judge(model, judge, prompts, runs)
    published = check_as_published(directory, prompts, runs)
    for run in runs.values():
        check_identities(model, run)
    attention, spread = check_not_trivial(model, runs)
    report = (
        f"{checkpoint.name}: differs from transformers by {worst:.1e} (file as it is: {published:.1e}); "
        f"attention entropy {attention:.2f} of uniform; std of the stream varies by {100 * spread:.0f} %"
    )

    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        attributes(
            file,
            checkpoint=checkpoint.name,
            normalization=model.config.normalization,
            generator="Tests/Golden/make_golden.py",
            torch=torch.__version__,
            transformers=transformers.__version__,
            seed=checkpoint.seed,
        )
        for p, tokens in prompts.items():
            dataset(file.create_group(f"prompts/{p}"), "tokens", tokens)
            names = hook_names(model.config.n_layers)
            if p not in ALL_HOOKS_PROMPTS:
                names = [f"blocks.{model.config.n_layers - 1}.hook_resid_post", "unembed.hook_out"]
            group = file.create_group(f"hooks/{p}")
            for name in names:
                dataset(group, name, runs[p][name])

        for kind, hook in [("ln_scale", "hook_scale"), ("pattern", "hook_pattern")]:
            group = file.create_group(f"frozen/{kind}")
            attributes(group, prompt="a", donor="d")
            logits = frozen(model, prompts["a"], runs["d"], hook)
            unchanged = agree(logits, runs["a"]["unembed.hook_out"])
            assert unchanged == (model.is_ln_free and kind == "ln_scale")
            dataset(group, "logits", logits)

        for name, wrong in [("dla", WRONG), ("dla_single", None)]:
            top = file.create_group(name)
            found = {p: direct_logit_attribution(model, runs[p], ANSWER, wrong) for p in ATTRIBUTION_PROMPTS}
            pooled, head_mean = normalized_errors(list(found.values()))
            attributes(top, nmae_pooled=repr(pooled), nmae_head_mean=repr(head_mean))
            report += f"; {name} NMAE {pooled:.3g} % pooled, {head_mean:.3g} % per head"
            for p, attribution in found.items():
                group = top.create_group(p)
                attributes(group, answer=ANSWER, labels=",".join(attribution.labels))
                if wrong is not None:
                    attributes(group, wrong=wrong)
                for variable, values in attribution.values.items():
                    dataset(group, variable, values)

        for p in ATTRIBUTION_PROMPTS:
            streams, recomputed, with_final_scale = logit_lens(model, runs[p])
            group = file.create_group(f"logit_lens/{p}")
            attributes(group, streams=",".join(streams))
            dataset(group, "recomputed", recomputed)
            dataset(group, "frozen", with_final_scale)

        if checkpoint.interventions:
            check_interventions(model, prompts["b"], runs["b"])
            group = file.create_group("interventions")
            count, confirmed = write_interventions(
                group, model, judge, prompts["b"], runs["b"], checkpoint.seed
            )
            attributes(group, count=count)
            report += f"; {count} interventions, {confirmed} confirmed by transformers"
    print(report)


def make(root):
    check_selection()
    for checkpoint in CHECKPOINTS:
        directory = root / checkpoint.name
        directory.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, directory)
        write_golden(checkpoint, directory, root / f"{checkpoint.name}.h5")


def main():
    arguments = parser("Write the golden values of NormLens' tests.").parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    names = [checkpoint.name for checkpoint in CHECKPOINTS]
    files = [f"{name}/{file}" for name in names for file in ("model.safetensors", "config.json")]
    write_or_check(arguments, make, files + [f"{name}.h5" for name in names], TOLERANCE)

if __name__ == "__main__":
    main()
