import { UsageError } from "../../base/errors.ts";

/** A repository of models on the hub, at a branch, tag or commit; a file in it where one is named. */
export interface HubName {
  /** `timm/resnet50.a1_in1k` */
  repo: string;
  revision: string;
  file?: string;
}

const prefix = /^(hf-hub:|hf:\/\/)(models\/)?/;
const word = "[A-Za-z0-9_][A-Za-z0-9._-]*";
const form = new RegExp(`^(${word}/${word})(?:@(refs/[a-z]+/[^/@]+|[^/@]+))?(?:/(.+))?$`);

/** Ends of files that are rather missing here than a repository there. */
const fileEnds = /\.(safetensors|bin|pth?|th|tar|onnx|json|ckpt)$/i;

/**
 * `timm/resnet50.a1_in1k`, with `hf-hub:` or `hf://` before it where that is to be clear, with `@revision` and `/a/file` behind it;
 * undefined for what is no such name but a path.
 */
export function parseHubName(text: string): HubName | undefined {
  const explicit = prefix.test(text);
  const [, repo, revision = "main", file] = form.exec(text.replace(prefix, "")) ?? [];
  const proper = repo !== undefined && [repo, revision, file ?? ""].every((part) => !part.split("/").includes(".."));
  if (proper && (explicit || (file === undefined && !fileEnds.test(repo)))) return { repo, revision, file };
  if (!explicit) return undefined;
  throw new UsageError({
    message: `"${text}" names no repository of the hub`,
    help: "write hf-hub:owner/name, hf-hub:owner/name@revision or hf-hub:owner/name/path/of/file",
  });
}
