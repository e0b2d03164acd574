"""GPT-2 as its equations, in float64, with a hook at every value.

This is the model that NormLens is held against.  It is slow, short and plain on purpose: one prompt
at a time, no batch axis, no cache of keys and values, no fused kernels.  It shares no code with
NormLens, transformers or TransformerLens; `make_golden.py` checks it against transformers.

Shapes: x is [pos, d_model]; W multiplies from the right (x @ W); heads are an explicit axis.
    q, k, v, z               [pos, head, d_head]
    attn_scores, pattern     [head, query_pos, key_pos]
    attn_in, *_input, result [pos, head, d_model]
    scale                    [pos, 1]

LayerNorm:    LN(x) = (x - mean x) / scale * gain + bias,   scale = sqrt(var x + eps), biased variance.
LN-free:      the published LN-free checkpoints keep LayerNorm modules with eps = 1e12 and gains of
              about 1e6, so that the scale is the constant sqrt(eps) and the module is affine.  Here it
              is folded into the next matrix:  W' = (I - 11^T/d) diag(gain / sqrt(eps)) W  and
              c' = c + bias W.  What is left of the module is scale = 1 and
              normalized = x - mean x; W' does not see the mean, so feeding it x or x - mean x is one.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.numpy import load_file

LN_FREE_EPSILON = 1e6  # a checkpoint whose epsilon is at least this is an LN-free one

# Every hook in firing order, as TransformerLens spells it.  "Optional" hooks are those that
# TransformerLens fires only when asked; here they always fire.
BLOCK_SITES = [
    "hook_resid_pre",
    "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input",
    "ln1.hook_scale", "ln1.hook_normalized",
    "attn.hook_q", "attn.hook_k", "attn.hook_v",
    "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z",
    "attn.hook_result", "hook_attn_out",
    "hook_resid_mid", "hook_mlp_in",
    "ln2.hook_scale", "ln2.hook_normalized",
    "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out",
    "hook_resid_post",
]  # fmt: skip
FIRST_SITES = ["hook_embed", "hook_pos_embed"]
LAST_SITES = ["ln_final.hook_scale", "ln_final.hook_normalized", "unembed.hook_in", "unembed.hook_out"]
OPTIONAL_SITES = {
    "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "attn.hook_result", "hook_mlp_in",
}  # fmt: skip


def hook_names(n_layers):
    """Every hook of a model with `n_layers` layers, in firing order."""
    blocks = [f"blocks.{layer}.{site}" for layer in range(n_layers) for site in BLOCK_SITES]
    return FIRST_SITES + blocks + LAST_SITES


def axes(name):
    """The (position, head) axes of a hook's value; the head axis is None where there are no heads.

    Of scores and patterns the position is that of the query.
    """
    last = name.rsplit(".", 1)[-1]
    if last in ("hook_attn_scores", "hook_pattern"):
        return 1, 0
    if last in ("hook_q", "hook_k", "hook_v", "hook_z", "hook_result",
                "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input"):  # fmt: skip
        return 0, 1
    return 0, None


@dataclass(frozen=True)
class Intervention:
    """Changes the value of one hook at the moment it fires; everything later sees the result.

    op: "replace" by `value`, "add" `value`, "zero", or "mean": the mean over the position axis of the
    value that arrives.  `value` has the full shape of the site; only the selected part is used.
    """

    site: str
    op: str
    value: torch.Tensor | None = None
    positions: tuple[int, ...] = ()  # () = all
    head: int = -1  # -1 = all

    def __call__(self, x):
        position_axis, head_axis = axes(self.site)
        if self.op == "replace":
            new = self.value
        elif self.op == "add":
            new = x + self.value
        elif self.op == "zero":
            new = torch.zeros_like(x)
        elif self.op == "mean":
            new = x.mean(position_axis, keepdim=True).expand_as(x)
        else:
            raise ValueError(f"unknown operation {self.op!r}")
        return torch.where(self._selected(x, position_axis, head_axis), new, x)

    def _selected(self, x, position_axis, head_axis):
        """A mask of x's shape."""

        def mask(axis, indices):
            shape = [1] * x.ndim
            shape[axis] = x.shape[axis]
            flags = torch.zeros(x.shape[axis], dtype=torch.bool)
            flags[list(indices)] = True
            return flags.reshape(shape)

        selected = torch.ones_like(x, dtype=torch.bool)
        if self.positions:
            selected = selected & mask(position_axis, self.positions)
        if self.head >= 0:
            selected = selected & mask(head_axis, [self.head])
        return selected


