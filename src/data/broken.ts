import { OrielError } from "../base/errors.ts";

/** So many broken pictures stop no run. */
const few = 3;

/** A picture that could not be read. */
export interface BrokenPicture {
  name: string;
  reason: string;
}

/**
 * Keeps count of a run's broken pictures.  A few are told about and left out; more than `limit` of all mean that something is wrong
 * with the data, and the run stops.  Three are a few however small the data.  Several loaders of one run may share it.
 */
export class BrokenPictures {
  readonly pictures: BrokenPicture[] = [];
  readonly limit: number;
  #total = 0;
  #known = new Set<string>();
  #report: (picture: BrokenPicture) => void;

  constructor({ limit = 0.01, report = warn }: { limit?: number; report?: (picture: BrokenPicture) => void } = {}) {
    this.limit = limit;
    this.#report = report;
  }

  /** That many more pictures belong to the run. */
  expect(count: number): void {
    this.#total += count;
  }

  /** Notes a picture, reports it the first time, and throws when there are too many. */
  add(picture: BrokenPicture): void {
    if (this.#known.has(picture.name)) return;
    this.#known.add(picture.name);
    this.pictures.push(picture);
    this.#report(picture);
    this.check();
  }

  /** Throws when there are too many. */
  check(): void {
    const count = this.pictures.length;
    if (count <= Math.max(few, this.limit * this.#total)) return;
    const shown = this.pictures.slice(0, 50).map(({ name, reason }) => `${name}: ${reason}`);
    if (count > shown.length) shown.push(`and ${count - shown.length} more`);
    throw new OrielError("broken-pictures", {
      message: `${count} of ${this.#total} pictures cannot be read so far, more than ${this.limit * 100} %`,
      details: shown,
      help: "replace or remove these files",
    });
  }
}

const warn = ({ name, reason }: BrokenPicture): void =>
  process.emitWarning(`left out ${name}: ${reason}`, { code: "ORIEL_BROKEN_PICTURE" });

/** What ends work for which no picture is left; `purpose` as in "the pictures to learn from". */
export const noneReadable = (purpose: string, help = "replace these files, or give others"): OrielError =>
  new OrielError("picture", { message: `none of the pictures to ${purpose} can be read`, help });
