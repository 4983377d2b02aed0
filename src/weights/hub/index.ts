/**
 * Weights from the Hugging Face hub, or another server that speaks its protocol, in the cache that Python's huggingface_hub uses.
 * https://huggingface.co/docs/huggingface_hub/package_reference/file_download
 */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { didYouMean, OrielError } from "../../base/errors.ts";
import { chooseWeights } from "../choose.ts";
import { type Answer, ask, bodyOf, type HttpOptions, PassingError, retrying } from "../http.ts";
import { parseIndex } from "../index-file.ts";
import { checked, HubCache, isCommit } from "./cache.ts";
import { download } from "./download.ts";
import { type HubName, parseHubName } from "./name.ts";
import { type HubSettings, hubSettings } from "./settings.ts";

export { type HubName, type HubSettings, hubSettings, parseHubName };

/** Progress of a download in bytes; it begins where an earlier one broke off. */
export interface DownloadEvent {
  type: "download";
  /** The repository and the file in it. */
  from: string;
  file: string;
  done: number;
  /** Undefined where the server does not tell. */
  total?: number;
}

export interface HubOptions extends Pick<HttpOptions, "signal" | "tries" | "pause"> {
  /** What is not to be as the environment has it. */
  settings?: Partial<HubSettings>;
  onEvent?(event: DownloadEvent): void;
}

/**
 * The path of a repository's weights in the cache, downloaded if they are not there: the file that the name names, or the one that
 * holds weights; of weights in parts the index, with all parts beside it.  When the hub cannot be reached, what is cached is used.
 */
export async function hubWeights(name: HubName, options: HubOptions = {}): Promise<string> {
  const hub = await openHub(name.repo, options);
  const { commit, files } = await hub.list(name.revision);
  const file = name.file ?? chooseWeights(files, `${name.repo}@${name.revision}`);
  const path = await hub.file(commit, file);
  const parts = file.endsWith(".index.json") ? parseIndex(await readFile(path), path).places.values() : [];
  for (const part of new Set(parts)) await hub.file(commit, join(dirname(file), part).replaceAll("\\", "/"));
  await hub.remember(name.revision, commit);
  return path;
}

/** The path of any file of a repository in the cache, downloaded if it is not there: its `config.json`, its labels. */
export async function hubFile(name: HubName & { file: string }, options: HubOptions = {}): Promise<string> {
  return (await openHub(name.repo, options)).file(name.revision, name.file);
}

async function openHub(repo: string, options: HubOptions): Promise<Hub> {
  return new Hub(repo, { ...(await hubSettings()), ...options.settings }, options);
}

class Hub {
  readonly #repo: string;
  readonly #settings: HubSettings;
  readonly #options: HubOptions;
  readonly #cache: HubCache;

  constructor(repo: string, settings: HubSettings, options: HubOptions) {
    this.#repo = repo;
    this.#settings = settings;
    this.#options = options;
    this.#cache = new HubCache(settings.cache, repo);
  }

  async remember(revision: string, commit: string): Promise<void> {
    await this.#cache.remember(revision, commit);
  }

  /** A revision's commit and the names of its files; without the hub, of those in the cache. */
  async list(revision: string): Promise<{ commit: string; files: string[] }> {
    const known = await this.#cache.commitOf(revision);
    const cached = known === undefined ? [] : await this.#cache.list(known);
    if (this.#settings.offline) {
      if (known !== undefined && cached.length > 0) return { commit: known, files: cached };
      throw this.#absent(revision);
    }
    try {
      return await this.#listed(revision);
    } catch (error) {
      if (known !== undefined && cached.length > 0 && mayPass(error)) return { commit: known, files: cached };
      throw error;
    }
  }

