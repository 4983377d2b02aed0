import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { byName, isHidden, isPicture, type Listing } from "./listing.ts";

/** The pictures below a folder; links are followed, but not into a folder that they lie in. */
export async function listFolder(root: string): Promise<Listing> {
  const paths: string[] = [];
  const directories: string[] = [];
  const walk = async (inside: string, above: readonly string[]): Promise<void> => {
    const here = join(root, inside);
    const real = await realpath(here);
    if (above.includes(real)) return;
    for (const entry of await readdir(here, { withFileTypes: true })) {
      if (isHidden(entry.name)) continue;
      const path = inside === "" ? entry.name : `${inside}/${entry.name}`;
      const kind = entry.isSymbolicLink() ? await stat(join(root, path)).catch(() => entry) : entry;
      if (kind.isDirectory()) {
        directories.push(path);
        await walk(path, [...above, real]);
      } else if (isPicture(entry.name)) {
        paths.push(path); // a dangling link too: it is reported when it is read
      }
    }
  };
  await walk("", []);
  paths.sort(byName);
  return {
    where: root,
    paths,
    directories: directories.sort(byName),
    name: (i) => join(root, paths[i]),
    read: (i) => readFile(join(root, paths[i])),
  };
}