@dataclass(frozen=True)
class Config:
    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    activation: str  # "gelu_new", "gelu" or "relu"
    epsilon: float
    normalization: str  # "layernorm", "rmsnorm", "crmsnorm" or "none"
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool
    compressed: bool = False  # the stream is one of mean zero in d_model of its d_model + 1 coordinates

    @property
    def norm_width(self):
        """What a sum of squares is divided by."""
        return self.d_model + self.compressed

    @property
    def d_head(self):
        return self.norm_width // self.n_heads


@dataclass
class Norm:
    """Gain and bias of a LayerNorm; both None in an LN-free model, where they are folded away."""

    gain: torch.Tensor | None = None
    bias: torch.Tensor | None = None


@dataclass
class Block:
    ln1: Norm
    W_Q: torch.Tensor  # [head, d_model, d_head]; so W_K, W_V
    W_K: torch.Tensor
    W_V: torch.Tensor
    b_Q: torch.Tensor  # [head, d_head]; so b_K, b_V
    b_K: torch.Tensor
    b_V: torch.Tensor
    W_O: torch.Tensor  # [head, d_head, d_model]
    b_O: torch.Tensor  # [d_model]
    ln2: Norm
    W_in: torch.Tensor  # [d_model, d_mlp]
    b_in: torch.Tensor
    W_out: torch.Tensor  # [d_mlp, d_model]
    b_out: torch.Tensor