  /** The path of a file in the cache. */
  async file(revision: string, file: string): Promise<string> {
    checked(file);
    const known = await this.#cache.commitOf(revision);
    const cached = known === undefined ? undefined : await this.#cache.find(known, file);
    if (cached !== undefined && (isCommit(revision) || this.#settings.offline)) return cached;
    if (this.#settings.offline) throw this.#absent(revision, file);
    let found: { commit: string; etag: string; size?: number };
    try {
      found = await this.#describe(revision, file);
    } catch (error) {
      if (cached !== undefined && mayPass(error)) return cached;
      throw error;
    }
    const { commit, etag, size } = found;
    const blob = this.#cache.blob(etag);
    const there = await this.#cache.find(commit, file);
    if (there === undefined) {
      await download({
        path: blob,
        size,
        hash: etag,
        name: `${this.#repo}/${file}`,
        get: (offset) => this.#get(commit, file, offset),
        onProgress: (done, total) => this.#options.onEvent?.({ type: "download", from: this.#repo, file, done, total }),
        ...this.#http(),
      });
    }
    await this.#cache.remember(revision, commit);
    return there ?? (await this.#cache.link(commit, file, blob));
  }

  #http(): HttpOptions {
    const { signal, tries, pause } = this.#options;
    return { signal, tries, pause, patience: this.#settings.patience };
  }

  #url(revision: string, file: string): URL {
    const path = file.split("/").map(encodeURIComponent).join("/");
    return new URL(`${this.#settings.endpoint}/${this.#repo}/resolve/${encodeURIComponent(revision)}/${path}`);
  }

  /** What the hub says of a file: its commit, its hash and its size. */
  async #describe(revision: string, file: string): Promise<{ commit: string; etag: string; size?: number }> {
    const { response, close } = await retrying(() => this.#ask(this.#url(revision, file), "HEAD"), this.#http());
    close();
    const { headers, status } = response;
    if (status >= 400) throw await this.#refusal(response, revision, file);
    const commit = headers.get("x-repo-commit");
    // Large files lie elsewhere, and the answer is where; what is said of them comes with it.
    const etag = (headers.get("x-linked-etag") ?? headers.get("etag"))?.replace(/^W\//, "").replaceAll('"', "");
    const size = headers.get("x-linked-size") ?? (status < 300 ? headers.get("content-length") : null);
    if (!commit || !isCommit(commit) || !etag)
      throw new OrielError("hub", {
        message: "the answer has no commit or no hash, so it does not come from a hub",
        at: this.#settings.endpoint,
        help: "check HF_ENDPOINT, and whether a proxy answers in the hub's place",
      });
    return { commit, etag, size: /^\d+$/.test(size ?? "") ? Number(size) : undefined };
  }

  async #get(commit: string, file: string, offset: number): Promise<Answer> {
    const range = offset > 0 ? { Range: `bytes=${offset}-` } : undefined;
    const answer = await this.#ask(this.#url(commit, file), "GET", range);
    if (answer.response.ok || answer.response.status === 416) return answer;
    answer.close();
    throw await this.#refusal(answer.response, commit, file);
  }

  async #listed(revision: string): Promise<{ commit: string; files: string[] }> {
    const url = new URL(`${this.#settings.endpoint}/api/models/${this.#repo}/revision/${encodeURIComponent(revision)}`);
    const body = await retrying(async () => {
      const answer = await this.#ask(url, "GET");
      if (answer.response.ok) return bodyOf(answer, longestListing);
      answer.close();
      throw await this.#refusal(answer.response, revision);
    }, this.#http());
    const { sha, siblings } = parseListing(body);
    if (typeof sha === "string" && isCommit(sha) && Array.isArray(siblings))
      return { commit: sha, files: siblings.map(({ rfilename }) => String(rfilename)) };
    throw new OrielError("hub", { message: "the answer is no list of files", at: url.href, help: "check HF_ENDPOINT" });
  }

  /** Follows redirects, and shows the token to the hub alone; a HEAD stops where the answer says all of a file that lies elsewhere. */
  async #ask(url: URL, method: "GET" | "HEAD", headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    const { token, endpoint } = this.#settings;
    let at = url;
    for (let hops = 0; hops < 10; hops++) {
      const own = at.host === new URL(endpoint).host;
      const answer = await ask(
        at,
        {
          method,
          redirect: "manual",
          headers: {
            "Accept-Encoding": "identity", // lengths are to be those of the files
            "User-Agent": "oriel",
            ...(own && token ? { Authorization: `Bearer ${token}` } : {}),
            ...headers,
          },
        },
        this.#http(),
      );
      const { response } = answer;
      const to = response.status >= 300 && response.status < 400 ? response.headers.get("location") : null;
      if (to === null || (method === "HEAD" && response.headers.has("x-linked-etag"))) return answer;
      answer.close();
      at = new URL(to, at);
    }
    throw new OrielError("hub", { message: "redirected without end", at: url.href });
  }

  /** What a refusal means; of a file that is not there, the names of those nearest to it. */
  async #refusal(response: Response, revision: string, file?: string): Promise<OrielError> {
    const { status, headers } = response;
    const code = headers.get("x-error-code");
    const repo = this.#repo;
    const at = `${this.#settings.endpoint}/${repo}`;
    const token = this.#settings.token !== undefined;
    if (code === "GatedRepo" || status === 403)
      return new OrielError("no-access", {
        message: `${repo} is given only to those who accepted its terms`,
        at,
        help: `accept them on that page, then ${token ? "use a token of the same account" : "set HF_TOKEN to a token of your account"}`,
      });
    if (code === "RevisionNotFound")
      return new OrielError("not-found", { message: `${repo} has no revision "${revision}"`, at });
    if (status === 404 && file !== undefined && code !== "RepoNotFound") {
      const files = await this.#listed(revision).then(
        (listed) => listed.files,
        () => [],
      );
      return new OrielError("not-found", {
        message: `${repo} has no file "${file}"`,
        at,
        help: didYouMean(file, files),
      });
    }
    // The hub does not tell strangers whether a private repository is there.
    if (status === 401 || status === 404)
      return new OrielError(status === 401 ? "no-access" : "not-found", {
        message: `there is no repository ${repo}, or it is private`,
        at,
        help: token
          ? "check the name, and whether the token is of an account that may read it"
          : "check the name, or set HF_TOKEN",
      });
    return new OrielError("hub", {
      message: `the hub answered ${status} ${headers.get("x-error-message") ?? ""}`.trim(),
      at,
    });
  }

  #absent(revision: string, file?: string): OrielError {
    return new OrielError("offline", {
      message: `${file ? `${this.#repo}/${file}` : this.#repo} at ${revision} is not in the cache, and HF_HUB_OFFLINE forbids to ask for it`,
      at: this.#cache.folder,
      help: "unset HF_HUB_OFFLINE once, or copy the cache from where it was downloaded",
    });
  }
}

const longestListing = 2 ** 26;

function parseListing(bytes: Uint8Array): { sha?: unknown; siblings?: unknown } {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

/** Whether what is cached may stand in: the hub is out of reach, or does not know this account today. */
const mayPass = (error: unknown): boolean =>
  error instanceof PassingError || (error instanceof OrielError && error.code === "no-access");
