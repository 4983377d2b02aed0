import type { Tensor } from "../graph/tensor.ts";
import { maximum, relu, sigmoid } from "../ops/elementwise.ts";
import { split } from "../ops/move.ts";
import { uniformFanIn } from "./init.ts";
import { Linear } from "./layers.ts";
import { Module } from "./module.ts";

export interface DynamicReluOptions {
  /** One function for all channels (variant A) instead of one for each (variant B). */
  shared?: boolean;
  /** The channels divided by the hidden ones. */
  reduction?: number;
}

/** Slopes 1 and 0 and intercepts 0 and 0, where the activation starts, and how far the image can move them. */
const start = [1, 0, 0, 0];
const reach = [1, 1, 0.5, 0.5];

/**
 * ReLU whose two lines depend on the image: max(a₁x + b₁, a₂x + b₂) with aᵢ and bᵢ from the mean of the map; it starts near
 * max(x, 0).  [N, C, H, W] -> [N, C, H, W].  Chen et al., "Dynamic ReLU" (ECCV 2020), https://arxiv.org/abs/2003.10027,
 * figure 2 (a) and (b).
 */
export class DynamicRelu extends Module {
  fc1;
  fc2;
  readonly #functions: number;
  constructor(channels: number, { shared = false, reduction = 4 }: DynamicReluOptions = {}) {
    super();
    this.#functions = shared ? 1 : channels;
    const hidden = Math.max(1, Math.floor(channels / reduction));
    this.fc1 = new Linear(channels, hidden, { init: uniformFanIn });
    this.fc2 = new Linear(hidden, start.length * this.#functions, { init: uniformFanIn });
  }
  forward(x: Tensor): Tensor {
    const hidden = relu(this.fc1.forward(x.mean([2, 3])));
    const moves = sigmoid(this.fc2.forward(hidden)).mul(2).sub(1); // [N, functions · 4], each from -1 to 1
    const each = split(moves.reshape([x.shape[0], this.#functions, 1, start.length]), -1, start.length);
    const [a1, a2, b1, b2] = each.map((move, i) => move.mul(reach[i]).add(start[i])); // [N, functions, 1, 1]
    return maximum(x.mul(a1).add(b1), x.mul(a2).add(b2));
  }
}
