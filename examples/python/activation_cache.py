"""An activations file of `normlens cache` as a cache with TransformerLens' names.

    cache = ActivationCache("ioi.h5")
    cache["blocks.0.hook_resid_pre"]     # [batch, pos, d_model]
    cache["pattern", 0]                  # [batch, head, query_pos, key_pos], or of layer -1
    list(cache)                          # the names in the order of the forward pass

Nothing is read before it is asked for. A prompt shorter than the longest is NaN past its end: unlike
TransformerLens' padding, that cannot be mistaken for an activation. Needs h5py.
"""

import difflib
from collections.abc import Mapping

import h5py


class ActivationCache(Mapping):
    def __init__(self, path):
        self.group = h5py.File(path)["activations"]
        layers = [int(layer) for layer in self.group["layer"]] if "layer" in self.group else []
        hooks = [(site, self.group[site].attrs.get("tl_hook", "")) for site in self.group]
        whole = [(hook, site, ()) for site, hook in hooks if hook and "{layer}" not in hook]
        blocks = [(hook.replace("{layer}", str(layer)), site, (row,))
                  for row, layer in enumerate(layers) for site, hook in hooks if "{layer}" in hook]
        before = sum(site.endswith("embed") for _, site, _ in whole)  # embed and pos_embed
        self.places, self.short = {}, {}
        for hook, site, row in whole[:before] + blocks + whole[before:]:
            if self._is_recorded(self.group[site], row):
                self.places[hook] = site, row
                self.short.update({(site, layers[i]): hook for i in row} or {site: hook})
                self.short.update({(site, i - len(layers)): hook for i in row})

    @staticmethod
    def _is_recorded(data, row):  # what was not asked for takes no place in the file
        start = (0, *row) + (0,) * (data.ndim - 1 - len(row))
        return data.id.get_chunk_info_by_coord(start).byte_offset is not None

    def __getitem__(self, key):
        name = self.short.get(key, key)
        if name not in self.places:
            known = {str(known): known for known in [*self.places, *self.short]}
            near = difflib.get_close_matches(str(key), known, 1, 0)
            raise KeyError(f"{key!r} was not recorded; did you mean {known[near[0]]!r}?")
        site, row = self.places[name]
        values = self.group[site][(slice(None), *row)]
        # TransformerLens keeps a last axis of 1 at a norm's scale.
        return values[..., None] if self.group[site].attrs["tl_shape"].endswith(" 1") else values

    def __iter__(self):
        return iter(self.places)

    def __len__(self):
        return len(self.places)