@dataclass
class ReferenceGPT2:
    config: Config
    W_E: torch.Tensor  # [d_vocab, d_model]
    W_pos: torch.Tensor  # [n_ctx, d_model]
    blocks: list[Block] = field(repr=False)
    ln_final: Norm
    W_U: torch.Tensor  # [d_model, d_vocab]
    b_U: torch.Tensor  # [d_vocab]

    # ---------------------------------------------------------------- the forward pass

    def run(self, tokens, interventions=(), keep=None):
        """The value of every hook (or of those named in `keep`), by name; interventions applied.

        The logits are the hook "unembed.hook_out".
        """
        cache = {}

        def hook(name, x):
            """x itself when nothing is done to it, so that `is` tells whether it was edited."""
            for intervention in interventions:
                if intervention.site == name:
                    x = intervention(x)
            if keep is None or name in keep:
                cache[name] = x
            return x

        tokens = torch.as_tensor(tokens)
        embed = hook("hook_embed", self.W_E[tokens])
        pos_embed = hook("hook_pos_embed", self.W_pos[: len(tokens)])
        x = embed + pos_embed
        for layer, block in enumerate(self.blocks):
            x = self._block(x, layer, block, lambda site, y, layer=layer: hook(f"blocks.{layer}.{site}", y))

        y = hook("unembed.hook_in", self._hooked_norm(x, self.ln_final, "ln_final", hook))
        hook("unembed.hook_out", y @ self.W_U + self.b_U)
        return cache

    def logits(self, tokens, interventions=()):
        return self.run(tokens, interventions, keep={"unembed.hook_out"})["unembed.hook_out"]

    def _block(self, x, layer, block, hook):
        resid_pre = hook("hook_resid_pre", x)
        attn_out = self._attention(resid_pre, layer, block, hook)
        resid_mid = hook("hook_resid_mid", resid_pre + attn_out)
        mlp_in = hook("hook_mlp_in", resid_mid)  # read by the MLP alone
        y = self._hooked_norm(mlp_in, block.ln2, "ln2", hook)
        pre = hook("mlp.hook_pre", y @ block.W_in + block.b_in)
        post = hook("mlp.hook_post", self._activation(pre))
        mlp_out = hook("hook_mlp_out", post @ block.W_out + block.b_out)
        return hook("hook_resid_post", resid_mid + mlp_out)

    def _attention(self, resid_pre, layer, block, hook):
        T = len(resid_pre)
        per_head = resid_pre[:, None, :].expand(T, self.config.n_heads, self.config.d_model)
        attn_in = hook("hook_attn_in", per_head)
        inputs = {c: hook(f"hook_{c}_input", attn_in) for c in "qkv"}
        shared = self._hooked_norm(resid_pre, block.ln1, "ln1", hook)

        def project(c, W, b):
            if inputs[c] is per_head:  # not edited: all heads read the one normalized stream
                return torch.einsum("pd,hdk->phk", shared, W) + b
            # every head has its own input and its own scale, out of the reach of the ln1 hooks
            own = self.norm(inputs[c], block.ln1)
            return torch.einsum("phd,hdk->phk", own, W) + b

        q = hook("attn.hook_q", project("q", block.W_Q, block.b_Q))
        k = hook("attn.hook_k", project("k", block.W_K, block.b_K))
        v = hook("attn.hook_v", project("v", block.W_V, block.b_V))

        scores = torch.einsum("qhk,shk->hqs", q, k)
        if self.config.scale_attn_weights:
            scores = scores / math.sqrt(self.config.d_head)
        if self.config.scale_attn_by_inverse_layer_idx:
            scores = scores / (layer + 1)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        scores = hook("attn.hook_attn_scores", scores.masked_fill(future, -math.inf))
        pattern = torch.softmax(scores, dim=-1)
        pattern = torch.where(torch.isnan(pattern), torch.zeros_like(pattern), pattern)
        pattern = hook("attn.hook_pattern", pattern)

        z = hook("attn.hook_z", torch.einsum("hqs,shk->qhk", pattern, v))
        result = hook("attn.hook_result", torch.einsum("phk,hkd->phd", z, block.W_O))
        return hook("hook_attn_out", result.sum(dim=1) + block.b_O)

    def _activation(self, x):
        if self.config.activation == "gelu_new":
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        if self.config.activation == "gelu":
            return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        if self.config.activation == "relu":
            return x.clamp(min=0)
        raise ValueError(f"unknown activation {self.config.activation!r}")

    # ---------------------------------------------------------------- normalization

    @property
    def is_ln_free(self):
        return self.config.normalization == "none"

    def scale(self, x):
        """What x is divided by: [..., 1]."""
        if self.is_ln_free:
            return torch.ones_like(x[..., :1])
        x = self.centered(x)
        squares = (x * x).sum(dim=-1, keepdim=True)
        if self.config.normalization == "crmsnorm":  # the coordinate left out is minus the sum
            squares = squares + x.sum(dim=-1, keepdim=True) ** 2
        return (squares / self.config.norm_width + self.config.epsilon).sqrt()

    def norm(self, x, norm, scale=None):
        """LN(x), or with a frozen `scale` if one is given; x - mean x in an LN-free model."""
        scale = self.scale(x) if scale is None else scale
        return self._gain_and_bias(self.centered(x) / scale, norm)

    def centered(self, x):
        """x less its mean; RMSNorm leaves the mean where it is, and a compressed stream has none."""
        if self.config.normalization in ("rmsnorm", "crmsnorm") or self.config.compressed:
            return x
        return x - x.mean(dim=-1, keepdim=True)

    def _hooked_norm(self, x, norm, path, hook):
        """What the next matrix reads.

        In an LN-free model that is x itself, or hook_normalized where an intervention changed it or the
        scale: to folded weights, which do not see the mean, an unedited one is the same.
        """
        scale = self.scale(x)
        edited_scale = hook(f"{path}.hook_scale", scale)
        normalized = self.centered(x) / edited_scale
        edited = hook(f"{path}.hook_normalized", normalized)
        if self.is_ln_free and edited_scale is scale and edited is normalized:
            return x
        return self._gain_and_bias(edited, norm)

    def _gain_and_bias(self, normalized, norm):
        return normalized if self.is_ln_free else normalized * norm.gain + norm.bias

    # ---------------------------------------------------------------- making one

    @staticmethod
    def from_huggingface(directory, dtype=torch.float64):
        """From config.json and model.safetensors; an LN-free checkpoint is folded."""
        raw = json.loads((Path(directory) / "config.json").read_text())
        tensors = {
            name.removeprefix("transformer."): torch.as_tensor(array)
            for name, array in load_file(Path(directory) / "model.safetensors").items()
        }
        epsilon = raw["layer_norm_epsilon"]
        config = Config(
            n_layers=raw["n_layer"],
            d_model=raw["n_embd"],
            n_heads=raw["n_head"],
            d_mlp=raw.get("n_inner") or 4 * raw["n_embd"],
            n_ctx=raw["n_positions"],
            d_vocab=raw["vocab_size"],
            activation=raw["activation_function"],
            epsilon=epsilon,
            normalization="layernorm" if epsilon < LN_FREE_EPSILON else "none",
            scale_attn_weights=raw.get("scale_attn_weights", True),
            scale_attn_by_inverse_layer_idx=raw.get("scale_attn_by_inverse_layer_idx", False),
        )
        tensors["unembed.weight"] = tensors.get("lm_head.weight", tensors["wte.weight"])
        return ReferenceGPT2.from_tensors(config, tensors, fold=True, dtype=dtype)

    @staticmethod
    def from_tensors(config, tensors, fold, dtype=torch.float64):
        """From tensors with GPT-2's names, "h.0.attn.c_attn.weight", plus "unembed.weight" [vocab, d].

        `fold`: the tensors of an LN-free model still have its LayerNorms, to be folded.
        """
        ln_free = config.normalization == "none"
        H, d = config.n_heads, config.d_model

        def get(name):
            return torch.as_tensor(tensors[name]).to(dtype)

        def norm(name):
            return Norm() if ln_free else Norm(get(f"{name}.weight"), get(f"{name}.bias"))

        def folded(norm_name, W, c):
            """W and c as they read the stream: with the LayerNorm before them in an LN-free model."""
            if not (ln_free and fold):
                return W, c
            gain = get(f"{norm_name}.weight") / math.sqrt(config.epsilon)
            scaled = gain[:, None] * W
            return scaled - scaled.mean(dim=0), c + get(f"{norm_name}.bias") @ W

        blocks = []
        for layer in range(config.n_layers):
            h = f"h.{layer}"
            W_QKV, b_QKV = folded(f"{h}.ln_1", get(f"{h}.attn.c_attn.weight"), get(f"{h}.attn.c_attn.bias"))
            # the columns of c_attn are q | k | v, each split into heads
            W_Q, W_K, W_V = W_QKV.reshape(d, 3, H, config.d_head).permute(1, 2, 0, 3)
            b_Q, b_K, b_V = b_QKV.reshape(3, H, config.d_head)
            W_in, b_in = folded(f"{h}.ln_2", get(f"{h}.mlp.c_fc.weight"), get(f"{h}.mlp.c_fc.bias"))
            blocks.append(
                Block(
                    ln1=norm(f"{h}.ln_1"),
                    W_Q=W_Q,
                    W_K=W_K,
                    W_V=W_V,
                    b_Q=b_Q,
                    b_K=b_K,
                    b_V=b_V,
                    W_O=get(f"{h}.attn.c_proj.weight").reshape(H, config.d_head, d),
                    b_O=get(f"{h}.attn.c_proj.bias"),
                    ln2=norm(f"{h}.ln_2"),
                    W_in=W_in,
                    b_in=b_in,
                    W_out=get(f"{h}.mlp.c_proj.weight"),
                    b_out=get(f"{h}.mlp.c_proj.bias"),
                )
            )
        b_U = get("unembed.bias") if "unembed.bias" in tensors else torch.zeros(config.d_vocab, dtype=dtype)
        W_U, b_U = folded("ln_f", get("unembed.weight").T, b_U)
        return ReferenceGPT2(
            config=config,
            W_E=get("wte.weight"),
            W_pos=get("wpe.weight"),
            blocks=blocks,
            ln_final=norm("ln_f"),
            W_U=W_U,
            b_U=b_U,
        )
