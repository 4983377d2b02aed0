/**
 * Token labeling: every patch of an image has a label of its own and is classified too.
 * Jiang et al., "All Tokens Matter: Token Labeling for Training Better Vision Transformers" (NeurIPS 2021), https://arxiv.org/abs/2104.10858.
 */
import type { TokenLabelled } from "../backbones/token-labels.ts";
import { UsageError } from "../base/errors.ts";
import { checkNumbers, isAmount } from "../base/options.ts";
import { known } from "../graph/shape.ts";
import { constant, type Tensor } from "../graph/tensor.ts";
import { crossEntropy } from "../nn/losses.ts";
import { Module } from "../nn/module.ts";
import type { Rng } from "../nn/rng.ts";
import { currentRng, isTraining } from "../nn/trace.ts";
import { cast, greaterOrEqual, less, oneHot } from "../ops/compare.ts";
import { clip, floor } from "../ops/elementwise.ts";
import { expand } from "../ops/move.ts";
import { accuracyOf, type Classifier } from "../tasks/classify.ts";

export interface TokenLabelingOptions {
  /** Weight of the patches' loss, β of equation 4. */
  weight?: number;
  /** Whether a box of patches is exchanged with another image of the batch while it trains (section 3.3). */
  mix?: boolean;
}

/** Learns to classify images and their patches (equation 4). */
export class TokenLabeling extends Module {
  readonly model: Classifier;
  readonly #backbone: TokenLabelled;
  readonly #weight;
  readonly #mix;
  constructor(model: Classifier, { weight = 0.5, mix = true }: TokenLabelingOptions = {}) {
    super();
    checkNumbers({ weight }, isAmount, "at least 0");
    const { backbone } = model;
    if (!labelsTokens(backbone))
      throw new UsageError({
        message: "this model has no classifier for its patches",
        help: "take one of the families volo or uniformer, of which those with tl in their names have it",
      });
    this.model = model;
    this.#backbone = backbone;
    this.#weight = weight;
    this.#mix = mix;
  }
  override parts(): Iterable<[string, Module | Tensor]> {
    return this.model.parts();
  }
  /**
   * image [N, 3, H, W]; target int32 [N] or a distribution [N, classes]; tokens [N, H', W', classes], a distribution for each patch of the
   * last map.  Without `tokens` a patch has its image's label.
   */
  forward({ image, target, tokens }: Readonly<Record<string, Tensor>>): { loss: Tensor; accuracy: Tensor } {
    const [head, auxiliary] = this.model.heads;
    const box = this.#mix && isTraining() ? this.#drawBox(image) : undefined;
    const { whole, patches } = this.#backbone.tokens(image, box && ((map) => box.exchange(map, [2, 3])));

    const logits = head.forward(whole);
    const classes = known(logits.shape[1]);
    const wanted = target.rank === 1 ? oneHot(target, classes) : target; // [N, classes]
    const share = box?.share();
    const mixed = share ? wanted.add(wanted.flip(0).sub(wanted).mul(share)) : wanted;

    const said = auxiliary.forward(patches); // [N, H', W', classes]
    const back = box ? box.exchange(said, [1, 2]) : said; // every label to the image it came from
    const labels = tokens ?? expand(wanted.reshape([wanted.shape[0], 1, 1, classes]), { shape: back.shape });
    const rows = (t: Tensor): Tensor => t.reshape([-1, classes]);
    const ofPatches = crossEntropy(rows(back), rows(labels));
    return {
      loss: crossEntropy(logits, mixed).add(ofPatches.mul(this.#weight)),
      accuracy: accuracyOf(logits, mixed),
    };
  }
  #drawBox(image: Tensor): Box {
    const stride = Math.max(...this.#backbone.strides);
    return new Box(
      currentRng(),
      image.shape.slice(2).map((s) => Math.ceil(known(s) / stride)),
    );
  }
}

const labelsTokens = (backbone: Classifier["backbone"]): backbone is TokenLabelled =>
  "tokens" in backbone && backbone.otherHeads?.length === 1;

/** A box of random size and place on the last map, as CutMix draws it.  Yun et al. (2019), https://arxiv.org/abs/1905.04899, equation 2. */
class Box {
  readonly #size;
  readonly #starts;
  readonly #ends;
  constructor(rng: Rng, size: readonly number[]) {
    this.#size = size;
    const side = rng.uniform([]).neg().add(1).sqrt(); // √(1 - λ), λ uniform
    const centres = size.map((s) => floor(rng.uniform([]).mul(s)));
    const cuts = size.map((s) => floor(side.mul(s)));
    const inside = (x: Tensor, i: number): Tensor => clip(x, { min: 0, max: size[i] });
    this.#starts = centres.map((c, i) => inside(c.sub(floor(cuts[i].mul(0.5))), i));
    this.#ends = centres.map((c, i) => inside(c.add(floor(cuts[i].add(1).mul(0.5))), i));
  }
  /** The box's share of the map.  float32 [] */
  share(): Tensor {
    const sides = this.#ends.map((end, i) => end.sub(this.#starts[i]).mul(1 / this.#size[i]));
    return sides[0].mul(sides[1]);
  }
  /** Inside the box, what the images of the batch in reverse order have there.  `axes`: those of height and width; the map may be finer. */
  exchange(map: Tensor, axes: readonly [number, number]): Tensor {
    const [rows, columns] = axes.map((axis, i) => this.#within(map, axis, i));
    return map.add(map.flip(0).sub(map).mul(rows.mul(columns)));
  }
  /** 1 for places inside, 0 for others, along one axis of a map. */
  #within(map: Tensor, axis: number, i: number): Tensor {
    const size = known(map.shape[axis]);
    const finer = Math.ceil(size / this.#size[i]);
    const shape = map.shape.map((_, a) => (a === axis ? size : 1));
    const place = constant(
      Float32Array.from({ length: size }, (_, p) => Math.floor(p / finer)),
      shape,
      "float32",
    );
    const [after, before] = [greaterOrEqual(place, this.#starts[i]), less(place, this.#ends[i])];
    return cast(after, { to: "float32" }).mul(cast(before, { to: "float32" }));
  }
}
