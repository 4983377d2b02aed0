import { didYouMean, OrielError, UsageError } from "../base/errors.ts";
import { initializeMatrices } from "../nn/module.ts";
import {
  type Backbone,
  type BackboneOptions,
  checkImage,
  checkOptions,
  type Family,
  imagenet,
  type Preprocessing,
} from "./backbone.ts";
import type { FamilyNames } from "./names.ts";

export type { Backbone, BackboneOptions, Family, Preprocessing } from "./backbone.ts";
export type { FamilyNames, NameMap, NamePair } from "./names.ts";

// biome-ignore lint/suspicious/noExplicitAny: each family has a config of its own
const families: Readonly<Record<string, () => Promise<Family<any>>>> = {
  swin: () => import("./swin.ts"),
  swinv2: () => import("./swinv2.ts"),
  davit: () => import("./davit.ts"),
  maxvit: () => import("./maxvit.ts"),
  gcvit: () => import("./gcvit.ts"),
  cswin: () => import("./cswin.ts"),
  vit: () => import("./vit.ts"),
  resnet: () => import("./resnet.ts"),
  mobilenetv2: () => import("./mobilenetv2.ts"),
  mobilenetv3: () => import("./mobilenetv3.ts"),
  mnasnet: () => import("./mnasnet.ts"),
  fbnet: () => import("./fbnet.ts"),
  spnasnet: () => import("./spnasnet.ts"),
  proxyless: () => import("./proxyless.ts"),
  micronet: () => import("./micronet.ts"),
  attnet: () => import("./attnet.ts"),
  ghostnet: () => import("./ghostnet.ts"),
  convnext: () => import("./convnext.ts"),
  poolformer: () => import("./poolformer.ts"),
  focalnet: () => import("./focalnet.ts"),
  smt: () => import("./smt.ts"),
  spectformer: () => import("./spectformer.ts"),
  iformer: () => import("./iformer.ts"),
  tiny_vit: () => import("./tiny-vit.ts"),
  cvt: () => import("./cvt.ts"),
  uniformer: () => import("./uniformer.ts"),
  volo: () => import("./volo.ts"),
  mobile_former: () => import("./mobile-former.ts"),
};

/** What is known of a model before it is made. */
export interface ModelEntry {
  name: string;
  family: string;
  paper: string;
  aliases: readonly string[];
  preprocessing: Preprocessing;
  /** Classes of the classifier that it was published with; 0 where it has none. */
  classes: number;
  /** How others call its weights: by convention, "official" or "transformers". */
  names: FamilyNames;
  /** Options that only its family knows are allowed too; unknown ones are an error. */
  create(options?: BackboneOptions & Readonly<Record<string, unknown>>): Backbone;
}

/** The models of a family, whose file was imported: `import * as swin from "oriel/backbones/swin"`. */
export function familyModels<C>({
  variants,
  paper,
  options: special,
  names,
  create,
}: Family<C>): Omit<ModelEntry, "family">[] {
  return Object.entries(variants).map(([name, variant]) => {
    const preprocessing = { ...imagenet, ...variant.preprocessing };
    return {
      name,
      paper,
      aliases: variant.aliases ?? [],
      preprocessing,
      classes: variant.classes ?? 1000,
      names: typeof names === "function" ? names(variant.config) : (names ?? {}),
      create: (options = {}) => {
        checkOptions(name, options, special);
        const imageSize = options.imageSize ?? preprocessing.imageSize;
        const backbone = made(name, () => create(variant.config, { ...options, imageSize }));
        checkImage(name, backbone, imageSize);
        if (variant.init) initializeMatrices(backbone, variant.init);
        return backbone;
      },
    };
  });
}

