/**
 * A model of one's own that has a name, so that all of Oriel can use it: training with checkpoints and report, evaluation, prediction,
 * export.  Run, it learns to tell lying stripes from standing ones; loaded by `--import own-model.js`, it is known to the command line.
 */
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Backbone, Module, registerFamily, type Tensor } from "oriel";
import { BatchNorm2d, Conv2d, Sequential } from "oriel/nn";
import { gelu } from "oriel/ops";
import { exportModel, predict, train } from "oriel/train";
import sharp from "sharp";

interface ConvMixerConfig {
  dim: number;
  depth: number;
  kernel: number;
  patch: number;
}

/** A depthwise convolution mixes places, one over single pixels mixes channels.  [N, C, H, W] -> [N, C, H, W] */
class Block extends Module {
  places;
  channels;
  constructor(dim: number, kernel: number) {
    super();
    const depthwise = new Conv2d(dim, dim, { kernel, padding: (kernel - 1) / 2, groups: dim });
    this.places = new Sequential(depthwise, gelu, new BatchNorm2d(dim));
    this.channels = new Sequential(new Conv2d(dim, dim, { kernel: 1 }), gelu, new BatchNorm2d(dim));
  }
  forward(x: Tensor): Tensor {
    return this.channels.forward(x.add(this.places.forward(x)));
  }
}

/** ConvMixer.  Trockman & Kolter, "Patches Are All You Need?" (2022), https://arxiv.org/abs/2201.09792 */
class ConvMixer extends Module implements Backbone {
  stem;
  blocks;
  readonly channels;
  readonly strides;
  readonly dim;
  readonly headName = "head";
  constructor({ dim, depth, kernel, patch }: ConvMixerConfig, inChannels: number) {
    super();
    this.stem = new Sequential(
      new Conv2d(inChannels, dim, { kernel: patch, stride: patch }),
      gelu,
      new BatchNorm2d(dim),
    );
    this.blocks = new Sequential(...Array.from({ length: depth }, () => new Block(dim, kernel)));
    this.channels = [dim];
    this.strides = [patch];
    this.dim = dim;
  }
  /** [N, 3, H, W] -> one map, [N, C, H / patch, W / patch] */
  forward(image: Tensor): [Tensor] {
    return [this.blocks.forward(this.stem.forward(image))];
  }
  /** [N, 3, H, W] -> [N, C] */
  embed(image: Tensor): Tensor {
    return this.forward(image)[0].mean([2, 3]);
  }
}

registerFamily("convmixer", {
  paper: "Trockman & Kolter, Patches Are All You Need? (2022), https://arxiv.org/abs/2201.09792",
  variants: {
    convmixer_1536_20: { config: { dim: 1536, depth: 20, kernel: 9, patch: 7 } },
    convmixer_micro_16: { config: { dim: 32, depth: 2, kernel: 3, patch: 2 }, preprocessing: { imageSize: 16 } },
  },
  // Of the options that any model may be given, those that this one heeds.
  create: (config: ConvMixerConfig, { inChannels = 3 }) => new ConvMixer(config, inChannels),
});

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const home = await mkdtemp(join(tmpdir(), "stripes-"));
  for (const kind of ["lying", "standing"]) await paintStripes(join(home, "pictures", kind), kind === "lying");
  const run = await train({
    data: join(home, "pictures"),
    model: "convmixer_micro_16",
    epochs: 6,
    out: join(home, "run"),
  });
  console.log(`top-1 ${run.top1}`);
  const best = join(home, "run", "best.safetensors");
  const [answer] = await predict(best, [join(home, "pictures", "lying", "0.png")]);
  console.log(`lying/0.png: ${answer?.top[0]?.label}`);
  console.log((await exportModel(best, join(home, "stripes.onnx"))).files);
}

/** Fifty pictures of 16 × 16 pixels. */
async function paintStripes(folder: string, lying: boolean): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (let n = 0; n < 50; n++) {
    const pixels = Uint8Array.from({ length: 256 }, (_, i) => {
      const place = lying ? Math.floor(i / 16) : i % 16;
      return 128 + 90 * Math.sin(place + n) + 30 * Math.random();
    });
    const raw = { width: 16, height: 16, channels: 1 } as const;
    await sharp(pixels, { raw })
      .png()
      .toFile(join(folder, `${n}.png`));
  }
}
