import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What a server may do wrong, once. */
export type Fault =
  | { status: number }
  /** Breaks the connection off after so many bytes, or falls silent. */
  | { after: number; ending: "cut" | "silence" }
  /** Other bytes than announced. */
  | { content: Buffer };

interface Repo {
  commit: string;
  files: Readonly<Record<string, Buffer>>;
  /** Files kept elsewhere, as the hub does with large ones. */
  large?: readonly string[];
  gated?: boolean;
  /** Announced in the place of a file's hash. */
  etag?: string;
  movedTo?: string;
}

export interface Request {
  where: "hub" | "store";
  method: string;
  path: string;
  range?: string;
  authorization?: string;
}

const digest = (kind: string, ...parts: (string | Buffer)[]) =>
  parts.reduce((hash, part) => hash.update(part), createHash(kind)).digest("hex");
export const sha256 = (bytes: Buffer): string => digest("sha256", bytes);
export const gitHash = (bytes: Buffer): string => digest("sha1", `blob ${bytes.length}\0`, bytes);

/** Speaks the hub's protocol: https://huggingface.co/docs/hub/api, as far as a download needs it; large files lie on a second host. */
export class HubServer {
  readonly repos = new Map<string, Repo>();
  readonly requests: Request[] = [];
  /** For the next requests for content, in order. */
  readonly faults: Fault[] = [];
  /** Makes every request fail so. */
  down?: number;
  #servers: Server[] = [];
  #store = "";
  endpoint = "";

  async start(): Promise<this> {
    this.endpoint = await this.#listen("hub", (request, response) => this.#hub(request, response));
    this.#store = await this.#listen("store", (request, response) => {
      const { pathname } = new URL(request.url!, this.#store);
      const [, owner, name, file] = pathname.split("/");
      this.#send(request, response, this.repos.get(`${owner}/${name}`)!.files[decodeURIComponent(file)], {});
    });
    return this;
  }

  stop(): void {
    for (const server of this.#servers) {
      server.closeAllConnections();
      server.close();
    }
  }

  /** What was asked for since the last time. */
  take(): Request[] {
    return this.requests.splice(0);
  }

  async #listen(
    where: Request["where"],
    answer: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<string> {
    const server = createServer((request, response) => {
      const { range, authorization } = request.headers;
      this.requests.push({
        where,
        method: request.method!,
        path: decodeURIComponent(request.url!),
        range,
        authorization,
      });
      if (this.down === undefined) answer(request, response);
      else response.writeHead(this.down).end();
    });
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  #hub(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(new URL(request.url!, this.endpoint).pathname);
    const [, listed, repoName, revision, file] =
      /^\/(api\/models\/)?([^/]+\/[^/]+)\/(?:revision|resolve)\/([^/]+|refs\/pr\/\d+)(?:\/(.+))?$/.exec(path) ?? [];
    const refuse = (status: number, code: string) => response.writeHead(status, { "x-error-code": code }).end();
    const repo = this.repos.get(repoName);
    if (!repo) return void refuse(401, "RepoNotFound");
    if (repo.movedTo)
      return void response.writeHead(307, { location: request.url!.replace(repoName, repo.movedTo) }).end();
    if (repo.gated && request.headers.authorization !== "Bearer secret") return void refuse(403, "GatedRepo");
    if (revision !== "main" && revision !== repo.commit) return void refuse(404, "RevisionNotFound");
    if (listed) {
      const siblings = Object.keys(repo.files).map((rfilename) => ({ rfilename }));
      return void response.end(JSON.stringify({ sha: repo.commit, siblings }));
    }
    const content = repo.files[file];
    if (!content) return void refuse(404, "EntryNotFound");
    const known = { "x-repo-commit": repo.commit };
    if (!repo.large?.includes(file))
      return void this.#send(request, response, content, { ...known, etag: `"${repo.etag ?? gitHash(content)}"` });
    response.writeHead(302, {
      ...known,
      "x-linked-etag": `"${repo.etag ?? sha256(content)}"`,
      "x-linked-size": content.length,
      location: `${this.#store}/${repoName}/${encodeURIComponent(file)}`,
    });
    response.end();
  }

  #send(request: IncomingMessage, response: ServerResponse, content: Buffer, headers: Record<string, string>): void {
    if (request.method === "HEAD")
      return void response.writeHead(200, { ...headers, "content-length": content.length }).end();
    const fault = this.faults.shift();
    if (fault && "status" in fault) return void response.writeHead(fault.status).end();
    const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const body = (fault && "content" in fault ? fault.content : content).subarray(from);
    const range = { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` };
    response.writeHead(from > 0 ? 206 : 200, { ...headers, ...(from > 0 && range), "content-length": body.length });
    if (!fault || !("after" in fault)) return void response.end(body);
    response.write(body.subarray(0, fault.after), () => {
      if (fault.ending === "cut") setTimeout(() => response.destroy(), 50);
    });
  }
}
