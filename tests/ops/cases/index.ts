import type { OpCase } from "../../support/cases.ts";
import { cases as compare } from "./compare.ts";
import { cases as conv } from "./conv.ts";
import { cases as elementwise } from "./elementwise.ts";
import { cases as fourier } from "./fourier.ts";
import { cases as linalg } from "./linalg.ts";
import { cases as move } from "./move.ts";
import { cases as norm } from "./norm.ts";
import { cases as pool } from "./pool.ts";
import { cases as reduce } from "./reduce.ts";
import { cases as resize } from "./resize.ts";

/** Every use of every operation that is tested, by the file it is defined in. */
export const kinds: Readonly<Record<string, readonly OpCase[]>> = {
  elementwise,
  compare,
  move,
  reduce,
  linalg,
  fourier,
  conv,
  pool,
  norm,
  resize,
};
