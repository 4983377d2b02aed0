"""One peer of the speed race in one process: answers the line protocol of protocol.ts, or writes an ONNX file.

python peers.py eager|compile|openvino|openvino-streams --model M --mode inference|training
python peers.py export --model M --file M.onnx
"""

import argparse
import importlib.util
import json
import os
import sys
import time
import warnings

# Libraries print to stdout; the protocol keeps the real one for itself.
replies = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
warnings.filterwarnings("ignore")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["eager", "compile", "openvino", "openvino-streams", "export"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--mode", choices=["inference", "training"], default="inference")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cswin", help="models/cswin.py of a checkout of microsoft/CSWin-Transformer")
    parser.add_argument("--file", help="where `export` writes")
    return parser.parse_args()


def create(name, cswin):
    """The model with fresh weights; without dropout and drop path, which timm's Swin has by default."""
    if name != "cswin_tiny_224":
        import timm

        return timm.create_model(name, drop_rate=0.0, drop_path_rate=0.0)
    if not cswin:
        sys.exit("cswin_tiny_224 is not in timm: pass --cswin PATH/models/cswin.py")
    spec = importlib.util.spec_from_file_location("cswin", cswin)
    module = importlib.util.module_from_spec(spec)
    sys.modules["cswin"] = module  # timm's registry looks the module up by name
    spec.loader.exec_module(module)
    return module.CSWin_64_12211_tiny_224()


def inference(args, model, x):
    """A function that runs one batch."""
    import torch

    model.eval()
    if args.peer.startswith("openvino"):
        return openvino(model, x, args.threads, streams=args.threads if args.peer == "openvino-streams" else 1)
    forward = torch.compile(model) if args.peer == "compile" else model

    def run():
        with torch.inference_mode():
            forward(x)

    return run


def openvino(model, x, threads, streams):
    """A function that runs one batch, divided among streams that run side by side."""
    import openvino as ov

    parts = [part.numpy() for part in x.chunk(streams)]
    converted = ov.convert_model(model, example_input=x[: len(parts[0])], input=[parts[0].shape])
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    config["PERFORMANCE_HINT"] = "LATENCY" if streams == 1 else "THROUGHPUT"
    compiled = ov.Core().compile_model(converted, "CPU", config)
    requests = [compiled.create_infer_request() for _ in parts]
    if streams == 1:
        return lambda: requests[0].infer(parts, share_inputs=True, share_outputs=True)

    def run():
        for request, part in zip(requests, parts):
            request.start_async([part], share_inputs=True)
        for request in requests:
            request.wait()

    return run


def training(args, model, x, y):
    """A function that takes one step: forward, cross-entropy, backward, AdamW."""
    import torch

    if args.peer.startswith("openvino"):
        sys.exit("OpenVINO does not train")
    model.train()
    forward = torch.compile(model) if args.peer == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)

    def step():
        loss = torch.nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_bytes():
    """Peak resident memory of this process; not `ru_maxrss`, which starts from the parent's."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def versions(args):
    import timm
    import torch

    found = {"python": sys.version.split()[0], "torch": torch.__version__, "timm": timm.__version__}
    if args.peer.startswith("openvino"):
        import openvino

        found["openvino"] = openvino.__version__
    return found


def serve(args, step):
    step()
    print(json.dumps({"ready": args.peer, "versions": versions(args)}), file=replies)
    for line in sys.stdin:
        took = []
        for _ in range(json.loads(line)["run"]):
            start = time.perf_counter()
            step()
            took.append(1000 * (time.perf_counter() - start))
        print(json.dumps({"ms": took, "peakBytes": peak_bytes()}), file=replies)


def main():
    args = parse()
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = create(args.model, args.cswin)
    x = torch.randn(args.batch, 3, args.size, args.size)
    y = torch.arange(args.batch) % 1000
    if args.peer == "export":
        torch.onnx.export(model.eval(), (x,), args.file, dynamo=True)
        print(json.dumps({"ready": "export", "versions": versions(args)}), file=replies)
    else:
        serve(args, inference(args, model, x) if args.mode == "inference" else training(args, model, x, y))


main()
