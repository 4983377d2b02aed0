import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { UsageError } from "../base/errors.ts";
import type { Dataset } from "./dataset.ts";
import { byName, isPicture } from "./listing.ts";

/** A row and the line it begins on, counted from 1. */
export interface Row {
  line: number;
  fields: string[];
}

/**
 * Rows of separated values; quotes may hold separators, line breaks and doubled quotes (RFC 4180).  A first line without commas says
 * by its semicolons or tabs that these separate, as spreadsheets save lists in many countries.  Empty lines are left out.
 */
export function parseCsv(source: string, file?: string): Row[] {
  const rows: Row[] = [];
  let fields: string[] = [];
  let field = "";
  let quoted = false;
  let line = 1;
  let start = 1;
  const endRow = (): void => {
    fields.push(field.trim());
    if (fields.some((f) => f !== "")) rows.push({ line: start, fields });
    fields = [];
    field = "";
    start = line;
  };
  const text = source.replace(/^\uFEFF/, "").replaceAll(/\r\n?/g, "\n");
  const separator = separatorOf(text.trimStart().split("\n", 1)[0]);
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "\n") line++;
    if (quoted) {
      if (c !== '"') field += c;
      else if (text[i + 1] === '"') field += text[++i];
      else quoted = false;
    } else if (c === '"' && field.trim() === "") {
      quoted = true;
      field = "";
    } else if (c === separator) {
      fields.push(field.trim());
      field = "";
    } else if (c === "\n") {
      endRow();
    } else {
      field += c;
    }
  }
  if (quoted) throw new UsageError({ message: `line ${start}: a quotation mark is not closed`, at: file });
  endRow();
  return rows;
}

const separatorOf = (line: string): string => [",", "\t", ";"].find((mark) => line.includes(mark)) ?? ",";

/** The text of a list.  Letters of an older encoding would make one class of two, so they are refused. */
async function readText(file: string): Promise<string> {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new UsageError({ message: "the list is not in UTF-8", at: file, help: "save it as CSV UTF-8", cause });
  }
}

/** As they are without `_`, so that `file_path` is one of them. */
const pathNames = ["path", "file", "filename", "filepath", "image", "imagepath", "imagename", "img"];
const labelNames = ["label", "class", "category", "target", "species", "classname", "labelname"];

/**
 * A list of pictures, `path,label` on each line, paths relative to the list.  A first line that names the columns is recognised
 * by their names, and they may then be anywhere.  Labels are class names; if all are whole numbers, they are in numeric order.
 */
export async function openCsv(file: string, { minClasses = 2 } = {}): Promise<Dataset> {
  const rows = parseCsv(await readText(file), file);
  const [pathColumn, labelColumn, hasHeader] = columns(rows[0]);
  const body = hasHeader ? rows.slice(1) : rows;
  const example = "write a line for each picture, such as cats/1.jpg,cat";
  if (body.length === 0) throw new UsageError({ message: "the list names no pictures", at: file, help: example });
  const root = dirname(file);
  const exists = fileFinder();
  const place = (path: string): string => (isAbsolute(path) ? path : join(root, path));
  const [{ fields: first }] = body;
  if (!hasHeader && !first.some(isPicture) && !(await exists(place(first[0]))))
    throw new UsageError({
      message: `the first line is neither a picture and its label nor names of columns that are known: ${first.join(",")}`,
      at: file,
      help: `name the pictures' column one of ${pathNames.join(", ")}, the labels' one of ${labelNames.join(", ")}`,
    });
  const wrong: string[] = [];
  const paths: string[] = [];
  const names: string[] = [];
  for (const { line, fields } of body) {
    const [path, label] = [fields[pathColumn] ?? "", fields[labelColumn] ?? ""];
    const full = place(path);
    if (path === "" || label === "")
      wrong.push(`line ${line}: ${path === "" ? "the path" : "the label"} is missing: ${fields.join(",")}`);
    else if (!hasHeader && fields.length !== 2)
      wrong.push(`line ${line}: ${fields.length} columns instead of 2: ${fields.join(",")}`);
    else if (!(await exists(full))) wrong.push(`line ${line}: there is no file ${full}`);
    paths.push(full);
    names.push(label);
  }
  if (wrong.length > 0) {
    const more = wrong.length > 10 ? [`and ${wrong.length - 10} more`] : [];
    throw new UsageError({
      message: `${wrong.length} of the ${body.length} rows are wrong`,
      at: file,
      details: [...wrong.slice(0, 10), ...more],
      help: `${example}; paths are relative to the list`,
    });
  }
  const classes = [...new Set(names)].sort(byName);
  if (classes.every((name) => /^\d+$/.test(name))) classes.sort((a, b) => Number(a) - Number(b));
  if (classes.length < minClasses) {
    throw new UsageError({
      message: `the list has one class only, ${classes[0]}; there is nothing to tell apart`,
      at: file,
      help: example,
    });
  }
  const position = new Map(classes.map((name, i) => [name, i]));
  const labels = Int32Array.from(names, (name) => position.get(name) as number);
  return {
    classes,
    length: paths.length,
    label: (i) => labels[i],
    name: (i) => paths[i],
    read: (i) => readFile(paths[i]),
  };
}

/** Where the path and the label stand, and whether the first row says so. */
function columns(first: Row | undefined): [path: number, label: number, hasHeader: boolean] {
  const names = first?.fields.map((name) => name.toLowerCase().replaceAll("_", "")) ?? [];
  const path = names.findIndex((name) => pathNames.includes(name));
  const label = names.findIndex((name) => labelNames.includes(name));
  return path >= 0 && label >= 0 ? [path, label, true] : [0, 1, false];
}

/** Whether a file exists, asking for each directory once: a list may have a million lines. */
function fileFinder(): (path: string) => Promise<boolean> {
  const known = new Map<string, Set<string>>();
  return async (path) => {
    const directory = dirname(path);
    let names = known.get(directory);
    if (!names) {
      names = new Set(await readdir(directory).catch(() => []));
      known.set(directory, names);
    }
    return names.has(basename(path));
  };
}
