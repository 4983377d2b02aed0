import assert from "node:assert/strict";
import { test } from "node:test";
import { findModel } from "../../src/backbones/index.ts";
import { input, type Tensor } from "../../src/graph/tensor.ts";
import { bindWeights } from "../../src/nn/bind.ts";
import { features } from "../../src/nn/features.ts";
import { ones } from "../../src/nn/init.ts";
import { Conv2d, Dropout, Linear } from "../../src/nn/layers.ts";
import { initialWeights, Module, weightsOf } from "../../src/nn/module.ts";
import { Classifier } from "../../src/tasks/classify.ts";
import { inferenceGraph } from "../../src/train/checkpoint/model.ts";

class Doubling extends Module {
  forward(x: Tensor): Tensor {
    return x.mul(2);
  }
}
class Inheriting extends Doubling {}
class Calling extends Doubling {
  override forward(x: Tensor): Tensor {
    return super.forward(x).add(1);
  }
}

test("a module that inherits its forward, or calls it, is found by its path and told once", () => {
  class Model extends Module {
    inheriting = new Inheriting();
    calling = new Calling();
    forward(x: Tensor): Tensor {
      return this.calling.forward(this.inheriting.forward(x));
    }
  }
  const found = features(new Model(), input([1, 2]), ["inheriting", "calling"]);
  assert.deepEqual([...found.keys()], ["inheriting", "calling"]);
  assert.equal(found.get("calling")?.node.op.name, "Add");
});

test("two weights of one name, and a shape that cannot be, are found where they are declared", () => {
  class Twice extends Module {
    fooBar = new Linear(2, 3);
    foo_bar = new Linear(2, 3);
    forward(x: Tensor): Tensor {
      return this.foo_bar.forward(this.fooBar.forward(x));
    }
  }
  assert.throws(() => weightsOf(new Twice()), /two weights of this model are called foo_bar.weight/);
  class Odd extends Module {
    weight = this.param([2, 2.5], ones);
    forward(): Tensor {
      return this.weight;
    }
  }
  assert.throws(() => new Odd(), /a parameter cannot be \[2, 2.5\]/);
  assert.throws(() => new Conv2d(10, 8, { kernel: 3, groups: 4 }), /cannot be \[8, 2.5, 3, 3\]/);
  assert.throws(() => new Dropout(1), /1 is no share to drop/);
});

test("a module that holds its parent is told of, not walked for ever", () => {
  class Child extends Module {
    parent: Module;
    constructor(parent: Module) {
      super();
      this.parent = parent;
    }
    forward(x: Tensor): Tensor {
      return x;
    }
  }
  class Parent extends Doubling {
    child = new Child(this);
  }
  assert.throws(() => weightsOf(new Parent()), /child\.parent is a module that holds itself\n {2}help: .*#private/);
  class Twice extends Doubling {
    a = new Doubling();
    b = this.a;
  }
  assert.deepEqual(weightsOf(new Twice()), []);
});

test("an initializer of too few values is named by what it begins", () => {
  class Short extends Doubling {
    gain = this.param([2, 3], () => new Float32Array(3));
  }
  assert.throws(() => initialWeights(new Short(), 0), /gain \[2, 3\] begins with 6 values, its initializer made 3/);
});

test("values of another shape are refused by name", async () => {
  const model = new Classifier((await findModel("swin_micro_32")).create(), 3);
  const weights = initialWeights(model, 0).set("norm.weight", new Float32Array(3));
  assert.throws(() => bindWeights(inferenceGraph(model, 32), model, weights), /norm.weight is \[\d+\], 3 values came/);
});

test("the graph of a module for wide pictures of one channel", async () => {
  const backbone = (await findModel("resnet20_cifar")).create({ inChannels: 1 });
  const graph = inferenceGraph(new Classifier(backbone, 7), [24, 40], { channels: 1 });
  assert.deepEqual(graph.inputs.get("image")?.shape.slice(1), [1, 24, 40]);
  assert.equal(graph.outputs.get("logits")?.shape[1], 7);
});
