import { known } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { LayerNorm } from "./layers.ts";

/** [N, C, H, W] -> [N, H, W, C] */
export const channelsLast = (map: Tensor): Tensor => map.permute(0, 2, 3, 1);

/** [N, H, W, C] -> [N, C, H, W] */
export const channelsFirst = (x: Tensor): Tensor => x.permute(0, 3, 1, 2);

/** Zeros below and to the right, until both sides divide by `by`.  [N, C, H, W] -> [N, C, H', W'] */
export const complete = (map: Tensor, by: number): Tensor =>
  [2, 3].reduce((x, axis) => x.pad(axis, 0, (by - (known(map.shape[axis]) % by)) % by), map);

/** Normalises the channels of each place of a map.  [N, C, H, W] -> [N, C, H, W] */
export const normChannels = (norm: LayerNorm, map: Tensor): Tensor => channelsFirst(norm.forward(channelsLast(map)));

/** A layer norm of the channels of each place.  [N, C, H, W] -> [N, C, H, W] */
export class LayerNorm2d extends LayerNorm {
  override forward(map: Tensor): Tensor {
    return channelsFirst(super.forward(channelsLast(map)));
  }
}
