import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { OrielError } from "../../base/errors.ts";

/** Where the hub is, who asks, and where its files are kept: what Python's huggingface_hub reads from the environment. */
export interface HubSettings {
  endpoint: string;
  /** The folder of all repositories. */
  cache: string;
  token?: string;
  /** Ask nobody, use what is there. */
  offline: boolean;
  /** Seconds of silence after which a connection counts as lost. */
  patience: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * `HF_ENDPOINT`; `HF_HUB_CACHE`, or `hub` in `HF_HOME`, which is `huggingface` in `XDG_CACHE_HOME`; `HF_TOKEN`, or the file that
 * `HF_TOKEN_PATH` names, `token` in `HF_HOME`; `HF_HUB_OFFLINE`; `HF_HUB_DOWNLOAD_TIMEOUT`.
 * https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
 */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const home =
    expand(env.HF_HOME, env) ?? join(expand(env.XDG_CACHE_HOME, env) ?? join(homedir(), ".cache"), "huggingface");
  const endpoint = (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:\/\/./.test(endpoint))
    throw new OrielError("hub", `HF_ENDPOINT is "${endpoint}", expected an address that begins with https://`);
  return {
    endpoint,
    cache: expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE, env) ?? join(home, "hub"),
    token:
      clean(env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN) ??
      (await tokenIn(expand(env.HF_TOKEN_PATH, env) ?? join(home, "token"))),
    offline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE || ""),
    patience: Number(env.HF_HUB_DOWNLOAD_TIMEOUT) || 10,
  };
}

const clean = (token: string | undefined): string | undefined => token?.replace(/[\r\n]/g, "").trim() || undefined;

const tokenIn = async (path: string) => clean(await readFile(path, "utf8").catch(() => undefined));

/** `~` and `$NAME` in a path. */
function expand(path: string | undefined, env: Environment): string | undefined {
  if (!path) return undefined;
  return path.replace(/^~(?=$|[\\/])/, homedir()).replace(/\$\{?(\w+)\}?/g, (whole, name) => env[name] ?? whole);
}
