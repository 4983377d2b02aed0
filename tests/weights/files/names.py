"""Writes names.json: how many tensors checkpoints of other libraries hold, and a hash of their names and shapes.

    python names.py swin_tiny_patch4_window7_224:transformers:model.safetensors … > names.json

Each file is what the library itself wrote (`save_pretrained`, `torch.save(model.state_dict())`) for the model named first.
What the architecture works out, tables of indices and masks, is left out.  The hash is 32-bit FNV-1a of the sorted lines
"name [shape]".
"""
import json
import re
import sys

worked_out = re.compile(r"(relative_position_index|relative_coords_table|attn_mask)$")


def shapes(file):
    if file.endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    import torch

    found = torch.load(file, weights_only=True)
    return {name: list(tensor.shape) for name, tensor in found.get("model", found).items()}


def fnv1a(text):
    state = 0x811C9DC5
    for byte in text.encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


found = []
for argument in sys.argv[1:]:
    model, convention, file = argument.split(":")
    lines = sorted(f"{name} [{','.join(map(str, s))}]\n" for name, s in shapes(file).items() if not worked_out.search(name))
    found.append({"model": model, "convention": convention, "tensors": len(lines), "hash": fnv1a("".join(lines))})
print("[\n" + ",\n".join("  " + json.dumps(case) for case in found) + "\n]")
