"""Writes adapt.json: what timm, or PyTorch as the official code calls it, makes of values for another shape.  Values come from names by the rule of the golden files
(mulberry32 seeded by FNV-1a), results are told in two numbers, so no tensor is stored.

    python adapt.py > adapt.json      # timm 1.0, PyTorch 2
"""
import json

import torch
from timm.layers import (
    resample_abs_pos_embed,
    resample_patch_embed,
    resize_rel_pos_bias_table,
    resize_rel_pos_bias_table_levit,
)
from timm.models import adapt_input_conv


def uniform(name, size):
    state = 0x811C9DC5
    for byte in name.encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    out = []
    for _ in range(size):
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        t = ((state ^ (state >> 15)) * (state | 1)) & 0xFFFFFFFF
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & 0xFFFFFFFF)) & 0xFFFFFFFF
        out.append(2 * ((t ^ (t >> 14)) & 0xFFFFFFFF) / 4294967296 - 1)
    return torch.tensor(out, dtype=torch.float64)


def rows(window, extra):
    return (2 * window[0] - 1) * (2 * window[1] - 1) + extra


def positions(side, prefix, grid, dim=4):
    old = [1, prefix + side * side, dim]
    make = lambda x: resample_abs_pos_embed(x, new_size=list(grid), num_prefix_tokens=prefix)
    return {"kind": "positions", "grid": grid, "prefix": prefix}, old, make


def biases(old, new, extra, heads=3):
    shape = [rows(new, extra), heads]
    make = lambda x: resize_rel_pos_bias_table(x, new_window_size=new, new_bias_shape=shape)
    return {"kind": "offsetBiases", "window": new, "extra": extra}, [rows(old, extra), heads], make


def maps_of_biases(old, new, heads=3):
    side = lambda window: [heads, 2 * window[0] - 1, 2 * window[1] - 1]
    make = lambda x: resize_rel_pos_bias_table(x, new_window_size=new, new_bias_shape=side(new))
    return {"kind": "offsetBiases", "window": new, "extra": 0}, side(old), make


def distances(old, new, heads=3):
    make = lambda x: resize_rel_pos_bias_table_levit(x.T, (new * new, heads)).T
    return {"kind": "distanceBiases"}, [heads, old * old], make


def maps(kind, old, new, dim=4, **how):
    resize = lambda x: torch.nn.functional.interpolate(x.permute(0, 3, 1, 2), new, **how).permute(0, 2, 3, 1)
    return {"kind": kind}, [1, *old, dim], resize


def filters(old, new, dim=2):
    bins = lambda side: [side[0], side[1] // 2 + 1]
    _, _, resize = maps("", bins(old), bins(new), 2 * dim, mode="bicubic", align_corners=True)
    make = lambda x: resize(x.flatten(2)[None])[0].unflatten(2, (dim, 2))
    return {"kind": "spectralFilters"}, [*bins(old), dim, 2], make


def patches(old, new):
    return {"kind": "patchKernel"}, [2, 3, old, old], lambda x: resample_patch_embed(x, [new, new])


def channels(new):
    return {"kind": "pictureChannels"}, [4, 3, 4, 4], lambda x: adapt_input_conv(new, x)


cases = [
    positions(14, 1, [24, 24]),
    positions(14, 1, [7, 10]),
    positions(16, 0, [14, 14]),
    positions(14, 2, [12, 16]),
    biases([7, 7], [12, 12], 0),
    biases([7, 7], [8, 8], 0),
    biases([12, 12], [7, 7], 0),
    biases([7, 7], [7, 14], 0),
    biases([14, 14], [24, 24], 3),
    patches(16, 32),
    patches(16, 14),
    patches(32, 16),
    patches(4, 2),
    channels(1),
    channels(2),
    channels(5),
    maps_of_biases([7, 7], [12, 10]),
    distances(7, 12),
    distances(14, 7),
    maps("positionMap", [14, 14], [24, 20], mode="bicubic", antialias=True),
    maps("positionMapBilinear", [14, 14], [24, 20], mode="bilinear"),
    maps("positionMapBilinear", [56, 56], [24, 30], mode="bilinear"),
    filters([14, 14], [24, 24]),
    filters([56, 56], [28, 40]),
    filters([4, 4], [1, 1]),
]

found = []
for i, (what, old, make) in enumerate(cases):
    count = torch.Size(old).numel()
    made = make(uniform(f"adapt:{i}", count).float().reshape(old)).double().flatten()
    new = list(make(torch.zeros(old)).shape)
    probe = uniform(f"probe:adapt:{i}", made.numel())
    found.append({**what, "from": old, "to": new, "fingerprint": [made.norm().item(), (made @ probe).item()]})
print("[\n" + ",\n".join("  " + json.dumps(case) for case in found) + "\n]")
