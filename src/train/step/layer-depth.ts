import { UsageError } from "../../base/errors.ts";
import { layerDecay } from "../../optim/schedule.ts";

/**
 * What counts as one layer of a model, also where something larger holds it (`model.`): `layers.0.blocks.1`, `blocks.11`, `blocks.3.1`
 * and `stages.3.1`, `stage3.4`, `layer2.0`, `blocks4.0`, `network.2.3`, `features.5`.
 */
const block =
  /^(?:.*?\.)??(?:(?<!s\.\d+\.)blocks\.\d+\.\d+|blocks\.\d+|(?:layer|stage|blocks?)\d+\.\d+|stages\.\d+\.\d+|(?:post_)?network\.\d+(?:\.\d+)?|features\.\d+(?!\.stem))(?=\.)/;

/** What makes the map of a stage, where a model lists all of it before the first block; the number is the stage's. */
const between = /^(.*?\.)??(?:downsample_layers\.|patch_embed|pos_embed)(\d+)/;

/**
 * The depth of each parameter for layer-wise rates: 0 before the first block, then the number of its block; what stands between
 * two blocks goes with the later one, and what follows the last is a layer of its own.  The depth of all is 0 where no block is found.
 * paths: in the order of the model
 */
export function layerDepths(paths: readonly string[]): { depthOf: (path: string) => number; depth: number } {
  const blocks = new Map<string, number>();
  const depths = new Map<string, number>();
  for (const path of paths) {
    const name = block.exec(path)?.[0];
    if (name !== undefined && !blocks.has(name)) blocks.set(name, blocks.size + 1);
    depths.set(path, name === undefined ? (blocks.size === 0 ? 0 : blocks.size + 1) : (blocks.get(name) as number));
  }
  for (const path of paths) {
    const [, holder = "", stage] = between.exec(path) ?? [];
    const starts = ["stages.", "blocks", "block"].map((word) => `${holder}${word}${stage}.`);
    const first = stage && [...blocks.keys()].find((name) => starts.some((start) => name.startsWith(start)));
    const depth = first && blocks.get(first);
    if (depth) depths.set(path, depth === 1 ? 0 : depth);
  }
  return { depthOf: (path) => depths.get(path) ?? 0, depth: blocks.size === 0 ? 0 : blocks.size + 1 };
}

/** Factors of the learning rate: 1 for what follows the last block, `decay` times less for each layer below. */
export function layerRates(decay: number, paths: readonly string[]): ((path: string) => number) | undefined {
  if (decay === 1) return undefined;
  const { depthOf, depth } = layerDepths(paths);
  if (depth === 0)
    throw new UsageError({
      message: "the names of the model's weights do not tell its layers apart",
      help: "leave --layer-decay out",
    });
  return layerDecay(decay, depth, depthOf);
}