/** What a family drew, which may be somebody's own: an error names the model. */
function made(name: string, create: () => Backbone): Backbone {
  let backbone: Backbone | undefined;
  try {
    backbone = create();
  } catch (cause) {
    if (cause instanceof OrielError) throw cause;
    throw new OrielError("model", { message: `${name} cannot be made: ${(cause as Error)?.message ?? cause}`, cause });
  }
  if (Array.isArray(backbone?.strides) && Array.isArray(backbone.channels) && typeof backbone.embed === "function")
    return backbone;
  throw new OrielError("model", {
    message: `${name} is no backbone`,
    help: "create returns a Module with channels, strides, dim, headName, forward and embed: see Backbone",
  });
}

const load = async (family: string): Promise<ModelEntry[]> =>
  familyModels(await families[family]()).map((model) => ({ ...model, family }));

const registered = new Map<string, ModelEntry[]>();

/**
 * Makes a family of one's own known, as timm's `register_model` does: wherever a model is named, to train, evaluate, predict, export or
 * measure, its variants are found by their names.  Where another family has a model of the same name, yours is meant from then on.
 */
export function registerFamily<C>(name: string, family: Omit<Family<C>, "paper"> & { paper?: string }): void {
  if (Object.hasOwn(families, name) || registered.has(name))
    throw new UsageError({ message: `there is a family called "${name}" already`, help: "give yours another name" });
  if (typeof family?.create !== "function" || Object.keys(family.variants ?? {}).length === 0)
    throw new UsageError({ message: `the family "${name}" has no models`, help: "give it variants, and create" });
  const models = familyModels({ paper: "", ...family });
  const own = new Set([...registered.values()].flat().flatMap((model) => [model.name, ...model.aliases]));
  for (const each of models.flatMap((model) => [model.name, ...model.aliases])) {
    if (own.has(each)) throw new UsageError(`another registered family has a model called "${each}"`);
    // Names are folders of runs, and stand where files, addresses and names on the hub may stand.
    if (!/^\w[\w.-]*$/.test(each) || /\.(onnx|safetensors|pth?|th|bin)$/i.test(each))
      throw new UsageError({
        message: `a model cannot be called "${each}"`,
        help: "names are of letters, digits, _, - and dots, and do not end as files do",
      });
  }
  registered.set(
    name,
    models.map((model) => ({ ...model, family: name })),
  );
}

/** Every model of every family, in the order of the families; registered ones last. */
export const listModels = async (): Promise<ModelEntry[]> => {
  const own = [...registered.values()].flat();
  const names = new Set(own.map((model) => model.name));
  const others = (await Promise.all(Object.keys(families).map(load))).flat();
  return [...others.filter((model) => !names.has(model.name)), ...own];
};

/** The model called `name`, by its own name or an alias, where there is one.  A family that it begins with is looked into first, so that a page need not load them all. */
export async function lookUpModel(name: string): Promise<ModelEntry | undefined> {
  const called = (models: readonly ModelEntry[]) =>
    models.find((model) => model.name === name || model.aliases.includes(name));
  const own = called([...registered.values()].flat());
  if (own) return own;
  const likely = Object.keys(families).filter((family) => name.startsWith(family));
  return called((await Promise.all(likely.map(load))).flat()) ?? called(await listModels());
}

/** The model called `name`, by its own name or an alias; an error names what is near where there is none. */
export async function findModel(name: string): Promise<ModelEntry> {
  const found = await lookUpModel(name);
  if (found) return found;
  const names = (await listModels()).map((model) => model.name);
  const all = "`oriel models` lists all; one of your own is known once it is registered (--import)";
  if (/\.(safetensors|pth?|th|bin)$/i.test(name))
    throw new UsageError({
      message: `${name} holds weights, not a model`,
      help: `name the model that they are for; ${all}`,
    });
  const parts = names.filter((candidate) => candidate.includes(name));
  throw new UsageError({
    message: `there is no model called "${name}"`,
    help: parts.length > 0 ? `did you mean ${parts.slice(0, 3).join(", ")}? ${all}` : didYouMean(name, names, all),
  });
}
