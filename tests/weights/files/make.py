"""Writes the files that the tests of src/weights read, and what PyTorch itself reads from them.  python make.py [shared checkpoints]"""
import argparse, collections, hashlib, json, pathlib, sys
import numpy as np
import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
torch.manual_seed(0)
a = torch.randn(6, 4)
tensors = collections.OrderedDict(
    plain=a, transposed=a.t(), part=a[1:5:2, 1:3], row=a[2], expanded=torch.randn(1, 3).expand(4, 3),
    channels_last=torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    swapped=torch.randn(4, 1, 3).transpose(0, 1), scalar=torch.tensor(3.5), empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(torch.ones(3)),
    half=a.half(), bfloat=a.bfloat16(), double=a.double(), flags=torch.tensor([True, False]), u8=torch.arange(5, dtype=torch.uint8),
    i64=torch.arange(5), i32=torch.arange(5, dtype=torch.int32), i16=torch.arange(-2, 3, dtype=torch.int16), i8=torch.arange(-2, 3, dtype=torch.int8),
)

float8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu]
codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
with_state = torch.nn.Parameter(torch.ones(2))
with_state.note = "kept with the tensor"
kinds = collections.OrderedDict(
    {str(dtype).removeprefix("torch."): codes.view(dtype) for dtype in float8},
    u16=torch.tensor([0, 65535], dtype=torch.uint16), u32=torch.tensor([0, 2**32 - 1], dtype=torch.uint32),
    u64=torch.tensor([0, 2**63], dtype=torch.uint64), complex=torch.tensor([1 + 2j]), with_state=with_state, tied=codes, part=codes[3:200:2],
)


def described(state):
    """{name: [dtype, shape, first 16 digits of the sha256 of the row-major bytes, sum]}"""
    def one(t):
        t = t.detach().contiguous()
        digest = hashlib.sha256(t.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
        total = 0 if t.is_complex() else float(t.to(torch.float64).nan_to_num(0, 0, 0).sum())
        return [str(t.dtype).removeprefix("torch."), list(t.shape), digest, total]
    return {name: one(t) for name, t in state.items()}


checkpoint = {
    "epoch": 3, "arch": "tiny", "best": np.float64(0.5), "args": argparse.Namespace(lr=1),
    "model": {"module." + name: t for name, t in tensors.items()},
    "optimizer": {"state": {0: {"momentum": torch.ones(2)}}},
}
torch.save(checkpoint, here / "zip.pth")
torch.save(checkpoint, here / "zip-protocol4.pth", pickle_protocol=4)
torch.save(checkpoint, here / "legacy.pth", _use_new_zipfile_serialization=False)
torch.save(checkpoint, here / "legacy-protocol5.pth", _use_new_zipfile_serialization=False, pickle_protocol=5)
torch.save(torch.nn.Linear(2, 2), here / "module.pth")
torch.save({"ema": kinds, "epoch": 1}, here / "kinds.pth")
torch.save({"ema": kinds, "epoch": 1}, here / "kinds-legacy.pth", _use_new_zipfile_serialization=False)
ones = lambda *names: {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
wrapped = {
    "student": ones("backbone.a", "head.b"), "teacher": ones("module.backbone.a", "module.head.b"), "state_dict": {"model": ones("a")},
    "scores": collections.Counter(top1=3), "seen": {1, 2}, "history": collections.defaultdict(list, loss=[0.5]), 3: None, (1, 2): "a key that is no name",
}
torch.save(wrapped, here / "wrapped.pth")
save_file({name: t.detach().contiguous().clone() for name, t in tensors.items()}, here / "reference.safetensors", metadata={"made": "by safetensors"})

as_float32 = lambda t: t.float().nan_to_num(nan=-1.5, posinf=float("inf"), neginf=float("-inf")).numpy().tobytes()
float32 = {name: [hashlib.sha256(as_float32(kinds[name])).hexdigest()[:16]] for name in kinds if name.startswith("float8")}
expected = {"made": described(tensors), "kinds": described(kinds), "float32": float32}
if len(sys.argv) > 1:
    shared = pathlib.Path(sys.argv[1])
    read = lambda name: torch.load(shared / name, map_location="cpu", weights_only=True)
    expected["resnet20-12fca82f.th"] = described({name.removeprefix("module."): t for name, t in read("resnet20-12fca82f.th")["state_dict"].items()})
    expected["fastestdet.pth"] = described(read("fastestdet.pth"))
rows = lambda table: ",\n".join(f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
(here / "expected.json").write_text("{\n" + ",\n".join(f"  {json.dumps(name)}: {{\n{rows(table)}\n  }}" for name, table in expected.items()) + "\n}\n")
